//! Owns the decision whether loading makes progress, and how far it is in words.

use std::fmt;
use std::time::Duration;

/// What the unit has used since its start; a part that cannot be read is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) at: Duration,
    pub(crate) cpu: Option<Duration>,
    pub(crate) read: Option<u64>,
}

/// More than this part of one CPU is work; less is a process that only answers probes.
const BUSY: f64 = 0.01;
/// More than this many bytes a second is reading; less is what event loops and probes read.
const READING: f64 = 65_536.0;

/// Whether anything moved between two looks. `new_answer`: the health endpoint answers something else than before,
/// which counts where nothing better can be seen.
pub(crate) fn is_seen(before: &Usage, now: &Usage, new_answer: bool) -> bool {
    let seconds = now.at.saturating_sub(before.at).as_secs_f64();
    let cpu = before.cpu.zip(now.cpu).map(|(before, now)| now.saturating_sub(before).as_secs_f64());
    let read = before.read.zip(now.read).map(|(before, now)| now.saturating_sub(before) as f64);
    match (cpu, read) {
        (None, None) => new_answer,
        (cpu, read) => {
            cpu.is_some_and(|cpu| cpu > BUSY * seconds) || read.is_some_and(|read| read > READING * seconds)
        }
    }
}

/// More than this part of one CPU is computing; less may be an engine that only answers everybody's questions.
const COMPUTING: f64 = 0.05;

/// Whether so much CPU time in that time is the engine's own computing.
pub(crate) fn is_computing(cpu: Duration, time: Duration) -> bool {
    cpu.as_secs_f64() > COMPUTING * time.as_secs_f64()
}

/// Whether so much CPU time in that time is work.
pub(crate) fn is_work(cpu: Duration, time: Duration) -> bool {
    cpu.as_secs_f64() > BUSY * time.as_secs_f64()
}

/// How far loading is. Numbers are rounded to two digits: each text that differs is a signal to everyone on the bus,
/// and a long load should need fewer of them, not more; one that stands still needs none.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.read.map(|bytes| bytes >> 20) {
            None | Some(0) => {}
            Some(mib @ ..1024) => write!(f, ", {} MiB read", two_digits(mib))?,
            Some(mib @ ..10_240) => write!(f, ", {}.{} GiB read", mib / 1024, mib % 1024 * 10 / 1024)?,
            Some(mib) => write!(f, ", {} GiB read", two_digits(mib / 1024))?,
        }
        match self.cpu.map(|cpu| cpu.as_secs()) {
            None | Some(0) => Ok(()),
            Some(seconds) => write!(f, ", {} s of CPU", two_digits(seconds)),
        }
    }
}

/// Rounded down to two significant digits.
fn two_digits(number: u64) -> u64 {
    let unit = 10u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(at_ms: u64, cpu_ms: impl Into<Option<u64>>, read: impl Into<Option<u64>>) -> Usage {
        Usage {
            at: Duration::from_millis(at_ms),
            cpu: cpu_ms.into().map(Duration::from_millis),
            read: read.into(),
        }
    }

    #[test]
    fn progress_is_work_or_reading_beyond_what_probes_cost() {
        for (cpu_ms, read, seen) in [
            (0, 0, false),
            (10, 0, false),
            (11, 0, true),
            (0, 65_536, false),
            (0, 65_537, true),
            (5, 40_000, false),
        ] {
            let before = usage(1_000, 500, 1 << 20);
            let now = usage(2_000, 500 + cpu_ms, (1 << 20) + read);
            assert_eq!(is_seen(&before, &now, true), seen, "{cpu_ms} ms, {read} bytes");
        }
    }

    #[test]
    fn the_thresholds_are_rates() {
        assert!(!is_seen(&usage(0, 0, 0), &usage(10_000, 99, 600_000), false));
        assert!(is_seen(&usage(0, 0, 0), &usage(10_000, 101, 600_000), false));
        assert!(is_seen(&usage(0, 0, 0), &usage(10_000, 0, 700_000), false));
    }

    #[test]
    fn one_of_the_two_is_enough_to_judge_by() {
        assert!(is_seen(&usage(0, 0, None), &usage(1_000, 100, None), false));
        assert!(is_seen(&usage(0, None, 0), &usage(1_000, None, 1 << 20), false));
        assert!(!is_seen(&usage(0, None, 0), &usage(1_000, None, 0), true));
    }

    #[test]
    fn where_nothing_can_be_read_a_new_answer_is_progress() {
        assert!(is_seen(&usage(0, None, None), &usage(1_000, None, None), true));
        assert!(!is_seen(&usage(0, None, None), &usage(1_000, None, None), false));
    }

    #[test]
    fn a_count_that_falls_is_no_progress() {
        assert!(!is_seen(&usage(0, 500, 1 << 30), &usage(1_000, 0, 0), false));
    }

    #[test]
    fn how_far_it_is_is_said_in_round_numbers() {
        for (cpu_ms, bytes, text) in [
            (999, 1_000_000, ""),
            (7_300, 343 << 20, ", 340 MiB read, 7 s of CPU"),
            (43_000, 3_300 << 20, ", 3.2 GiB read, 43 s of CPU"),
            (438_000, 138 << 30, ", 130 GiB read, 430 s of CPU"),
        ] {
            assert_eq!(usage(0, cpu_ms, bytes).to_string(), text);
        }
        assert_eq!(usage(0, None, None).to_string(), "");
    }
}
