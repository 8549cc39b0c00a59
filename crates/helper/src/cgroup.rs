//! Owns what the unit's control group says: its processes, the CPU time that they used, the memory that they had.
//!
//! Where there is no unified hierarchy everything is unknown, and nothing fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The control group that this process is in.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    pub(crate) fn own() -> Option<Cgroup> {
        let listing = fs::read_to_string("/proc/self/cgroup").ok()?;
        let folder = Path::new("/sys/fs/cgroup").join(unified(&listing)?);
        Some(Cgroup { folder })
    }

    /// The systemd service whose group it is.
    pub(crate) fn unit(&self) -> Option<&str> {
        self.folder.file_name()?.to_str().filter(|name| name.ends_with(".service"))
    }

    /// CPU time of everything that is or was in it.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        usage(&fs::read_to_string(self.folder.join("cpu.stat")).ok()?)
    }

    /// The most memory that everything in it has had at once; not every kernel says it.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join("memory.peak")).ok()?.trim().parse().ok()
    }

    /// The processes in it, this one too.
    pub(crate) fn processes(&self) -> Option<Vec<u32>> {
        let listing = fs::read_to_string(self.folder.join("cgroup.procs")).ok()?;
        listing.lines().map(|line| line.parse().ok()).collect()
    }

    /// Whether processes of the unit may be in groups below this one.
    pub(crate) fn is_divided(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_type().is_ok_and(|file_type| file_type.is_dir()))
        })
    }
}

/// The path below the mount point, from the line of the unified hierarchy.
fn unified(listing: &str) -> Option<&str> {
    listing.lines().find_map(|line| line.strip_prefix("0::/"))
}

fn usage(cpu_stat: &str) -> Option<Duration> {
    let value = cpu_stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    value.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_line_is_found_among_the_others() {
        let listing =
            "4:memory:/x\n1:name=systemd:/y\n0::/llamaorch.slice/llamaorch-engine-a\\x2db.service\n";
        assert_eq!(unified(listing), Some("llamaorch.slice/llamaorch-engine-a\\x2db.service"));
        assert_eq!(unified("0::/\n"), Some(""));
        assert_eq!(unified("4:memory:/x\n"), None);
    }

    #[test]
    fn the_usage_is_one_line_of_the_statistics() {
        let text = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n";
        assert_eq!(usage(text), Some(Duration::from_micros(1_234_567)));
        assert_eq!(usage("user_usec 1\n"), None);
    }
}
