//! Stories of single signals, timers and reports that come at a moment of their own.

use crate::acts::{of, open, seconds};
use crate::reload::{newer, replacing};
use crate::world::{World, configuration, spec, unit};
use pool_core::Event;
use pool_core::config::{BreakerNumbers, PoolSpec, Restart};
use pool_core::name::{InvocationId, UnitKind, UnitName, Usec};
use pool_core::pool::PoolPhase;
use pool_core::replica::{ActiveState, ExitClass, Report, UnitObservation};
use pool_core::view::View;

fn engine() -> UnitName {
    unit(UnitKind::Engine, "a", 0)
}

fn serving() -> World {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world
}

#[test]
fn a_trial_of_the_gpu_breaker_that_fails_otherwise_lets_the_next_engine_be_tried() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 1);
    for time in 0..5 {
        if time > 0 {
            world.restart_rings("a", 0);
        }
        world.serve("a", 0);
        world.condemned("a", 0, ExitClass::GpuLost);
    }
    world.condemned("a", 1, ExitClass::GpuLost);
    assert_eq!(world.phases("a"), ["tripped", "tripped"]);
    let (length, _) = open(&world.pool("a").troubles.gpu).expect("it is open");
    world.pass(length);
    world.serve("a", 0);
    world.crash("a", 0);
    assert_eq!(world.phases("a"), ["backoff", "staging"]);
    assert!(world.pool("a").troubles.tries(1) && !world.pool("a").troubles.tries(0));
}

#[test]
fn a_timer_that_rings_a_moment_early_is_set_again() {
    let mut world = serving();
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    assert_eq!(world.pool("a").troubles.ordinary.in_row, 1);
    let (id, at) = world.next_timer().expect("a timer");
    assert!(at.since(world.now) <= seconds(60));
    world.now = Usec(at.0 - 5_000);
    world.timers.remove(&id);
    world.event(Event::TimerFired(id));
    assert_eq!(world.pool("a").troubles.ordinary.in_row, 1, "a minute is not over yet");
    world.pass(Usec::from_millis(10));
    assert_eq!(world.pool("a").troubles.ordinary.in_row, 0);
}

#[test]
fn a_count_is_zeroed_before_the_restarts_that_the_same_moment_lets_through() {
    let count_reset_after = BreakerNumbers::default().close_after;
    let restart = Restart { count_reset_after, reset_after: count_reset_after, ..Restart::default() };
    let mut world = World::with(&[PoolSpec { restart, ..of(2) }]);
    world.crash_loop("a", 0, 5);
    world.crash_loop("a", 1, 1);
    world.pass(seconds(300));
    world.serve("a", 0);
    assert_eq!((world.phases("a"), world.pool("a").restart_count), (vec!["ready", "tripped"], 5));
    world.pass(seconds(61));
    assert_eq!((world.phases("a"), world.pool("a").restart_count), (vec!["ready", "staging"], 1));
}

#[test]
fn an_engine_that_somebody_restarts_during_a_drain_while_the_daemon_is_away_ends() {
    let mut world = World::with(&[of(2)]);
    world.all_serve("a");
    world.lease("a").expect("a lease");
    world.drain("a", Usec(0));
    assert_eq!(world.phases("a"), ["ready", "ready"]);
    let second = unit(UnitKind::Engine, "a", 1);
    world.seen(&second, |unit| unit.active = ActiveState::Deactivating);
    let restarted = world.units.get_mut(&second).expect("the unit is there");
    (restarted.active, restarted.invocation) = (ActiveState::Activating, InvocationId([200; 16]));
    world.kill_daemon(&[of(2)]);
    assert_eq!(world.phases("a"), ["ready", "stopping"]);
    assert!(world.let_go.contains(&second));
}

#[test]
fn a_drain_that_is_asked_for_again_with_the_same_end_keeps_its_timer() {
    let mut world = serving();
    world.lease("a").expect("a lease");
    world.drain("a", seconds(100));
    let ends = world.pool("a").drain.as_ref().expect("it drains").running;
    world.tick = Usec(0);
    let left = world.pool("a").drain.as_ref().expect("it drains").deadline.since(world.now);
    world.drain("a", left);
    assert_eq!(world.pool("a").drain.as_ref().expect("it drains").running, ends);
    world.drain("a", Usec(left.0 - 1));
    assert_ne!(world.pool("a").drain.as_ref().expect("it drains").running, ends);
}

#[test]
fn only_an_end_with_status_0_before_it_was_ready_passes_for_meant() {
    for (status, phase) in [(0, PoolPhase::Stopped), (3, PoolPhase::Backoff)] {
        let mut world = World::with(&[spec("a")]);
        world.checks_pass("a", 0);
        world.seen(&engine(), |unit| {
            unit.active = ActiveState::Failed;
            (unit.result, unit.exec_code, unit.exec_status) = ("protocol".into(), 1, status);
        });
        assert_eq!(world.phase("a"), phase, "{status}");
    }
}

#[test]
fn an_engine_that_has_to_be_killed_when_it_is_stopped_is_told_of() {
    for (result, told) in [("timeout", 1), ("", 0)] {
        let mut world = serving();
        world.stop("a");
        world.seen(&engine(), |unit| {
            unit.main_pid = 0;
            if result.is_empty() {
                (unit.active, unit.exited, unit.exec_code) = (ActiveState::Active, true, 1);
            } else {
                (unit.active, unit.result, unit.exec_code, unit.exec_status) =
                    (ActiveState::Failed, result.into(), 2, 9);
            }
        });
        assert_eq!(world.said("it did not end by itself when stopped"), told, "{result}");
    }
}

#[test]
fn the_registry_counts_the_leases_that_are_held() {
    let mut world = serving();
    let id = "a".parse().expect("an id");
    let counted = |world: &World| world.state.registry.get_active_leases(&id);
    assert_eq!(counted(&world), Some(0));
    let lease = world.lease("a").expect("a lease");
    world.lease("a").expect("a lease");
    assert_eq!(counted(&world), Some(2));
    world.release(&lease);
    assert_eq!(counted(&world), Some(1));
    world.crash("a", 0);
    assert_eq!(counted(&world), Some(0));
}

#[test]
fn what_is_left_of_an_earlier_engine_is_let_go_of_when_it_has_ended_and_not_before() {
    let older = engine();
    let newer = UnitName { generation: 2, ..engine() };
    let mut world = World::empty();
    for (name, run) in [(&older, 8), (&newer, 9)] {
        let seen = UnitObservation {
            active: ActiveState::Active,
            entered_active: true,
            invocation: InvocationId([run; 16]),
            ..UnitObservation::new(name.clone())
        };
        world.units.insert(name.clone(), seen);
    }
    world.restart_daemon(&[spec("a")]);
    world.let_go.clear();
    let says = |world: &mut World, change: fn(&mut UnitObservation)| {
        let unit = world.units.get_mut(&older).expect("the unit is there");
        change(unit);
        let seen = unit.clone();
        world.event(Event::UnitSeen(seen));
        std::mem::take(&mut world.let_go)
    };
    assert_eq!(says(&mut world, |unit| unit.active = ActiveState::Deactivating), []);
    assert_eq!(says(&mut world, |unit| unit.active = ActiveState::Failed), *std::slice::from_ref(&older));
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn a_check_that_is_active_has_passed_only_once_it_has_exited() {
    let mut world = World::with(&[spec("a")]);
    let stage = unit(UnitKind::Stage, "a", 0);
    world.seen(&stage, |unit| unit.active = ActiveState::Active);
    assert_eq!((world.phase("a"), world.let_go.len()), (PoolPhase::Staging, 0));
    world.seen(&stage, |unit| unit.exited = true);
    assert_eq!((world.phase("a"), world.let_go.len()), (PoolPhase::Starting, 1));
}

#[test]
fn signals_of_an_engine_that_has_ended_are_no_new_engine() {
    let mut world = serving();
    world.dies("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
    world.let_go.clear();
    // Repeated, and overtaken by what came later.
    for active in [ActiveState::Failed, ActiveState::Active, ActiveState::Activating] {
        world.seen(&engine(), |unit| unit.active = active);
        assert_eq!((world.phase("a"), world.let_go.len()), (PoolPhase::Backoff, 0), "{active:?}");
    }
    world.seen(&engine(), |unit| {
        (unit.active, unit.invocation) = (ActiveState::Activating, InvocationId([200; 16]));
    });
    assert_eq!(world.let_go, [engine()], "somebody started it again");
}

#[test]
fn a_report_counts_for_the_run_that_it_is_of_and_only_while_that_runs() {
    let mut world = serving();
    let run = world.units[&engine()].invocation;
    let says = |world: &mut World, invocation, version: &str| {
        let report = Report {
            invocation,
            in_flight: Some(1),
            slots: Some(4),
            version: Some(version.into()),
            progress: None,
            processes: None,
            memory_peak: None,
        };
        world.event(Event::Reported { unit: engine(), report });
        let replica = &world.pool("a").replicas[0];
        (replica.engine_version.clone(), replica.report.is_some())
    };
    assert_eq!(says(&mut world, InvocationId([200; 16]), "9"), ("1.2".into(), false));
    assert_eq!(says(&mut world, run, ""), ("1.2".into(), true), "one that is not known changes nothing");
    assert_eq!(says(&mut world, run, "1.3"), ("1.3".into(), true));
    world.stop("a");
    assert_eq!(says(&mut world, run, "1.4").0, "1.3");
}

#[test]
fn of_failed_jobs_only_those_of_stops_mean_that_a_unit_is_stuck() {
    let fails = |world: &mut World, result: &str| {
        world.event(Event::JobFailed { name: engine(), result: result.into() });
        world.pool("a").replicas[0].stuck.is_some()
    };
    let mut world = World::with(&[spec("a")]);
    world.checks_pass("a", 0);
    assert!(!fails(&mut world, "failed"), "that of a start is told by its unit");
    assert!(fails(&mut world, "frozen"), "no start ends like that");
    let mut world = serving();
    world.stop("a");
    assert!(fails(&mut world, "timeout"));
}

#[test]
fn a_start_that_systemd_refuses_after_a_stop_leaves_the_pool_stopped() {
    let mut world = World::with(&[spec("a")]);
    world.stop("a");
    world.refused(unit(UnitKind::Stage, "a", 0));
    assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Stopped, String::new()));
    // While its checks are not forgotten it is not over.
    let mut world = World::with(&[spec("a")]);
    let stage = unit(UnitKind::Stage, "a", 0);
    world.seen(&stage, |unit| (unit.active, unit.exited) = (ActiveState::Active, true));
    world.stop("a");
    world.refused(engine());
    assert_eq!(world.phases("a"), ["stopping"]);
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
}

#[test]
fn an_engine_that_the_daemon_was_ending_is_ended_by_the_next_one_for_the_same_reason() {
    let mut world = serving();
    world.condemn("a", 0, ExitClass::GpuLost);
    world.units.get_mut(&engine()).expect("the unit is there").active = ActiveState::Active;
    world.let_go.clear();
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phases("a"), world.let_go.contains(&engine())), (vec!["stopping"], true));
    world.settle();
    assert_eq!(world.last_class("a"), "gpu-lost");
}

#[test]
fn a_candidate_that_gives_way_to_another_reload_ends_at_once() {
    let (mut world, _) = replacing(1);
    world.reload(&newer(), true).expect("a reload");
    assert_eq!(world.phases("a"), ["stopping"]);
}

#[test]
fn an_engine_of_a_pool_that_leaves_is_not_started_by_the_next_daemon() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 0);
    world.lease("a").expect("a lease");
    world.configure(&[]);
    world.settle();
    assert_eq!(world.phases("a"), ["ready", "stopped"]);
    world.kill_daemon(&[]);
    assert_eq!(world.phases("a").first(), Some(&"ready"));
    assert!(!world.phases("a").contains(&"staging"));
}

#[test]
fn a_file_with_more_engines_starts_none_beside_one_that_ended_as_meant() {
    let mut world = serving();
    world.exits_0("a", 0);
    world.settle();
    world.configure(&[of(2)]);
    assert_eq!(world.phases("a"), ["stopped"]);
}

#[test]
fn an_engine_for_which_no_port_is_left_says_so() {
    let mut world = World::empty();
    let mut narrow = configuration(&[of(2)]);
    narrow.settings.auto_ports = 20_000..=20_000;
    world.start_daemon_by(narrow, Default::default(), Default::default());
    assert_eq!((world.phases("a"), world.last_class("a")), (vec!["staging", "failed"], "port-in-use".into()));
    assert!(
        world.last_text("a").starts_with("every port from 20000 to 20000 is in use"),
        "{}",
        world.last_text("a")
    );
}

#[test]
fn what_cannot_be_saved_is_tried_again_by_one_timer() {
    let mut world = serving();
    let before = world.timers.len();
    for _ in 0..3 {
        world.event(Event::WishesSaved { error: Some("no space left".into()) });
    }
    assert_eq!(world.timers.len(), before + 1);
}

#[test]
fn only_systemd_and_probers_renew_a_pool_s_heartbeat() {
    let mut world = serving();
    let heard = |world: &World| {
        let id = "a".parse().expect("a valid name");
        View::of(&world.state).pools[&id].last_heartbeat
    };
    let ready = heard(&world);
    assert_eq!(ready, world.now, "systemd said that it is ready");
    world.pass(seconds(5));
    let lease = world.lease("a").expect("it is ready");
    world.release(&lease);
    world.pass(seconds(700));
    assert_eq!(heard(&world), ready, "neither clients nor timers say anything of it");
    world.reports("a", 0, 1, None);
    let reported = heard(&world);
    assert_eq!(reported, world.now);
    world.pass(seconds(5));
    world.seen(&engine(), |unit| unit.status_text = "warm".into());
    assert_eq!(heard(&world), world.now);
    world.pass(seconds(5));
    world.restart_daemon(&[spec("a")]);
    assert_eq!(heard(&world), world.now, "systemd said at the start what runs");
}
