//! Stories of restarts that come too fast, of what counts as one, and of numbers that are configured.

use crate::acts::{open, seconds};
use crate::breaker::state;
use crate::world::{World, spec};
use pool_core::Request;
use pool_core::config::{BreakerNumbers, PoolSpec, Restart, RestartPolicy, StormNumbers};
use pool_core::name::Usec;
use pool_core::pool::PoolPhase;
use pool_core::refusal::Refusal;
use pool_core::replica::ExitClass;

#[test]
fn more_than_five_restarts_in_a_minute_are_warned_of() {
    let mut world = World::with(&[quick(|_| {})]);
    world.crash_loop("a", 0, 6);
    assert_eq!((world.pool("a").restart_count, world.said("restarts within")), (5, 0));
    world.restart_rings("a", 0);
    assert_eq!(
        (world.pool("a").restart_count, world.said("6 restarts within 1 min")),
        (6, 1),
        "{:?}",
        world.lines
    );
    world.crash_loop("a", 0, 3);
    assert_eq!(world.said("restarts within"), 1, "once");
}

/// Restarts come half a second apart, and no row of failures opens the breaker.
fn quick(change: impl FnOnce(&mut Restart)) -> PoolSpec {
    let mut restart = Restart {
        initial_delay: Usec::from_millis(500),
        max_delay: Usec::from_millis(500),
        jitter: 0,
        breaker: BreakerNumbers { failures: 1_000, ..Default::default() },
        ..Restart::default()
    };
    change(&mut restart);
    PoolSpec { restart, ..spec("a") }
}

#[test]
fn the_eleventh_restart_in_a_minute_waits_until_the_oldest_is_a_minute_old() {
    // The first five lie half a minute before the rest, so that ten in half a minute do not open the breaker.
    let mut world = World::with(&[quick(|_| {})]);
    world.serve("a", 0);
    world.crash("a", 0);
    world.restart_rings("a", 0);
    let oldest = world.now;
    world.crash_loop("a", 0, 4);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.pass(seconds(31));
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.crash_loop("a", 0, 5);
    assert_eq!(world.pool("a").restart_count, 10);
    let starts = world.started.len();
    world.pass(seconds(1));
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Backoff, starts), "it waits");
    assert!(world.said("10 restarts within 1 min: the next one waits") == 1, "{:?}", world.lines);
    world.restart_rings("a", 0);
    let waited = world.now.since(oldest);
    assert!(waited >= seconds(60) && waited < Usec::from_millis(60_010), "{waited}");
    assert_eq!(world.pool("a").restart_count, 11);
}

#[test]
fn ten_restarts_in_half_a_minute_open_the_breaker_at_the_next_failure() {
    let mut world = World::with(&[quick(|_| {})]);
    world.crash_loop("a", 0, 10);
    assert_eq!((world.pool("a").restart_count, state(&world)), (9, "closed"));
    world.restart_rings("a", 0);
    assert_eq!((world.pool("a").restart_count, state(&world)), (10, "closed"));
    world.serve("a", 0);
    world.crash("a", 0);
    assert_eq!((state(&world), world.said("10 restarts within 30 s")), ("open", 1), "{:?}", world.lines);
}

#[test]
fn five_times_out_of_memory_within_a_minute_are_an_oom_storm() {
    for (pause, class) in [(0, "oom-storm"), (12, "oom-host")] {
        let mut world = World::with(&[quick(|_| {})]);
        for time in 0..5 {
            if time > 0 {
                world.restart_rings("a", 0);
            }
            world.serve("a", 0);
            world.pass(seconds(pause * 5 / 4));
            world.out_of_memory("a", 0);
        }
        assert_eq!(world.last_class("a"), class, "{pause}");
        assert_eq!(state(&world), if pause == 0 { "open" } else { "closed" });
    }
}

#[test]
fn out_of_a_devices_memory_is_an_oom_too_and_the_devices_trouble() {
    let mut world = World::with(&[quick(|restart| restart.gpu_factor = 1)]);
    for time in 0..5 {
        if time > 0 {
            world.restart_rings("a", 0);
        }
        world.serve("a", 0);
        world.condemned("a", 0, ExitClass::OomVram);
    }
    assert_eq!(
        (world.last_class("a"), open(&world.pool("a").troubles.gpu).map(|(length, _)| length)),
        ("oom-storm".into(), Some(seconds(300)))
    );
}

#[test]
fn the_restart_count_is_0_again_after_600_seconds_ready() {
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 3);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.pass(seconds(599));
    assert_eq!(world.pool("a").restart_count, 3);
    world.pass(seconds(2));
    assert_eq!(world.pool("a").restart_count, 0);
    // It is a matter of one length of readiness, not of a sum.
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.pass(seconds(400));
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.pass(seconds(400));
    assert_eq!(world.pool("a").restart_count, 2);
}

#[test]
fn an_exit_with_status_0_and_a_stop_from_outside_count_nothing() {
    let end: [fn(&mut World); 2] = [|world| world.exits_0("a", 0), |world| world.stopped_outside("a", 0)];
    for end in end {
        let mut world = World::with(&[spec("a")]);
        for _ in 0..7 {
            world.serve("a", 0);
            end(&mut world);
            assert_eq!(world.phase("a"), PoolPhase::Stopped);
            world.start("a");
        }
        let pool = world.pool("a");
        assert_eq!((pool.restart_count, pool.troubles.ordinary.in_row), (0, 0));
        assert!(pool.troubles.all_closed());
    }
}

#[test]
fn under_the_policy_always_an_exit_with_status_0_is_a_failure_and_counts() {
    let restart = Restart { policy: RestartPolicy::Always, ..Restart::default() };
    let mut world = World::with(&[PoolSpec { restart, ..spec("a") }]);
    for time in 0..5 {
        if time > 0 {
            world.restart_rings("a", 0);
        }
        world.serve("a", 0);
        world.exits_0("a", 0);
    }
    assert_eq!((world.phase("a"), state(&world)), (PoolPhase::Tripped, "open"));
}

#[test]
fn refusals_open_no_breaker() {
    let mut world = World::with(&[spec("a")]);
    for _ in 0..7 {
        world.refuses("a", Refusal::ModelUnreadable);
        world.settle();
        world.ask(Request::Start { pool: "a".into() }).unwrap();
    }
    assert_eq!((state(&world), world.pool("a").troubles.ordinary.in_row), ("closed", 0));
}

#[test]
fn configured_numbers_are_honoured() {
    let restart = Restart {
        initial_delay: seconds(3),
        jitter: 0,
        max_delay: seconds(4),
        gpu_factor: 5,
        reset_after: seconds(20),
        count_reset_after: seconds(30),
        breaker: BreakerNumbers {
            failures: 3,
            open_for: seconds(40),
            max_open_for: seconds(50),
            close_after: seconds(7),
        },
        storm: StormNumbers { warn_after: 1, ..StormNumbers::default() },
        ..Restart::default()
    };
    let mut world = World::with(&[PoolSpec { restart, ..spec("a") }]);
    let about =
        |waited: Usec, wanted: u64| waited >= seconds(wanted) && waited < Usec(seconds(wanted).0 + 20_000);
    world.serve("a", 0);
    world.crash("a", 0);
    assert!(about(world.restart_rings("a", 0), 3));
    world.serve("a", 0);
    world.condemned("a", 0, ExitClass::GpuLost);
    assert!(about(world.restart_rings("a", 0), 20));
    assert_eq!(world.said("2 restarts within"), 1);
    world.serve("a", 0);
    world.pass(seconds(21));
    world.crash("a", 0);
    assert!(about(world.restart_rings("a", 0), 3), "its first failure again");
    world.serve("a", 0);
    world.pass(seconds(31));
    assert_eq!(world.pool("a").restart_count, 0);
    for _ in 0..2 {
        world.crash("a", 0);
        world.restart_rings("a", 0);
        world.serve("a", 0);
    }
    world.crash("a", 0);
    for length in [40, 50, 50] {
        assert_eq!(open(&world.pool("a").troubles.ordinary).unwrap().0, seconds(length));
        world.pass(seconds(length));
        world.serve("a", 0);
        world.crash("a", 0);
    }
    world.pass(seconds(50));
    world.serve("a", 0);
    world.pass(seconds(8));
    assert_eq!(state(&world), "closed");
}
