//! What is done in a running machine: commands and files, by the names that a sandbox has for them.
//!
//! Every command has a limit; at its end the command's process group is killed. Commands of several threads run side by
//! side.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Output};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::wire::{Event, Gone};
use super::{Error, Machine};

/// The limit of [`Machine::run`] and [`Machine::shell`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);
/// How often [`Machine::wait_until`] asks: each question is a process in an emulated machine.
const ASK_EVERY: Duration = Duration::from_millis(300);

impl Machine {
    /// Runs a command to its end. A command that fails is no error here: look at the output's status.
    pub fn run(&self, argv: &[&str]) -> Result<Output, Error> {
        self.run_with_input(DEFAULT_TIMEOUT, argv, &[])
    }

    /// [`Self::run`] with another limit.
    pub fn run_for(&self, limit: Duration, argv: &[&str]) -> Result<Output, Error> {
        self.run_with_input(limit, argv, &[])
    }

    /// [`Self::run_for`], with that on its standard input.
    pub fn run_with_input(&self, limit: Duration, argv: &[&str], input: &[u8]) -> Result<Output, Error> {
        let gone = |Gone| self.gone(argv);
        let (command, events) = self.wire.start(argv).map_err(gone)?;
        self.wire.feed(command, input).map_err(gone)?;
        match collect(&events, Instant::now() + limit) {
            Ok(output) => Ok(output),
            Err(RecvTimeoutError::Disconnected) => Err(gone(Gone)),
            Err(RecvTimeoutError::Timeout) => {
                self.wire.kill(command).map_err(gone)?;
                Err(Error::TimedOut { command: argv.join(" "), limit })
            }
        }
    }

    /// Runs a bash script with `-e`, `-u` and `pipefail`, and returns what it printed. It fails when the script does.
    pub fn shell(&self, script: &str) -> Result<String, Error> {
        self.check(&["bash", "-euo", "pipefail", "-c", script])
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn check(&self, argv: &[&str]) -> Result<String, Error> {
        succeeded(argv, self.run(argv)?)
    }

    /// Copies a file of the host into the machine, with its mode, making folders as needed.
    pub fn copy_in(&self, host: &Path, inside: &str) -> Result<(), Error> {
        let failed = |source| Error::Io { action: "read", path: host.to_owned(), source };
        let mode = fs::metadata(host).map_err(failed)?.permissions().mode() & 0o7777;
        self.write(inside, fs::read(host).map_err(failed)?, mode)
    }

    /// Writes a file in the machine, making folders as needed.
    pub fn write(&self, inside: &str, contents: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        // A whole new file under the name, never the old one rewritten: a running program keeps what it mapped, and one that
        // reads the folder now sees no half of a file.
        let script = r#"mkdir -p "$(dirname "$1")" && umask 077 && cat >"$1.new" && chmod "$0" "$1.new" && mv -fT "$1.new" "$1""#;
        let argv = ["sh", "-c", script, &format!("{mode:o}"), inside];
        let output = self.run_with_input(DEFAULT_TIMEOUT, &argv, contents.as_ref())?;
        succeeded(&["write", inside], output).map(drop)
    }

    /// Reads a file in the machine.
    pub fn read(&self, inside: &str) -> Result<String, Error> {
        self.check(&["cat", "--", inside])
    }

    /// The journal so far, as `journalctl` shows it, narrowed by its arguments.
    pub fn journal(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut argv = vec!["journalctl", "--boot", "--no-pager", "--output=short-precise"];
        argv.extend(arguments);
        self.check(&argv)
    }

    /// Asks `probe` until it answers, and fails with `what` and the journal's end if it doesn't in time.
    pub fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&Self) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = probe(self)? {
                return Ok(answer);
            }
            if begun.elapsed() > limit {
                let end = self.journal(&["--lines=40"]).unwrap_or_default();
                eprintln!("--- the end of the journal of {}:\n{end}---", self.name);
                return Err(Error::TimedOut { command: format!("wait until {what}"), limit });
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

fn collect(events: &Receiver<Event>, end: Instant) -> Result<Output, RecvTimeoutError> {
    let mut output = Output { status: ExitStatus::from_raw(0), stdout: Vec::new(), stderr: Vec::new() };
    loop {
        match events.recv_timeout(end.saturating_duration_since(Instant::now()))? {
            Event::Output(bytes) => output.stdout.extend(bytes),
            Event::Errors(bytes) => output.stderr.extend(bytes),
            Event::Exit(status) => {
                output.status = status;
                return Ok(output);
            }
        }
    }
}

fn succeeded(argv: &[&str], output: Output) -> Result<String, Error> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Failed { command: argv.join(" "), status: output.status, stdout, stderr })
}
