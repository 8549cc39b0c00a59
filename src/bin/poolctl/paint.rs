//! Colour, where a person looks: on a terminal that knows it, unless `NO_COLOR` says otherwise.
//!
//! What is painted is on its own line and was made [`printable`](super::columns::printable) before; what goes to a pipe
//! or is JSON is never painted.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const FAINT: &str = "2";

/// Whether words are painted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// What standard output takes.
    pub(crate) fn of_stdout() -> Paint {
        let set = |name| env::var_os(name);
        Paint { on: io::stdout().is_terminal() && wanted(set("NO_COLOR").as_deref(), set("TERM").as_deref()) }
    }

    /// A text about a phase: good, on its way, or in need of somebody.
    pub(crate) fn phase(self, phase: &str, text: &str) -> String {
        match phase {
            "ready" => self.with(GREEN, text),
            "waiting" | "staging" | "starting" | "draining" | "stopping" | "backoff" => {
                self.with(YELLOW, text)
            }
            "tripped" | "failed" => self.with(RED, text),
            "stopped" | "idle" => self.with(FAINT, text),
            _ => text.to_owned(),
        }
    }

    /// A text about what is well or is not.
    pub(crate) fn health(self, well: bool, text: &str) -> String {
        self.with(if well { GREEN } else { YELLOW }, text)
    }

    /// A text about what went wrong.
    pub(crate) fn trouble(self, text: &str) -> String {
        self.with(RED, text)
    }

    fn with(self, colour: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    #[cfg(test)]
    pub(crate) const ON: Paint = Paint { on: true };
    #[cfg(test)]
    pub(crate) const OFF: Paint = Paint { on: false };
}

/// See no-color.org: set to anything but "", it is meant.
fn wanted(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| term != "dumb" && !term.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_a_terminal_that_knows_it_and_for_those_who_want_it() {
        let wanted = |no_color: Option<&str>, term: Option<&str>| {
            super::wanted(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wanted(None, Some("xterm-256color")));
        assert!(wanted(Some(""), Some("xterm")));
        for (no_color, term) in
            [(Some("1"), Some("xterm")), (None, Some("dumb")), (None, Some("")), (None, None)]
        {
            assert!(!wanted(no_color, term), "{no_color:?} {term:?}");
        }
    }

    #[test]
    fn a_phase_is_painted_by_what_it_means_and_one_of_a_later_version_is_not() {
        assert_eq!(Paint::ON.phase("ready", "ready"), "\u{1b}[32mready\u{1b}[0m");
        assert_eq!(Paint::ON.phase("failed", "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Paint::ON.phase("later", "later"), "later");
        assert_eq!(Paint::OFF.phase("ready", "ready"), "ready");
        assert_eq!(Paint::ON.health(true, ""), "");
    }
}
