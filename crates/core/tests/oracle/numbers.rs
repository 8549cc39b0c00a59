//! Numbers of a pool, drawn at random within what a file may say, and told to the oracle in its own terms.

use super::dice::Dice;
use super::oracle::{Rules, SECOND};
use super::world::spec;
use pool_core::config::{
    BreakerNumbers, DrainNumbers, LeaseNumbers, OnChange, PoolSpec, Restart, RestartPolicy, Revision,
};
use pool_core::name::Usec;

const fn secs(seconds: u64) -> Usec {
    Usec::from_secs(seconds)
}

/// A pool's file.
pub fn file(id: &str, replicas: u16, dice: &mut Dice) -> PoolSpec {
    let mut file = PoolSpec { replicas, ..spec(id) };
    if dice.once_in(4) {
        // The design's own numbers.
        return file;
    }
    let storm = &mut file.restart.storm;
    storm.window = dice.pick(&[secs(60), secs(60), secs(20), secs(300)]);
    storm.warn_after = dice.pick(&[5, 5, 2, 1]);
    storm.wait_after = storm.warn_after + dice.pick(&[0, 1, 2, 5]);
    storm.trip_window = dice.pick(&[secs(30), secs(10), secs(100)]);
    storm.trip_after = dice.pick(&[10, 10, 4, 1_000]);
    storm.oom_window = dice.pick(&[secs(60), secs(600)]);
    storm.oom_after = dice.pick(&[5, 2, 1, 1_000]);
    change(&mut file, dice);
    file
}

/// The numbers that a changed file may bring while the pool runs. Those of storms stay: a restart that waits for one
/// keeps the time that it was given.
pub fn change(file: &mut PoolSpec, dice: &mut Dice) {
    let restart = &mut file.restart;
    let policies = [RestartPolicy::OnFailure; 6];
    let policies = [&policies[..], &[RestartPolicy::Always, RestartPolicy::Never]].concat();
    *restart = Restart {
        policy: dice.pick(&policies),
        initial_delay: dice.pick(&[secs(1), secs(1), Usec::from_millis(100), secs(7)]),
        min_delay: dice.pick(&[Usec::from_millis(500), Usec::from_millis(10), secs(2)]),
        max_delay: dice.pick(&[secs(60), secs(60), secs(7)]),
        jitter: dice.pick(&[10, 10, 0, 50]),
        gpu_factor: dice.pick(&[2, 2, 1, 5]),
        reset_after: dice.pick(&[secs(300), secs(30), secs(60)]),
        count_reset_after: dice.pick(&[secs(600), secs(60), secs(20)]),
        breaker: BreakerNumbers {
            failures: dice.pick(&[5, 5, 3, 1, 1_000]),
            open_for: dice.pick(&[secs(300), secs(20), secs(5)]),
            max_open_for: dice.pick(&[secs(3_600), secs(300)]),
            close_after: dice.pick(&[secs(60), secs(10), secs(30)]),
        },
        storm: restart.storm,
    };
    file.drain = DrainNumbers {
        deadline: dice.pick(&[secs(300), secs(20), secs(1)]),
        settle: dice.pick(&[secs(10), Usec(0), secs(30)]),
    };
    file.leases = LeaseNumbers { capacity: dice.pick(&[None, None, Some(1), Some(2)]) };
    file.on_change = dice.pick(&[OnChange::Hold, OnChange::DrainFirst]);
    if dice.once_in(4) {
        file.model = format!("/srv/{}", dice.roll(3));
    }
}

/// A digest that differs wherever a file does, as the daemon's does.
pub fn revision(spec: &PoolSpec) -> Revision {
    let mut digest: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in format!("{spec:?}").bytes() {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Revision { digest: format!("{digest:016x}"), spec: spec.clone() }
}

pub fn rules(restart: &Restart) -> Rules {
    let count = |number: u32| usize::try_from(number).unwrap();
    let Restart { breaker, storm, .. } = restart;
    assert_eq!(secs(1).0, SECOND);
    Rules {
        backoff_first: restart.initial_delay.0,
        backoff_least: restart.min_delay.0,
        backoff_most: restart.max_delay.0,
        jitter_percent: u64::from(restart.jitter),
        gpu_factor: u64::from(restart.gpu_factor),
        backoff_forgets: restart.reset_after.0,
        row: breaker.failures,
        open: breaker.open_for.0,
        open_most: breaker.max_open_for.0,
        row_ends: breaker.close_after.0,
        storm_warns: count(storm.warn_after),
        storm_waits: count(storm.wait_after),
        storm_window: storm.window.0,
        storm_trips: count(storm.trip_after),
        storm_short_window: storm.trip_window.0,
        ooms: count(storm.oom_after),
        oom_window: storm.oom_window.0,
        count_forgets: restart.count_reset_after.0,
    }
}
