//! A Debian tree with the built package, booted in a virtual machine: its own kernel, all cgroup controllers, no network.
//!
//! ```text
//! tree + package ──> guard.sh: an overlay, dpkg, mkfs.ext4 ──> disk ──> qemu ──> systemd ──> agent
//! Machine::run ──> wire ──> a socket ──> qemu's virtio port ──> agent, which runs it as root
//! ```
//!
//! A guard process holds mounts, disk and qemu for as long as this process holds its standard input, so a panic, Ctrl-C or
//! SIGKILL of the owner takes the machine down as surely as [`Drop`] does. What a killed guard leaves is removed by the
//! next [`Machine::boot`]. Console and journal of each machine are kept in `target/machine/logs`.
//!
//! What a container cannot prove is proved here: cgroup limits, devices, addresses, kernel logs, modules.

mod guard;
mod inside;
mod kernel;
mod qemu;
mod wire;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

pub use inside::DEFAULT_TIMEOUT;
pub use kernel::{Kernel, SPARE_MODULE_PATH};
pub use qemu::{ACCELERATOR_VARIABLE, Accelerator};

use crate::host::{self, Tool};
use crate::image::{self, Recipe, Suite};
use crate::sandbox::output_text;
use guard::Guard;
use wire::{Event, Wire};

/// What a machine needs, beside root, trees and a package.
pub const TOOLS: [Tool; 6] = [
    Tool::new(qemu::PROGRAM, "qemu-system-x86"),
    Tool::new("mkfs.ext4", "e2fsprogs"),
    Tool::new("unshare", "util-linux"),
    Tool::new("setpriv", "util-linux"),
    Tool::new("flock", "util-linux"),
    Tool::new("mount", "mount"),
];

/// What a machine needs, in words.
pub const NEEDS: &[&str] = &[
    "root (a tree is mounted, a package installed into a layer over it, and a disk made of both)",
    "2 GiB of memory for the machine, and 500 MB of disk in target/ while it runs",
    "an x86-64 host; /dev/kvm is used where it works",
];

/// How long a boot may take before it has failed, the making of the disk included: emulated, on a busy host.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// Why a machine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This host lacks root or a program.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// There is no tree to boot, or no kernel.
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
    /// The guard gave up.
    #[error("the {suite} machine did not start: {reason}")]
    NotStarted {
        /// Its release.
        suite: Suite,
        /// The guard's words.
        reason: String,
    },
    /// The kernel runs and the system did not come up.
    #[error(
        "the {suite} machine did not come up within {} s: {state}\n--- the end of its console ({}):\n{console}",
        BOOT_LIMIT.as_secs(), .file.display()
    )]
    NotUp {
        /// Its release.
        suite: Suite,
        /// What was missing.
        state: String,
        /// The last lines of the console.
        console: String,
        /// All of it.
        file: PathBuf,
    },
    /// The machine ended, or its agent did.
    #[error("the machine was gone when `{command}` was to run\n--- the end of its console ({}):\n{console}", .file.display())]
    Gone {
        /// The command.
        command: String,
        /// The last lines of the console.
        console: String,
        /// All of it.
        file: PathBuf,
    },
    /// A command inside ran out of time and was killed.
    #[error("`{command}` was killed in the machine after {} s", .limit.as_secs_f64())]
    TimedOut {
        /// The command.
        command: String,
        /// The time it had.
        limit: Duration,
    },
    /// A command inside failed.
    #[error("`{command}` failed in the machine ({status}){}", output_text(.stdout, .stderr))]
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
}

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The release of its tree.
    pub suite: Suite,
    /// For people, and part of the names of its logs: a-z, 0-9 and -.
    pub name: &'a str,
    /// The package, installed before the first boot.
    pub package: &'a Path,
    /// The agent, as `xtask::dist` builds it.
    pub agent: &'a Path,
}

/// A running machine. Dropping it takes it down.
#[derive(Debug)]
pub struct Machine {
    suite: Suite,
    name: String,
    accelerator: Accelerator,
    console: PathBuf,
    journal: PathBuf,
    disk_time: Duration,
    boot_time: Duration,
    wire: Wire,
    /// Held, so that the machine runs for as long.
    _guard: Guard,
}

impl Machine {
    /// Makes the disk, boots it and waits until the system is up.
    pub fn boot(start: &Start<'_>) -> Result<Self, Error> {
        let suite = start.suite;
        let makes = [format!("{} while it runs", guard::root().display())];
        host::prepare(&format!("boot a {suite} machine"), NEEDS, &TOOLS, &makes)?;
        let tree = image::ensure(Recipe::System(suite))?;
        let kernel = Kernel::ensure()?;
        let accelerator = Accelerator::choose(&kernel);
        guard::remove_stale()?;
        let begun = Instant::now();
        let folder = guard::root().join(format!("{suite}-{}-{}", start.name, std::process::id()));
        guard::prepare_folder(&folder, start, &kernel)?;
        let logs = guard::root().join("logs");
        guard::create_dir(&logs)?;
        let [console, journal] =
            ["console", "journal"].map(|kind| logs.join(format!("{suite}-{}.{kind}", start.name)));
        // So that whatever it says is of this boot.
        guard::write(&console, b"", 0o644)?;
        let mut guard =
            Guard::start(&folder, &tree, start, &qemu::command_line(accelerator, &kernel, &console))?;
        let disk_time = begun.elapsed();
        let not_up = |state: &str| Error::NotUp {
            suite,
            state: state.to_owned(),
            console: last_lines(&console),
            file: console.clone(),
        };
        let stream = guard.connect(&folder, begun)?;
        let lost = |source| Error::Io { action: "open the port of", path: folder.clone(), source };
        let (wire, hello) = Wire::new(stream).map_err(lost)?;
        await_hello(&hello, begun).ok_or_else(|| not_up("its agent does not answer"))?;
        let name = start.name.to_owned();
        let mut machine = Machine {
            suite,
            name,
            accelerator,
            console: console.clone(),
            journal,
            disk_time,
            boot_time: Duration::ZERO,
            wire,
            _guard: guard,
        };
        machine.await_up(begun)?;
        machine.keep_journal()?;
        machine.boot_time = begun.elapsed().saturating_sub(disk_time);
        Ok(machine)
    }

    fn await_up(&self, begun: Instant) -> Result<(), Error> {
        let mut state = String::new();
        while begun.elapsed() < BOOT_LIMIT {
            let asked = self.run_for(BOOT_LIMIT, &["systemctl", "is-system-running", "--wait"])?;
            String::from_utf8_lossy(&asked.stdout).trim_end().clone_into(&mut state);
            match state.as_str() {
                "running" => return Ok(()),
                "degraded" => {
                    let failed = self.check(&["systemctl", "--failed", "--no-legend", "--plain"])?;
                    eprintln!("xtask: in the {} machine these units failed at boot:\n{failed}", self.suite);
                    return Ok(());
                }
                // The bus is not there yet.
                _ => thread::sleep(Duration::from_millis(100)),
            }
        }
        let jobs = self.run(&["systemctl", "list-jobs", "--no-legend"])?;
        let state = format!("it says `{state}`\n{}", String::from_utf8_lossy(&jobs.stdout));
        let console = last_lines(&self.console);
        Err(Error::NotUp { suite: self.suite, state, console, file: self.console.clone() })
    }

    /// Writes the journal to its file as it grows: nobody asks for it when the owner is killed.
    fn keep_journal(&self) -> Result<(), Error> {
        let argv =
            ["journalctl", "--boot", "--follow", "--lines=all", "--no-pager", "--output=short-precise"];
        let mut file = File::create(&self.journal).map_err(|source| Error::Io {
            action: "create",
            path: self.journal.clone(),
            source,
        })?;
        let (_, events) = self.wire.start(&argv).map_err(|_| self.gone(&argv))?;
        thread::spawn(move || {
            for event in events {
                if let Event::Output(bytes) = event
                    && let Err(error) = file.write_all(&bytes)
                {
                    eprintln!("xtask: the journal of a machine is not kept any more: {error}");
                    return;
                }
            }
        });
        Ok(())
    }

    /// The release inside.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The name it was booted with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs its instructions.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// How long its disk took to make, with the package installed on it.
    pub fn disk_time(&self) -> Duration {
        self.disk_time
    }

    /// How long it took from the start of its kernel until the system was up.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Where its console is written.
    pub fn console_file(&self) -> &Path {
        &self.console
    }

    /// Where its journal is written as it grows.
    pub fn journal_file(&self) -> &Path {
        &self.journal
    }

    fn gone(&self, argv: &[&str]) -> Error {
        Error::Gone {
            command: argv.join(" "),
            console: last_lines(&self.console),
            file: self.console.clone(),
        }
    }
}

fn await_hello(hello: &Receiver<()>, begun: Instant) -> Option<()> {
    hello.recv_timeout(BOOT_LIMIT.saturating_sub(begun.elapsed())).ok()
}

fn last_lines(file: &Path) -> String {
    image::last_lines(&String::from_utf8_lossy(&fs::read(file).unwrap_or_default()), 30)
}
