//! The life cycle of pools, told as stories, and held against random ones.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
mod breaker;
mod cases;
mod drain;
mod ending;
mod explain;
mod lease;
mod moments;
mod outside;
mod random;
mod reload;
mod removal;
mod seldom;
mod stages;
mod storm;
mod survival;
mod trial;
mod world;

use pool_core::config::{Activation, Port, RestartPolicy};
use pool_core::host::{Answer, Saved};
use pool_core::job::JobResult;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::PoolPhase;
use pool_core::refusal::Refusal;
use pool_core::replica::ActiveState;
use pool_core::{Denied, Event, Request};
use std::collections::BTreeSet;
use world::{World, spec, unit};

#[test]
fn a_resident_pool_is_checked_then_started_then_ready() {
    let mut world = World::with(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    assert_eq!(world.started, [unit(UnitKind::Stage, "a", 0)]);
    world.checks_pass("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Starting);
    assert_eq!(world.started[1], unit(UnitKind::Engine, "a", 0));
    assert!(!world.pool("a").ready());
    world.becomes_ready("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    assert_eq!(world.pool("a").replicas[0].engine_version, "1.2");
}

#[test]
fn a_pool_by_hand_waits_for_its_start() {
    let by_hand = pool_core::config::PoolSpec { activation: Activation::Manual, ..spec("a") };
    let mut world = World::with(&[by_hand]);
    assert!(world.started.is_empty());
    let start = world.start("a");
    world.serve("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    assert!(matches!(world.answers_to(start)[..], [Answer::Job(_)]));
}

#[test]
fn a_refused_start_is_not_tried_again() {
    for refusal in
        [Refusal::ProgramMissing, Refusal::ModelUnreadable, Refusal::DigestMismatch, Refusal::Preflight]
    {
        let mut world = World::with(&[spec("a")]);
        world.refuses("a", refusal);
        world.settle();
        assert_eq!(world.phase("a"), PoolPhase::Failed);
        assert!(world.timers.is_empty() && world.units.is_empty());
        assert_eq!(world.pool("a").last_error.as_ref().unwrap().class.to_string(), refusal.class());
        assert_eq!(world.pool("a").restart_count, 0);
    }
}

#[test]
fn an_automatic_port_in_use_is_stepped_over_but_not_for_ever() {
    let mut world = World::with(&[spec("a")]);
    for step in 0..20 {
        assert_eq!(world.pool("a").replicas[0].endpoint.as_ref().unwrap().port, 20_000 + step);
        world.refuses("a", Refusal::PortInUse);
        world.settle();
    }
    world.refuses("a", Refusal::PortInUse);
    assert_eq!(world.phase("a"), PoolPhase::Failed);
}

#[test]
fn a_fixed_port_in_use_is_refused() {
    let mut fixed = spec("a");
    fixed.listen.port = Port::Fixed(80);
    let mut world = World::with(&[fixed]);
    world.refuses("a", Refusal::PortInUse);
    assert_eq!(world.phase("a"), PoolPhase::Failed);
}

#[test]
fn a_dead_engine_is_started_again_after_a_growing_backoff() {
    let mut world = World::with(&[spec("a")]);
    for (n, base) in [(1, 1.0), (2, 2.0), (3, 4.0)] {
        world.serve("a", 0);
        world.dies("a", 0);
        assert_eq!(world.phase("a"), PoolPhase::Backoff);
        assert!(!world.pool("a").ready() && !world.pool("a").live());
        world.settle();
        let waited = world.ring().0 as f64 / 1e6;
        assert!((waited - base).abs() <= base * 0.11, "{n}: {waited}");
        assert_eq!(world.pool("a").restart_count, n);
    }
}

#[test]
fn five_minutes_ready_make_the_next_failure_the_first() {
    let mut world = World::with(&[spec("a")]);
    for _ in 0..4 {
        world.serve("a", 0);
        world.dies("a", 0);
        world.settle();
        world.ring();
    }
    world.serve("a", 0);
    world.now = world.now.plus(Usec::from_secs(301));
    world.dies("a", 0);
    world.settle();
    assert!(world.ring() < Usec::from_millis(1_200));
}

#[test]
fn a_restart_waits_until_the_units_name_is_free() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.dies("a", 0);
    world.ring();
    assert_eq!(world.started.len(), 2, "the dead unit is still there");
    world.settle();
    assert_eq!(world.started.len(), 3);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn the_policy_decides_what_follows_an_end() {
    for (policy, killed, clean) in [
        (RestartPolicy::OnFailure, PoolPhase::Backoff, PoolPhase::Stopped),
        (RestartPolicy::Always, PoolPhase::Backoff, PoolPhase::Backoff),
        (RestartPolicy::Never, PoolPhase::Failed, PoolPhase::Stopped),
    ] {
        let restart = pool_core::config::Restart { policy, ..Default::default() };
        let pool = pool_core::config::PoolSpec { restart, ..spec("a") };
        let mut world = World::with(std::slice::from_ref(&pool));
        world.serve("a", 0);
        world.dies("a", 0);
        assert_eq!(world.phase("a"), killed, "{policy:?}");
        let mut world = World::with(&[pool]);
        world.serve("a", 0);
        world.seen(&unit(UnitKind::Engine, "a", 0), |unit| {
            unit.exited = true;
            unit.main_pid = 0;
            unit.exec_code = 1;
        });
        world.settle();
        assert_eq!(world.phase("a"), clean, "{policy:?}");
    }
}

#[test]
fn a_stop_wins_in_every_phase_and_ends_with_nothing_left() {
    type Reach = fn(&mut World);
    let phases: [(&str, Reach); 6] = [
        ("staging", |_| {}),
        ("starting", |world| world.checks_pass("a", 0)),
        ("ready", |world| world.serve("a", 0)),
        ("backoff", |world| {
            world.serve("a", 0);
            world.dies("a", 0);
        }),
        ("waiting for its name", |world| {
            world.serve("a", 0);
            world.dies("a", 0);
            world.ring();
        }),
        ("failed", |world| world.refuses("a", Refusal::ProgramMissing)),
    ];
    for (phase, reach) in phases {
        let mut world = World::with(&[spec("a")]);
        reach(&mut world);
        let stop = world.stop("a");
        assert!(!world.pool("a").ready(), "{phase}");
        world.settle();
        assert_eq!(world.phase("a"), PoolPhase::Stopped, "{phase}");
        assert!(world.pool("a").at_rest() && world.units.is_empty(), "{phase}");
        let Answer::Job(job) = world.answers_to(stop)[0] else { panic!("{phase}") };
        let ended = &world.state.jobs.all[job];
        assert!(format!("{ended:?}").contains("Done"), "{phase}: {ended:?}");
        // Only the ended job's own timer is left: no restart is.
        assert_eq!(world.timers.len(), 1, "{phase}");
        world.ring();
        assert!(world.state.jobs.all.is_empty(), "{phase}");
        assert_eq!(world.phase("a"), PoolPhase::Stopped, "{phase}");
    }
}

#[test]
fn a_start_while_stopping_waits_for_the_stop_and_then_starts() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let stop = world.stop("a");
    let waits = world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) }).unwrap();
    assert!(matches!(world.answers_to(waits)[..], [Answer::Denied(Denied::NotReady { .. })]));
    let start = world.start("a");
    assert_eq!(world.started.len(), 2, "the old engine still runs");
    let Answer::Job(stopped) = world.answers_to(stop)[0].clone() else { panic!() };
    assert!(format!("{:?}", world.state.jobs.all[&stopped]).contains("Superseded"));
    world.settle();
    world.serve("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    let Answer::Job(job) = world.answers_to(start)[0].clone() else { panic!() };
    let wait = world.ask(Request::WaitJob { job }).unwrap();
    assert_eq!(world.answers_to(wait), [&Answer::JobEnded(JobResult::Done)]);
}

#[test]
fn a_start_ends_a_backoff_at_once() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.dies("a", 0);
    world.settle();
    world.start("a");
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    assert!(world.timers.is_empty());
}

#[test]
fn a_start_job_fails_when_its_engine_does() {
    let by_hand = pool_core::config::PoolSpec { activation: Activation::Manual, ..spec("a") };
    let mut world = World::with(&[by_hand]);
    let start = world.start("a");
    let Answer::Job(job) = world.answers_to(start)[0].clone() else { panic!() };
    let wait = world.ask(Request::WaitJob { job }).unwrap();
    world.refuses("a", Refusal::ProgramMissing);
    assert_eq!(world.answers_to(wait), [&Answer::JobEnded(JobResult::Failed)]);
    assert!(format!("{:?}", world.state.jobs.all[&job]).contains("because"));
}

#[test]
fn a_timer_that_rings_late_changes_nothing() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.dies("a", 0);
    let stale = *world.timers.keys().next().unwrap();
    world.settle();
    world.start("a");
    let before = world.state.clone();
    world.event(Event::TimerFired(stale));
    assert_eq!(world.state, before);
}

#[test]
fn waiting_for_readiness_ends_when_it_comes_when_time_is_up_and_when_it_cannot_come() {
    let mut world = World::with(&[spec("a")]);
    let patient = world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) }).unwrap();
    let hasty = world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec::from_secs(1) }).unwrap();
    world.ring();
    assert!(matches!(world.answers_to(hasty)[..], [Answer::Denied(Denied::Timeout { .. })]));
    world.serve("a", 0);
    assert_eq!(world.answers_to(patient), [&Answer::Ready]);
    world.dies("a", 0);
    world.settle();
    let lasting = world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) }).unwrap();
    assert!(world.answers_to(lasting).is_empty(), "a restart is due");
    world.ring();
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    assert!(matches!(world.answers_to(lasting)[..], [Answer::Denied(Denied::NotReady { .. })]));
}

#[test]
fn two_replicas_have_two_ports_and_one_that_serves_is_enough() {
    let twins = pool_core::config::PoolSpec { replicas: 2, ..spec("a") };
    let mut world = World::with(&[twins]);
    world.serve("a", 0);
    assert!(world.pool("a").ready());
    world.serve("a", 1);
    let ports: Vec<u16> = world.pool("a").endpoints().iter().map(|endpoint| endpoint.port).collect();
    assert_eq!(ports, [20_000, 20_001]);
    world.dies("a", 0);
    assert_eq!((world.phase("a"), world.pool("a").ready()), (PoolPhase::Ready, true));
}

#[test]
fn an_engine_on_its_way_down_is_not_ready_although_its_end_is_not_known_yet() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.active = ActiveState::Deactivating);
    assert!(!world.pool("a").ready() && !world.pool("a").live());
    world.dies("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
}

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
        world.units.get_mut(&engine).unwrap().active = ActiveState::Active;
        // However often it is refused, one timer runs.
        world.event(Event::StopRefused { name: engine.clone(), error: "frozen".into() });
        world.event(Event::StopRefused { name: engine.clone(), error: "frozen".into() });
        assert_eq!(world.timers.len(), 2, "that one, and the one that kills");
        world.ring();
        assert_eq!(world.pool("a").last_error.as_ref().unwrap().class.to_string(), "unkillable");
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
    assert_eq!(world.started.last().unwrap().generation, 2);
    // That the old one goes at last changes nothing.
    world.forgotten(&engine);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    // A daemon that finds such a unit does not take it for one that runs.
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.units.get_mut(&engine).unwrap().active = ActiveState::Inactive;
    world.restart_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.started.last().unwrap().generation), (PoolPhase::Staging, 2));
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
    for _ in 0..4 {
        world.serve("a", 0);
        world.dies("a", 0);
        world.settle();
        world.ring();
    }
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
    let mut configuration = world::configuration(&[]);
    let error = pool_core::config::FileError { file: "a.toml".into(), error: "line 1".into() };
    configuration.broken.insert("a".parse().unwrap(), error);
    world.state = Default::default();
    world.event(Event::Started {
        configuration,
        units,
        saved: Saved::default(),
        stopped: BTreeSet::new(),
        leases: vec![],
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
            saved,
            stopped: BTreeSet::new(),
            leases: vec![],
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
    world.units.get_mut(&engine).unwrap().active = ActiveState::Active;
    let (asked, units) = (world.state.units(), world.facts());
    world.read(asked, units);
    assert_eq!(world.units[&engine].active, ActiveState::Deactivating);
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
    assert!(world.pool("a").last_error.as_ref().unwrap().text.contains("stopped from outside"));
    assert!(world.pool("b").detail().contains("counts as meant"), "{}", world.pool("b").detail());
    world.start("a");
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn a_unit_that_systemd_refuses_is_tried_again_later() {
    let mut world = World::with(&[spec("a")]);
    let name = unit(UnitKind::Stage, "a", 0);
    world.units.clear();
    world.event(Event::UnitRefused { name, name_taken: false, error: "no".into() });
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

#[test]
fn adoption_takes_up_what_runs_and_starts_what_does_not() {
    let pools = [spec("loads"), spec("new"), spec("serves")];
    let mut world = World::with(&pools);
    world.serve("serves", 0);
    world.checks_pass("loads", 0);
    world.settle();
    let before = world.started.len();
    // The checks of "new" were under way: they are begun again.
    world.restart_daemon(&pools);
    assert_eq!((world.phase("serves"), world.phase("loads")), (PoolPhase::Ready, PoolPhase::Starting));
    assert_eq!(world.started.len(), before);
    world.settle();
    assert_eq!(world.started[before..], [unit(UnitKind::Stage, "new", 0)]);
    world.becomes_ready("loads", 0);
    assert!(world.pool("loads").ready());
}

#[test]
fn adoption_keeps_how_an_engine_ended_meanwhile() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let engine = world.units.get_mut(&unit(UnitKind::Engine, "a", 0)).unwrap();
    (engine.active, engine.result, engine.exec_code, engine.exec_status) =
        (ActiveState::Failed, "signal".into(), 2, 11);
    world.restart_daemon(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
    assert_eq!(world.pool("a").last_error.as_ref().unwrap().class.to_string(), "signal:SEGV");
}

#[test]
fn adoption_leaves_a_stopped_pool_stopped() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    world.settle();
    let before = world.started.len();
    world.restart_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Stopped, before));
    world.start("a");
    assert!(world.state.stopped.is_empty());
}

#[test]
fn adoption_stops_engines_whose_pool_is_gone() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.restart_daemon(&[]);
    assert!(world.state.pools.is_empty());
    assert_eq!(world.units[&unit(UnitKind::Engine, "a", 0)].active, ActiveState::Deactivating);
}

#[test]
fn adoption_keeps_an_engine_whose_file_broke() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let (saved, units) = (world.state.saved(), world.facts());
    let broken = |saved: Saved| {
        let mut configuration = world::configuration(&[]);
        let error = pool_core::config::FileError { file: "a.toml".into(), error: "line 1".into() };
        configuration.broken.insert("a".parse().unwrap(), error);
        Event::Started {
            configuration,
            units: units.clone(),
            saved,
            stopped: BTreeSet::new(),
            leases: vec![],
        }
    };
    world.state = Default::default();
    world.event(broken(saved));
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    // Also where nothing was saved: it is taken up when the file is mended.
    world.state = Default::default();
    world.event(broken(Saved::default()));
    assert!(world.state.pools.is_empty());
    assert_eq!(world.units[&unit(UnitKind::Engine, "a", 0)].active, ActiveState::Active);
    world.configure(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn a_changed_file_is_marked_and_used_by_the_next_start() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let changed = pool_core::config::PoolSpec { args: vec!["--new".into()], replicas: 2, ..spec("a") };
    world.configure(std::slice::from_ref(&changed));
    assert_eq!(world.pool("a").pending(), ["args", "replicas"]);
    world.stop("a");
    world.settle();
    world.start("a");
    assert_eq!(world.pool("a").replicas.len(), 2);
    assert!(world.pool("a").pending().is_empty());
}

#[test]
fn a_crash_restarts_what_ran_and_not_what_the_file_says_by_now() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.configure(&[pool_core::config::PoolSpec { args: vec!["--new".into()], ..spec("a") }]);
    world.dies("a", 0);
    world.settle();
    world.configure(&[pool_core::config::PoolSpec { args: vec!["--new".into()], ..spec("a") }]);
    world.ring();
    assert_eq!(world.pool("a").pending(), ["args"]);
}

#[test]
fn a_removed_file_ends_its_pool_and_one_that_comes_back_meanwhile_keeps_it() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.configure(&[]);
    assert!(matches!(world.ask(Request::Start { pool: "a".into() }), Err(Denied::Leaving(_))));
    while world.phase("a") == PoolPhase::Draining {
        world.ring();
    }
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.configure(&[spec("a")]);
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    world.configure(&[]);
    world.settle();
    assert!(world.state.pools.is_empty());
}

#[test]
fn a_changed_file_is_tried_where_the_old_one_had_failed() {
    let mut world = World::with(&[spec("a")]);
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    world.configure(&[pool_core::config::PoolSpec { model: "/srv/n".into(), ..spec("a") }]);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}
