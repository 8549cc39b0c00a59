//! Stories of reloads, drain first: the new model is checked, the old engine drains and ends, the new one starts; and
//! every way in which that can fail.

use crate::acts::{of, seconds};
use crate::world::{World, spec, unit};
use pool_core::config::PoolSpec;
use pool_core::job::{JobId, JobResult};
use pool_core::name::{UnitKind, UnitName, Usec};
use pool_core::pool::{PoolPhase, ReloadStage};
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, Hold, Phase, StartId, UnitObservation};
use pool_core::{Denied, Event, Request};

pub fn new(replicas: u16) -> PoolSpec {
    PoolSpec { model: "/srv/new".into(), ..of(replicas) }
}

pub fn newer() -> PoolSpec {
    PoolSpec { model: "/srv/newer".into(), ..of(1) }
}

/// A pool whose engines serve and that is being given the new model.
pub fn reloading(replicas: u16) -> (World, JobId) {
    let mut world = World::with(&[of(replicas)]);
    world.all_serve("a");
    let job = world.reload(&new(replicas), false).unwrap();
    (world, job)
}

/// The same, with the new model checked and the old engines on their way out.
pub fn draining(replicas: u16) -> (World, JobId) {
    let (mut world, job) = reloading(replicas);
    world.checks_pass("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    (world, job)
}

/// The same, with the old engines gone and the new ones loading.
pub fn replacing(replicas: u16) -> (World, JobId) {
    let (mut world, job) = draining(replicas);
    world.pass(seconds(10));
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Starting);
    (world, job)
}

pub fn stage(world: &World) -> Option<ReloadStage> {
    world.pool("a").reload.as_ref().map(|reload| reload.stage.clone())
}

pub fn old_serves(world: &World) -> bool {
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
    world.refused(unit(UnitKind::Stage, "a", 0));
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
            assert_eq!(world.result(job), Some(if fails { JobResult::Failed } else { JobResult::Done }));
            assert_eq!(world.view.replicas.len(), world.pool("a").replicas.len());
        }
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
fn a_new_spec_is_not_checked_under_a_name_that_was_given_up() {
    let (mut world, job) = reloading(1);
    let name = unit(UnitKind::Stage, "a", 0);
    // The checks end and their unit stays loaded; their name is given up, and forgotten later on.
    world.seen(&name, |unit| unit.active = ActiveState::Deactivating);
    world.seen(&name, |unit| unit.active = ActiveState::Inactive);
    world.ring();
    assert!(world.result(job).is_some(), "somebody stopped them");
    let again = world.reload(&newer(), false).expect("a reload");
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
    let pool = world.state.pools.get_mut(&"a".parse().expect("an id")).expect("the pool is there");
    pool.replicas[1].taken.insert(other.clone(), hold);
    world.event(Event::UnitSeen(UnitObservation {
        active: ActiveState::Failed,
        ..UnitObservation::new(other)
    }));
    assert!(world.result(job).is_none());
}

#[test]
fn an_engine_that_waits_for_its_name_starts_once_the_checks_that_have_it_are_refused() {
    let mut world = World::with(&[of(2)]);
    world.all_serve("a");
    let engine = unit(UnitKind::Engine, "a", 0);
    // It fails, and its unit stays loaded while the next spec is checked.
    world.seen(&engine, |unit| {
        (unit.active, unit.result, unit.main_pid) = (ActiveState::Failed, "exit-code".into(), 0);
    });
    world.reload(&new(2), false).expect("a reload");
    let checks = unit(UnitKind::Stage, "a", 0);
    assert_eq!(
        (stage(&world), world.started.last()),
        (Some(ReloadStage::Checking { asked: true }), Some(&checks))
    );
    world.restart_rings("a", 0);
    assert_eq!(world.pool("a").replicas[0].phase, Phase::WaitingForName);
    world.forgotten(&engine);
    assert_eq!(world.pool("a").replicas[0].phase, Phase::WaitingForName, "the checks have it");
    world.refused(checks);
    assert_eq!((stage(&world), world.pool("a").replicas[0].phase.clone()), (None, Phase::Staging));
}
