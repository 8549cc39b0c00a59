//! Times in words, for people. All are microseconds; moments are counted from the epoch.

use std::time::{SystemTime, UNIX_EPOCH};

const SECOND: u64 = 1_000_000;

pub(crate) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// `2026-11-25 10:00:03 UTC (12 s ago)`.
pub(crate) fn past(moment: u64, now: u64) -> String {
    format!("{} ({} ago)", utc(moment), length(now.saturating_sub(moment)))
}

/// `2026-11-25 10:00:03 UTC (in 12 s)`.
pub(crate) fn future(moment: u64, now: u64) -> String {
    match moment.saturating_sub(now) {
        0 => format!("{} (now)", utc(moment)),
        left => format!("{} (in {})", utc(moment), length(left)),
    }
}

/// `2026-11-25 10:00:03.123 UTC`.
pub(crate) fn stamp(moment: u64) -> String {
    let text = utc(moment);
    let (seconds, zone) = text.rsplit_once(' ').unwrap_or((&text, ""));
    format!("{seconds}.{:03} {zone}", moment % SECOND / 1_000)
}

/// A length of time by its two largest units: `2 h 5 min`.
pub(crate) fn length(time: u64) -> String {
    let seconds = time / SECOND;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {smaller}"),
    };
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{} ms", time / 1_000),
        (0, 0, 0, _) => format!("{seconds} s"),
        (0, 0, _, _) => two(minutes, "min", seconds % 60, "s"),
        (0, _, _, _) => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

fn utc(moment: u64) -> String {
    let seconds = moment / SECOND;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The date of a day counted from the epoch: years begin in March, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const FOUR_CENTURIES: u64 = 146_097;
    let days = days + 719_468;
    let of_era = days % FOUR_CENTURIES;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = days / FOUR_CENTURIES * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        let table = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (seconds, text) in table {
            assert_eq!(utc(seconds * SECOND + 999_999), text);
        }
        assert!(!utc(u64::MAX).is_empty());
    }

    #[test]
    fn a_stamp_has_thousandths() {
        assert_eq!(stamp(5_009_999), "1970-01-01 00:00:05.009 UTC");
    }

    #[test]
    fn lengths_have_two_units_at_most() {
        let table = [
            (0, "0 ms"),
            (1_500, "1 ms"),
            (999_999, "999 ms"),
            (59 * SECOND, "59 s"),
            (60 * SECOND, "1 min"),
            (61 * SECOND, "1 min 1 s"),
            (7_500 * SECOND, "2 h 5 min"),
            (90_000 * SECOND, "1 d 1 h"),
            (864_000 * SECOND, "10 d"),
        ];
        for (time, text) in table {
            assert_eq!(length(time), text);
        }
    }

    #[test]
    fn what_lies_on_the_wrong_side_of_now_is_now() {
        assert_eq!(past(SECOND, 0), "1970-01-01 00:00:01 UTC (0 ms ago)");
        assert_eq!(future(0, SECOND), "1970-01-01 00:00:00 UTC (now)");
        assert_eq!(future(3 * SECOND, SECOND), "1970-01-01 00:00:03 UTC (in 2 s)");
    }
}
