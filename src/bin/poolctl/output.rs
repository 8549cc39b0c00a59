//! What is printed, and how a failure is told. A reader that closed the pipe has what it wanted, so that is no
//! failure; nothing here panics.

use super::table::printable;
use pool_managerd::client::{self, Exit};
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::iter;
use std::process::ExitCode;

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

/// How a command that was to be run for somebody ends where it cannot be found or executed: as of a shell.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTED: u8 = 126;

impl Failure {
    fn exit(&self) -> ExitCode {
        match self {
            Failure::Client(error) => error.exit().into(),
            Failure::Output(_) | Failure::Runtime(_) | Failure::Descriptor(_) | Failure::File(..) => {
                Exit::System.into()
            }
            Failure::Json(_) => Exit::Bug.into(),
            Failure::Command(_, error) if error.kind() == ErrorKind::NotFound => NOT_FOUND.into(),
            Failure::Command(..) => NOT_EXECUTED.into(),
        }
    }
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tells why a verb ends, and gives how.
pub(crate) fn complain(failure: &Failure) -> ExitCode {
    complain_plainly(&format!("poolctl: {}\n", chain(failure)));
    failure.exit()
}

/// Tells what is wrong with one of several pools, and gives how that alone would end.
pub(crate) fn complain_of(pool: &str, error: &client::Error) -> Exit {
    complain_plainly(&format!("poolctl: {pool}: {}\n", chain(error)));
    error.exit()
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
}
