//! What somebody does to units behind the daemon's back, and units that nobody here knows.

use crate::world::{World, configuration, spec, unit};
use pool_core::config::{Activation, BreakerNumbers, Configuration, FileError, PoolSpec, Restart};
use pool_core::host::LeaseWish;
use pool_core::name::{InvocationId, UnitKind, UnitName, Usec};
use pool_core::pool::PoolPhase;
use pool_core::replica::{ActiveState, UnitObservation};
use pool_core::{Event, Request};
use std::collections::{BTreeMap, BTreeSet};

fn engine(generation: u32) -> UnitName {
    UnitName { generation, ..unit(UnitKind::Engine, "a", 0) }
}

fn running(name: &UnitName) -> UnitObservation {
    UnitObservation {
        active: ActiveState::Active,
        entered_active: true,
        invocation: InvocationId([9; 16]),
        main_pid: 7,
        ..UnitObservation::new(name.clone())
    }
}

#[test]
fn an_engine_that_was_stopped_from_outside_and_comes_back_is_stopped() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.seen(&engine(1), |unit| {
        unit.active = ActiveState::Failed;
        unit.result = "timeout".into();
    });
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
    assert_eq!(world.let_go.iter().filter(|name| **name == engine(1)).count(), 1);
    world.seen(&engine(1), |unit| *unit = running(&unit.name));
    assert_eq!(world.let_go.iter().filter(|name| **name == engine(1)).count(), 2, "it is in nobody's hands");
}

#[test]
fn whatever_becomes_of_an_engine_that_was_stopped_from_outside_it_is_let_go_of_once() {
    let table = [
        (ActiveState::Activating, false),
        (ActiveState::Active, false),
        (ActiveState::Active, true),
        (ActiveState::Failed, false),
    ];
    for (active, exited) in table {
        let mut world = World::with(&[spec("a")]);
        world.serve("a", 0);
        world.seen(&engine(1), |unit| (unit.active, unit.result) = (ActiveState::Failed, "timeout".into()));
        assert_eq!(world.phase("a"), PoolPhase::Stopped);
        world.let_go.clear();
        world.seen(&engine(1), |unit| {
            (unit.active, unit.exited, unit.invocation) = (active, exited, InvocationId([9; 16]));
        });
        assert_eq!(world.let_go, [engine(1)], "{active:?} {exited}");
    }
}

#[test]
fn a_unit_that_was_over_and_is_started_again_goes_before_anything_else_starts() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    // It ends and somebody's dependency keeps it loaded: its name is given up.
    world.seen(&engine(1), |unit| unit.active = ActiveState::Deactivating);
    world.seen(&engine(1), |unit| unit.active = ActiveState::Inactive);
    world.ring();
    assert!(world.state.kept.contains(&engine(1)));
    world.let_go.clear();
    world.seen(&engine(1), |unit| *unit = running(&unit.name));
    assert!(world.let_go.contains(&engine(1)));
    let started = world.started.len();
    world.start("a");
    assert_eq!(world.started.len(), started, "it waits");
    world.forgotten(&engine(1));
    assert_eq!(world.started.len(), started + 1);
}

#[test]
fn of_two_engines_of_a_replica_the_newest_that_runs_is_adopted_and_the_other_ends() {
    let mut world = World::empty();
    for generation in [1, 2] {
        world.units.insert(engine(generation), running(&engine(generation)));
    }
    world.restart_daemon(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    assert_eq!(world.pool("a").replicas[0].generation, 2);
    assert!(world.let_go.contains(&engine(1)) && !world.let_go.contains(&engine(2)));
    assert!(world.started.is_empty());
}

#[test]
fn an_engine_that_waited_for_a_broken_file_ends_with_the_file() {
    let mut world = World::empty();
    world.units.insert(engine(1), running(&engine(1)));
    let error = FileError { file: "a.toml".into(), error: "broken".into() };
    let broken = Configuration { broken: [("a".parse().unwrap(), error)].into(), ..Configuration::default() };
    let units = world.facts();
    world.event(Event::Started {
        configuration: broken.clone(),
        units,
        saved: Default::default(),
        stopped: Default::default(),
        quarantined: BTreeMap::new(),
        leases: vec![],
        host: Default::default(),
    });
    world.event(Event::ConfigurationRead { configuration: broken, requests: vec![] });
    let unreadable = Configuration { incomplete: true, ..Configuration::default() };
    world.event(Event::ConfigurationRead { configuration: unreadable, requests: vec![] });
    assert!(world.let_go.is_empty());
    world.event(Event::ConfigurationRead { configuration: configuration(&[]), requests: vec![] });
    assert!(world.let_go.contains(&engine(1)));
}

#[test]
fn a_unit_that_was_over_and_runs_ends_when_units_are_read() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.units.insert(engine(5), running(&engine(5)));
    world.state.kept.insert(engine(5));
    let (asked, units) = (world.state.units(), world.facts());
    world.let_go.clear();
    world.read(asked, units);
    assert!(world.let_go.contains(&engine(5)) && !world.let_go.contains(&engine(1)));
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn a_check_that_was_let_go_of_and_is_run_again_by_somebody_is_let_go_of_again() {
    let mut world = World::with(&[spec("a")]);
    let stage = unit(UnitKind::Stage, "a", 0);
    world.seen(&stage, |unit| unit.active = ActiveState::Failed);
    world.seen(&stage, |unit| {
        (unit.active, unit.exited, unit.invocation) = (ActiveState::Active, true, InvocationId([9; 16]));
    });
    assert_eq!(world.let_go, [stage.clone(), stage]);
}

#[test]
fn a_frozen_check_is_let_go_of_once_it_thaws() {
    let mut world = World::with(&[spec("a")]);
    let stage = unit(UnitKind::Stage, "a", 0);
    world.seen(&stage, |unit| (unit.active, unit.exited) = (ActiveState::Active, true));
    world.let_go.clear();
    world.event(Event::JobFailed { name: stage.clone(), result: "frozen".into() });
    world.ring();
    assert!(world.let_go.contains(&stage));
}

#[test]
fn a_unit_of_no_pool_that_cannot_be_ended_is_asked_to_again() {
    let mut world = World::empty();
    world.units.insert(engine(1), running(&engine(1)));
    world.restart_daemon(&[]);
    for _ in 0..3 {
        world.let_go.clear();
        for _ in 0..2 {
            world.event(Event::StopRefused { name: engine(1), error: "no".into() });
        }
        assert_eq!(world.timers.len(), 1);
        world.ring();
        assert!(world.let_go.contains(&engine(1)));
    }
    world.forgotten(&engine(1));
    assert!(world.state.ending.is_empty());
}

#[test]
fn a_late_refusal_of_checks_that_have_passed_leaves_the_engine_alone() {
    let mut world = World::with(&[spec("a")]);
    world.checks_pass("a", 0);
    let stage = unit(UnitKind::Stage, "a", 0);
    world.event(Event::UnitRefused { name: stage, name_taken: true, error: "exists".into() });
    world.becomes_ready("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn a_start_that_waits_for_a_stop_is_remembered_over_a_crash() {
    let by_hand = PoolSpec { activation: Activation::Manual, ..spec("a") };
    let mut world = World::with(std::slice::from_ref(&by_hand));
    world.start("a");
    world.serve("a", 0);
    world.stop("a");
    world.start("a");
    assert!(world.saved.pools.values().all(|pool| pool.run));
}

#[test]
fn what_became_of_a_start_that_is_not_answered_yet_is_read_too() {
    let mut world = World::with(&[spec("a")]);
    let stage = unit(UnitKind::Stage, "a", 0);
    let mut asked = world.state.units();
    asked.get_mut(&stage).unwrap().confirmed = false;
    // It may not be there yet.
    world.read(asked.clone(), vec![]);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    let unit = world.units.get_mut(&stage).unwrap();
    (unit.active, unit.exited) = (ActiveState::Active, true);
    let units = world.facts();
    world.read(asked, units);
    assert_eq!(world.phase("a"), PoolPhase::Starting);
}

#[test]
fn a_taken_name_is_not_given_up_while_its_unit_runs() {
    let mut world = World::with(&[spec("a")]);
    let stage = unit(UnitKind::Stage, "a", 0);
    world.seen(&stage, |unit| unit.main_pid = 5);
    world.event(Event::UnitRefused { name: stage.clone(), name_taken: true, error: "exists".into() });
    let started = world.started.len();
    while !world.timers.is_empty() {
        world.ring();
    }
    assert_eq!(world.started.len(), started, "two checks of one replica");
    world.forgotten(&stage);
    assert_eq!(world.started.len(), started + 1);
}

#[test]
fn what_was_said_of_a_unit_since_its_reading_was_asked_for_is_newer_than_what_was_read() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let asked = world.state.units();
    // Read while somebody restarts it, by when it is on its way up and has its old invocation.
    world.seen(&engine(1), |unit| unit.active = ActiveState::Deactivating);
    let mut units = world.facts();
    units[0].seen.active = ActiveState::Activating;
    world.seen(&engine(1), |unit| *unit = running(&unit.name));
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    let heard: BTreeSet<_> = [engine(1)].into();
    world.event(Event::UnitsRead { asked: asked.clone(), heard: heard.clone(), units });
    assert_eq!(world.phase("a"), PoolPhase::Ready, "it serves");
    world.event(Event::UnitsRead { asked, heard, units: vec![] });
    assert_eq!(world.phase("a"), PoolPhase::Ready, "that it is gone would have been said");
}

#[test]
fn a_pool_that_only_waits_for_a_name_starts_as_many_as_its_newest_file_says() {
    // Engines of an earlier file end, by when the file is back, twice.
    let mut world = World::empty();
    world.units.insert(engine(1), running(&engine(1)));
    world.restart_daemon(&[]);
    world.configure(&[spec("a")]);
    assert!(world.started.is_empty(), "the name is not free");
    world.configure(&[PoolSpec { replicas: 3, ..spec("a") }]);
    assert_eq!(world.started, [1, 2].map(|index| unit(UnitKind::Stage, "a", index)));
    world.forgotten(&engine(1));
    (0..3).for_each(|index| world.serve("a", index));
    assert!(world.pool("a").pending().is_empty() && world.pool("a").replicas.len() == 3);
}

#[test]
fn leases_of_an_engine_that_was_restarted_while_the_daemon_was_away_are_over() {
    for restarted in [false, true] {
        let mut world = World::with(&[spec("a")]);
        world.serve("a", 0);
        world
            .ask(Request::AllocateLease { pool: "a".into(), wish: LeaseWish::default() })
            .expect("there is one");
        if restarted {
            let unit = world.units.get_mut(&engine(1)).unwrap();
            unit.invocation = InvocationId([9; 16]);
        }
        world.restart_daemon(&[spec("a")]);
        assert_eq!(world.pool("a").active_leases(), u32::from(!restarted));
        assert_eq!(world.held.len(), usize::from(!restarted));
    }
}

#[test]
fn a_trial_that_had_served_long_enough_by_a_newer_file_closes_the_breaker() {
    let numbers = |close_after| {
        let breaker = BreakerNumbers { failures: 1, close_after, ..BreakerNumbers::default() };
        let (reset_after, count_reset_after) = (Usec::from_secs(5), Usec::from_secs(6));
        let restart = Restart { breaker, reset_after, count_reset_after, ..Restart::default() };
        PoolSpec { restart, ..spec("a") }
    };
    let newer = |spec: &PoolSpec| PoolSpec { args: vec!["new".into()], ..spec.clone() };
    let mut world = World::with(&[numbers(Usec::from_secs(60))]);
    world.serve("a", 0);
    world.dies("a", 0);
    world.settle();
    world.ring();
    world.serve("a", 0);
    world.settle();
    world.ring();
    world.ring();
    assert_eq!(world.pool("a").replicas[0].reached.marks.len(), 2, "all but the end of the row");
    world.configure(&[newer(&numbers(Usec::from_secs(3)))]);
    while !world.timers.is_empty() {
        world.ring();
    }
    assert!(world.pool("a").troubles.all_closed());
}

#[test]
fn a_unit_of_no_pool_that_somebody_starts_again_is_stopped_again() {
    let mut world = World::empty();
    world.units.insert(engine(1), UnitObservation { active: ActiveState::Failed, ..running(&engine(1)) });
    world.restart_daemon(&[]);
    assert!(world.state.ending.contains(&engine(1)));
    world.let_go.clear();
    world.event(Event::UnitSeen(running(&engine(1))));
    assert!(world.let_go.contains(&engine(1)));
}

#[test]
fn a_replica_that_went_and_comes_back_has_no_name_that_was_given_up() {
    let more = PoolSpec { replicas: 2, ..spec("a") };
    let second = unit(UnitKind::Engine, "a", 1);
    let mut world = World::with(std::slice::from_ref(&more));
    (0..2).for_each(|index| world.serve("a", index));
    world.stop("a");
    world.seen(&second, |unit| unit.active = ActiveState::Inactive);
    let first = unit(UnitKind::Engine, "a", 0);
    world.forgotten(&first);
    while !world.state.kept.contains(&second) {
        world.ring();
    }
    world.configure(&[spec("a")]);
    world.start("a");
    assert_eq!(world.pool("a").replicas.len(), 1);
    world.stop("a");
    world.settle();
    world.configure(&[more]);
    world.start("a");
    assert_eq!(world.started.last(), Some(&UnitName { generation: 2, ..unit(UnitKind::Stage, "a", 1) }));
}
