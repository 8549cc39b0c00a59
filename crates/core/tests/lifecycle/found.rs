//! Stories of single units that the daemon finds when it starts, and of what it says of itself.

use crate::acts::{of, seconds};
use crate::world::{World, configuration, spec, unit};
use pool_core::config::{Activation, FileError, PoolSpec};
use pool_core::host::Saved;
use pool_core::name::{InvocationId, UnitKind, UnitName};
use pool_core::pool::PoolPhase;
use pool_core::registry::{External, HealthStatus};
use pool_core::replica::{ActiveState, UnitObservation};
use pool_core::{Denied, Event, Request};
use std::collections::BTreeSet;

fn engine(pool: &str, index: u16, generation: u32) -> UnitName {
    UnitName { generation, ..unit(UnitKind::Engine, pool, index) }
}

fn put(world: &mut World, name: &UnitName, active: ActiveState) {
    let seen = UnitObservation {
        active,
        invocation: InvocationId([9; 16]),
        main_pid: 7,
        ..UnitObservation::new(name.clone())
    };
    let failed = UnitObservation { result: "exit-code".into(), exec_code: 1, exec_status: 3, ..seen.clone() };
    world.units.insert(name.clone(), if active == ActiveState::Failed { failed } else { seen });
}

fn by_hand() -> PoolSpec {
    PoolSpec { activation: Activation::Manual, ..spec("a") }
}

#[test]
fn the_daemon_says_what_it_found() {
    let mut world = World::empty();
    put(&mut world, &engine("a", 0, 1), ActiveState::Active);
    put(&mut world, &unit(UnitKind::Stage, "a", 1), ActiveState::Active);
    for index in 0..2 {
        put(&mut world, &engine("gone", index, 1), ActiveState::Active);
    }
    world.restart_daemon(&[of(2)]);
    let said = "pools: 1, engines adopted: 1, engines stopped whose pools are gone: 2, leases: 0";
    assert_eq!(world.said(said), 1, "{:?}", world.lines);
}

#[test]
fn a_failed_engine_that_is_one_too_many_is_only_let_go_of() {
    for (index, class) in [(0, "exit:3"), (1, "")] {
        let mut world = World::empty();
        put(&mut world, &engine("a", index, 1), ActiveState::Failed);
        world.restart_daemon(&[spec("a")]);
        assert!(world.let_go.contains(&engine("a", index, 1)));
        assert_eq!(world.last_class("a"), class, "{index}");
    }
}

#[test]
fn what_does_not_run_starts_no_pool_that_nobody_wants() {
    let what = [
        (unit(UnitKind::Stage, "a", 0), ActiveState::Active, PoolPhase::Stopped),
        (engine("a", 0, 1), ActiveState::Failed, PoolPhase::Stopped),
        (engine("a", 0, 1), ActiveState::Active, PoolPhase::Ready),
    ];
    for (name, active, phase) in what {
        let mut world = World::empty();
        put(&mut world, &name, active);
        world.restart_daemon(&[by_hand()]);
        world.settle();
        world.pass(seconds(100));
        assert_eq!((world.phase("a"), world.started.len()), (phase, 0), "{name} {active:?}");
    }
}

#[test]
fn of_two_engines_the_one_that_runs_is_adopted_though_the_other_is_newer() {
    let mut world = World::empty();
    put(&mut world, &engine("a", 0, 1), ActiveState::Active);
    put(&mut world, &engine("a", 0, 2), ActiveState::Failed);
    world.restart_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.pool("a").replicas[0].generation), (PoolPhase::Ready, 1));
    assert!(world.let_go.contains(&engine("a", 0, 2)) && world.last_class("a").is_empty());
}

#[test]
fn an_end_that_was_dealt_with_counts_once_and_an_engine_that_somebody_started_since_is_adopted() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.dies("a", 0);
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.pool("a").troubles.ordinary.in_row), (PoolPhase::Backoff, 1));
    put(&mut world, &engine("a", 0, 1), ActiveState::Active);
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.pool("a").troubles.ordinary.in_row), (PoolPhase::Ready, 1));
}

#[test]
fn an_engine_that_was_started_from_this_file_waits_for_the_next_one() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.start_daemon(&[spec("a")], Saved::default(), BTreeSet::new());
    world.configure(&[PoolSpec { model: "/srv/n".into(), ..spec("a") }]);
    assert_eq!(world.pool("a").pending(), ["model"]);
}

#[test]
fn a_unit_of_no_pool_that_is_kept_loaded_is_left_alone() {
    let mut world = World::empty();
    let name = engine("gone", 0, 1);
    put(&mut world, &name, ActiveState::Active);
    world.restart_daemon(&[]);
    assert!(world.state.ending.contains(&name));
    world.seen(&name, |unit| unit.active = ActiveState::Inactive);
    assert!(!world.state.ending.contains(&name) && world.state.kept.contains(&name));
}

#[test]
fn the_registry_knows_what_the_daemon_knows() {
    let mut world = World::with(&[spec("a")]);
    let id = "a".parse().expect("an id");
    world.serve("a", 0);
    let registry = &world.state.registry;
    assert_eq!(registry.get_health(&id), Some(HealthStatus { live: true, ready: true }));
    assert_eq!((registry.get_version(&id), registry.get_last_error(&id)), (Some("1.2"), None));
    world.drain("a", seconds(9));
    assert_eq!(world.state.registry.get_draining(&id), Some(true));
    world.crash("a", 0);
    let registry = &world.state.registry;
    assert_eq!(registry.get_health(&id), Some(HealthStatus::default()));
    assert_eq!(registry.get_last_error(&id), Some("it was ended by SIGKILL"));
}

#[test]
fn a_file_with_two_errors_is_one_file() {
    let mut world = World::with(&[]);
    let error = |file: &str, error: &str| FileError { file: file.into(), error: error.into() };
    let mut broken = configuration(&[]);
    broken.errors = vec![error("a.toml", "one"), error("a.toml", "two"), error("b.toml", "one")];
    world.event(Event::ConfigurationRead { configuration: broken, requests: vec![] });
    assert_eq!(world.state.files_with_errors(), 2);
    assert_eq!((world.said("a.toml: one"), world.said("a.toml: two"), world.said("b.toml: one")), (1, 1, 1));
}

#[test]
fn who_waits_for_a_job_and_who_waits_for_a_pool_are_counted_together() {
    let mut world = World::with(&[spec("a")]);
    let job = world.start_job("a");
    for _ in 0..1_000 {
        world
            .ask(Request::WaitReady { pool: "a".into(), timeout: pool_core::name::Usec(0) })
            .expect("it is accepted");
    }
    for _ in 0..24 {
        world.ask(Request::WaitJob { job }).expect("it is accepted");
    }
    assert_eq!(world.ask(Request::WaitJob { job }), Err(Denied::TooManyWaiters));
}

#[test]
fn operations_and_results_are_published_by_these_words() {
    use pool_core::job::{JobResult, Operation};
    let operations = [Operation::Start, Operation::Stop, Operation::Drain, Operation::Reload];
    assert_eq!(operations.map(Operation::as_str), ["start", "stop", "drain", "reload"]);
    let results =
        [JobResult::Done, JobResult::Failed, JobResult::Canceled, JobResult::Timeout, JobResult::Superseded];
    let words = ["done", "failed", "canceled", "timeout", "superseded"];
    assert_eq!(results.map(JobResult::as_str), words);
}

#[test]
fn a_file_with_the_id_of_an_external_pool_wins() {
    let mut world = World::with(&[]);
    let id = "a".parse().expect("an id");
    world.state.registry.register(&id, External::of(1_000)).expect("the id is free");
    world.state.registry.set_version(&id, "theirs");
    world.configure(&[spec("a")]);
    let registry = &world.state.registry;
    assert_eq!((registry.get_external(&id), registry.get_version(&id)), (None, Some("")));
    assert!(world.state.registry.unregister(&id).is_err());
}
