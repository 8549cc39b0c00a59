//! Owns the question whether systemd is ending the unit already. It is asked before a verdict alone: an engine that drains
//! after SIGTERM listens no more and is not lost, and a verdict would cut off what it still works on.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// By its path: the prober has no `PATH`.
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// How long systemd may take to say it.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether the unit is on its way down. Where nobody can say, it is not.
pub(crate) fn is_asked_of(unit: &str) -> bool {
    let mut command = Command::new(SYSTEMCTL);
    command.args(["show", "--property=ActiveState", "--value", unit]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    if !ends_in_time(&mut child) {
        drop(child.kill());
    }
    child.wait_with_output().is_ok_and(|output| output.stdout.starts_with(b"deactivating"))
}

fn ends_in_time(child: &mut Child) -> bool {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}
