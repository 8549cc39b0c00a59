//! Stories of reloads that something crosses, in whichever stage they are.

use crate::acts::{of, seconds};
use crate::reload::{draining, new, newer, old_serves, reloading, replacing, stage};
use crate::world::{World, spec, unit};
use pool_core::config::{OnChange, PoolSpec, Restart};
use pool_core::job::{JobId, JobResult};
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::{PoolPhase, ReloadStage};
use pool_core::refusal::Refusal;
use pool_core::replica::ActiveState;

#[test]
fn a_stop_or_a_drain_while_it_is_reloaded_wins_in_every_stage() {
    for drain in [false, true] {
        for (stage, reach) in stages() {
            let (mut world, job) = reach();
            let newer = if drain { world.drain("a", Usec(0)) } else { world.stop_job("a") };
            assert_eq!(world.result(job), Some(JobResult::Superseded), "{stage}");
            world.settle();
            world.pass(seconds(10));
            world.settle();
            assert_eq!(
                (world.phase("a"), world.result(newer)),
                (PoolPhase::Stopped, Some(JobResult::Done)),
                "{stage}"
            );
            assert!(world.units.is_empty() && world.pool("a").reload.is_none(), "{stage}");
            assert_eq!(world.pool("a").revision.spec.model, "/srv/m", "{stage}");
            world.pass(seconds(700));
            assert!(world.timers.is_empty(), "{stage}");
            world.start("a");
            world.serve("a", 0);
            assert_eq!(world.model("a", 0), "/srv/m", "{stage}");
        }
    }
}

type Reach = fn() -> (World, JobId);

/// Every stage of a reload of one engine.
pub fn stages() -> [(&'static str, Reach); 6] {
    [
        ("checking", || reloading(1)),
        ("draining", || draining(1)),
        ("ending the old", || {
            let (mut world, job) = draining(1);
            world.pass(seconds(10));
            (world, job)
        }),
        ("starting the new", || replacing(1)),
        ("ending the new", || {
            let (mut world, job) = replacing(1);
            world.dies("a", 0);
            (world, job)
        }),
        ("starting the old", || {
            let (mut world, job) = replacing(1);
            world.crash("a", 0);
            (world, job)
        }),
    ]
}

#[test]
fn a_reload_goes_on_after_a_daemon_restart_in_every_stage() {
    for (at, reach) in stages() {
        let rolls_back = ["ending the new", "starting the old"].contains(&at);
        let (mut world, _) = reach();
        world.kill_daemon(&[spec("a")]);
        let mut steps = 0;
        while world.pool("a").reload.is_some() {
            world.settle();
            if world.units.contains_key(&unit(UnitKind::Stage, "a", 0)) {
                world.checks_pass("a", 0);
            } else if world.phase("a") == PoolPhase::Draining {
                world.pass(seconds(10));
            } else if world.phase("a") == PoolPhase::Starting {
                world.becomes_ready("a", 0);
            }
            steps += 1;
            assert!(steps < 20, "{at}: {:?}", world.pool("a"));
        }
        let model = if rolls_back { "/srv/m" } else { "/srv/new" };
        assert_eq!((world.model("a", 0).as_str(), world.phase("a")), (model, PoolPhase::Ready), "{at}");
        assert_eq!(world.pool("a").revision.spec.model, model, "{at}");
        assert!(world.pool("a").pending().is_empty(), "{at}");
    }
}

#[test]
fn a_candidate_that_is_ready_or_failed_when_the_daemon_comes_back_is_taken_for_that() {
    let (mut world, _) = replacing(1);
    let engine = unit(UnitKind::Engine, "a", 0);
    let starts = world.started.len();
    world.units.get_mut(&engine).unwrap().active = ActiveState::Active;
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), stage(&world), world.started.len()), (PoolPhase::Ready, None, starts));
    let (mut world, _) = replacing(1);
    world.units.get_mut(&engine).unwrap().active = ActiveState::Failed;
    world.kill_daemon(&[spec("a")]);
    assert!(matches!(stage(&world), Some(ReloadStage::RollingBack { .. })));
    world.settle();
    world.serve("a", 0);
    assert!(old_serves(&world));
}

#[test]
fn more_candidates_than_before_survive_a_daemon_restart() {
    let mut world = World::with(&[of(1)]);
    world.serve("a", 0);
    world.reload(&new(3), false).unwrap();
    world.checks_pass("a", 0);
    world.pass(seconds(10));
    world.settle();
    let starts = world.started.len();
    world.kill_daemon(&[of(1)]);
    assert_eq!((world.phases("a"), world.started.len()), (vec!["starting"; 3], starts));
    (0..3).for_each(|index| world.becomes_ready("a", index));
    assert_eq!((world.phases("a"), stage(&world)), (vec!["ready"; 3], None));
}

#[test]
fn a_changed_file_that_applies_by_itself_is_a_reload() {
    let applies = |spec: PoolSpec| PoolSpec { on_change: OnChange::DrainFirst, ..spec };
    let mut world = World::with(&[applies(of(1))]);
    world.serve("a", 0);
    world.configure(&[applies(new(1))]);
    assert_eq!(stage(&world), Some(ReloadStage::Checking { asked: true }));
    // Changed once more meanwhile, that comes next.
    world.configure(&[applies(newer())]);
    world.checks_pass("a", 0);
    world.pass(seconds(10));
    world.settle();
    world.becomes_ready("a", 0);
    assert_eq!(
        (world.model("a", 0).as_str(), stage(&world)),
        ("/srv/new", Some(ReloadStage::Checking { asked: true }))
    );
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    assert_eq!((world.model("a", 0).as_str(), stage(&world)), ("/srv/new", None));
    assert_eq!((world.pool("a").pending(), world.phase("a")), (vec!["model"], PoolPhase::Ready));
    assert_eq!(world.running_jobs(), []);
    // One that was refused is not tried again before it changes.
    world.configure(&[applies(newer())]);
    assert_eq!(stage(&world), None);
    // The engine that serves is restarted as it was.
    world.crash("a", 0);
    world.restart_rings("a", 0);
    assert_eq!(world.model("a", 0), "/srv/new");
}

#[test]
fn what_was_stopped_for_a_reload_that_is_given_up_runs_the_old_model_again() {
    let applies = |spec: PoolSpec| PoolSpec { on_change: OnChange::DrainFirst, ..spec };
    for gone in [true, false] {
        let mut world = World::with(&[applies(of(2))]);
        world.all_serve("a");
        world.lease("a").unwrap();
        world.crash("a", 1);
        world.configure(&[applies(new(2))]);
        world.restart_rings("a", 1);
        let checks = unit(UnitKind::Stage, "a", 0);
        world.seen(&checks, |unit| (unit.active, unit.exited) = (ActiveState::Active, true));
        assert_eq!((world.phase("a"), world.phases("a")), (PoolPhase::Draining, vec!["ready", "stopping"]));
        if gone {
            world.settle();
        }
        world.pass(seconds(300));
        world.settle();
        assert_eq!((stage(&world), world.phases("a")), (None, vec!["ready", "staging"]));
        assert_eq!(world.model("a", 1), "/srv/m");
    }
}

#[test]
fn a_reloaded_model_survives_a_reading_of_unchanged_files_and_gives_way_to_a_changed_one() {
    let (mut world, _) = replacing(1);
    world.becomes_ready("a", 0);
    world.configure(&[spec("a")]);
    assert_eq!(
        (world.pool("a").revision.spec.model.as_str(), world.pool("a").pending()),
        ("/srv/new", vec![])
    );
    world.kill_daemon(&[spec("a")]);
    assert_eq!(
        (world.phase("a"), world.pool("a").revision.spec.model.as_str()),
        (PoolPhase::Ready, "/srv/new")
    );
    world.crash("a", 0);
    world.restart_rings("a", 0);
    assert_eq!(world.model("a", 0), "/srv/new");
    world.configure(&[newer()]);
    assert_eq!(
        (world.pool("a").revision.spec.model.as_str(), world.pool("a").pending()),
        ("/srv/newer", vec!["model"])
    );
}

#[test]
fn a_file_that_changes_while_its_pool_is_reloaded_is_newer_than_the_reload() {
    let (mut world, job) = replacing(1);
    world.configure(&[newer()]);
    world.becomes_ready("a", 0);
    assert_eq!((world.result(job), world.model("a", 0)), (Some(JobResult::Done), "/srv/new".into()));
    assert_eq!(
        (world.pool("a").revision.spec.model.as_str(), world.pool("a").pending()),
        ("/srv/newer", vec!["model"])
    );
}

#[test]
fn a_file_that_is_removed_while_its_pool_is_reloaded_ends_the_reload_and_the_pool() {
    for (at, reach) in stages() {
        let (mut world, job) = reach();
        world.configure(&[]);
        assert_eq!(world.result(job), Some(JobResult::Superseded), "{at}");
        world.settle();
        world.pass(seconds(10));
        world.settle();
        assert!(world.state.pools.is_empty() && world.units.is_empty(), "{at}");
        assert_eq!(world.running_jobs(), [], "{at}");
    }
}

#[test]
fn an_old_engine_that_dies_meanwhile_does_not_keep_a_reload_from_its_end() {
    let (mut world, job) = reloading(1);
    world.crash("a", 0);
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Backoff, None));
    world.checks_pass("a", 0);
    assert_eq!((world.phase("a"), world.model("a", 0).as_str()), (PoolPhase::Starting, "/srv/new"));
    world.becomes_ready("a", 0);
    assert_eq!(
        (world.result(job), world.timers.len()),
        (Some(JobResult::Done), 2),
        "the job's and a steady one"
    );
    // With a restart that is due while the new model is checked.
    let (mut world, job) = reloading(1);
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.checks_pass("a", 0);
    world.settle();
    world.becomes_ready("a", 0);
    assert_eq!((world.model("a", 0).as_str(), world.result(job)), ("/srv/new", Some(JobResult::Done)));
    // And where the new model is refused the old one is started again.
    let (mut world, _) = reloading(1);
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    world.serve("a", 0);
    assert!(old_serves(&world));
}

#[test]
fn a_pool_of_which_the_first_engine_never_ran_can_be_reloaded() {
    let mut world = World::with(&[of(2)]);
    world.all_serve("a");
    world.stopped_outside("a", 0);
    world.kill_daemon(&[of(2)]);
    assert_eq!(world.phases("a"), ["stopped", "ready"]);
    let job = world.reload(&new(2), false).unwrap();
    world.checks_pass("a", 0);
    world.pass(seconds(10));
    world.settle();
    (0..2).for_each(|index| world.becomes_ready("a", index));
    assert_eq!((world.phases("a"), world.result(job)), (vec!["ready"; 2], Some(JobResult::Done)));
}

#[test]
fn a_reset_while_the_new_model_is_checked_is_not_lost_on_what_waits_for_the_breaker() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 0);
    world.crash_loop("a", 1, 5);
    world.reload(&new(2), false).unwrap();
    world.reset("a");
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    assert_eq!(world.phases("a"), ["ready", "staging"]);
}

#[test]
fn a_reset_while_the_old_model_is_started_again_is_not_lost_either() {
    let mut world = World::with(&[of(2)]);
    world.all_serve("a");
    world.crash("a", 1);
    for _ in 0..3 {
        world.restart_rings("a", 1);
        world.serve("a", 1);
        world.crash("a", 1);
    }
    world.reload(&new(2), false).unwrap();
    world.checks_pass("a", 0);
    world.pass(seconds(10));
    world.settle();
    world.crash("a", 0);
    world.settle();
    world.serve("a", 1);
    world.crash("a", 1);
    assert_eq!(world.phases("a"), ["staging", "tripped"]);
    world.reset("a");
    assert_eq!(world.phases("a"), ["staging", "staging"]);
    (0..2).for_each(|index| world.serve("a", index));
    assert_eq!((world.phases("a"), stage(&world)), (vec!["ready", "ready"], None));
}

#[test]
fn a_pool_that_failed_and_is_given_another_model_starts_it() {
    type Fails = fn(&mut World);
    let ways: [Fails; 4] = [
        |world| {
            world.refuses("a", Refusal::ModelUnreadable);
            world.settle();
        },
        |world| world.crash_loop("a", 0, 1),
        |world| world.crash_loop("a", 0, 5),
        |world| {
            world.serve("a", 0);
            world.dies("a", 0);
            world.restart_rings("a", 0);
        },
    ];
    for (way, fails) in ways.into_iter().enumerate() {
        let mut world = World::with(&[PoolSpec { restart: Restart::default(), ..spec("a") }]);
        fails(&mut world);
        let job = world.reload(&new(1), false).unwrap();
        world.settle();
        world.serve("a", 0);
        assert_eq!(
            (world.model("a", 0).as_str(), world.result(job)),
            ("/srv/new", Some(JobResult::Done)),
            "{way}"
        );
    }
}

#[test]
fn engines_that_are_lost_while_they_are_started_again_are_started_again_though_the_file_has_fewer() {
    let (mut world, _) = replacing(3);
    world.crash("a", 0);
    world.settle();
    world.checks_pass("a", 0);
    world.checks_pass("a", 1);
    assert_eq!(world.phases("a"), ["starting", "starting", "staging"]);
    world.units.remove(&unit(UnitKind::Engine, "a", 1));
    world.units.remove(&unit(UnitKind::Stage, "a", 2));
    world.kill_daemon(&[of(1)]);
    assert_eq!(world.phases("a"), ["starting", "staging", "staging"]);
    world.becomes_ready("a", 0);
    world.serve("a", 1);
    world.serve("a", 2);
    assert!(old_serves(&world));
    assert_eq!(world.phases("a"), ["ready"; 3]);
}

#[test]
fn a_reset_while_the_old_model_is_started_again_starts_no_other_one() {
    let (mut world, _) = replacing(2);
    world.configure(&[newer()]);
    world.crash("a", 0);
    world.settle();
    world.serve("a", 1);
    world.crash("a", 1);
    assert_eq!(world.phases("a"), ["staging", "backoff"]);
    world.reset("a");
    assert_eq!((world.phases("a"), world.model("a", 1)), (vec!["staging"; 2], "/srv/m".into()));
}

#[test]
fn a_file_that_changed_meanwhile_is_tried_where_new_and_old_model_have_failed() {
    let refused = |world: &mut World| {
        world.refuses("a", Refusal::ModelUnreadable);
        world.settle();
    };
    let (mut world, job) = replacing(1);
    world.configure(&[newer()]);
    world.crash("a", 0);
    world.settle();
    refused(&mut world);
    assert_eq!(world.result(job), Some(JobResult::Failed));
    assert_eq!((world.phases("a"), world.model("a", 0)), (vec!["staging"], "/srv/newer".into()));
    // Where it says what it said before, it is as good as it was.
    let (mut world, _) = replacing(1);
    world.crash("a", 0);
    world.settle();
    refused(&mut world);
    assert_eq!(world.phases("a"), ["failed"]);
}
