//! What is done in a booted sandbox: commands, files, packages.
//!
//! Every command has a limit; at its end the command's process group is killed. Files go in through a command, never
//! through the host's view of the tree, where an absolute link would lead to the host's own files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::{Error, Sandbox};

/// The limit of [`Sandbox::run`] and [`Sandbox::shell`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// What commands inside find in their environment.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("SYSTEMD_PAGER", ""),
    ("SYSTEMD_COLORS", "0"),
    ("DEBIAN_FRONTEND", "noninteractive"),
];

/// The command line that enters the sandbox of `leader`, ready for the command's own words.
///
/// A shell first moves itself into the cgroup of PID 1, so that inside it belongs to a unit like everything else.
pub(super) fn enter(leader: u32, cgroup_procs: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"{ echo $$ >"$0"; } 2>/dev/null; exec nsenter "$@""#])
        .arg(cgroup_procs)
        .args(["-t", &leader.to_string()])
        .args(["-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", "--"])
        .env_clear()
        .envs(ENVIRONMENT);
    command
}

/// `cgroup.procs` of the v2 cgroup that `pid` is in, as this process sees it.
pub(super) fn cgroup_procs(pid: u32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup_folder(&mounts, &groups).map(|folder| folder.join("cgroup.procs"))
}

fn cgroup_folder(mounts: &str, groups: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next() == Some("cgroup2")).then_some(place)
    })?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(mount).join(group.trim_start_matches('/')))
}

/// A command that runs in a sandbox beside the test. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// What it prints, to be read once.
    pub fn stdout(&mut self) -> Option<BufReader<ChildStdout>> {
        self.child.stdout.take().map(BufReader::new)
    }

    /// Its PID as the host sees it (of the `nsenter` that waits for it).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_command(self.child.id(), || {
            thread::sleep(Duration::from_millis(20));
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        if let Err(error) = self.child.wait() {
            eprintln!("xtask: a command in a sandbox is lost: {error}");
        }
    }
}

/// Ends the command behind an `nsenter`: first the command, so that `nsenter` reaps it, then all of its group.
fn kill_command(nsenter: u32, ended: impl FnOnce() -> bool) {
    let children = fs::read_to_string(format!("/proc/{nsenter}/task/{nsenter}/children")).unwrap_or_default();
    for child in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
        // Fails only when it has just ended, which is what is wanted.
        kill(Pid::from_raw(child), Signal::SIGKILL).ok();
    }
    if !ended() {
        kill_group(nsenter);
    }
}

fn kill_group(leader: u32) {
    if let Ok(group) = i32::try_from(leader) {
        // Fails only when the group is already gone, which is what is wanted.
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
}

impl Sandbox {
    /// Runs a command to its end. A command that fails is no error here: look at the output's status.
    pub fn run(&self, argv: &[&str]) -> Result<Output, Error> {
        self.run_for(DEFAULT_TIMEOUT, argv)
    }

    /// [`Self::run`] with another limit.
    pub fn run_for(&self, limit: Duration, argv: &[&str]) -> Result<Output, Error> {
        self.run_with_input(limit, argv, Stdio::null())
    }

    fn run_with_input(&self, limit: Duration, argv: &[&str], input: Stdio) -> Result<Output, Error> {
        let words = argv.join(" ");
        let failed = |source| Error::Run { command: words.clone(), source };
        let mut command = self.command(argv);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(failed)?;
        let group = child.id();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(child.wait_with_output()));
        match end.recv_timeout(limit) {
            Ok(output) => output.map_err(failed),
            Err(_) => {
                kill_command(group, || end.recv_timeout(Duration::from_millis(200)).is_ok());
                Err(Error::TimedOut { command: words, limit })
            }
        }
    }

    /// Runs a bash script with `-e`, `-u` and `pipefail`, and returns what it printed. It fails when the script does.
    pub fn shell(&self, script: &str) -> Result<String, Error> {
        self.check(&["bash", "-euo", "pipefail", "-c", script])
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn check(&self, argv: &[&str]) -> Result<String, Error> {
        let output = self.run(argv)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::Failed { command: argv.join(" "), status: output.status, stdout, stderr })
    }

    /// Starts a command and returns at once. Its errors go to this process's own.
    pub fn spawn(&self, argv: &[&str]) -> Result<Process, Error> {
        let mut command = self.command(argv);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(|source| Error::Run { command: argv.join(" "), source })?;
        Ok(Process { child })
    }

    /// A command inside, for callers who want its input and output in their own hands.
    pub fn command<S: AsRef<OsStr>>(&self, argv: &[S]) -> Command {
        let mut command = enter(self.leader, &self.cgroup_procs);
        command.args(argv);
        command
    }

    /// Copies a file of the host into the sandbox, with its mode, making folders as needed.
    pub fn copy_in(&self, host: &Path, inside: &str) -> Result<(), Error> {
        let open = |source| Error::Io { action: "read", path: host.to_owned(), source };
        let file = File::open(host).map_err(open)?;
        let mode = file.metadata().map_err(open)?.permissions().mode() & 0o7777;
        self.install(Stdio::from(file), inside, mode)
    }

    /// Writes a file in the sandbox, making folders as needed.
    pub fn write(&self, inside: &str, contents: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let (reader, writer) =
            io::pipe().map_err(|source| Error::Run { command: "install".to_owned(), source })?;
        let contents = contents.as_ref();
        thread::scope(|scope| {
            scope.spawn(move || io::copy(&mut &*contents, &mut { writer }));
            self.install(Stdio::from(reader), inside, mode)
        })
    }

    fn install(&self, input: Stdio, inside: &str, mode: u32) -> Result<(), Error> {
        // A new file under the name, never the old one rewritten: a running program keeps what it mapped.
        let script =
            r#"mkdir -p "$(dirname "$1")" && rm -f "$1" && umask 077 && cat >"$1" && chmod "$0" "$1""#;
        let argv = ["sh", "-c", script, &format!("{mode:o}"), inside];
        let output = self.run_with_input(DEFAULT_TIMEOUT, &argv, input)?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::Failed {
            command: format!("write {inside}"),
            status: output.status,
            stdout: String::new(),
            stderr,
        })
    }

    /// Reads a file in the sandbox.
    pub fn read(&self, inside: &str) -> Result<String, Error> {
        self.check(&["cat", "--", inside])
    }

    /// Installs a package as an operator does, `apt install ./x.deb`; all it depends on must be in the image already.
    pub fn install_package(&self, deb: &Path) -> Result<String, Error> {
        let name = deb.file_name().and_then(OsStr::to_str).unwrap_or("package.deb");
        let inside = format!("/var/cache/{name}");
        self.copy_in(deb, &inside)?;
        self.check(&["apt-get", "install", "--yes", "--allow-downgrades", "--reinstall", &inside])
    }

    /// The journal so far, as `journalctl` shows it, narrowed by its arguments.
    pub fn journal(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut argv = vec!["journalctl", "--boot", "--no-pager", "--output=short-precise"];
        argv.extend(arguments);
        self.check(&argv)
    }

    /// Asks `probe` every 20 ms until it answers, and fails with `what` and the journal's end if it doesn't in time.
    pub fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&Self) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = probe(self)? {
                return Ok(answer);
            }
            if begun.elapsed() > limit {
                let end = self.journal(&["--lines=40"]).unwrap_or_default();
                eprintln!("--- the end of the journal of {}:\n{end}---", self.machine);
                return Err(Error::TimedOut { command: format!("wait until {what}"), limit });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_found_beside_v1_and_alone() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let groups = "9:name=systemd:/x/payload\n0::/x/payload/init.scope\n";
        let expected = Path::new("/sys/fs/cgroup/unified/x/payload/init.scope");
        assert_eq!(cgroup_folder(hybrid, groups).as_deref(), Some(expected));
        let pure = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(cgroup_folder(pure, "0::/a\n").as_deref(), Some(Path::new("/sys/fs/cgroup/a")));
        assert_eq!(cgroup_folder("", groups), None);
    }
}
