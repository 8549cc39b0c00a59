//! Stories of reloads, drain first: the new model is checked, the old engine drains and ends, the new one starts; and
//! every way in which that can fail.

use crate::acts::{of, seconds};
use crate::world::{World, spec, unit};
use pool_core::config::{OnChange, PoolSpec, Restart};
use pool_core::job::{JobId, JobResult};
use pool_core::name::{UnitKind, UnitName, Usec};
use pool_core::pool::{PoolPhase, ReloadStage};
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, Hold, StartId, UnitObservation};
use pool_core::{Denied, Event, Request};

fn new(replicas: u16) -> PoolSpec {
    PoolSpec { model: "/srv/new".into(), ..of(replicas) }
}

fn newer() -> PoolSpec {
    PoolSpec { model: "/srv/newer".into(), ..of(1) }
}

/// A pool whose engines serve and that is being given the new model.
fn reloading(replicas: u16) -> (World, JobId) {
    let mut world = World::with(&[of(replicas)]);
    world.all_serve("a");
    let job = world.reload(&new(replicas), false).unwrap();
    (world, job)
}

/// The same, with the new model checked and the old engines on their way out.
fn draining(replicas: u16) -> (World, JobId) {
    let (mut world, job) = reloading(replicas);
    world.checks_pass("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    (world, job)
}

/// The same, with the old engines gone and the new ones loading.
fn replacing(replicas: u16) -> (World, JobId) {
    let (mut world, job) = draining(replicas);
    world.pass(seconds(10));
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Starting);
    (world, job)
}

fn stage(world: &World) -> Option<ReloadStage> {
    world.pool("a").reload.as_ref().map(|reload| reload.stage.clone())
}

fn old_serves(world: &World) -> bool {
    let pool = world.pool("a");
    let old =
        (0..pool.replicas.len()).all(|index| world.model("a", u16::try_from(index).unwrap()) == "/srv/m");
    old && pool.replicas.iter().all(pool_core::replica::Replica::ready)
        && pool.ready()
        && pool.reload.is_none()
}

#[test]
fn a_reload_checks_then_drains_then_stops_then_starts_then_is_ready() {
    let (mut world, job) = reloading(1);
    let engine = unit(UnitKind::Engine, "a", 0);
    assert_eq!(world.started.last().unwrap(), &unit(UnitKind::Stage, "a", 0));
    assert!(world.pool("a").ready(), "the old engine serves while the new model is checked");
    let lease = world.lease("a").unwrap();
    world.checks_pass("a", 0);
    assert_eq!((world.phase("a"), world.pool("a").ready()), (PoolPhase::Draining, false));
    assert!(matches!(world.lease("a"), Err(Denied::Draining(_))));
    world.pass(seconds(20));
    assert!(!world.let_go.contains(&engine), "a lease is held");
    world.release(&lease);
    assert!(world.let_go.contains(&engine));
    let starts = world.started.len();
    world.pass(seconds(1));
    assert_eq!(world.started.len(), starts, "the old engine is still there");
    world.settle();
    assert_eq!(world.started[starts..], [engine], "and it is not checked once more");
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Starting, None));
    world.becomes_ready("a", 0);
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Ready, Some(JobResult::Done)));
    assert_eq!(
        (world.model("a", 0), world.pool("a").revision.spec.model.as_str()),
        ("/srv/new".into(), "/srv/new")
    );
    let details = world.details(job);
    assert!(!details.rolled_back && !details.force_stopped && world.revoked.is_empty());
    assert!(world.lease("a").is_ok() && world.pool("a").pending().is_empty());
}

#[test]
fn a_new_model_that_is_refused_leaves_the_old_one_untouched_and_ready() {
    for refusal in
        [Refusal::ModelUnreadable, Refusal::ProgramMissing, Refusal::DigestMismatch, Refusal::Preflight]
    {
        let (mut world, job) = reloading(1);
        let lease = world.lease("a").unwrap();
        let pid = world.pool("a").replicas[0].unit.main_pid;
        world.refuses("a", refusal);
        world.settle();
        assert!(old_serves(&world) && world.held.contains(&lease));
        assert_eq!(world.pool("a").replicas[0].unit.main_pid, pid);
        assert_eq!(
            (world.result(job), world.last_class("a")),
            (Some(JobResult::Failed), refusal.class().into())
        );
        assert!(world.error_of(job).contains("because") && !world.details(job).rolled_back);
        assert_eq!(world.pool("a").revision.spec.model, "/srv/m");
    }
}

#[test]
fn checks_that_somebody_stops_or_systemd_does_not_take_are_a_refusal() {
    let (mut world, job) = reloading(1);
    world.forgotten(&unit(UnitKind::Stage, "a", 0));
    assert_eq!((world.result(job), old_serves(&world)), (Some(JobResult::Failed), true));
    let (mut world, job) = reloading(1);
    let name = unit(UnitKind::Stage, "a", 0);
    world.units.remove(&name);
    world.event(Event::UnitRefused { name, name_taken: false, error: "no".into() });
    assert_eq!((world.result(job), old_serves(&world)), (Some(JobResult::Failed), true));
}

#[test]
fn a_candidate_that_fails_gives_the_old_model_back_running_and_ready() {
    type End = fn(&mut World);
    let ends: [(&str, End); 4] = [
        ("signal:KILL", |world| world.crash("a", 0)),
        ("exit:0", |world| world.exits_0("a", 0)),
        ("start-timeout", |world| {
            world.seen(&unit(UnitKind::Engine, "a", 0), |unit| {
                (unit.active, unit.result, unit.main_pid) = (ActiveState::Failed, "timeout".into(), 0);
            });
            world.settle();
        }),
        ("stopped", |world| world.stopped_outside("a", 0)),
    ];
    for (class, end) in ends {
        let (mut world, job) = replacing(1);
        end(&mut world);
        assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Staging, None), "{class}");
        assert_eq!(world.model("a", 0), "/srv/m", "{class}");
        world.serve("a", 0);
        assert!(old_serves(&world) && world.pool("a").drain.is_none(), "{class}");
        assert_eq!(
            (world.result(job), world.details(job).rolled_back),
            (Some(JobResult::Failed), true),
            "{class}"
        );
        assert!(world.error_of(job).contains("the new model failed"), "{}", world.error_of(job));
        assert!(world.last_text("a").contains("the old one serves again"), "{}", world.last_text("a"));
        assert_eq!((world.last_class("a"), world.pool("a").restart_count), (class.into(), 0));
        assert!(world.pool("a").troubles.all_closed() && world.pool("a").troubles.ordinary.in_row == 0);
        assert!(world.lease("a").is_ok());
        world.crash("a", 0);
        assert_eq!(world.phase("a"), PoolPhase::Backoff, "the old one is watched over as ever");
    }
}

#[test]
fn of_several_candidates_one_that_fails_ends_them_all() {
    let (mut world, job) = replacing(3);
    world.becomes_ready("a", 0);
    world.crash("a", 1);
    world.settle();
    assert_eq!(world.phases("a"), ["staging"; 3]);
    world.all_serve("a");
    assert!(old_serves(&world));
    assert_eq!((world.result(job), world.details(job).rolled_back), (Some(JobResult::Failed), true));
}

#[test]
fn when_the_old_model_fails_too_the_job_says_both_and_the_pool_goes_on_as_a_failed_one_does() {
    let (mut world, job) = replacing(1);
    world.crash("a", 0);
    world.checks_pass("a", 0);
    world.crash("a", 0);
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Backoff, Some(JobResult::Failed)));
    let error = world.error_of(job);
    assert!(error.contains("the new model failed") && error.contains("the old one failed too"), "{error}");
    assert!(!world.details(job).rolled_back && stage(&world).is_none());
    world.restart_rings("a", 0);
    assert_eq!(world.model("a", 0), "/srv/m");
    let (mut world, job) = replacing(1);
    world.crash("a", 0);
    world.refuses("a", Refusal::ModelUnreadable);
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Failed, Some(JobResult::Failed)));
}

#[test]
fn leases_that_do_not_end_by_the_deadline_abort_the_reload_and_the_old_engine_goes_on() {
    let (mut world, job) = reloading(1);
    let lease = world.lease("a").unwrap();
    world.checks_pass("a", 0);
    world.pass(seconds(59));
    assert_eq!(world.result(job), None);
    world.pass(seconds(1));
    assert_eq!((world.result(job), world.held.contains(&lease)), (Some(JobResult::Timeout), true));
    assert!(old_serves(&world) && world.lease("a").is_ok() && world.revoked.is_empty());
    assert!(world.last_text("a").contains("1 leases held"), "{}", world.last_text("a"));
}

#[test]
fn by_force_leases_are_revoked_at_the_deadline() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.lease("a").unwrap();
    let job = world.reload(&new(1), true).unwrap();
    world.checks_pass("a", 0);
    world.pass(seconds(60));
    assert_eq!(world.revoked.len(), 1);
    world.settle();
    world.becomes_ready("a", 0);
    let details = world.details(job);
    assert_eq!(
        (world.result(job), details.force_stopped, details.leases_left),
        (Some(JobResult::Done), true, 1)
    );
    assert_eq!(world.model("a", 0), "/srv/new");
}

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
fn replicas_grow_and_shrink_by_the_new_spec_and_back_by_the_old() {
    for (before, after) in [(1, 3), (3, 1)] {
        for fails in [false, true] {
            let mut world = World::with(&[of(before)]);
            world.all_serve("a");
            let job = world.reload(&new(after), false).unwrap();
            world.checks_pass("a", 0);
            world.pass(seconds(10));
            world.settle();
            assert_eq!(world.phases("a"), vec!["starting"; usize::from(after)]);
            if fails {
                world.crash("a", 0);
                world.settle();
                assert_eq!(world.phases("a"), vec!["staging"; usize::from(before)]);
                world.all_serve("a");
                assert!(old_serves(&world));
            } else {
                (0..after).for_each(|index| world.becomes_ready("a", index));
                assert_eq!(world.phases("a"), vec!["ready"; usize::from(after)]);
            }
            assert!(world.result(job).is_some());
            assert_eq!(world.view.replicas.len(), world.pool("a").replicas.len());
        }
    }
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
fn a_reload_to_the_same_spec_replaces_the_engine_all_the_same() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let pid = world.pool("a").replicas[0].unit.main_pid;
    let request =
        world.ask(Request::Reload { pool: "a".into(), revision: None, deadline: Usec(0), force: false });
    let job = world.job_of(request.unwrap());
    world.checks_pass("a", 0);
    world.pass(seconds(10));
    world.settle();
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Starting, None));
    world.becomes_ready("a", 0);
    assert_ne!(world.pool("a").replicas[0].unit.main_pid, pid);
    assert_eq!(world.result(job), Some(JobResult::Done));
}

#[test]
fn a_reload_waits_for_the_name_of_its_checks() {
    let mut world = World::with(&[spec("a")]);
    let stage_unit = unit(UnitKind::Stage, "a", 0);
    world.seen(&stage_unit, |unit| (unit.active, unit.exited) = (ActiveState::Active, true));
    world.becomes_ready("a", 0);
    world.reload(&new(1), false).unwrap();
    assert_eq!(
        stage(&world),
        Some(ReloadStage::Checking { asked: false }),
        "those of the first start are still there"
    );
    world.settle();
    assert_eq!(stage(&world), Some(ReloadStage::Checking { asked: true }));
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
fn a_new_spec_is_not_checked_under_a_name_that_was_given_up() {
    let (mut world, job) = reloading(1);
    let name = unit(UnitKind::Stage, "a", 0);
    // The checks end and their unit stays loaded; their name is given up, and forgotten later on.
    world.seen(&name, |unit| unit.active = ActiveState::Deactivating);
    world.seen(&name, |unit| unit.active = ActiveState::Inactive);
    world.ring();
    assert!(world.result(job).is_some(), "somebody stopped them");
    let again = world.reload(&newer(), false).unwrap();
    let other = UnitName { generation: 2, ..name.clone() };
    assert_eq!(world.started.last(), Some(&other));
    world.forgotten(&name);
    assert!(world.result(again).is_none());
    world.seen(&other, |unit| (unit.active, unit.exited) = (ActiveState::Active, true));
    assert!(world.let_go.contains(&other));
    assert_eq!(stage(&world), Some(ReloadStage::Draining));
}

#[test]
fn checks_of_a_new_spec_go_on_when_units_are_read() {
    let (mut world, job) = reloading(1);
    let (asked, units) = (world.state.units(), world.facts());
    world.let_go.clear();
    world.read(asked, units);
    assert!(world.let_go.is_empty() && world.result(job).is_none());
}

#[test]
fn what_is_said_of_other_checks_is_no_answer_to_those_of_a_new_spec() {
    let (mut world, job) = reloading(2);
    let other = unit(UnitKind::Stage, "a", 1);
    let hold =
        Hold { start: StartId(99), confirmed: true, let_go: None, ran: true, kill: None, give_up: None };
    let pool = world.state.pools.get_mut(&"a".parse().unwrap()).unwrap();
    pool.replicas[1].taken.insert(other.clone(), hold);
    world.event(Event::UnitSeen(UnitObservation {
        active: ActiveState::Failed,
        ..UnitObservation::new(other)
    }));
    assert!(world.result(job).is_none());
}
