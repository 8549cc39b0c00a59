//! Owns the agreement between the daemon and `pool-helper` on how a start is refused before the engine runs.
//!
//! `pool-helper` ends with [`Refusal::exit_status`] and says `STATUS=<class>: <text>` first; the daemon reads both
//! back from the unit. A status outside this table is the engine's own.

use serde::{Deserialize, Serialize};

/// Why a start was refused inside the unit, before the engine was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    /// The engine's program does not exist or may not be executed.
    ProgramMissing,
    /// The model does not exist or the engine's user may not read it.
    ModelUnreadable,
    /// The model's SHA-256 is not the one that the pool file names.
    DigestMismatch,
    /// Something else listens on the engine's address.
    PortInUse,
    /// Any other check that failed.
    Preflight,
}

impl Refusal {
    /// Every refusal, for tables and tests.
    pub const ALL: [Refusal; 5] = [
        Refusal::ProgramMissing,
        Refusal::ModelUnreadable,
        Refusal::DigestMismatch,
        Refusal::PortInUse,
        Refusal::Preflight,
    ];

    /// The exit status that says it: 150–154, below systemd's own (200 and up) and above those that programs use.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Refusal::ProgramMissing => 150,
            Refusal::ModelUnreadable => 151,
            Refusal::DigestMismatch => 152,
            Refusal::PortInUse => 153,
            Refusal::Preflight => 154,
        }
    }

    /// The class as it is published, for instance `port-in-use`.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Refusal::ProgramMissing => "program-missing",
            Refusal::ModelUnreadable => "model-unreadable",
            Refusal::DigestMismatch => "digest-mismatch",
            Refusal::PortInUse => "port-in-use",
            Refusal::Preflight => "preflight",
        }
    }

    /// The refusal that an exit status and a status text say together; `None` where the status is the engine's own.
    #[must_use]
    pub fn read(exit_status: i32, status_text: &str) -> Option<(Refusal, &str)> {
        Refusal::ALL.into_iter().find_map(|refusal| {
            let text = status_text.strip_prefix(refusal.class())?.strip_prefix(": ")?;
            (i32::from(refusal.exit_status()) == exit_status).then_some((refusal, text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_back_from_what_the_helper_says() {
        for refusal in Refusal::ALL {
            let said = format!("{}: text: more", refusal.class());
            assert_eq!(Refusal::read(i32::from(refusal.exit_status()), &said), Some((refusal, "text: more")));
        }
    }

    #[test]
    fn an_engine_that_ends_with_the_same_status_is_no_refusal() {
        assert_eq!(Refusal::read(150, "serving"), None);
        assert_eq!(Refusal::read(1, "port-in-use: x"), None);
    }
}
