//! This machine: who runs us, which programs it has, and how the missing ones are installed.
//!
//! A command first states its [`Plan`]. Without root nothing is changed: the plan itself is the error, so that the
//! operator reads what would be installed and what is needed. Installing prints the command before it runs it.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Exit code of a command that could not even begin because this machine lacks something (root, a program).
pub const EXIT_CANNOT_RUN: u8 = 77;

/// Why this machine cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Root is needed; carries what would be done with it.
    #[error("{0}\nNothing was changed. Run it again as root (for instance with sudo -E).")]
    NeedsRoot(Plan),
    /// No apt-get: this is no Debian, so the operator must install the programs.
    #[error(
        "{} missing, and this system has no apt-get to install {} with; install what provides {}",
        programs(.0), if .0.len() == 1 { "it" } else { "them" }, packages(.0)
    )]
    NoApt(Vec<Tool>),
    /// apt-get itself failed.
    #[error(
        "`{command}` failed ({status}); its output is above. Check this system's apt sources and network"
    )]
    Apt {
        /// The command as it could be typed.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The packages are installed and a program is still not there.
    #[error("package {} is installed, but there is no program {} in PATH, /usr/sbin or /sbin", .0.package, .0.program)]
    StillMissing(Tool),
    /// A program could not be started.
    #[error("cannot run `{command}`")]
    Spawn {
        /// The command as it could be typed.
        command: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The command as it could be typed.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
}

/// A program, or a file by its absolute path, and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Name of the program, or absolute path of the file.
    pub program: &'static str,
    /// Name of the package.
    pub package: &'static str,
}

impl Tool {
    /// `program` comes with `package`.
    pub const fn new(program: &'static str, package: &'static str) -> Self {
        Self { program, package }
    }

    /// Where the program is, if it is installed.
    pub fn find(&self) -> Option<PathBuf> {
        find(self.program)
    }
}

/// What a command would do to this machine, said before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The command, for instance `cargo xtask image`.
    pub command: String,
    /// What it needs, one sentence part each.
    pub needs: Vec<String>,
    /// Packages that are missing here and would be installed.
    pub installs: Vec<Tool>,
    /// What it would write or build.
    pub makes: Vec<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` needs root, and you are uid {}.", self.command, nix::unistd::geteuid())?;
        writeln!(f, "It needs:")?;
        for need in &self.needs {
            writeln!(f, "  - {need}")?;
        }
        match self.installs.as_slice() {
            [] => writeln!(f, "It would install nothing: every program it uses is here.")?,
            tools => {
                writeln!(f, "It would install with apt-get: {}", packages(tools))?;
            }
        }
        write!(f, "It would make:")?;
        for made in &self.makes {
            write!(f, "\n  - {made}")?;
        }
        Ok(())
    }
}

fn packages(tools: &[Tool]) -> String {
    let mut names: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

fn programs(tools: &[Tool]) -> String {
    tools.iter().map(|tool| tool.program).collect::<Vec<_>>().join(", ")
}

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The first of PATH, /usr/sbin and /sbin that has `program`; an absolute path only has to exist.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|file| file.exists());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}

/// Those of `tools` that are not installed.
pub fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|tool| tool.find().is_none()).collect()
}

/// Stops with the plan unless this process is root; as root, installs the tools that are missing.
pub fn prepare(command: &str, needs: &[&str], tools: &[Tool], makes: &[String]) -> Result<(), Error> {
    require_root(is_root(), command, needs, missing(tools), makes)?;
    ensure(tools)
}

fn require_root(
    root: bool,
    command: &str,
    needs: &[&str],
    installs: Vec<Tool>,
    makes: &[String],
) -> Result<(), Error> {
    if root {
        return Ok(());
    }
    Err(Error::NeedsRoot(Plan {
        command: command.to_owned(),
        needs: needs.iter().map(|&need| need.to_owned()).collect(),
        installs,
        makes: makes.to_vec(),
    }))
}

/// Installs the packages of the tools that are missing, and says so.
pub fn ensure(tools: &[Tool]) -> Result<(), Error> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install {}", packages(&missing));
    if !is_root() {
        let plan = Plan {
            command,
            needs: vec![format!("the programs {}", programs(&missing))],
            installs: missing,
            makes: vec!["nothing else".to_owned()],
        };
        return Err(Error::NeedsRoot(plan));
    }
    if find("apt-get").is_none() {
        return Err(Error::NoApt(missing));
    }
    apt(&["update", "--quiet=2"])?;
    let packages = packages(&missing);
    let mut install = vec!["install", "--yes", "--quiet=2", "--no-install-recommends"];
    install.extend(packages.split(' '));
    apt(&install)?;
    match missing.iter().find(|tool| tool.find().is_none()) {
        Some(tool) => Err(Error::StillMissing(*tool)),
        None => Ok(()),
    }
}

fn apt(args: &[&str]) -> Result<(), Error> {
    let command = format!("apt-get {}", args.join(" "));
    eprintln!("xtask: {command}");
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .map_err(|source| Error::Spawn { command: command.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Apt { command, status }) }
}

/// Runs a command whose output the user sees, and fails when it does.
pub fn run(command: &mut Command) -> Result<(), Error> {
    let typed = typed(command);
    let status = command.status().map_err(|source| Error::Spawn { command: typed.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: typed, status }) }
}

/// A command as it could be typed, for messages.
pub fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The root of the workspace that this crate was built from.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Cargo's build folder: `CARGO_TARGET_DIR`, else `target` in the workspace.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => workspace().join(folder),
        _ => workspace().join("target"),
    }
}

/// The cargo that runs us, else the one in PATH.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Tool = Tool::new("no-such-program-anywhere", "no-such-package");

    #[test]
    fn without_root_the_plan_names_needs_installs_and_makes() {
        let makes = ["a tree".to_owned()];
        let denied = require_root(false, "cargo xtask image", &["root"], vec![ABSENT], &makes);
        let text = denied.expect_err("not root").to_string();
        assert!(text.contains("`cargo xtask image` needs root"), "{text}");
        assert!(text.contains("install with apt-get: no-such-package"), "{text}");
        assert!(text.contains("  - a tree"), "{text}");
        assert!(text.contains("Nothing was changed"), "{text}");
    }

    #[test]
    fn with_root_the_plan_is_not_in_the_way() {
        assert!(require_root(true, "x", &[], vec![ABSENT], &[]).is_ok());
    }

    #[test]
    fn programs_are_found_where_they_are_and_missed_where_they_are_not() {
        assert!(find("sh").is_some());
        assert_eq!(missing(&[ABSENT, Tool::new("sh", "dash")]), [ABSENT]);
    }

    #[test]
    fn packages_are_named_once() {
        let tools = [Tool::new("a", "p"), Tool::new("b", "p"), Tool::new("c", "o")];
        assert_eq!(packages(&tools), "o p");
    }
}
