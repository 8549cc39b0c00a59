//! The numbers of the rules, and which class of failure falls under which.

use super::{GPU, ORDINARY};

/// All numbers of the rules. A window or a wait of length W is over for what is exactly W old.
#[derive(Debug, Clone)]
pub struct Rules {
    pub backoff_first: u64,
    pub backoff_least: u64,
    pub backoff_most: u64,
    pub jitter_percent: u64,
    pub gpu_factor: u64,
    /// So long ready, and the next failure of that replica is its first.
    pub backoff_forgets: u64,
    /// So many failures in a row open the breaker.
    pub row: u32,
    pub open: u64,
    pub open_most: u64,
    /// So long ready, and no failure before is in a row with one after; a trial so long ready closes the breaker.
    pub row_ends: u64,
    /// More restarts than this within the window are worth a warning.
    pub storm_warns: usize,
    /// After so many restarts within the window the next one waits.
    pub storm_waits: usize,
    pub storm_window: u64,
    /// A failure that finds so many restarts within the short window opens the breaker.
    pub storm_trips: usize,
    pub storm_short_window: u64,
    pub ooms: usize,
    pub oom_window: u64,
    /// So long ready, and the restart count is 0.
    pub count_forgets: u64,
}

pub const SECOND: u64 = 1_000_000;

impl Default for Rules {
    fn default() -> Self {
        Rules {
            backoff_first: SECOND,
            backoff_least: SECOND / 2,
            backoff_most: 60 * SECOND,
            jitter_percent: 10,
            gpu_factor: 2,
            backoff_forgets: 300 * SECOND,
            row: 5,
            open: 300 * SECOND,
            open_most: 3_600 * SECOND,
            row_ends: 60 * SECOND,
            storm_warns: 5,
            storm_waits: 10,
            storm_window: 60 * SECOND,
            storm_trips: 10,
            storm_short_window: 30 * SECOND,
            ooms: 5,
            oom_window: 60 * SECOND,
            count_forgets: 600 * SECOND,
        }
    }
}

/// Which breaker a class of failure belongs to.
pub fn breaker_of(class: &str) -> usize {
    let class = class.split(':').next().unwrap_or(class);
    if ["gpu-error", "gpu-lost", "cpu-fallback", "oom-vram"].contains(&class) { GPU } else { ORDINARY }
}

pub(super) fn is_oom(class: &str) -> bool {
    ["oom-host", "oom-vram"].contains(&class)
}
