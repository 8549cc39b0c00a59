//! Owns the watch over the engine's main process: whether the process that was launched is still the one with its id.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// The process that `launch` became, or is about to become.
#[derive(Debug)]
pub(crate) struct Engine {
    pid: u32,
    /// Its start time in ticks, which exec does not change and a second process of the same id does not share.
    started: Option<u64>,
}

impl Engine {
    pub(crate) fn watch(pid: u32) -> Engine {
        Engine { pid, started: stat(pid).map(|stat| stat.started) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_gone(&self) -> bool {
        match stat(self.pid) {
            Some(stat) => stat.ended || self.started.is_some_and(|started| started != stat.started),
            // A sandboxed /proc hides processes that may not be traced, such as a program that cannot be read.
            None => {
                let Ok(pid) = i32::try_from(self.pid) else { return true };
                matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH | Errno::EPERM))
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ended: bool,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time; the name before them may hold anything.
fn parse(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { ended: matches!(state, "Z" | "X" | "x"), started })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "42 (a) S 1) Z (b) S 1 42 42 0 -1 4194560 300 0 0 0 1 2 3 4 20 0 1 0 987654 5 6 7";

    #[test]
    fn a_name_with_brackets_is_no_state() {
        assert_eq!(parse(LINE), Some(Stat { ended: false, started: 987_654 }));
        assert_eq!(parse(&LINE.replace("(b) S", "(b) Z")), Some(Stat { ended: true, started: 987_654 }));
        assert_eq!(parse("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_not_gone_and_another_of_its_id_is() {
        let mut engine = Engine::watch(std::process::id());
        assert!(!engine.is_gone());
        engine.started = Some(1);
        assert!(engine.is_gone());
    }

    #[test]
    fn a_process_that_was_reaped_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let engine = Engine::watch(child.id());
        assert!(!engine.is_gone());
        child.kill().expect("killed");
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(engine.is_gone(), "a zombie");
        child.wait().expect("reaped");
        assert!(engine.is_gone(), "reaped");
    }
}
