//! Owns the folder of a machine and the process that holds it: what the guard finds there, its start, and what is left of
//! one that was killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::kernel::{Kernel, SPARE_MODULE_PATH};
use super::{ACCELERATOR_VARIABLE, BOOT_LIMIT, Error, Start};
use crate::host;
use crate::image::{Image, Suite};

const GUARD: &str = include_str!("guard.sh");

/// Starts the agent before almost everything else, and lets it outlive what tests do to memory and tasks.
const AGENT_UNIT: &str = "[Unit]
DefaultDependencies=no
After=systemd-tmpfiles-setup-dev.service

[Service]
ExecStart=/usr/local/sbin/machine-agent
OOMScoreAdjust=-1000
TasksMax=infinity
KillMode=process
";

/// Units that wait for what a machine without udev and network never has.
const MASKED: [&str; 4] = [
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
    "proc-sys-fs-binfmt_misc.automount",
];

/// The process that holds the machine.
#[derive(Debug)]
pub(super) struct Guard {
    suite: Suite,
    child: Child,
    hold: Option<ChildStdin>,
}

impl Guard {
    pub(super) fn start(
        folder: &Path,
        tree: &Image,
        start: &Start<'_>,
        qemu: &[String],
    ) -> Result<Self, Error> {
        let script = folder.join("guard.sh");
        let mut command = Command::new("setsid");
        command
            .args(["unshare", "--mount", "--propagation=private", "bash"])
            .arg(&script)
            .arg(folder)
            .args([&tree.tree, &tree.lock])
            .arg(start.package)
            .args(qemu)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|source| host::Error::Spawn { command: "setsid unshare bash".to_owned(), source })?;
        let hold = child.stdin.take();
        let said = child.stdout.take().map(|stdout| {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let said = said.and_then(Result::ok).unwrap_or_default();
        let mut guard = Guard { suite: start.suite, child, hold };
        if said.trim_end() == "started" {
            return Ok(guard);
        }
        let reason = said.trim_end().strip_prefix("error ").map(str::to_owned);
        guard.end();
        Err(Error::NotStarted {
            suite: start.suite,
            reason: reason.unwrap_or_else(|| {
                "its guard ended without a word; what unshare or bash said is above".to_owned()
            }),
        })
    }

    /// Opens the port, which qemu waits for.
    pub(super) fn connect(&mut self, folder: &Path, begun: Instant) -> Result<UnixStream, Error> {
        let failed = |source| Error::Io { action: "open", path: folder.to_owned(), source };
        let opened = File::open(folder).map_err(failed)?;
        // By the folder's descriptor: its path may be longer than a socket's address.
        let socket = PathBuf::from(format!("/proc/self/fd/{}/agent", opened.as_raw_fd()));
        loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => return Ok(stream),
                Err(source) if begun.elapsed() > BOOT_LIMIT => return Err(failed(source)),
                Err(_) => {}
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let reason = format!("qemu did not run ({status}); try it with {ACCELERATOR_VARIABLE}=tcg");
                return Err(Error::NotStarted { suite: self.suite, reason });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self) {
        self.hold = None;
        if let Err(error) = self.child.wait() {
            eprintln!("xtask: the guard of the {} machine is lost: {error}", self.suite);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.hold.is_some() {
            self.end();
        }
    }
}

/// What the guard finds in its folder: itself, the initial file system, and what is laid over the tree.
pub(super) fn prepare_folder(folder: &Path, start: &Start<'_>, kernel: &Kernel) -> Result<(), Error> {
    create_dir(folder)?;
    write(&folder.join("guard.sh"), GUARD.as_bytes(), 0o644)?;
    write(&folder.join("initrd"), &kernel.initial()?, 0o644)?;
    let overlay = folder.join("overlay");
    let units = overlay.join("etc/systemd/system");
    let wants = units.join("sysinit.target.wants");
    create_dir(&wants)?;
    write(&units.join("machine-agent.service"), AGENT_UNIT.as_bytes(), 0o644)?;
    link("../machine-agent.service", &wants.join("machine-agent.service"))?;
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    write(&overlay.join("etc/hostname"), format!("{}\n", start.name).as_bytes(), 0o644)?;
    install(start.agent, &overlay.join("usr/local/sbin/machine-agent"), 0o755)?;
    install(&kernel.spare_module(), &overlay.join(SPARE_MODULE_PATH.trim_start_matches('/')), 0o644)
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<(), Error> {
    if let Some(folder) = to.parent() {
        create_dir(folder)?;
    }
    let contents =
        fs::read(from).map_err(|source| Error::Io { action: "read", path: from.to_owned(), source })?;
    write(to, &contents, mode)
}

/// Where the folders of machines are.
pub(super) fn root() -> PathBuf {
    host::target_dir().join("machine")
}

/// Removes the folders of guards that were killed; their qemu went with them.
pub(super) fn remove_stale() -> Result<(), Error> {
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        let folder = entry.path();
        let held = File::options().write(true).open(folder.join("lock")).map(|lock| lock.try_lock().is_err());
        // One without a lock is just being made.
        if let Ok(false) = held {
            eprintln!("xtask: removing {}, whose guard was killed", folder.display());
            host::run(Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&folder))?;
        }
    }
    Ok(())
}

pub(super) fn create_dir(folder: &Path) -> Result<(), Error> {
    // Whatever the umask: these folders become folders of the machine.
    let failed = |source| Error::Io { action: "create", path: folder.to_owned(), source };
    let missing: Vec<_> =
        folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    fs::create_dir_all(folder).map_err(failed)?;
    missing
        .iter()
        .try_for_each(|made| fs::set_permissions(made, fs::Permissions::from_mode(0o755)))
        .map_err(failed)
}

pub(super) fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Io { action: "write", path: path.to_owned(), source };
    fs::write(path, contents).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

fn link(to: &str, path: &Path) -> Result<(), Error> {
    symlink(to, path).map_err(|source| Error::Io { action: "link", path: path.to_owned(), source })
}
