//! How long to wait before the n-th restart in a row: the initial delay, doubled with each, with its jitter, kept within
//! the shortest and the longest; and some times as long after a GPU error.

use crate::config::Restart;
use crate::name::Usec;
use serde::{Deserialize, Serialize};

/// A pause before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The whole delay.
    pub delay: Usec,
    /// When it ends, monotonic: a clock that is set does not change it.
    #[serde(default)]
    pub due: Usec,
    /// The same, realtime.
    pub until: Usec,
    /// Whether because there were too many restarts.
    pub storm: bool,
}

/// The delay before restart `n` (from 1), jittered by `seed`.
#[must_use]
pub fn delay(n: u32, gpu: bool, seed: u64, numbers: &Restart) -> Usec {
    let doublings = n.saturating_sub(1).min(40);
    let base = numbers.initial_delay.0.saturating_mul(1 << doublings).min(numbers.max_delay.0);
    // 10 % of jitter is 0.900 to 1.100 of the base, in steps of 0.0001.
    let spread = u64::from(numbers.jitter) * 100;
    let jitter = 10_000 - spread + mix(seed) % (2 * spread + 1);
    let jittered = u128::from(base) * u128::from(jitter) / 10_000;
    let jittered = u64::try_from(jittered).unwrap_or(u64::MAX);
    let delay = jittered.min(numbers.max_delay.0).max(numbers.min_delay.0);
    Usec(if gpu { delay.saturating_mul(u64::from(numbers.gpu_factor)) } else { delay })
}

/// SplitMix64's finalizer: neighbouring seeds give unrelated jitter.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_within_its_jitter_up_to_a_minute() {
        for (n, base) in [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (40, 60.0), (u32::MAX, 60.0)] {
            for seed in 0..500 {
                let seconds = delay(n, false, seed, &Restart::default()).0 as f64 / 1e6;
                assert!(seconds >= base * 0.899 && seconds <= (base * 1.101).min(60.0), "n={n}: {seconds}");
            }
        }
    }

    #[test]
    fn a_gpu_error_waits_twice_as_long() {
        let exact = Restart { jitter: 0, ..Restart::default() };
        assert_eq!(delay(1, true, 7, &exact), Usec::from_secs(2));
        assert_eq!(delay(3, true, 7, &exact), Usec::from_secs(8));
        assert_eq!(delay(30, true, 7, &exact), Usec::from_secs(120));
    }

    #[test]
    fn no_delay_leaves_its_bounds() {
        let short = Restart { initial_delay: Usec::from_millis(100), ..Restart::default() };
        assert_eq!(delay(1, false, 3, &short), Usec::from_millis(500));
        let wide = Restart { jitter: 50, max_delay: Usec::from_secs(1), ..Restart::default() };
        let delays = (0..500).map(|seed| delay(5, false, seed, &wide));
        assert!(delays.clone().all(|delay| delay <= Usec::from_secs(1)));
        assert!(delays.min() < Some(Usec::from_millis(600)));
    }

    #[test]
    fn seeds_are_mixed_as_splitmix64_does() {
        // The first numbers that the reference gives for seed 1234567: its state grows by the same step.
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let numbers: Vec<u64> = (0..3).map(|n| mix(step.wrapping_mul(n).wrapping_add(1_234_567))).collect();
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn jitter_spreads_over_its_whole_range() {
        let delays: Vec<u64> = (0..2_000).map(|seed| delay(1, false, seed, &Restart::default()).0).collect();
        assert!(delays.iter().min().unwrap() < &905_000);
        assert!(delays.iter().max().unwrap() > &1_095_000);
    }
}
