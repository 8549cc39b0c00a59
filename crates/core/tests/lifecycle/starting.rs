//! Stories of starts, stops and restarts, and of who waits for them.

use crate::world::{World, spec, unit};
use pool_core::config::{Activation, Listen, PoolSpec, Port, RestartPolicy};
use pool_core::host::Answer;
use pool_core::job::JobResult;
use pool_core::name::{Endpoint, UnitKind, Usec};
use pool_core::pool::PoolPhase;
use pool_core::refusal::Refusal;
use pool_core::replica::ActiveState;
use pool_core::{Denied, Event, Request};

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
        assert_eq!(world.last_class("a"), refusal.class());
        assert_eq!(world.pool("a").restart_count, 0);
    }
}

#[test]
fn an_automatic_port_in_use_is_stepped_over_but_not_for_ever() {
    let mut world = World::with(&[spec("a")]);
    for step in 0..20 {
        assert_eq!(
            world.pool("a").replicas[0].endpoint.as_ref().and_then(Endpoint::port),
            Some(20_000 + step)
        );
        world.refuses("a", Refusal::PortInUse);
        world.settle();
    }
    world.refuses("a", Refusal::PortInUse);
    assert_eq!(world.phase("a"), PoolPhase::Failed);
}

#[test]
fn a_fixed_port_in_use_is_refused() {
    let mut fixed = spec("a");
    fixed.listen = Listen::Tcp { host: "127.0.0.1".into(), port: Port::Fixed(80) };
    let mut world = World::with(&[fixed]);
    world.refuses("a", Refusal::PortInUse);
    assert_eq!(world.phase("a"), PoolPhase::Failed);
}

#[test]
fn an_engine_on_a_unix_socket_takes_no_port_and_one_that_is_in_use_is_refused() {
    let on_socket = |id| PoolSpec { listen: Listen::Unix, replicas: 2, ..spec(id) };
    let mut world = World::with(&[on_socket("a")]);
    world.all_serve("a");
    let endpoints = |world: &World| -> Vec<String> {
        world.pool("a").endpoints().iter().map(ToString::to_string).collect()
    };
    let expected = [0, 1].map(|index| format!("unix:/run/llamaorch/a-r{index}/engine.sock"));
    assert_eq!(endpoints(&world), expected);
    world.restart_daemon(&[on_socket("a")]);
    assert_eq!(endpoints(&world), expected, "adopted where they are");
    world.configure(&[on_socket("a"), spec("b")]);
    world.serve("b", 0);
    let lowest = *world.state.settings.auto_ports.start();
    assert_eq!(world.pool("b").endpoints().first().and_then(|at| at.port()), Some(lowest));
    let mut world = World::with(&[PoolSpec { replicas: 1, ..on_socket("a") }]);
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
    world.crash_loop("a", 0, 4);
    world.restart_rings("a", 0);
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
    let waits = world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) }).expect("it is accepted");
    assert!(matches!(world.answers_to(waits)[..], [Answer::Denied(Denied::NotReady { .. })]));
    let start = world.start("a");
    assert_eq!(world.started.len(), 2, "the old engine still runs");
    let Answer::Job(stopped) = world.answers_to(stop)[0].clone() else { panic!() };
    assert!(format!("{:?}", world.state.jobs.all[&stopped]).contains("Superseded"));
    world.settle();
    world.serve("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    let Answer::Job(job) = world.answers_to(start)[0].clone() else { panic!() };
    let wait = world.ask(Request::WaitJob { job }).expect("it is accepted");
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
    let wait = world.ask(Request::WaitJob { job }).expect("it is accepted");
    world.refuses("a", Refusal::ProgramMissing);
    assert_eq!(world.answers_to(wait), [&Answer::JobEnded(JobResult::Failed)]);
    assert!(format!("{:?}", world.state.jobs.all[&job]).contains("because"));
}

#[test]
fn a_timer_that_rings_late_changes_nothing() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.dies("a", 0);
    let stale = *world.timers.keys().next().expect("a timer");
    world.settle();
    world.start("a");
    let before = world.state.clone();
    world.event(Event::TimerFired(stale));
    assert_eq!(world.state, before);
}

#[test]
fn waiting_for_readiness_ends_when_it_comes_when_time_is_up_and_when_it_cannot_come() {
    let mut world = World::with(&[spec("a")]);
    let patient =
        world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) }).expect("it is accepted");
    let hasty = world
        .ask(Request::WaitReady { pool: "a".into(), timeout: Usec::from_secs(1) })
        .expect("it is accepted");
    world.ring();
    assert!(matches!(world.answers_to(hasty)[..], [Answer::Denied(Denied::Timeout { .. })]));
    world.serve("a", 0);
    assert_eq!(world.answers_to(patient), [&Answer::Ready]);
    world.dies("a", 0);
    world.settle();
    let lasting =
        world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) }).expect("it is accepted");
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
    let ports: Vec<u16> = world.pool("a").endpoints().iter().filter_map(|endpoint| endpoint.port()).collect();
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
