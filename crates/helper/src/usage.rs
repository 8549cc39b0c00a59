//! Owns what the unit has used so far: CPU time and bytes read, less what the prober itself uses.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::progress::Usage;

/// Ticks a second in /proc/PID/stat, the same on every Linux that is visible to programs.
const TICKS: u64 = 100;

/// Reads the unit's use, again and again.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    cgroup: Option<&'a Cgroup>,
    engine: u32,
    /// Bytes read so far by each process that lives.
    each: BTreeMap<u32, u64>,
    /// Bytes read so far by all of them, those that ended too.
    total: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(cgroup: Option<&'a Cgroup>, engine: u32) -> Self {
        Meter { cgroup, engine, each: BTreeMap::new(), total: 0 }
    }

    pub(crate) fn read(&mut self, at: Duration) -> Usage {
        let cpu = self.cgroup.and_then(Cgroup::cpu).zip(own_cpu());
        Usage { at, cpu: cpu.map(|(unit, own)| unit.saturating_sub(own)), read: self.bytes() }
    }

    /// CPU time of the unit without the prober's; that of the engine's main process where there is no control group.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let unit =
            self.cgroup.and_then(Cgroup::cpu).zip(own_cpu()).map(|(unit, own)| unit.saturating_sub(own));
        unit.or_else(|| ticks(&fs::read_to_string(format!("/proc/{}/stat", self.engine)).ok()?))
    }

    /// `None` where no process shows it. An engine's main process may leave the reading to workers.
    fn bytes(&mut self) -> Option<u64> {
        let mut processes = self.cgroup.and_then(Cgroup::processes).unwrap_or_else(|| vec![self.engine]);
        processes.retain(|&pid| pid != std::process::id());
        let each: BTreeMap<u32, u64> =
            processes.into_iter().filter_map(|pid| Some((pid, bytes_of(pid)?))).collect();
        if each.is_empty() {
            return None;
        }
        for (pid, now) in &each {
            let before = self.each.get(pid).copied().unwrap_or(0);
            self.total = self.total.saturating_add(now.saturating_sub(before));
        }
        self.each = each;
        Some(self.total)
    }
}

fn bytes_of(pid: u32) -> Option<u64> {
    read_bytes(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?)
}

/// Bytes asked for by read(2), or fetched from storage: weights that are mapped into memory show in the second alone.
fn read_bytes(io: &str) -> Option<u64> {
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    field("rchar:").max(field("read_bytes:"))
}

fn own_cpu() -> Option<Duration> {
    let fine = || nanoseconds(&fs::read_to_string("/proc/self/schedstat").ok()?);
    let coarse = || ticks(&fs::read_to_string("/proc/self/stat").ok()?);
    fine().or_else(coarse)
}

fn nanoseconds(schedstat: &str) -> Option<Duration> {
    schedstat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn ticks(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_count_of_bytes_is_what_was_read() {
        assert_eq!(read_bytes("rchar: 5\nwchar: 900\nread_bytes: 7\n"), Some(7));
        assert_eq!(read_bytes("rchar: 9\nwchar: 900\nread_bytes: 7\n"), Some(9));
        assert_eq!(read_bytes("rchar: 9\n"), Some(9));
        assert_eq!(read_bytes(""), None);
    }

    #[test]
    fn own_time_is_read_from_either_file() {
        assert_eq!(nanoseconds("1500000 42 7\n"), Some(Duration::from_micros(1500)));
        assert_eq!(
            ticks("1 (a b) c) S 2 3 4 5 6 7 8 9 10 11 120 30 14 15\n"),
            Some(Duration::from_millis(1500))
        );
    }

    #[test]
    fn a_process_that_works_is_seen_to_work_and_one_that_is_stopped_is_not() {
        let mut child =
            std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a process");
        let meter = Meter::new(None, child.id());
        let used = || {
            let before = meter.cpu().expect("a time");
            std::thread::sleep(Duration::from_millis(300));
            meter.cpu().expect("a time") - before
        };
        let at_work = used();
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("an id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("stopped");
        std::thread::sleep(Duration::from_millis(20));
        let stopped = used();
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(at_work > Duration::from_millis(20) && stopped.is_zero(), "{at_work:?} {stopped:?}");
    }

    #[test]
    fn a_process_that_reads_is_seen_to_read() {
        let mut command = std::process::Command::new("cat");
        let mut child =
            command.arg("/dev/zero").stdout(std::process::Stdio::null()).spawn().expect("a process");
        let mut meter = Meter::new(None, child.id());
        let before = meter.read(Duration::ZERO).read.expect("a count");
        std::thread::sleep(Duration::from_millis(100));
        let after = meter.read(Duration::from_millis(100)).read.expect("a count");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(after > before + (1 << 20), "{before} {after}");
        assert_eq!(meter.read(Duration::from_millis(200)).read, None);
    }
}
