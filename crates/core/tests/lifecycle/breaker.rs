//! Stories of breakers: when they open, who is tried, when they close.

use crate::acts::{of, open, seconds};
use crate::world::{World, spec, unit};
use pool_core::Request;
use pool_core::config::{BreakerNumbers, PoolSpec, Restart};
use pool_core::job::JobResult;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::{BreakerState, PoolPhase};
use pool_core::refusal::Refusal;
use pool_core::replica::{ExitClass, Phase};

/// The breaker has just opened at the fifth crash in a row.
fn tripped() -> World {
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 5);
    assert_eq!(world.phase("a"), PoolPhase::Tripped);
    world
}

pub fn state(world: &World) -> &'static str {
    world.pool("a").breaker().as_str()
}

#[test]
fn five_crashes_in_a_row_open_the_breaker_and_there_is_no_sixth_start() {
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 4);
    assert_eq!((world.phase("a"), state(&world)), (PoolPhase::Backoff, "closed"));
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.crash("a", 0);
    assert_eq!((world.phase("a"), state(&world)), (PoolPhase::Tripped, "open"));
    assert_eq!(world.pool("a").troubles.ordinary.in_row, 5);
    let starts = world.started.len();
    world.pass(seconds(299));
    assert_eq!((world.started.len(), state(&world)), (starts, "open"));
    assert_eq!(world.pool("a").restart_count, 4);
}

#[test]
fn after_300_seconds_there_is_exactly_one_trial() {
    let mut world = tripped();
    let (length, until) = open(&world.pool("a").troubles.ordinary).unwrap();
    assert_eq!(length, seconds(300));
    assert!(until.since(world.now) <= seconds(300) && until.since(world.now) > seconds(299));
    let starts = world.started.len();
    world.pass(seconds(301));
    assert_eq!((world.started.len(), state(&world)), (starts + 1, "half-open"));
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn each_trial_that_fails_doubles_the_time_up_to_an_hour() {
    let mut world = tripped();
    for length in [600, 1_200, 2_400, 3_600, 3_600] {
        let before = open(&world.pool("a").troubles.ordinary).unwrap().0;
        world.pass(before);
        world.serve("a", 0);
        world.crash("a", 0);
        assert_eq!(open(&world.pool("a").troubles.ordinary).unwrap().0, seconds(length));
    }
}

#[test]
fn a_trial_closes_the_breaker_after_60_seconds_and_not_before() {
    for (served, state_after, length) in [(59, "half-open", Some(600)), (61, "closed", None)] {
        let mut world = tripped();
        world.pass(seconds(300));
        world.serve("a", 0);
        world.pass(seconds(served));
        assert_eq!(state(&world), state_after, "{served}");
        world.crash("a", 0);
        let opened = open(&world.pool("a").troubles.ordinary).map(|(length, _)| length);
        assert_eq!(opened, length.map(seconds), "{served}");
    }
    // A failure that comes in just before the timer's ring is judged by how long it served all the same.
    let mut world = tripped();
    world.pass(seconds(300));
    world.serve("a", 0);
    world.wait_until(world.now.plus(seconds(60)));
    world.dies("a", 0);
    assert_eq!((state(&world), world.pool("a").troubles.ordinary.in_row), ("closed", 1));
}

#[test]
fn a_breaker_that_closed_opens_for_300_seconds_again() {
    let mut world = tripped();
    world.pass(seconds(300));
    world.serve("a", 0);
    world.crash("a", 0);
    world.pass(seconds(600));
    world.serve("a", 0);
    world.pass(seconds(60));
    world.crash("a", 0);
    world.restart_rings("a", 0);
    world.crash_loop("a", 0, 4);
    assert_eq!(open(&world.pool("a").troubles.ordinary).unwrap().0, seconds(300));
}

#[test]
fn the_other_engines_start_when_the_trial_has_closed_the_breaker() {
    let mut world = World::with(&[of(3)]);
    world.crash_loop("a", 0, 3);
    world.crash_loop("a", 1, 1);
    world.crash_loop("a", 2, 1);
    assert_eq!((world.phases("a"), state(&world)), (vec!["tripped"; 3], "open"));
    world.pass(seconds(300));
    assert_eq!(world.phases("a"), ["staging", "tripped", "tripped"]);
    world.serve("a", 0);
    world.pass(seconds(59));
    assert_eq!(world.phases("a"), ["ready", "tripped", "tripped"]);
    world.pass(seconds(1));
    assert_eq!((world.phases("a"), state(&world)), (vec!["ready", "staging", "staging"], "closed"));
}

#[test]
fn a_breaker_is_the_pools_and_opens_by_failures_of_different_engines() {
    let mut world = World::with(&[of(5)]);
    world.all_serve("a");
    for index in 0..5 {
        assert_eq!(state(&world), "closed");
        world.crash("a", index);
    }
    assert_eq!(
        (state(&world), world.phases("a")),
        ("open", vec!["tripped"; 5]),
        "none waits for a backoff now"
    );
    assert_eq!(world.pool("a").restart_count, 0);
}

#[test]
fn what_is_on_its_way_up_when_the_breaker_opens_goes_on_and_waits_once_it_fails() {
    let mut world = World::with(&[of(2)]);
    world.checks_pass("a", 1);
    world.crash_loop("a", 0, 5);
    assert_eq!((world.phases("a"), state(&world)), (vec!["tripped", "starting"], "open"));
    world.crash("a", 1);
    assert_eq!(
        (world.phases("a"), open(&world.pool("a").troubles.ordinary).unwrap().0),
        (vec!["tripped", "tripped"], seconds(300))
    );
    let mut world = World::with(&[of(2)]);
    world.crash_loop("a", 0, 5);
    world.serve("a", 1);
    assert_eq!((world.phases("a"), world.pool("a").ready()), (vec!["tripped", "ready"], true));
}

#[test]
fn a_file_with_another_number_of_engines_holds_also_where_all_of_them_wait() {
    for (before, after) in [(1, 3), (3, 1)] {
        for crashes in [1, 5] {
            let mut world = World::with(&[of(before)]);
            (0..before).for_each(|index| world.crash_loop("a", index, if index == 0 { crashes } else { 1 }));
            let waits = if crashes == 5 { "tripped" } else { "backoff" };
            if world.phases("a").iter().any(|phase| *phase != waits) {
                continue;
            }
            world.configure(&[of(after)]);
            world.reset("a");
            assert_eq!(world.phases("a"), vec!["staging"; usize::from(after)]);
            assert!(world.timers.is_empty(), "no restart of one that is gone");
        }
    }
}

#[test]
fn an_engine_that_the_daemon_ends_and_that_puts_off_its_end_is_killed() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.condemn("a", 0, ExitClass::GpuLost);
    world.pass(seconds(30));
    assert!(world.killed.is_empty());
    world.pass(seconds(6));
    assert_eq!(world.killed, [unit(UnitKind::Engine, "a", 0)]);
    world.crash("a", 0);
    assert_eq!((world.last_class("a"), world.timers.len()), ("gpu-lost".into(), 1), "its restart");
}

#[test]
fn a_row_ends_after_60_seconds_ready() {
    for (served, row) in [(59, 5), (61, 1)] {
        let mut world = World::with(&[spec("a")]);
        world.crash_loop("a", 0, 4);
        world.restart_rings("a", 0);
        world.serve("a", 0);
        world.pass(seconds(served));
        world.crash("a", 0);
        assert_eq!(world.pool("a").troubles.ordinary.in_row, row, "{served}");
    }
    // Of whichever engine.
    let mut world = World::with(&[of(2)]);
    world.crash_loop("a", 0, 4);
    world.serve("a", 1);
    world.pass(seconds(61));
    assert_eq!(world.pool("a").troubles.ordinary.in_row, 0);
}

#[test]
fn a_start_while_the_breaker_is_open_permits_one_attempt_and_keeps_the_count() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 1);
    world.crash_loop("a", 0, 4);
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.crash("a", 1);
    world.crash("a", 0);
    assert_eq!((world.phases("a"), state(&world)), (vec!["tripped"; 2], "open"));
    let count = world.pool("a").restart_count;
    let job = world.start_job("a");
    assert_eq!((world.phases("a"), state(&world)), (vec!["staging", "tripped"], "half-open"));
    assert_eq!(world.pool("a").restart_count, count);
    // Asked again, there is still one.
    world.start_job("a");
    assert_eq!(
        (world.phases("a"), world.result(job)),
        (vec!["staging", "tripped"], Some(JobResult::Superseded))
    );
    world.serve("a", 0);
    world.crash("a", 0);
    assert_eq!(
        (open(&world.pool("a").troubles.ordinary).unwrap().0, world.phases("a")),
        (seconds(600), vec!["tripped"; 2])
    );
}

#[test]
fn the_permitted_attempt_leaves_no_timer_of_the_open_breaker_behind() {
    let mut world = tripped();
    let before = world.timer_ids();
    world.start("a");
    assert!(world.timers.len() < before.len() && world.timer_ids().is_subset(&before));
}

#[test]
fn a_reset_closes_the_breaker_zeroes_the_counts_and_starts() {
    let mut world = World::with(&[of(2)]);
    world.crash_loop("a", 0, 5);
    world.crash_loop("a", 1, 1);
    assert_eq!((world.phases("a"), world.pool("a").restart_count), (vec!["tripped"; 2], 4));
    world.reset("a");
    assert_eq!((world.phases("a"), state(&world)), (vec!["staging"; 2], "closed"));
    let pool = world.pool("a");
    assert_eq!((pool.restart_count, pool.troubles.ordinary.in_row, pool.last_error.is_some()), (0, 0, false));
    assert!(world.timers.is_empty() && pool.history.is_empty());
    world.serve("a", 0);
    world.crash("a", 0);
    assert!(world.restart_rings("a", 0) < Usec::from_millis(1_200), "its first failure");
}

#[test]
fn a_reset_of_a_stopped_pool_starts_nothing() {
    let mut world = tripped();
    world.stop("a");
    let starts = world.started.len();
    world.reset("a");
    assert_eq!(
        (world.phase("a"), world.started.len(), state(&world)),
        (PoolPhase::Stopped, starts, "closed")
    );
}

#[test]
fn a_stop_while_the_breaker_is_open_ends_the_waiting_and_a_later_start_is_the_trial() {
    let mut world = tripped();
    let job = world.stop_job("a");
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Stopped, Some(JobResult::Done)));
    let starts = world.started.len();
    world.pass(seconds(400));
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Stopped, starts));
    world.start("a");
    world.serve("a", 0);
    world.crash("a", 0);
    assert_eq!((state(&world), open(&world.pool("a").troubles.ordinary).unwrap().0), ("open", seconds(600)));
}

#[test]
fn a_trial_that_is_stopped_or_ends_as_meant_decides_nothing() {
    let mut world = tripped();
    let until = open(&world.pool("a").troubles.ordinary).unwrap().1;
    world.start("a");
    world.stop("a");
    world.settle();
    assert_eq!(open(&world.pool("a").troubles.ordinary), Some((seconds(300), until)), "open as before");
    let mut world = tripped();
    world.start("a");
    world.serve("a", 0);
    world.exits_0("a", 0);
    assert_eq!(
        (world.phase("a"), open(&world.pool("a").troubles.ordinary)),
        (PoolPhase::Stopped, Some((seconds(300), until)))
    );
}

#[test]
fn when_a_trial_ends_as_meant_the_next_engine_is_tried() {
    let mut world = World::with(&[of(2)]);
    world.crash_loop("a", 0, 5);
    world.crash_loop("a", 1, 1);
    world.pass(seconds(300));
    assert_eq!(world.phases("a"), ["staging", "tripped"]);
    world.serve("a", 0);
    world.exits_0("a", 0);
    assert_eq!((world.phases("a"), state(&world)), (vec!["stopped", "staging"], "half-open"));
}

#[test]
fn a_trial_that_is_refused_opens_the_breaker_again_and_the_next_one_is_tried_then() {
    let mut world = World::with(&[of(2)]);
    world.crash_loop("a", 0, 5);
    world.crash_loop("a", 1, 1);
    world.pass(seconds(300));
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    assert_eq!(
        (world.phases("a"), open(&world.pool("a").troubles.ordinary).unwrap().0),
        (vec!["failed", "tripped"], seconds(600))
    );
    world.pass(seconds(600));
    assert_eq!(world.phases("a"), ["failed", "staging"]);
}

#[test]
fn an_engine_that_fails_while_the_next_start_is_a_trial_becomes_the_trial() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 1);
    world.crash_loop("a", 0, 5);
    world.pass(seconds(300));
    world.serve("a", 0);
    world.exits_0("a", 0);
    assert_eq!((world.phases("a"), state(&world)), (vec!["stopped", "ready"], "half-open"));
    world.crash("a", 1);
    world.pass(seconds(70));
    assert_eq!((world.phases("a"), state(&world)), (vec!["stopped", "staging"], "half-open"));
    world.serve("a", 1);
    world.pass(seconds(61));
    assert_eq!(state(&world), "closed");
}

#[test]
fn gpu_errors_are_counted_apart_and_wait_twice_as_long() {
    let classes =
        [ExitClass::GpuError(79), ExitClass::GpuLost, ExitClass::CpuFallback, ExitClass::GpuError(31)];
    let mut world = World::with(&[spec("a")]);
    for (n, class) in classes.into_iter().enumerate() {
        world.serve("a", 0);
        world.condemned("a", 0, class.clone());
        assert_eq!(world.last_class("a"), class.to_string());
        let waited = world.restart_rings("a", 0).0 as f64 / 1e6;
        let base = 2.0 * f64::from(1 << n);
        assert!((waited - base).abs() <= base * 0.11, "{n}: {waited}");
    }
    // Ordinary failures between them are in a row of their own.
    world.crash_loop("a", 0, 4);
    let troubles = &world.pool("a").troubles;
    assert_eq!((troubles.gpu.in_row, troubles.ordinary.in_row, state(&world)), (4, 4, "closed"));
    world.restart_rings("a", 0);
    world.serve("a", 0);
    world.condemned("a", 0, ExitClass::GpuLost);
    let troubles = &world.pool("a").troubles;
    assert_eq!(open(&troubles.gpu).unwrap().0, seconds(300));
    assert_eq!((&troubles.ordinary.state, world.phase("a")), (&BreakerState::Closed, PoolPhase::Tripped));
    world.pass(seconds(300));
    world.serve("a", 0);
    world.pass(seconds(61));
    assert!(world.pool("a").troubles.all_closed());
}

#[test]
fn an_engine_that_the_daemon_ends_is_not_live_nor_ready_and_has_the_daemons_reason() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.condemn("a", 0, ExitClass::GpuError(79));
    assert!(!world.pool("a").ready() && !world.pool("a").live());
    let engine = unit(UnitKind::Engine, "a", 0);
    assert!(world.let_go.contains(&engine));
    world.dies("a", 0);
    assert_eq!((world.last_class("a"), world.phase("a")), ("gpu-error".into(), PoolPhase::Backoff));
}

#[test]
fn when_many_wait_for_a_breaker_that_closes_the_eleventh_still_waits_a_minute() {
    let mut world = World::with(&[of(13)]);
    world.all_serve("a");
    for index in 0..13 {
        world.crash("a", index);
    }
    world.pass(seconds(300));
    world.serve("a", 0);
    world.pass(seconds(61));
    let phases = world.phases("a");
    let count = |phase: &str| phases.iter().filter(|known| **known == phase).count();
    assert_eq!((count("ready"), count("staging"), count("backoff")), (1, 10, 2), "{phases:?}");
}

#[test]
fn of_two_breakers_the_one_that_is_open_is_the_one_that_is_told() {
    let mut world = World::with(&[of(2)]);
    for _ in 0..4 {
        world.serve("a", 1);
        world.condemned("a", 1, ExitClass::GpuLost);
        world.restart_rings("a", 1);
    }
    world.crash_loop("a", 0, 5);
    world.pass(seconds(300));
    assert_eq!((world.phases("a"), state(&world)), (vec!["staging"; 2], "half-open"));
    world.serve("a", 1);
    world.condemned("a", 1, ExitClass::GpuLost);
    assert_eq!((world.phases("a"), state(&world)), (vec!["staging", "tripped"], "open"));
    assert!(open(&world.pool("a").troubles.gpu).is_some());
}

#[test]
fn a_reset_starts_as_many_as_a_newer_file_has_where_nothing_runs_by_the_older_one() {
    let mut world = World::with(&[spec("a")]);
    world.checks_pass("a", 0);
    world.configure(&[PoolSpec { replicas: 2, ..spec("a") }]);
    world.dies("a", 0);
    world.settle();
    let started = world.started.len();
    world.ask(Request::Reset { pool: "a".into() }).unwrap();
    assert_eq!(world.started.len(), started + 2);
}

#[test]
fn one_too_many_waits_for_no_breaker_once_somebody_starts_the_pool() {
    let breaker = BreakerNumbers { failures: 1, ..BreakerNumbers::default() };
    let restart = Restart { breaker, ..Restart::default() };
    let of = |replicas| PoolSpec { replicas, restart, ..spec("a") };
    let mut world = World::with(&[of(2)]);
    (0..2).for_each(|index| world.serve("a", index));
    world.dies("a", 1);
    world.settle();
    assert_eq!(world.pool("a").replicas[1].phase, Phase::Tripped);
    world.configure(&[of(1)]);
    world.start("a");
    assert_eq!(world.pool("a").replicas[1].phase, Phase::Stopped);
}
