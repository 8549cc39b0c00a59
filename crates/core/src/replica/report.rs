//! What a prober reports of its engine once a round, as text: one `KEY=value` a line.
//!
//! It comes from the engine's own user, so it is a claim and no more: every size is bounded, and what does not read as
//! expected is refused as a whole. Keys that are not known here are a newer prober's.

use crate::name::InvocationId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest report, in bytes.
const LONGEST: usize = 4096;
/// The longest version, in characters.
const LONGEST_VERSION: usize = 64;

/// One report; what is not known is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The run of the unit that it is about.
    pub invocation: InvocationId,
    /// Requests that the engine works on or has waiting.
    pub in_flight: Option<u32>,
    /// Requests that it works on at once.
    pub slots: Option<u32>,
    /// Its version, as it says itself.
    pub version: Option<String>,
    /// Sum of its progress counters.
    pub progress: Option<u64>,
    /// Processes of its unit, without the prober.
    pub processes: Option<u32>,
    /// The most memory that its unit has had, in bytes.
    pub memory_peak: Option<u64>,
}

/// Why a report was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It is longer than any report is.
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    /// It holds a control character other than the line break.
    #[error("a control character")]
    ControlCharacter,
    /// A line is no assignment.
    #[error("a line without \"=\"")]
    NoAssignment,
    /// It does not say which run it is about.
    #[error("INVOCATION_ID is missing")]
    NoInvocation,
    /// The value of this key does not read as expected.
    #[error("{0} has a value that cannot be read")]
    BadValue(&'static str),
    /// The key is there more than once.
    #[error("{0} is given twice")]
    Twice(&'static str),
}

impl Report {
    /// Nothing but how many slots an engine has.
    pub(crate) fn of_slots(invocation: InvocationId, slots: u32) -> Self {
        let (in_flight, version, progress, processes, memory_peak) = (None, None, None, None, None);
        Report { invocation, in_flight, slots: Some(slots), version, progress, processes, memory_peak }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Report, ReportError> {
        if text.len() > LONGEST {
            return Err(ReportError::TooLong);
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(ReportError::ControlCharacter);
        }
        let (mut invocation, mut in_flight, mut slots) = (None, None, None);
        let (mut version, mut progress, mut processes, mut memory_peak) = (None, None, None, None);
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').ok_or(ReportError::NoAssignment)?;
            match key {
                "INVOCATION_ID" => set(&mut invocation, "INVOCATION_ID", value)?,
                "IN_FLIGHT" => set(&mut in_flight, "IN_FLIGHT", value)?,
                "SLOTS" => set(&mut slots, "SLOTS", value)?,
                "VERSION" if Report::is_version(value) => set(&mut version, "VERSION", value)?,
                "VERSION" => return Err(ReportError::BadValue("VERSION")),
                "PROGRESS" => set(&mut progress, "PROGRESS", value)?,
                "PROCESSES" => set(&mut processes, "PROCESSES", value)?,
                "MEMORY_PEAK" => set(&mut memory_peak, "MEMORY_PEAK", value)?,
                _ => {}
            }
        }
        let invocation = invocation.ok_or(ReportError::NoInvocation)?;
        Ok(Report { invocation, in_flight, slots, version, progress, processes, memory_peak })
    }

    /// Whether a text can stand as a version: neither empty nor long, on one line.
    #[must_use]
    pub fn is_version(text: &str) -> bool {
        !text.is_empty() && text.chars().count() <= LONGEST_VERSION && !text.contains(char::is_control)
    }
}

fn set<T: FromStr>(place: &mut Option<T>, key: &'static str, value: &str) -> Result<(), ReportError> {
    let value = value.parse().map_err(|_| ReportError::BadValue(key))?;
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ReportError::Twice(key)),
    }
}

/// As it is sent.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INVOCATION_ID={}", self.invocation)?;
        let numbers = [
            ("IN_FLIGHT", self.in_flight.map(u64::from)),
            ("SLOTS", self.slots.map(u64::from)),
            ("PROGRESS", self.progress),
            ("PROCESSES", self.processes.map(u64::from)),
            ("MEMORY_PEAK", self.memory_peak),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                write!(f, "\n{key}={number}")?;
            }
        }
        if let Some(version) = &self.version {
            write!(f, "\nVERSION={version}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "INVOCATION_ID=00ff10fedcba98765432100123456789";

    fn full() -> Report {
        Report {
            invocation: "00ff10fedcba98765432100123456789".parse().expect("a valid name"),
            in_flight: Some(3),
            slots: Some(4),
            version: Some("0.11.0 (a=b)".into()),
            progress: Some(u64::MAX),
            processes: Some(2),
            memory_peak: Some(1 << 40),
        }
    }

    #[test]
    fn a_report_is_read_back() {
        let nothing = Report {
            in_flight: None,
            slots: None,
            version: None,
            progress: None,
            processes: None,
            memory_peak: None,
            ..full()
        };
        assert_eq!(nothing.to_string(), ID);
        for report in [full(), nothing] {
            assert_eq!(Report::parse(&report.to_string()), Ok(report));
        }
    }

    #[test]
    fn keys_of_a_newer_prober_are_left_alone() {
        let text = format!("{}\nKV_CACHE=0.5\n", full());
        assert_eq!(Report::parse(&text), Ok(full()));
    }

    #[test]
    fn what_does_not_read_as_expected_is_refused_as_a_whole() {
        for (text, error) in [
            ("IN_FLIGHT=1".to_owned(), ReportError::NoInvocation),
            ("INVOCATION_ID=12".to_owned(), ReportError::BadValue("INVOCATION_ID")),
            (format!("{ID}\nIN_FLIGHT=-1"), ReportError::BadValue("IN_FLIGHT")),
            (format!("{ID}\nSLOTS=4294967296"), ReportError::BadValue("SLOTS")),
            (format!("{ID}\nPROGRESS=1.5"), ReportError::BadValue("PROGRESS")),
            (format!("{ID}\nPROCESSES="), ReportError::BadValue("PROCESSES")),
            (format!("{ID}\nMEMORY_PEAK=max"), ReportError::BadValue("MEMORY_PEAK")),
            (format!("{ID}\nVERSION="), ReportError::BadValue("VERSION")),
            (format!("{ID}\nVERSION={}", "x".repeat(65)), ReportError::BadValue("VERSION")),
            (format!("{ID}\nSLOTS=1\nSLOTS=1"), ReportError::Twice("SLOTS")),
            (format!("{ID}\nnothing"), ReportError::NoAssignment),
            (format!("{ID}\nVERSION=a\u{1b}[2J"), ReportError::ControlCharacter),
            (format!("{ID}\r\n"), ReportError::ControlCharacter),
            (format!("{ID}\nX={}", "x".repeat(LONGEST)), ReportError::TooLong),
        ] {
            assert_eq!(Report::parse(&text), Err(error), "{text}");
        }
        assert!(Report::parse(&format!("{ID}\nVERSION={}", "ä".repeat(64))).is_ok());
    }
}
