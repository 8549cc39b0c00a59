//! What is printed, in words or as JSON, and how a failure is told. A reader that closed the pipe has what it wanted,
//! so that is no failure; nothing here panics.
//!
//! With `--json` a verb prints one JSON value on standard output (`watch` one on each line), and where it fails as a
//! whole `{"error": {"code", "message", "status"}}` on standard error. Members are added, never taken away.

use super::columns::printable;
use super::paint::Paint;
use pool_managerd::client::{self, Exit};
use serde::Serialize;
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::iter;
use std::process::ExitCode;

/// How things are said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) paint: Paint,
}

/// Why a verb did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("cannot print")]
    Output(#[source] io::Error),
    #[error("cannot set up what is needed to use the bus")]
    Runtime(#[source] io::Error),
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
    #[error("cannot hand the lease's descriptor on")]
    Descriptor(#[source] io::Error),
    #[error("cannot write {0}")]
    File(String, #[source] io::Error),
    #[error("cannot run {0}")]
    Command(String, #[source] io::Error),
}

/// An error as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    /// One word.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// How a command that met it alone ends.
    pub(crate) status: u8,
}

#[derive(Serialize)]
struct Failed {
    error: Problem,
}

/// How a command that was to be run for somebody ends where it cannot be found or executed: as of a shell.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTED: u8 = 126;

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Failure::Client(error) => error.exit() as u8,
            Failure::Output(_) | Failure::Runtime(_) | Failure::Descriptor(_) | Failure::File(..) => {
                Exit::System as u8
            }
            Failure::Json(_) => Exit::Bug as u8,
            Failure::Command(_, error) if error.kind() == ErrorKind::NotFound => NOT_FOUND,
            Failure::Command(..) => NOT_EXECUTED,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Failure::Client(error) => error.code(),
            Failure::Output(_) => "output",
            Failure::Runtime(_) => "runtime",
            Failure::Json(_) => "json",
            Failure::Descriptor(_) => "descriptor",
            Failure::File(..) => "file",
            Failure::Command(..) => "command",
        }
    }
}

impl Output {
    /// Prints what a verb has to say: one or the other.
    pub(crate) fn show(
        self,
        value: &impl Serialize,
        words: impl FnOnce(Paint) -> String,
    ) -> Result<(), Failure> {
        if self.json { print(&json(value)?) } else { print(&words(self.paint)) }
    }

    /// Tells why a verb ends, and gives how.
    pub(crate) fn complain(self, failure: &Failure) -> ExitCode {
        let (code, status) = (failure.code(), failure.status());
        self.complain_with(Problem { code, message: chain(failure), status });
        status.into()
    }

    /// Tells what is wrong with the command line, which is put into words already.
    pub(crate) fn complain_of_usage(self, text: &str, status: u8) -> ExitCode {
        if self.json {
            let message = text.strip_prefix("error: ").unwrap_or(text).trim_end().to_owned();
            self.complain_with(Problem { code: "usage", message, status });
        } else {
            complain_plainly(text);
        }
        status.into()
    }

    fn complain_with(self, error: Problem) {
        let plain = format!("poolctl: {}\n", error.message);
        match json(&Failed { error }) {
            Ok(text) if self.json => complain_plainly(&text),
            Ok(_) | Err(_) => complain_plainly(&plain),
        }
    }
}

impl From<&client::Error> for Problem {
    fn from(error: &client::Error) -> Problem {
        Problem { code: error.code(), message: chain(error), status: error.exit() as u8 }
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(Failure::Json)
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_to_somebody(text).map(|_| ())
}

/// The same; false where nobody reads any more.
pub(crate) fn print_to_somebody(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output(error)),
    }
}

/// Tells what is wrong with one of several pools.
pub(crate) fn complain_of(pool: &str, problem: &Problem) {
    complain_plainly(&format!("poolctl: {pool}: {}\n", problem.message));
}

/// Tells what is wrong with a file.
pub(crate) fn complain_of_file(file: &str, error: &str) {
    complain_plainly(&format!("{}: {}\n", printable(file), printable(error)));
}

/// Where not even this can be written, there is nobody to tell.
pub(crate) fn complain_plainly(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok();
}

/// An error and its causes, on one line. Some errors of others repeat their cause: it is told once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let lost = zbus::Error::from(io::Error::new(ErrorKind::NotFound, "gone"));
        let failure = Failure::from(client::Error::Bus(lost));
        assert_eq!(chain(&failure), "cannot use the system bus: I/O error: gone");
    }

    #[test]
    fn a_command_that_cannot_be_run_ends_as_of_a_shell() {
        let failed = |kind| Failure::Command("x".to_owned(), io::Error::from(kind)).status();
        assert_eq!(failed(ErrorKind::NotFound), 127);
        assert_eq!(failed(ErrorKind::PermissionDenied), 126);
    }
}
