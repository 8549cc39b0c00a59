//! Stories of units that do what they should not, and of names that are not free.

use crate::world::{World, configuration, spec, unit};
use pool_core::host::Saved;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::PoolPhase;
use pool_core::replica::ActiveState;
use pool_core::{Denied, Event, Request};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn a_unit_that_is_restarted_from_outside_is_followed() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let engine = unit(UnitKind::Engine, "a", 0);
    world.seen(&engine, |unit| unit.active = ActiveState::Deactivating);
    world.seen(&engine, |unit| {
        unit.invocation = pool_core::name::InvocationId([0xee; 16]);
        (unit.active, unit.main_pid) = (ActiveState::Activating, 7);
    });
    assert_eq!((world.phase("a"), world.pool("a").ready()), (PoolPhase::Starting, false));
    world.becomes_ready("a", 0);
    assert_eq!((world.phase("a"), world.pool("a").replicas[0].unit.main_pid), (PoolPhase::Ready, 7));
    world.dies("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
}

#[test]
fn a_unit_that_is_restarted_while_it_should_stop_is_stopped_again() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    let engine = unit(UnitKind::Engine, "a", 0);
    world.seen(&engine, |unit| {
        unit.invocation = pool_core::name::InvocationId([0xee; 16]);
        unit.active = ActiveState::Activating;
    });
    assert_eq!(world.units[&engine].active, ActiveState::Deactivating, "it was asked to stop again");
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
}

#[test]
fn a_unit_that_systemd_cannot_stop_is_told_and_asked_again() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    let engine = unit(UnitKind::Engine, "a", 0);
    for _ in 0..3 {
        world.units.get_mut(&engine).expect("the unit is there").active = ActiveState::Active;
        // However often it is refused, one timer runs.
        world.event(Event::StopRefused { name: engine.clone(), error: "frozen".into() });
        world.event(Event::StopRefused { name: engine.clone(), error: "frozen".into() });
        assert_eq!(world.timers.len(), 2, "that one, and the one that kills");
        world.ring();
        assert_eq!(world.last_class("a"), "unkillable");
        assert_eq!(world.units[&engine].active, ActiveState::Deactivating);
    }
    assert_eq!(world.lines.iter().filter(|line| line.contains("frozen")).count(), 1, "said once");
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
}

#[test]
fn an_engine_that_puts_off_its_end_is_killed() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    let waited = world.ring();
    assert!(waited > Usec::from_secs(30) && waited < Usec::from_secs(40), "{waited}");
    assert_eq!(world.killed, [unit(UnitKind::Engine, "a", 0)]);
    world.settle();
    world.start("a");
    world.serve("a", 0);
    assert_eq!(world.killed.len(), 1);
}

#[test]
fn a_name_that_somebody_elses_dependency_keeps_is_given_up() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    let engine = unit(UnitKind::Engine, "a", 0);
    world.seen(&engine, |unit| (unit.active, unit.main_pid) = (ActiveState::Inactive, 0));
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    assert!(world.ring() <= Usec::from_secs(1));
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
    world.start("a");
    assert_eq!(world.started.last().expect("a start").generation, 2);
    // That the old one goes at last changes nothing.
    world.forgotten(&engine);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    // A daemon that finds such a unit does not take it for one that runs.
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.units.get_mut(&engine).expect("the unit is there").active = ActiveState::Inactive;
    world.restart_daemon(&[spec("a")]);
    assert_eq!(
        (world.phase("a"), world.started.last().expect("a start").generation),
        (PoolPhase::Staging, 2)
    );
}

#[test]
fn a_unit_that_is_new_is_inactive_and_has_not_ended() {
    let mut world = World::with(&[spec("a")]);
    let stage = unit(UnitKind::Stage, "a", 0);
    world.seen(&stage, |unit| unit.active = ActiveState::Inactive);
    world.seen(&stage, |unit| unit.active = ActiveState::Activating);
    world.checks_pass("a", 0);
    let engine = unit(UnitKind::Engine, "a", 0);
    world.seen(&engine, |unit| unit.active = ActiveState::Inactive);
    assert!(world.timers.is_empty());
    world.becomes_ready("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn a_start_right_after_a_stop_has_as_many_replicas_as_the_file_says() {
    for (before, after) in [(2, 1), (1, 3)] {
        let with = |replicas| pool_core::config::PoolSpec { replicas, ..spec("a") };
        let mut world = World::with(&[with(before)]);
        (0..before).for_each(|index| world.serve("a", index));
        world.configure(&[with(after)]);
        world.stop("a");
        world.start("a");
        world.settle();
        assert_eq!(world.pool("a").replicas.len(), usize::from(after));
        assert!(world.pool("a").replicas.iter().all(|replica| replica.phase.as_str() == "staging"));
    }
}

#[test]
fn an_engine_with_workers_that_outlive_it_a_little_had_served_all_the_same() {
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 4);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.now = world.now.plus(Usec::from_secs(301));
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.active = ActiveState::Deactivating);
    world.dies("a", 0);
    world.settle();
    assert!(world.ring() < Usec::from_millis(1_200), "the next failure is the first again");
}

#[test]
fn an_exit_with_status_0_before_ready_is_taken_as_meant_too() {
    let mut world = World::with(&[spec("a")]);
    world.checks_pass("a", 0);
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| {
        unit.active = ActiveState::Failed;
        (unit.result, unit.exec_code, unit.exec_status) = ("protocol".into(), 1, 0);
    });
    world.settle();
    assert_eq!((world.phase("a"), world.timers.len()), (PoolPhase::Stopped, 0));
}

#[test]
fn an_orphan_that_fails_on_its_way_out_is_forgotten_and_its_pool_can_come_back() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.restart_daemon(&[]);
    let engine = unit(UnitKind::Engine, "a", 0);
    world.seen(&engine, |unit| (unit.active, unit.exec_code, unit.exec_status) = (ActiveState::Failed, 1, 3));
    assert_eq!(
        world.let_go.iter().filter(|name| **name == engine).count(),
        3,
        "stopped, and forgotten twice"
    );
    world.configure(&[spec("a")]);
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn an_engine_of_a_broken_pool_that_dies_is_not_taken_for_one_that_serves() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let units = world.facts();
    let mut configuration = configuration(&[]);
    let error = pool_core::config::FileError { file: "a.toml".into(), error: "line 1".into() };
    configuration.broken.insert("a".parse().expect("an id"), error);
    world.state = Default::default();
    world.event(Event::Started {
        configuration,
        units,
        saved: Box::default(),
        stopped: BTreeSet::new(),
        quarantined: BTreeMap::new(),
        leases: vec![],
        host: Default::default(),
    });
    world.dies("a", 0);
    world.configure(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
}

#[test]
fn a_folder_that_could_not_be_read_removes_no_pool() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let nothing = pool_core::config::Configuration { incomplete: true, ..Default::default() };
    world.event(Event::ConfigurationRead { configuration: nothing.clone(), requests: vec![] });
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    // Nor at a start, with what was saved and without.
    for saved in [world.state.saved(), Saved::default()] {
        let units = world.facts();
        world.state = Default::default();
        world.event(Event::Started {
            configuration: nothing.clone(),
            units,
            saved: Box::new(saved),
            stopped: BTreeSet::new(),
            quarantined: BTreeMap::new(),
            leases: vec![],
            host: Default::default(),
        });
        assert_eq!(world.units[&unit(UnitKind::Engine, "a", 0)].active, ActiveState::Active);
    }
    world.configure(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn what_was_lost_with_the_signals_is_asked_for_again() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    // systemd was executed anew and never got the request.
    let engine = unit(UnitKind::Engine, "a", 0);
    world.units.get_mut(&engine).expect("the unit is there").active = ActiveState::Active;
    let (asked, units) = (world.state.units(), world.facts());
    world.read(asked, units);
    assert_eq!(world.units[&engine].active, ActiveState::Deactivating);
}

#[test]
fn what_systemd_forgot_before_it_took_a_unit_was_another_of_that_name() {
    let mut world = World::with(&[spec("a")]);
    world.slow = true;
    world.checks_pass("a", 0);
    let engine = unit(UnitKind::Engine, "a", 0);
    world.event(Event::UnitForgotten(engine.clone()));
    assert_eq!(world.phase("a"), PoolPhase::Starting, "{:?}", world.lines.last());
    world.slow = false;
    world.event(Event::UnitTaken(engine.clone()));
    world.becomes_ready("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    // From then on it is its own.
    world.forgotten(&engine);
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
}

#[test]
fn waiting_callers_are_bounded() {
    let mut world = World::with(&[spec("a")]);
    let wait = |world: &mut World| world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) });
    while wait(&mut world).is_ok() {
        assert!(world.state.waiters.len() <= 1_024);
    }
    assert_eq!(wait(&mut world), Err(Denied::TooManyWaiters));
    world.serve("a", 0);
    assert!(wait(&mut world).is_ok());
}

#[test]
fn what_was_stopped_from_outside_or_ended_as_meant_rests_over_a_restart_of_the_daemon() {
    let mut world = World::with(&[spec("a"), spec("b")]);
    world.serve("a", 0);
    world.serve("b", 0);
    world.forgotten(&unit(UnitKind::Engine, "a", 0));
    world.seen(&unit(UnitKind::Engine, "b", 0), |unit| {
        unit.exited = true;
        (unit.main_pid, unit.exec_code) = (0, 1);
    });
    world.settle();
    let before = world.started.len();
    world.restart_daemon(&[spec("a"), spec("b")]);
    assert_eq!(world.started.len(), before);
    assert_eq!((world.phase("a"), world.phase("b")), (PoolPhase::Stopped, PoolPhase::Stopped));
    assert!(
        world
            .pool("a")
            .last_error
            .as_ref()
            .expect("something went wrong")
            .text
            .contains("stopped from outside")
    );
    assert!(world.pool("b").detail().contains("counts as meant"), "{}", world.pool("b").detail());
    world.start("a");
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn a_unit_that_systemd_refuses_is_tried_again_later() {
    let mut world = World::with(&[spec("a")]);
    world.refused(unit(UnitKind::Stage, "a", 0));
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
    world.ring();
    world.serve("a", 0);
    assert!(world.pool("a").ready());
}

#[test]
fn units_that_were_lost_sight_of_are_found_out_by_reading_all() {
    let mut world = World::with(&[spec("a"), spec("b")]);
    world.serve("a", 0);
    world.serve("b", 0);
    let asked = world.state.units();
    world.units.remove(&unit(UnitKind::Engine, "a", 0));
    let units = world.facts();
    world.read(asked, units);
    assert_eq!((world.phase("a"), world.phase("b")), (PoolPhase::Stopped, PoolPhase::Ready));
}
