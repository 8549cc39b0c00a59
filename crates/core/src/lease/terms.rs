//! On what a lease was given. It is part of the name of the lease's descriptor, so that it survives with that and costs
//! nothing else to save.

use super::LeaseId;
use crate::name::{NameError, Usec};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// On what a lease was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The user who took it: it alone, and root, may renew or end it.
    pub uid: u32,
    /// When it ends by itself, by the clock of intervals; none: it has no time limit.
    pub until: Option<Usec>,
    /// What its holder calls itself; "" where it did not say.
    pub holder: String,
}

impl Terms {
    /// A holder's name has at most so many bytes.
    pub const LONGEST_HOLDER: usize = 64;

    /// Whether a holder may call itself that: anything printable that can stand in a file's name.
    #[must_use]
    pub fn allows(holder: &str) -> bool {
        holder.len() <= Self::LONGEST_HOLDER && !holder.chars().any(|c| c == '/' || c.is_control())
    }
}

/// A lease with its terms, written `<lease>+<uid>+<end in hexadecimal microseconds since boot, or nothing>+<holder>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Given {
    /// The lease.
    pub id: LeaseId,
    /// On what it was given.
    pub terms: Terms,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+", self.id, self.terms.uid)?;
        if let Some(until) = self.terms.until {
            write!(f, "{:x}", until.0)?;
        }
        write!(f, "+{}", self.terms.holder)
    }
}

impl FromStr for Given {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let mut parts = text.splitn(4, '+');
            let (id, uid, until, holder) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let until = match until {
                "" => None,
                hex => Some(Usec(u64::from_str_radix(hex, 16).ok()?)),
            };
            let terms = Terms { uid: uid.parse().ok()?, until, holder: holder.to_owned() };
            let given = Given { id: id.parse().ok()?, terms };
            (Terms::allows(holder) && given.to_string() == text).then_some(given)
        };
        parse().ok_or_else(|| NameError::new("lease", text, "<lease>+<uid>+<end>+<holder>"))
    }
}

impl TryFrom<String> for Given {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Given> for String {
    fn from(given: Given) -> String {
        given.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(uid: u32, until: Option<u64>, holder: &str) -> Given {
        let id = LeaseId { replica: "chat-r0".parse().expect("a valid name"), number: 7 };
        Given { id, terms: Terms { uid, until: until.map(Usec), holder: holder.to_owned() } }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (given, text) in [
            (given(0, None, ""), "chat-r0.0000000000000007+0++"),
            (given(1000, Some(0xab), "job 7"), "chat-r0.0000000000000007+1000+ab+job 7"),
            (
                given(u32::MAX, Some(u64::MAX), "a+b"),
                "chat-r0.0000000000000007+4294967295+ffffffffffffffff+a+b",
            ),
        ] {
            assert_eq!(given.to_string(), text);
            assert_eq!(text.parse().as_ref(), Ok(&given));
            assert_eq!(String::from(given), text);
            assert!(text.len() + Terms::LONGEST_HOLDER < 255, "it is a file's name");
        }
    }

    #[test]
    fn what_is_not_written_so_is_no_lease() {
        for text in [
            "",
            "chat-r0.0000000000000007",
            "chat-r0.0000000000000007+0+",
            "chat-r0.0000000000000007+00++",
            "chat-r0.0000000000000007+0+0AB+",
            "chat-r0.0000000000000007+-1++",
            "chat-r0.0000000000000007+0++a\nb",
            "chat-r0+0++",
        ] {
            assert!(text.parse::<Given>().is_err(), "{text}");
        }
        assert!(format!("chat-r0.0000000000000007+0++{}", "x".repeat(65)).parse::<Given>().is_err());
        assert!(Terms::allows("orchestratord on node-3") && !Terms::allows("a/b") && !Terms::allows("\0"));
    }
}
