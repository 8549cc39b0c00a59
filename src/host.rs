//! Owns what is read of the host, once, when the daemon starts: its memory, the control group controllers
//! that limits need, the GPU driver. What cannot be read counts as not known, and nothing fails.
//!
//! The daemon's unit sees processes alone in `/proc`, so all of it comes from `/sys` and from the kernel's own calls.

use nix::sys::sysinfo::sysinfo;
use pool_core::host::HostFacts;
use std::collections::BTreeSet;
use std::fs;

/// The controllers that an engine's limits need.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// What the core is told of the host, beside a systemd of that version and with that many processors.
#[must_use]
pub fn facts(systemd: u16, cpus: usize) -> HostFacts {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    HostFacts {
        systemd,
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory: sysinfo().map_or(0, |info| info.ram_total()),
        missing_controllers: missing(&controllers),
    }
}

/// The version of the GPU driver that is loaded; "": none is.
#[must_use]
pub fn driver_version() -> String {
    let version = fs::read_to_string("/sys/module/nvidia/version").unwrap_or_default();
    version.trim().to_owned()
}

fn missing(controllers: &str) -> BTreeSet<String> {
    let has = |wanted: &str| controllers.split_whitespace().any(|word| word == wanted);
    CONTROLLERS.into_iter().filter(|wanted| !has(wanted)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_are_not_there_are_named() {
        assert!(missing("cpuset cpu io memory hugetlb pids\n").is_empty());
        assert_eq!(missing("cpuset memory\n"), BTreeSet::from(["cpu".to_owned(), "pids".to_owned()]));
        assert_eq!(missing("cpu memory pids\n"), BTreeSet::from(["cpuset".to_owned()]));
    }

    #[test]
    fn this_host_has_memory_and_the_processors_that_were_counted() {
        let facts = facts(252, 3);
        assert!(facts.cpus == 3 && facts.memory > 1 << 20, "{facts:?}");
    }
}
