//! Lengths of time as operators write them: systemd's way, `5min`, `1.5s`, `2min 30s`; a bare number is seconds.

use crate::name::Usec;

/// Reads a length of time.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_duration(text: &str) -> Result<Usec, String> {
    let expected = || {
        format!(
            "\"{text}\" is not a length of time; expected for instance \"500ms\", \"30s\", \"5min\", \"1h\""
        )
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(expected());
    }
    let mut total = Usec::default();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let scale = match unit {
            "us" | "usec" => 1,
            "ms" | "msec" => 1_000,
            "" | "s" | "sec" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            _ => return Err(expected()),
        };
        total = total.plus(scaled(number, scale).ok_or_else(expected)?);
        rest = after.trim_start();
    }
    Ok(total)
}

/// `number` times `scale`, exact: a fraction below one microsecond is refused.
fn scaled(number: &str, scale: u64) -> Option<Usec> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return (!number.ends_with('.')).then_some(Usec(whole));
    }
    let power = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
    (part % power == 0).then(|| Usec(whole.saturating_add(part / power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_systemd_reads_them() {
        for (text, expected) in [
            ("500ms", 500_000),
            ("30", 30_000_000),
            ("1.5s", 1_500_000),
            ("2min 30s", 150_000_000),
            ("1h", 3_600_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Usec(expected)), "{text}");
        }
        for bad in ["", "abc", "5 parsecs", "-1s", "1.s", "0.0000001s", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
