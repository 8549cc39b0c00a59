//! A Debian tree booted with systemd as PID 1, in namespaces of its own, with a loopback network only.
//!
//! A guard process (`guard.sh`) holds mounts, cgroup and container. It lives for as long as this process holds its
//! standard input, so a panic, Ctrl-C or SIGKILL of the owner takes the sandbox down as surely as [`Drop`] does, and the
//! mounts vanish with the guard's mount namespace. What a killed guard leaves is removed by the next [`Sandbox::boot`].
//! The tree below is never written to. The journal of each sandbox is kept in `target/sandbox/logs`.
//!
//! Commands run inside as root, with a clean environment, in the cgroup of the sandbox's PID 1.

mod inside;
mod registry;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use inside::{DEFAULT_TIMEOUT, Process};
pub use registry::{Kept, find_kept, stop_kept};

use crate::host::{self, Tool};
use crate::image::{self, Recipe, Suite};

/// What booting a sandbox needs, beside root and an image.
pub const TOOLS: [Tool; 5] = [
    Tool::new("systemd-nspawn", "systemd-container"),
    Tool::new("nsenter", "util-linux"),
    Tool::new("unshare", "util-linux"),
    Tool::new("flock", "util-linux"),
    Tool::new("mount", "mount"),
];

/// What booting a sandbox needs, in words.
pub const NEEDS: &[&str] = &[
    "root (systemd-nspawn boots a container; mounts, namespaces and cgroups are made and removed again)",
    "a cgroup v2 hierarchy, which may be mounted beside v1 (as at /sys/fs/cgroup/unified)",
];

/// How long a boot may take before it has failed.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

const GUARD: &str = include_str!("guard.sh");

/// Why a sandbox did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine lacks root or a program.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// There is no tree to boot.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A file operation on the host failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The name cannot be part of a host name.
    #[error("`{0}` cannot name a sandbox: use up to 30 of a-z, 0-9 and -, and begin with a letter")]
    BadName(String),
    /// The guard gave up.
    #[error("the {suite} sandbox did not start: {reason}")]
    NotStarted {
        /// Its release.
        suite: Suite,
        /// The guard's words.
        reason: String,
    },
    /// PID 1 is there and the system did not come up.
    #[error("the {suite} sandbox did not come up within {} s; it says `{state}`\n{detail}", BOOT_LIMIT.as_secs())]
    NotUp {
        /// Its release.
        suite: Suite,
        /// What `systemctl is-system-running` said last.
        state: String,
        /// Failed units and jobs.
        detail: String,
    },
    /// A command inside could not be run at all.
    #[error("cannot run `{command}` in the sandbox")]
    Run {
        /// The command.
        command: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A command inside ran out of time and was killed.
    #[error("`{command}` was killed in the sandbox after {} s", .limit.as_secs_f64())]
    TimedOut {
        /// The command.
        command: String,
        /// The time it had.
        limit: Duration,
    },
    /// A command inside failed.
    #[error("`{command}` failed in the sandbox ({status}){}", output_text(.stdout, .stderr))]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it printed.
        stdout: String,
        /// What it complained about.
        stderr: String,
    },
    /// No sandbox of that name is running.
    #[error("no kept sandbox{}; `cargo xtask demo --keep` leaves one", .0.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default())]
    NoneKept(Option<String>),
}

pub(crate) fn output_text(stdout: &str, stderr: &str) -> String {
    let part = |name: &str, text: &str| match text.trim_end() {
        "" => String::new(),
        text => format!("\n--- its {name}:\n{text}"),
    };
    part("output", stdout) + &part("errors", stderr)
}

/// A program that is the system bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// `dbus-broker`, which distributions boot with.
    Broker,
    /// `dbus-daemon`, the reference.
    Daemon,
}

impl Bus {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Broker, Self::Daemon];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Broker => "dbus-broker",
            Self::Daemon => "dbus-daemon",
        }
    }

    /// Its unit.
    fn unit(self) -> &'static str {
        match self {
            Self::Broker => "dbus-broker.service",
            Self::Daemon => "dbus.service",
        }
    }
}

impl std::str::FromStr for Bus {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|bus| bus.name() == word);
        found.ok_or_else(|| format!("no bus `{word}`; there are dbus-broker and dbus-daemon"))
    }
}

/// A booted system. Dropping it takes it down.
#[derive(Debug)]
pub struct Sandbox {
    suite: Suite,
    name: String,
    machine: String,
    folder: PathBuf,
    journal: PathBuf,
    leader: u32,
    proc_root: PathBuf,
    cgroup_procs: PathBuf,
    boot_time: Duration,
    guard: Child,
    hold: Option<ChildStdin>,
}

impl Sandbox {
    /// Boots the release's tree, which is made first if the cache has none, and waits until it is up.
    ///
    /// `name` is for people: several sandboxes may share it. The host name inside is `name` and a number.
    pub fn boot(suite: Suite, name: &str) -> Result<Self, Error> {
        Self::boot_with(suite, name, Bus::Broker)
    }

    /// [`Self::boot`] with that program as the system bus.
    pub fn boot_with(suite: Suite, name: &str, bus: Bus) -> Result<Self, Error> {
        check_name(name)?;
        let makes = [format!("{} while it runs", registry::root().display())];
        host::prepare(&format!("boot a {suite} sandbox"), NEEDS, &TOOLS, &makes)?;
        let image = image::ensure(Recipe::System(suite))?;
        registry::remove_stale()?;
        let begun = Instant::now();
        let machine = unique(name);
        let folder = registry::root().join(&machine);
        create_dir(&folder)?;
        write(&folder.join("name"), name)?;
        let journal = registry::logs().join(format!("{suite}-{name}.journal"));
        create_dir(&registry::logs())?;
        let guard = folder.join("guard.sh");
        write(&guard, GUARD)?;
        let mut command = Command::new("setsid");
        command
            .args(["unshare", "--mount", "--propagation=private", "bash"])
            .args([&guard, &folder, &image.tree, &image.lock])
            .arg(&machine)
            .arg(&journal)
            .arg(bus.unit())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut guard = command
            .spawn()
            .map_err(|source| host::Error::Spawn { command: "setsid unshare bash".to_owned(), source })?;
        let hold = guard.stdin.take();
        let said = guard.stdout.take().map(|stdout| {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let said = said.and_then(Result::ok).unwrap_or_default();
        let leader = said.trim_end().strip_prefix("leader ").and_then(|pid| pid.parse().ok());
        let mut sandbox = Self {
            suite,
            name: name.to_owned(),
            machine,
            folder,
            journal,
            leader: leader.unwrap_or_default(),
            proc_root: PathBuf::from(format!("/proc/{}/root", leader.unwrap_or_default())),
            cgroup_procs: PathBuf::new(),
            boot_time: Duration::ZERO,
            guard,
            hold,
        };
        if leader.is_none() {
            let reason = match said.trim_end().strip_prefix("error ") {
                Some(reason) => reason.to_owned(),
                None => "its guard ended without a word; what unshare or bash said is above".to_owned(),
            };
            return Err(Error::NotStarted { suite, reason });
        }
        sandbox.await_up(begun)?;
        sandbox.boot_time = begun.elapsed();
        Ok(sandbox)
    }

    fn await_up(&mut self, begun: Instant) -> Result<(), Error> {
        let mut state = String::new();
        while begun.elapsed() < BOOT_LIMIT {
            let asked = self.run_for(BOOT_LIMIT, &["systemctl", "is-system-running", "--wait"])?;
            String::from_utf8_lossy(&asked.stdout).trim_end().clone_into(&mut state);
            match state.as_str() {
                "running" => {
                    self.cgroup_procs = inside::cgroup_procs(self.leader).unwrap_or_default();
                    return Ok(());
                }
                "degraded" => {
                    let failed = self.run(&["systemctl", "--failed", "--no-legend", "--plain"])?;
                    let failed = String::from_utf8_lossy(&failed.stdout).into_owned();
                    eprintln!("xtask: in the {} sandbox these units failed at boot:\n{failed}", self.suite);
                    self.cgroup_procs = inside::cgroup_procs(self.leader).unwrap_or_default();
                    return Ok(());
                }
                // The bus is not there yet.
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let jobs = self.run(&["systemctl", "list-jobs", "--no-legend"])?;
        let failed = self.run(&["systemctl", "--failed", "--no-legend", "--plain"])?;
        let detail =
            [jobs.stdout, failed.stdout].map(|out| String::from_utf8_lossy(&out).into_owned()).join("\n");
        Err(Error::NotUp { suite: self.suite, state, detail })
    }

    /// The release inside.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The name given to [`Self::boot`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its host name: the name and a number that makes it unique on this host.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// PID, as the host sees it, of the systemd that is PID 1 inside.
    pub fn leader_pid(&self) -> u32 {
        self.leader
    }

    /// The sandbox's file system, its own /run and /tmp included, as the host can read it.
    ///
    /// Absolute links in it lead to the *host's* files: to write, use [`Self::write`] or [`Self::copy_in`].
    pub fn root(&self) -> &Path {
        &self.proc_root
    }

    /// How long the boot took, without making the image.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Where the journal is written when the sandbox goes, whichever way it goes.
    pub fn journal_file(&self) -> &Path {
        &self.journal
    }

    /// Lets the sandbox outlive this process, for `cargo xtask shell`.
    pub fn keep(mut self) -> Result<(), Error> {
        let told = self.hold.as_mut().map(|hold| hold.write_all(b"keep\n")).transpose();
        told.map_err(|source| Error::Io {
            action: "speak to the guard of",
            path: self.folder.clone(),
            source,
        })?;
        let kept = self.folder.join("kept");
        let begun = Instant::now();
        while !kept.exists() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Nothing to take down any more: drop must find neither hold nor a guard to wait for.
        self.hold = None;
        self.leader = 0;
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.hold.take().is_none() {
            return;
        }
        // The guard saw its input close: it takes everything down and ends.
        let ended = self.guard.wait();
        if let Err(error) = ended {
            eprintln!("xtask: the guard of sandbox {} is lost: {error}", self.machine);
        }
        if std::thread::panicking() && self.leader != 0 {
            let journal = fs::read_to_string(&self.journal).unwrap_or_default();
            eprintln!("--- the end of the journal of {} ({}):", self.machine, self.journal.display());
            eprintln!("{}\n---", image::last_lines(&journal, 80));
        }
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    if plain && begins && name.len() <= 30 { Ok(()) } else { Err(Error::BadName(name.to_owned())) }
}

/// `name`, this process and a count: unique on this host for as long as this process lives.
fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{count}", std::process::id())
}

fn create_dir(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "create",
        path: folder.to_owned(),
        source,
    })
}

fn write(path: &Path, contents: &str) -> Result<(), Error> {
    fs::write(path, contents).map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_a_host_name() {
        assert!(check_name("lease-basic2").is_ok());
        for bad in ["", "2x", "Big", "a_b", "a/b", "abcdefghijabcdefghijabcdefghijx"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_failed_command_shows_what_it_printed() {
        let text = output_text("out\n", "");
        assert_eq!(text, "\n--- its output:\nout");
    }

    #[test]
    fn machines_of_one_name_differ() {
        assert_ne!(unique("a"), unique("a"));
    }
}
