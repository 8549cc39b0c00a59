//! Owns one refusal on its way out: the class, the text with cause and remedy, and how both are said.

use std::process::ExitCode;

use pool_core::refusal::Refusal;

use crate::notify;

/// Why this start does not happen; the text names the cause and what to do about it.
#[derive(Debug)]
pub(crate) struct Refused {
    refusal: Refusal,
    text: String,
}

impl Refused {
    pub(crate) fn new(refusal: Refusal, text: impl Into<String>) -> Self {
        Refused { refusal, text: text.into() }
    }

    /// Says it to systemd and on stderr, in the same words.
    pub(crate) fn report(&self) -> ExitCode {
        let line = notify::one_line(&format!("{}: {}", self.refusal.class(), self.text));
        eprintln!("{line}");
        notify::send(&[notify::State::Status(&line)]);
        ExitCode::from(self.refusal.exit_status())
    }

    #[cfg(test)]
    pub(crate) fn refusal(&self) -> Refusal {
        self.refusal
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
