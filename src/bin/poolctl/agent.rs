//! Who asks the person at the terminal, where polkit wants somebody to authenticate: polkit's own agent for terminals,
//! beside the calls that it may be needed for. Where another agent runs, as on a desktop, that one asks.
//!
//! Without a terminal, as root, or where the agent is not installed, there is none: what polkit wants to ask about is then
//! refused at once, in the daemon's words.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::env;
use std::io::{self, IsTerminal, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long to wait until it says that polkit knows it; the calls are made in any case.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agent, for as long as this is kept.
pub(crate) struct Agent(Option<Child>);

impl Agent {
    /// Starts it where it is of use, and waits until polkit knows it.
    pub(crate) fn start() -> Agent {
        if geteuid().is_root() || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Agent(None);
        }
        // A session may have an agent already, which goes first. Where there is no session, polkit looks for none that
        // only wants to be the second.
        let in_session = env::var_os("XDG_SESSION_ID").is_some();
        // It asks on the terminal itself; what it is given as output it closes once polkit knows it.
        let started = Command::new("pkttyagent")
            .args(["--notify-fd", "1"])
            .args(in_session.then_some("--fallback"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = started else { return Agent(None) };
        if let Some(mut output) = child.stdout.take() {
            let (known, waits) = mpsc::channel();
            thread::spawn(move || {
                let ended = output.read_to_end(&mut Vec::new()).map(drop);
                known.send(ended)
            });
            // An agent that comes late is late for this call alone.
            waits.recv_timeout(PATIENCE).ok();
        }
        Agent(Some(child))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(child) = &mut self.0 else { return };
        // Asked to end, it leaves the terminal as it was.
        let asked =
            i32::try_from(child.id()).is_ok_and(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok());
        if asked {
            child.wait().ok();
        }
    }
}
