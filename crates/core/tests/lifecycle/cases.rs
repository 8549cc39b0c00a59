//! The rules for the cases in between, one story for each row of the table.

use crate::acts::{of, open, seconds};
use crate::stages::stages;
use crate::world::{World, spec, unit};
use pool_core::config::{Listen, PoolSpec, Port};
use pool_core::job::JobResult;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::{Drain, DrainFor, Pool, PoolPhase, Wish};
use pool_core::replica::{ActiveState, ExitClass, Pause, Phase};
use pool_core::{Denied, Request};

fn new() -> PoolSpec {
    PoolSpec { model: "/srv/new".into(), ..spec("a") }
}

fn serving() -> World {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world
}

#[test]
fn stop_while_draining_supersedes_the_drain_and_stops_now() {
    let mut world = serving();
    world.lease("a").unwrap();
    let drain = world.drain("a", Usec(0));
    let stop = world.stop_job("a");
    assert_eq!((world.result(drain), world.phase("a")), (Some(JobResult::Superseded), PoolPhase::Stopping));
    assert_eq!((world.revoked.len(), world.pool("a").drain.is_some()), (1, false));
    world.settle();
    assert_eq!((world.phase("a"), world.result(stop)), (PoolPhase::Stopped, Some(JobResult::Done)));
    world.pass(seconds(400));
    assert!(world.timers.is_empty());
}

#[test]
fn drain_while_draining_is_the_same_job_and_the_earlier_deadline_wins() {
    for (later, at) in [(seconds(30), 30), (seconds(200), 100)] {
        let mut world = serving();
        world.lease("a").unwrap();
        let job = world.drain("a", seconds(100));
        let timers = world.timers.len();
        assert_eq!((world.drain("a", later), world.timers.len()), (job, timers));
        world.pass(seconds(at - 1));
        assert_eq!(world.phase("a"), PoolPhase::Draining);
        world.pass(seconds(1));
        assert_eq!(world.phase("a"), PoolPhase::Stopping);
        world.settle();
        assert_eq!(world.result(job), Some(JobResult::Done));
    }
}

#[test]
fn a_second_reload_is_refused_unless_forced_and_then_the_first_is_superseded_and_its_candidate_stopped() {
    let newest = PoolSpec { model: "/srv/newest".into(), ..spec("a") };
    for (stage, reach) in stages() {
        for fails in [false, true] {
            let (mut world, first) = reach();
            let denied = world.reload(&newest, false);
            assert!(matches!(denied, Err(Denied::TransitionInProgress { .. })), "{stage}: {denied:?}");
            assert_eq!(world.result(first), None);
            let second = world.reload(&newest, true).unwrap();
            assert_eq!(world.result(first), Some(JobResult::Superseded), "{stage}");
            for _ in 0..20 {
                world.settle();
                let checks = unit(UnitKind::Stage, "a", 0);
                if world.units.contains_key(&checks) && stage_checks_new(&world) && fails {
                    world.refuses("a", pool_core::refusal::Refusal::ModelUnreadable);
                } else if world.units.contains_key(&checks) {
                    world.checks_pass("a", 0);
                } else if world.phase("a") == PoolPhase::Draining {
                    world.pass(seconds(10));
                } else if world.phase("a") == PoolPhase::Starting {
                    assert_ne!(
                        world.model("a", 0),
                        "/srv/new",
                        "{stage}: the first candidate is not gone on with"
                    );
                    world.becomes_ready("a", 0);
                }
            }
            let (model, result) =
                if fails { ("/srv/m", JobResult::Failed) } else { ("/srv/newest", JobResult::Done) };
            assert_eq!(
                (world.model("a", 0).as_str(), world.phase("a")),
                (model, PoolPhase::Ready),
                "{stage} {fails}"
            );
            assert_eq!(world.result(second), Some(result), "{stage}");
            assert_eq!(world.pool("a").revision.spec.model, model, "{stage}");
            assert!(world.pool("a").reload.is_none() && world.pool("a").drain.is_none(), "{stage}");
        }
    }
}

fn stage_checks_new(world: &World) -> bool {
    use pool_core::pool::ReloadStage;
    let reload = world.pool("a").reload.as_ref();
    reload.is_some_and(|reload| matches!(reload.stage, ReloadStage::Checking { asked: true }))
        && world.replica_phase("a", 0) != "staging"
}

#[test]
fn start_while_stopping_or_draining_waits_for_the_stop_then_starts() {
    let mut world = serving();
    let stop = world.stop_job("a");
    let start = world.start_job("a");
    assert_eq!((world.result(stop), world.started.len()), (Some(JobResult::Superseded), 2));
    world.settle();
    world.serve("a", 0);
    assert_eq!(world.result(start), Some(JobResult::Done));
    let mut world = serving();
    let lease = world.lease("a").unwrap();
    let drain = world.drain("a", Usec(0));
    let start = world.start_job("a");
    assert_eq!((world.result(drain), world.phase("a")), (Some(JobResult::Superseded), PoolPhase::Draining));
    assert!(world.held.contains(&lease), "it still drains");
    world.pass(seconds(10));
    world.release(&lease);
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Stopping, 2));
    world.settle();
    assert_eq!((world.phase("a"), world.result(start)), (PoolPhase::Staging, None));
    world.serve("a", 0);
    assert_eq!((world.result(start), world.wishes.len()), (Some(JobResult::Done), 0));
}

#[test]
fn the_newest_wish_wins() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.drain("a", Usec(0));
    let start = world.start_job("a");
    let drain = world.drain("a", Usec(0));
    assert_eq!(world.result(start), Some(JobResult::Superseded));
    world.start("a");
    world.stop("a");
    assert_eq!(world.result(drain), Some(JobResult::Superseded));
    world.settle();
    world.pass(seconds(400));
    assert_eq!((world.phase("a"), world.started.len(), world.wishes.len()), (PoolPhase::Stopped, 2, 1));
    // Also where the engine was ending because somebody had stopped its unit.
    let mut world = serving();
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.active = ActiveState::Deactivating);
    world.start("a");
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn cancelling_a_drain_makes_it_ready_again() {
    let mut world = serving();
    let lease = world.lease("a").unwrap();
    let job = world.drain("a", Usec(0));
    world.cancel(job).unwrap();
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Ready, Some(JobResult::Canceled)));
    assert!(world.held.contains(&lease) && world.lease("a").is_ok() && world.wishes.is_empty());
    world.pass(seconds(400));
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Ready, 2));
    assert!(world.cancel(job).is_err(), "it is over");
    // Not once its engines end.
    let job = world.drain("a", seconds(10));
    world.pass(seconds(10));
    assert!(matches!(world.cancel(job), Err(Denied::NotCancelable(..))));
}

#[test]
fn cancelling_a_reload_keeps_the_old_replica() {
    for (stage, reach) in stages() {
        let (mut world, job) = reach();
        let pid = world.pool("a").replicas[0].unit.main_pid;
        world.cancel(job).unwrap();
        let kept = ["checking", "draining"].contains(&stage);
        if !kept {
            world.settle();
            world.serve("a", 0);
        }
        world.settle();
        assert_eq!(
            (world.result(job), world.phase("a")),
            (Some(JobResult::Canceled), PoolPhase::Ready),
            "{stage}"
        );
        let replica = world.pool("a").replicas[0].clone();
        assert_eq!((world.model("a", 0).as_str(), replica.unit.main_pid == pid), ("/srv/m", kept), "{stage}");
        assert!(world.pool("a").reload.is_none() && world.pool("a").drain.is_none(), "{stage}");
        assert!(world.lease("a").is_ok() && replica.generation == 1, "{stage}");
        assert_eq!(world.pool("a").revision.spec.model, "/srv/m", "{stage}");
        assert_eq!(world.units.len(), 1, "{stage}: its checks are gone");
    }
}

#[test]
fn reload_of_a_stopped_pool_replaces_the_spec_and_starts_nothing() {
    let ways: [fn(&mut World); 3] = [
        |world| {
            world.stop("a");
            world.settle();
        },
        |world| {
            world.stop("a");
        },
        |world| world.exits_0("a", 0),
    ];
    for (way, stop) in ways.into_iter().enumerate() {
        let mut world = serving();
        stop(&mut world);
        let starts = world.started.len();
        let job = world.reload(&new(), false).unwrap();
        assert_eq!(world.result(job), Some(JobResult::Done), "{way}");
        world.settle();
        assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Stopped, starts), "{way}");
        world.start("a");
        world.serve("a", 0);
        assert_eq!(world.model("a", 0), "/srv/new", "{way}");
    }
}

#[test]
fn live_and_ready_say_that_a_process_lives_and_that_the_pool_takes_work() {
    let mut world = World::with(&[of(2)]);
    let both = |world: &World| (world.pool("a").live(), world.pool("a").ready());
    assert_eq!(both(&world), (false, false));
    world.checks_pass("a", 0);
    assert_eq!(both(&world), (false, false), "no process yet");
    world.seen(&unit(UnitKind::Engine, "a", 0), |_| {});
    assert_eq!(both(&world), (true, false));
    world.becomes_ready("a", 0);
    assert_eq!(both(&world), (true, true), "one of two is enough");
    let job = world.drain("a", Usec(0));
    assert_eq!(both(&world), (true, false), "live stays true while it drains");
    world.cancel(job).unwrap();
    assert_eq!(both(&world), (true, true));
    world.condemn("a", 0, ExitClass::Watchdog);
    assert_eq!(both(&world), (false, false), "known to hang");
}

#[test]
fn the_phase_is_the_first_that_holds() {
    let timer = {
        let mut world = serving();
        world.crash("a", 0);
        *world.timers.keys().next().unwrap()
    };
    // What each phase of an engine makes of a pool that should run, and what comes before what.
    let phases = [
        (Phase::Ready { since: Usec(1) }, PoolPhase::Ready),
        (Phase::Starting, PoolPhase::Starting),
        (Phase::Staging, PoolPhase::Staging),
        (Phase::WaitingForName, PoolPhase::Staging),
        (Phase::Stopping, PoolPhase::Stopping),
        (Phase::Ending, PoolPhase::Stopping),
        (
            Phase::Backoff {
                timer,
                pause: Pause { delay: Usec(1), due: Usec(1), until: Usec(1), storm: false },
            },
            PoolPhase::Backoff,
        ),
        (Phase::Tripped, PoolPhase::Tripped),
        (Phase::Failed, PoolPhase::Failed),
        (Phase::Stopped, PoolPhase::Stopped),
    ];
    let drain = Drain {
        purpose: DrainFor::Stop,
        deadline: Usec(9),
        deadline_real: Usec(9),
        settling: None,
        running: None,
    };
    let mut combinations = 0;
    for (one, first) in phases.iter().enumerate() {
        for (two, second) in phases.iter().enumerate() {
            for (three, third) in phases.iter().enumerate() {
                let mut pool = Pool::new(crate::world::revision(&of(3)), Usec(1));
                for (index, (phase, _)) in [first, second, third].into_iter().enumerate() {
                    pool.replicas[index].phase = phase.clone();
                }
                pool.wish = Wish::Run;
                assert_eq!(pool.phase(), phases[one.min(two).min(three)].1, "{one} {two} {three}");
                pool.drain = Some(drain.clone());
                assert_eq!(pool.phase(), PoolPhase::Draining);
                pool.wish = Wish::Stop;
                let rests = [one, two, three].iter().all(|index| *index >= 8);
                assert_eq!(pool.phase() == PoolPhase::Stopping, !rests, "stopping comes first of all");
                combinations += 1;
            }
        }
    }
    assert_eq!(combinations, 1_000);
}

#[test]
fn a_fixed_port_and_n_replicas_is_the_port_plus_n_and_a_reload_keeps_it() {
    let fixed = |spec: PoolSpec| PoolSpec {
        replicas: 3,
        listen: Listen::Tcp { host: "127.0.0.1".into(), port: Port::Fixed(9_000) },
        ..spec
    };
    let mut world = World::with(&[fixed(spec("a"))]);
    world.all_serve("a");
    let ports = |world: &World| -> Vec<u16> {
        world.pool("a").endpoints().iter().filter_map(|at| at.port()).collect()
    };
    assert_eq!(ports(&world), [9_000, 9_001, 9_002]);
    world.reload(&fixed(new()), false).unwrap();
    world.checks_pass("a", 0);
    world.pass(seconds(10));
    world.settle();
    (0..3).for_each(|index| world.becomes_ready("a", index));
    assert_eq!((ports(&world), world.model("a", 2).as_str()), (vec![9_000, 9_001, 9_002], "/srv/new"));
}

#[test]
fn breaker_and_storm_are_per_pool_over_its_replicas() {
    let mut world = World::with(&[of(2), spec("b")]);
    world.serve("b", 0);
    world.all_serve("a");
    for index in [0, 1] {
        world.crash("a", index);
    }
    for _ in 0..2 {
        for index in [0, 1] {
            if world.replica_phase("a", index) == "backoff" {
                world.restart_rings("a", index);
            }
            if world.replica_phase("a", index) == "staging" {
                world.serve("a", index);
                world.crash("a", index);
            }
        }
    }
    assert_eq!((world.phase("a"), world.pool("a").breaker().as_str()), (PoolPhase::Tripped, "open"));
    assert_eq!((world.phase("b"), world.pool("b").breaker().as_str()), (PoolPhase::Ready, "closed"));
    world.crash("b", 0);
    assert_eq!((world.phase("b"), world.pool("b").troubles.ordinary.in_row), (PoolPhase::Backoff, 1));
    world.reset("b");
    assert_eq!(world.pool("a").breaker().as_str(), "open");
}

#[test]
fn intervals_go_on_over_a_daemon_restart_and_a_reboot_clears_backoff_and_breaker_but_not_stops() {
    let mut world = World::with(&[spec("a"), spec("b"), spec("c")]);
    world.crash_loop("a", 0, 5);
    world.serve("c", 0);
    world.stop("c");
    world.settle();
    let until = open(&world.pool("a").troubles.ordinary).unwrap().1;
    world.crash_loop("b", 0, 4);
    let pools = [spec("a"), spec("b"), spec("c")];
    world.pass(seconds(2));
    world.kill_daemon(&pools);
    assert_eq!(
        (world.phase("a"), open(&world.pool("a").troubles.ordinary).unwrap().1),
        (PoolPhase::Tripped, until)
    );
    let waited = world.restart_rings("b", 0);
    assert!(waited > seconds(4) && waited < seconds(7), "eight seconds, of which two were over: {waited}");
    world.serve("b", 0);
    assert_eq!(world.pool("b").restart_count, 4);
    world.crash("b", 0);
    assert_eq!((world.phase("b"), world.phase("c")), (PoolPhase::Tripped, PoolPhase::Stopped));
    world.reboot(&pools);
    assert_eq!(
        (world.phase("a"), world.phase("b"), world.phase("c")),
        (PoolPhase::Staging, PoolPhase::Staging, PoolPhase::Stopped)
    );
    for pool in ["a", "b"] {
        assert!(world.pool(pool).troubles.all_closed() && world.pool(pool).restart_count == 0);
    }
}

#[test]
fn an_engine_that_dies_while_the_daemon_is_away_stays_down_until_it_is_back_and_its_end_is_known() {
    let mut world = serving();
    let engine = unit(UnitKind::Engine, "a", 0);
    let starts = world.started.len();
    let unit = world.units.get_mut(&engine).unwrap();
    (unit.active, unit.main_pid) = (ActiveState::Failed, 0);
    (unit.result, unit.exec_code, unit.exec_status) = ("signal".into(), 2, 11);
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Backoff, "signal:SEGV".into()));
    assert_eq!((world.started.len(), world.pool("a").troubles.ordinary.in_row), (starts, 1));
    world.settle();
    world.restart_rings("a", 0);
    world.serve("a", 0);
    assert_eq!(world.pool("a").restart_count, 1);
}

#[test]
fn a_start_while_it_is_reloaded_is_refused_and_a_reload_while_it_drains_too() {
    let (mut world, job) = stages()[1].1();
    let denied = world.ask(Request::Start { pool: "a".into() });
    assert!(matches!(denied, Err(Denied::TransitionInProgress { doing: "reloaded", .. })));
    assert_eq!(world.result(job), None);
    let mut world = serving();
    world.drain("a", Usec(0));
    for force in [false, true] {
        let denied = world.reload(&new(), force);
        assert!(matches!(denied, Err(Denied::TransitionInProgress { doing: "drained", .. })));
    }
}

#[test]
fn a_reset_while_it_drains_or_is_reloaded_starts_nothing() {
    for (stage, reach) in stages() {
        let (mut world, job) = reach();
        let starts = world.started.len();
        world.reset("a");
        assert_eq!((world.started.len(), world.result(job)), (starts, None), "{stage}");
    }
    let mut world = serving();
    world.drain("a", Usec(0));
    world.reset("a");
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Draining, 2));
}

#[test]
fn an_engine_that_is_restarted_from_outside_is_another_one_and_leases_of_the_old_are_revoked() {
    let mut world = serving();
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.lease("a").unwrap();
    world.reports("a", 0, 1, Some(4));
    world.pass(seconds(50));
    // systemd's signals between the two were lost.
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| {
        unit.invocation = pool_core::name::InvocationId([0xee; 16]);
        unit.main_pid = 7;
    });
    assert_eq!(
        (world.phase("a"), world.revoked.len(), world.pool("a").in_flight()),
        (PoolPhase::Ready, 1, 0)
    );
    assert_eq!(world.pool("a").active_leases(), 0);
    assert_eq!(world.replica_phase("a", 0), "ready");
    world.pass(seconds(20));
    world.crash("a", 0);
    assert_eq!(world.pool("a").troubles.ordinary.in_row, 2, "no minute was served");
}
