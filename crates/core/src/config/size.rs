//! Amounts of memory as operators write them: systemd's way, `400G`, with the unit in full too, `400GiB`, each 1024 times
//! the one before; or a share of the host's memory, `80%`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u32); 5] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, power): &&(&str, u32)| self.0 >> power > 0;
        let Some((unit, power)) = UNITS.iter().rev().find(fits) else { return write!(f, "{} bytes", self.0) };
        let tenths = (u128::from(self.0) * 10) >> power;
        if tenths % 10 == 0 {
            write!(f, "{} {unit}iB", tenths / 10)
        } else {
            write!(f, "{}.{} {unit}iB", tenths / 10, tenths % 10)
        }
    }
}

/// How much memory a key of a pool file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// That much.
    Bytes(Bytes),
    /// That many percent of the host's memory, 1 to 100.
    Percent(u8),
}

impl Size {
    /// As much as it is on a host with that much memory; `None`: a share of what is not known.
    #[must_use]
    pub fn of(self, memory: u64) -> Option<Bytes> {
        match self {
            Size::Bytes(bytes) => Some(bytes),
            Size::Percent(_) if memory == 0 => None,
            Size::Percent(percent) => {
                let share = u128::from(memory) * u128::from(percent) / 100;
                u64::try_from(share).ok().map(Bytes)
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Bytes(bytes) => bytes.fmt(f),
            Size::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Reads an amount of memory.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_size(text: &str) -> Result<Size, String> {
    let expected = || {
        format!(
            "\"{text}\" is no amount of memory; expected for instance \"400GiB\", \"512M\", or \"80%\" of the host's"
        )
    };
    let text = text.trim();
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.trim_end().parse().ok().filter(|percent| (1..=100).contains(percent));
        return percent.map(Size::Percent).ok_or_else(expected);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let power = match unit {
        "" | "B" => 0,
        _ if unit.len() == 2 && unit.ends_with('B') => {
            let letter = unit.trim_end_matches('B');
            return Err(format!(
                "\"{text}\": {unit} may mean 1000 or 1024 of the unit below; expected {letter}iB"
            ));
        }
        _ => {
            let known = |(short, _): &&(&str, u32)| {
                unit.strip_prefix(short).is_some_and(|rest| matches!(rest, "" | "iB"))
            };
            UNITS.iter().find(known).map(|(_, power)| *power).ok_or_else(expected)?
        }
    };
    scaled(number, power).map(|bytes| Size::Bytes(Bytes(bytes))).ok_or_else(expected)
}

/// `number` times a power of two, exact: a fraction of a byte is refused.
fn scaled(number: &str, power: u32) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let scale = 1_u128 << power;
    let whole = u128::from(whole.parse::<u64>().ok()?) * scale;
    let places =
        10_u128.checked_pow(u32::try_from(fraction.len()).ok().filter(|len| (1..=9).contains(len))?)?;
    let part = u128::from(fraction.parse::<u64>().ok()?) * scale;
    part.is_multiple_of(places).then_some(whole + part / places).and_then(|bytes| u64::try_from(bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn amounts_are_read_as_systemd_reads_them() {
        for (text, expected) in [
            ("400GiB", 400 * GIB),
            ("400G", 400 * GIB),
            ("1.5 G", GIB + GIB / 2),
            ("512M", 512 << 20),
            ("4096", 4096),
            ("4096B", 4096),
            ("2T", 2048 * GIB),
        ] {
            assert_eq!(parse_size(text), Ok(Size::Bytes(Bytes(expected))), "{text}");
        }
        assert_eq!(parse_size("80%"), Ok(Size::Percent(80)));
        for bad in ["", "G", "-1G", "1.G", "0%", "101%", "1.5%", "4g", "1 parsec", "99999999999P", "0.0001K"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        let told = parse_size("4GB").expect_err("it may mean two things");
        assert!(told.ends_with("expected GiB"), "{told}");
    }

    #[test]
    fn a_share_is_of_the_hosts_memory() {
        assert_eq!(Size::Percent(80).of(10 * GIB), Some(Bytes(8 * GIB)));
        assert_eq!(Size::Percent(80).of(0), None);
        assert_eq!(Size::Bytes(Bytes(1)).of(0), Some(Bytes(1)));
    }

    #[test]
    fn amounts_read_as_words() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (400 * GIB, "400 GiB"),
            (GIB + GIB / 2, "1.5 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
