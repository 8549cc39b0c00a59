//! Owns the ways in which the engine ends: a status, or a signal that it sends to itself.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};

use crate::options::Options;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an exit status.
    Exit(u8),
    /// By a signal, as if the process had earned it.
    Signal(Signal),
}

impl Ending {
    /// The ending that the options ask for.
    #[must_use]
    pub fn asked(options: &Options) -> Ending {
        options.signal.map_or(Ending::Exit(options.exit_code), Ending::Signal)
    }

    /// Ends the process, from its main thread.
    #[must_use]
    pub fn carry_out(self) -> ExitCode {
        match self {
            Ending::Exit(code) => ExitCode::from(code),
            Ending::Signal(signal) => {
                if let Err(error) = SigSet::from(signal).thread_unblock() {
                    eprintln!("{signal} stays blocked: {error}");
                }
                // Twice for some: the standard library's handler for SIGSEGV gives the first one up to the default.
                for _ in 0..10 {
                    if let Err(error) = raise(signal) {
                        eprintln!("{signal} could not be raised: {error}");
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                eprintln!("{signal} did not end the process");
                ExitCode::from(99)
            }
        }
    }
}

/// Tells the main thread to end; the first one counts.
#[derive(Debug, Clone)]
pub struct Ender(SyncSender<Ending>);

impl Ender {
    /// The two ends.
    #[must_use]
    pub fn channel() -> (Ender, Receiver<Ending>) {
        let (sender, receiver) = sync_channel(16);
        (Ender(sender), receiver)
    }

    /// Asks for it; a second request while the first is carried out means nothing.
    pub fn end(&self, ending: Ending) {
        self.0.try_send(ending).unwrap_or_default();
    }

    /// Asks for it later.
    pub fn end_after(&self, delay: Duration, ending: Ending) {
        let ender = self.clone();
        thread::spawn(move || {
            thread::sleep(delay);
            ender.end(ending);
        });
    }
}

/// Takes SIGTERM from the whole process; call it before any thread starts.
///
/// # Errors
///
/// Where the mask cannot be set.
pub fn block_sigterm() -> nix::Result<SigSet> {
    let terminate = SigSet::from(Signal::SIGTERM);
    terminate.thread_block()?;
    Ok(terminate)
}
