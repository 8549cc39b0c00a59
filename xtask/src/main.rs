//! `cargo xtask`: arguments and exit codes; the work is in the library.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::dist::{self, Place};
use xtask::host;
use xtask::image::{self, Recipe, Suite};
use xtask::sandbox::{self, Bus, Sandbox};
use xtask::test_levels::{self, Choice, Level};
use xtask::{Failure, bench, ci, demo, gguf, mutants, reference, replay};

/// What a developer of pool-managerd runs.
///
/// A command that needs root says without it what it would install and make, changes nothing, and exits with 77. What is
/// missing is installed with apt-get; each command's --help says what that may be.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the product at work: installed, a pool made ready, engine and daemon killed.
    ///
    /// Needs root. Installs mmdebstrap, systemd-container, build-essential and binutils where they are missing. The first
    /// run builds the package and a forky tree (minutes); later ones take well under a minute.
    Demo {
        /// Leave the sandbox running, for `cargo xtask shell`.
        #[arg(long)]
        keep: bool,
    },
    /// Enter the sandbox that `demo --keep` left running.
    ///
    /// Needs root and installs nothing, unless --fresh has to make a tree first (see `image`).
    Shell {
        /// Its name; the newest if none is named.
        name: Option<String>,
        /// Boot a new sandbox of this release instead; it goes when the shell ends.
        #[arg(long, value_name = "SUITE", conflicts_with = "name")]
        fresh: Option<Suite>,
        /// Take kept sandboxes down instead of entering one.
        #[arg(long, conflicts_with = "fresh")]
        stop: bool,
    },
    /// Run the test levels: unit, simulation, bus, system and machine (both on bookworm, trixie and forky).
    ///
    /// The unit and simulation levels need cargo alone. The bus level runs on dbus-daemon and on dbus-broker,
    /// and installs them where they are missing. Debian's dbus-broker becomes the machine's own bus at the next boot;
    /// `systemctl disable dbus-broker` keeps the old one. The system level needs root; it
    /// installs what `demo` does and makes the trees that `image` does. The machine level boots virtual machines and
    /// installs qemu-system-x86 and e2fsprogs as well; /dev/kvm is used where it works, POOL_TEST_ACCELERATOR=kvm or tcg
    /// says it without a try. A level that cannot run says what is missing and
    /// fails the run; a test that a release has nothing for says so, and is counted as left out.
    /// The last line is `N passed, N failed`.
    Test {
        /// A level to run; may be repeated. All if none is given.
        #[arg(long, value_name = "LEVEL")]
        level: Vec<Level>,
        /// A release for the system and machine levels; may be repeated. All if none is given.
        #[arg(long, value_name = "SUITE")]
        suite: Vec<Suite>,
        /// Arguments of the test binaries: part of a test's name, --nocapture and the like.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Measure what the daemon costs, beside what others serve, and say which goals are met.
    ///
    /// Needs root; installs what `demo` does. Takes some minutes. Exit code 1 says that a goal is missed.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Make the Debian trees that sandboxes boot (bookworm, trixie, forky), or those named.
    ///
    /// Needs root, a Debian mirror and about 250 MB of disk per release. Installs mmdebstrap where it is missing. Trees are
    /// kept in POOL_IMAGE_DIR, else in pool-managerd/images below XDG_CACHE_HOME or ~/.cache, so that every clone shares
    /// them; a changed recipe makes a new tree.
    Image {
        /// Releases to make; all three if none is named.
        suites: Vec<Suite>,
        /// Remove the trees of older recipes that nobody uses.
        #[arg(long)]
        prune: bool,
    },
    /// Build release binaries and the Debian package into target/dist.
    ///
    /// Installs build-essential and binutils where they are missing. Where this host's libc is newer than Debian 12's and
    /// the binaries ask for that, they are built in a Debian 12 tree, which needs root and installs mmdebstrap.
    Dist {
        /// Build in the Debian 12 tree in any case.
        #[arg(long)]
        in_tree: bool,
    },
    /// Write a tiny random model that llama-server loads and generates with. Needs nothing.
    Gguf {
        /// Where to.
        file: PathBuf,
    },
    /// Write docs/dbus.md, the reference of the D-Bus API, as the XML in dbus/ says it. Needs nothing.
    Reference {
        /// Change nothing; fail where the page is not what it would be.
        #[arg(long)]
        check: bool,
    },
    /// Step through a record of what the daemon's loop took in, and show what changed at each input. Needs nothing.
    ///
    /// The daemon keeps its last inputs in /run/pool-managerd/record.jsonl and record.previous.jsonl; what `poolctl
    /// bugreport` writes holds both.
    Replay {
        /// The record, or a bug report.
        file: PathBuf,
        /// Of a bug report, take the record before the last one.
        #[arg(long)]
        previous: bool,
        /// Print what is published at its end, as JSON, instead.
        #[arg(long)]
        json: bool,
    },
    /// Change the core in small ways, one by one: its tests have to notice nine of ten.
    ///
    /// Installs cargo-mutants with cargo where it is missing. About a thousand mutants take some four seconds each; what
    /// nobody noticed is listed, and exit code 1 says that there are too many of it. What is changed stands in
    /// .cargo/mutants.toml.
    Mutants {
        /// Only what differs from that revision.
        #[arg(long, value_name = "REVISION")]
        diff: Option<String>,
        /// Only the k-th of n parts, from 0/n to n-1/n.
        #[arg(long, value_name = "K/N", conflicts_with = "at_most")]
        shard: Option<String>,
        /// Only about so many, spread evenly over all.
        #[arg(long, value_name = "N")]
        at_most: Option<usize>,
    },
    /// Run everything that must hold: format, clippy, cargo deny, documentation, reference, mutants, all test levels.
    ///
    /// Installs cargo-deny and cargo-mutants with cargo where they are missing, and what `test` installs; the system and
    /// machine levels need root. The core is mutated where it differs from CI_BASE, else from where the branch left origin/main, else
    /// from ten commits ago. What cannot be done here is left out, and that is said: the advisories where their database
    /// cannot be fetched, the mutants where there is no such commit or cargo-mutants cannot be had.
    Ci,
}

#[derive(Subcommand)]
enum Bench {
    /// The D-Bus API, on dbus-broker and on dbus-daemon.
    Bus {
        /// A bus to measure on; may be repeated. Both if none is given.
        #[arg(long, value_name = "BUS")]
        on: Vec<Bus>,
    },
    /// A real llama-server in the sandbox of a pool beside the same one outside: tokens a second.
    Engine,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            let mut source = failure.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(task: Task) -> Result<ExitCode, Failure> {
    match task {
        Task::Demo { keep } => demo::run(keep)?,
        Task::Shell { name, fresh, stop } => return shell(name.as_deref(), fresh, stop),
        Task::Test { level, suite, filter } => {
            let levels = if level.is_empty() { Level::ALL.to_vec() } else { level };
            let suites = if suite.is_empty() { Suite::ALL.to_vec() } else { suite };
            let report = test_levels::run(&Choice { levels, suites, filter });
            println!("\n{report}");
            return Ok(ExitCode::from(report.exit_code()));
        }
        Task::Bench { what: Bench::Bus { on } } => {
            let buses = if on.is_empty() { Bus::ALL.to_vec() } else { on };
            return Ok(ExitCode::from(u8::from(!bench::bus(&buses)?)));
        }
        Task::Bench { what: Bench::Engine } => return Ok(ExitCode::from(u8::from(!bench::engine()?))),
        Task::Image { prune: true, .. } => {
            for tree in image::prune()? {
                println!("removed {}", tree.display());
            }
        }
        Task::Image { suites, .. } => {
            let suites = if suites.is_empty() { Suite::ALL.to_vec() } else { suites };
            let recipes: Vec<_> = suites.into_iter().map(Recipe::System).collect();
            for image in image::ensure_all(&recipes)? {
                println!("{}: {}", image.recipe, image.tree.display());
            }
        }
        Task::Dist { in_tree } => {
            let package = dist::package(if in_tree { Place::Tree } else { Place::HostFirst })?;
            println!("{}", package.display());
        }
        Task::Gguf { file } => gguf::write(&file)?,
        Task::Reference { check: true } => reference::check()?,
        Task::Reference { check: false } => println!("{}", reference::write()?.display()),
        Task::Replay { file, previous, json } => replay::run(&file, previous, json)?,
        Task::Mutants { diff, shard, at_most } => {
            let outcome = mutants::run(&mutants::Choice { diff, shard, at_most })?;
            println!("\n{outcome}");
            return Ok(ExitCode::from(u8::from(!outcome.holds())));
        }
        Task::Ci => return Ok(ExitCode::from(ci::run())),
    }
    Ok(ExitCode::SUCCESS)
}

fn shell(name: Option<&str>, fresh: Option<Suite>, stop: bool) -> Result<ExitCode, Failure> {
    host::prepare("cargo xtask shell", sandbox::NEEDS, &sandbox::TOOLS, &["nothing that stays".to_owned()])?;
    if stop {
        for machine in sandbox::stop_kept(name)? {
            println!("stopped {machine}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let login = ["bash", "--login"];
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let status = match fresh {
        Some(suite) => {
            let sandbox = Sandbox::boot(suite, "shell")?;
            eprintln!("xtask: {} is up after {:.2} s", sandbox.machine(), sandbox.boot_time().as_secs_f64());
            sandbox.command(&login).env("TERM", term).status()?
        }
        None => sandbox::find_kept(name)?.enter().args(login).env("TERM", term).status()?,
    };
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
