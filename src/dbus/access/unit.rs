//! The systemd unit that a process runs in, by its cgroup.

use std::fs;
use std::path::Path;

/// The unit of PID 1 that a process runs in: a service, or the scope of a login. "" where it cannot be read.
pub(super) fn unit_of(proc: &Path, pid: u32) -> String {
    let Ok(text) = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")) else {
        return String::new();
    };
    // The line of the one hierarchy of version 2, or of systemd's own beside others of version 1.
    let path = |line: &str| {
        let systemd = || line.split_once(":name=systemd:").map(|(_, path)| path.to_owned());
        line.strip_prefix("0::").map(str::to_owned).or_else(systemd)
    };
    // The first that is no slice: below it whom it is delegated to may name things as he likes.
    let unit = |path: String| {
        let first = path.split('/').find(|element| !element.is_empty() && !element.ends_with(".slice"))?;
        // systemd escapes what the kernel could take for a file of its own.
        let first = first.strip_prefix('_').unwrap_or(first);
        first
            .rsplit_once('.')
            .is_some_and(|(_, kind)| matches!(kind, "service" | "scope"))
            .then(|| first.to_owned())
    };
    text.lines().filter_map(path).find_map(unit).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(cgroup: &str) -> String {
        let proc = std::env::temp_dir().join(format!("pool-caller-{}", std::process::id()));
        fs::create_dir_all(proc.join("7")).expect("a folder of the test's own");
        fs::write(proc.join("7/cgroup"), cgroup).expect("a folder of the test's own");
        let unit = unit_of(&proc, 7);
        fs::remove_dir_all(proc).expect("a folder of the test's own");
        unit
    }

    #[test]
    fn a_process_is_in_the_unit_of_pid_1() {
        for (cgroup, expected) in [
            ("0::/system.slice/gateway.service\n", "gateway.service"),
            ("0::/system.slice/gateway.service/worker.scope\n", "gateway.service"),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", "user@1000.service"),
            ("0::/system.slice/_cpu.service\n", "cpu.service"),
            ("4:memory:/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n", "b.service"),
            ("0::/init.scope\n", "init.scope"),
            ("0::/\n", ""),
            ("0::/docker/1234\n", ""),
            ("", ""),
        ] {
            assert_eq!(unit(cgroup), expected, "{cgroup:?}");
        }
        assert_eq!(unit_of(Path::new("/nowhere"), 7), "");
    }
}
