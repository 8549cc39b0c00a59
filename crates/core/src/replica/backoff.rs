//! How long to wait before the n-th restart in a row: `min(1 s · 2^(n−1), 60 s)`, ±10 % of jitter, kept within
//! 500 ms and 60 s.

use crate::name::Usec;

/// So long ready, and the next failure counts as the first.
pub const RESET_AFTER: Usec = Usec::from_secs(300);

const FIRST: Usec = Usec::from_secs(1);
const LEAST: Usec = Usec::from_millis(500);
const MOST: Usec = Usec::from_secs(60);

/// The delay before restart `n` (from 1), jittered by `seed`.
#[must_use]
pub fn delay(n: u32, seed: u64) -> Usec {
    let doublings = n.saturating_sub(1).min(16);
    let base = FIRST.0.saturating_mul(1 << doublings).min(MOST.0);
    // 0 to 2000 stands for 0.900 to 1.100 of the base, in steps of 0.0001.
    let jitter = 9_000 + mix(seed) % 2_001;
    Usec((base.saturating_mul(jitter) / 10_000).clamp(LEAST.0, MOST.0))
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
                let seconds = delay(n, seed).0 as f64 / 1e6;
                assert!(seconds >= base * 0.899 && seconds <= (base * 1.101).min(60.0), "n={n}: {seconds}");
            }
        }
    }

    #[test]
    fn jitter_spreads_over_its_whole_range() {
        let delays: Vec<u64> = (0..2_000).map(|seed| delay(1, seed).0).collect();
        assert!(delays.iter().min().unwrap() < &905_000);
        assert!(delays.iter().max().unwrap() > &1_095_000);
    }
}
