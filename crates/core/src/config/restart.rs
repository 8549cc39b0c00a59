//! What follows a failure, in numbers: delays, breaker, storms. Validated together, because each makes sense only
//! beside the others.

use super::check::Findings;
use super::fragment::RestartFragment;
use super::parse_duration;
use crate::name::Usec;
use serde::{Deserialize, Serialize};

/// What follows the end of an engine that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Restart after a failure; exit 0 is taken as meant.
    OnFailure,
    /// Restart after exit 0 too.
    Always,
    /// Never restart.
    Never,
}

/// `[restart]`: whether and when a failed engine is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restart {
    /// Whether; default on-failure.
    pub policy: RestartPolicy,
    /// Delay before the first restart in a row; each further one doubles it. Default 1 s.
    pub initial_delay: Usec,
    /// No delay is shorter, jitter included. Default 500 ms.
    pub min_delay: Usec,
    /// No delay is longer, jitter included. Default 60 s.
    pub max_delay: Usec,
    /// How far a delay may lie from its base, in percent, 0 to 50. Default 10.
    pub jitter: u8,
    /// How many times as long a delay is after a GPU error, also beyond the longest; 1 to 100. Default 2.
    pub gpu_factor: u32,
    /// So long ready, and an engine's next failure counts as its first. Default 300 s.
    pub reset_after: Usec,
    /// So long ready, and the pool's restart count is 0 again. Default 600 s.
    pub count_reset_after: Usec,
    /// When restarts are given up for a while.
    pub breaker: BreakerNumbers,
    /// When there are too many of them.
    pub storm: StormNumbers,
}

/// `[restart.breaker]`. Ordinary failures and GPU errors have a breaker each, with the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerNumbers {
    /// It opens at this failure in a row, 1 to 1000. Default 5.
    pub failures: u32,
    /// For how long, the first time; a failed trial doubles it. Default 300 s.
    pub open_for: Usec,
    /// For how long at most. Default 1 h.
    pub max_open_for: Usec,
    /// So long ready: a row of failures ends, and a trial has succeeded. Default 60 s.
    pub close_after: Usec,
}

/// `[restart.storm]`. A window of some length holds what is younger than it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StormNumbers {
    /// The window for warning and waiting. Default 60 s.
    pub window: Usec,
    /// More restarts than this in the window are warned of. Default 5.
    pub warn_after: u32,
    /// After this many in the window the next one waits. Default 10.
    pub wait_after: u32,
    /// The window for opening the breaker. Default 30 s.
    pub trip_window: Usec,
    /// A failure after this many restarts in the window opens the breaker. Default 10.
    pub trip_after: u32,
    /// The window for running out of memory. Default 60 s.
    pub oom_window: Usec,
    /// At this time in the window it is an OOM storm, which opens the breaker. Default 5.
    pub oom_after: u32,
}

impl Default for Restart {
    fn default() -> Self {
        Restart {
            policy: RestartPolicy::OnFailure,
            initial_delay: Usec::from_secs(1),
            min_delay: Usec::from_millis(500),
            max_delay: Usec::from_secs(60),
            jitter: 10,
            gpu_factor: 2,
            reset_after: Usec::from_secs(300),
            count_reset_after: Usec::from_secs(600),
            breaker: BreakerNumbers::default(),
            storm: StormNumbers::default(),
        }
    }
}

impl Default for BreakerNumbers {
    fn default() -> Self {
        BreakerNumbers {
            failures: 5,
            open_for: Usec::from_secs(300),
            max_open_for: Usec::from_secs(3600),
            close_after: Usec::from_secs(60),
        }
    }
}

impl Default for StormNumbers {
    fn default() -> Self {
        StormNumbers {
            window: Usec::from_secs(60),
            warn_after: 5,
            wait_after: 10,
            trip_window: Usec::from_secs(30),
            trip_after: 10,
            oom_window: Usec::from_secs(60),
            oom_after: 5,
        }
    }
}

/// Reads `[restart]`; every mistake at its key.
pub(super) fn restart(fragment: RestartFragment, found: &mut Findings) -> Restart {
    let known = Restart::default();
    let RestartFragment { policy, breaker, storm, .. } = &fragment;
    let breaker = breaker.clone().unwrap_or_default();
    let storm = storm.clone().unwrap_or_default();
    let restart = Restart {
        policy: found.keep(&["restart", "policy"], policy_of(policy.as_deref())).unwrap_or(known.policy),
        initial_delay: delay("initial_delay", fragment.initial_delay.as_deref(), known.initial_delay, found),
        min_delay: delay("min_delay", fragment.min_delay.as_deref(), known.min_delay, found),
        max_delay: delay("max_delay", fragment.max_delay.as_deref(), known.max_delay, found),
        jitter: u8::try_from(number(&["restart", "jitter"], fragment.jitter, (0, 50), 10, found))
            .unwrap_or(10),
        gpu_factor: number(
            &["restart", "gpu_factor"],
            fragment.gpu_factor,
            (1, 100),
            known.gpu_factor,
            found,
        ),
        reset_after: delay("reset_after", fragment.reset_after.as_deref(), known.reset_after, found),
        count_reset_after: delay(
            "count_reset_after",
            fragment.count_reset_after.as_deref(),
            known.count_reset_after,
            found,
        ),
        breaker: BreakerNumbers {
            failures: number(
                &["restart", "breaker", "failures"],
                breaker.failures,
                (1, 1000),
                known.breaker.failures,
                found,
            ),
            open_for: time(
                &["restart", "breaker", "open_for"],
                breaker.open_for.as_deref(),
                known.breaker.open_for,
                found,
            ),
            max_open_for: time(
                &["restart", "breaker", "max_open_for"],
                breaker.max_open_for.as_deref(),
                known.breaker.max_open_for,
                found,
            ),
            close_after: time(
                &["restart", "breaker", "close_after"],
                breaker.close_after.as_deref(),
                known.breaker.close_after,
                found,
            ),
        },
        storm: StormNumbers {
            window: time(&["restart", "storm", "window"], storm.window.as_deref(), known.storm.window, found),
            warn_after: storm_number("warn_after", storm.warn_after, known.storm.warn_after, found),
            wait_after: storm_number("wait_after", storm.wait_after, known.storm.wait_after, found),
            trip_window: time(
                &["restart", "storm", "trip_window"],
                storm.trip_window.as_deref(),
                known.storm.trip_window,
                found,
            ),
            trip_after: storm_number("trip_after", storm.trip_after, known.storm.trip_after, found),
            oom_window: time(
                &["restart", "storm", "oom_window"],
                storm.oom_window.as_deref(),
                known.storm.oom_window,
                found,
            ),
            oom_after: storm_number("oom_after", storm.oom_after, known.storm.oom_after, found),
        },
    };
    together(&restart, found);
    restart
}

/// What no number can say alone.
fn together(restart: &Restart, found: &mut Findings) {
    let Restart { initial_delay, min_delay, max_delay, breaker, storm, .. } = restart;
    if max_delay < initial_delay {
        found.add(
            &["restart", "max_delay"],
            format!(
                "{max_delay} is below restart.initial_delay ({initial_delay}); the delays grow from there"
            ),
        );
    }
    if max_delay < min_delay {
        found.add(&["restart", "max_delay"], format!("{max_delay} is below restart.min_delay ({min_delay})"));
    }
    if breaker.max_open_for < breaker.open_for {
        let text = format!(
            "{} is below restart.breaker.open_for ({}); the time grows from there",
            breaker.max_open_for, breaker.open_for
        );
        found.add(&["restart", "breaker", "max_open_for"], text);
    }
    if storm.wait_after < storm.warn_after {
        let text = format!(
            "{} is below restart.storm.warn_after ({}); a restart waits only after it was warned of",
            storm.wait_after, storm.warn_after
        );
        found.add(&["restart", "storm", "wait_after"], text);
    }
}

fn policy_of(text: Option<&str>) -> Result<RestartPolicy, String> {
    match text {
        None | Some("on-failure") => Ok(RestartPolicy::OnFailure),
        Some("always") => Ok(RestartPolicy::Always),
        Some("never") => Ok(RestartPolicy::Never),
        Some(other) => Err(format!("\"{other}\": expected on-failure, always or never")),
    }
}

fn delay(key: &'static str, text: Option<&str>, default: Usec, found: &mut Findings) -> Usec {
    time(&["restart", key], text, default, found)
}

fn storm_number(key: &'static str, value: Option<i64>, default: u32, found: &mut Findings) -> u32 {
    number(&["restart", "storm", key], value, (1, 10_000), default, found)
}

/// A length of time from 10 ms to 7 days.
pub(super) fn time(key: &[&'static str], text: Option<&str>, default: Usec, found: &mut Findings) -> Usec {
    let Some(text) = text else { return default };
    let Some(time) = found.keep(key, parse_duration(text)) else { return default };
    if time < Usec::from_millis(10) || time > Usec::from_secs(7 * 86_400) {
        found.add(key, format!("\"{text}\" is out of range; expected 10ms to 7d"));
    }
    time
}

/// A whole number within bounds.
pub(super) fn number(
    key: &[&'static str],
    value: Option<i64>,
    (least, most): (u32, u32),
    default: u32,
    found: &mut Findings,
) -> u32 {
    let Some(value) = value else { return default };
    let fitting = u32::try_from(value).ok().filter(|number| (least..=most).contains(number));
    if fitting.is_none() {
        found.add(key, format!("{value} is out of range; expected {least} to {most}"));
    }
    fitting.unwrap_or(default)
}
