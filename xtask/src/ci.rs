//! Everything that must hold before a change is taken: format, lints, licences, documentation, tests.
//!
//! All steps run, whatever the ones before them did. The last line is `N passed, N failed`: the tests' counts, with every
//! other step that ran counted as one.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::{self, Tool};
use crate::image::Suite;
use crate::mutants;
use crate::reference;
use crate::test_levels::{self, Choice, Level, Tally};

/// What building needs beside Rust.
const TOOLS: [Tool; 1] = [Tool::new("cc", "build-essential")];

type Check = fn() -> Result<Ended, String>;

#[derive(Clone, Copy)]
enum Ended {
    Passed,
    /// It cannot be done here, and that is no fault of the change: neither passed nor failed.
    LeftOut(&'static str),
}

struct Step {
    name: &'static str,
    ended: Result<Ended, String>,
    took: Duration,
}

/// Runs all steps. Returns the exit code.
pub fn run() -> u8 {
    let steps: [(&'static str, Check); 7] = [
        ("format", format),
        ("clippy", clippy),
        ("licences, bans, sources", deny),
        ("advisories", advisories),
        ("documentation", documentation),
        ("reference of the bus", reference_of_the_bus),
        ("mutants of the change", mutants_of_the_change),
    ];
    let mut ran = Vec::new();
    let tools = host::ensure(&TOOLS).map(|()| Ended::Passed).map_err(|error| error.to_string());
    ran.push(Step { name: "tools", ended: tools, took: Duration::ZERO });
    for (name, step) in steps {
        println!("\n== {name}");
        let begun = Instant::now();
        let ended = step();
        if let Err(reason) = &ended {
            eprintln!("xtask: {name}: {reason}");
        }
        ran.push(Step { name, ended, took: begun.elapsed() });
    }
    println!("\n== tests");
    let choice = Choice { levels: Level::ALL.to_vec(), suites: Suite::ALL.to_vec(), filter: Vec::new() };
    let report = test_levels::run(&choice);

    println!("\n== summary");
    let mut sum = report.tally();
    for step in &ran {
        let (word, counted) = match step.ended {
            Ok(Ended::Passed) => ("passed", Tally { passed: 1, ..Tally::default() }),
            Ok(Ended::LeftOut(why)) => (why, Tally::default()),
            Err(_) => ("FAILED", Tally { failed: 1, ..Tally::default() }),
        };
        println!("{:<25} {word}, {:.1} s", step.name, step.took.as_secs_f64());
        sum.passed += counted.passed;
        sum.failed += counted.failed;
    }
    for line in
        report.to_string().lines().filter(|line| !line.starts_with(|first: char| first.is_ascii_digit()))
    {
        println!("{line}");
    }
    println!("{sum}");
    u8::from(sum.failed > 0)
}

fn format() -> Result<Ended, String> {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn clippy() -> Result<Ended, String> {
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
}

fn documentation() -> Result<Ended, String> {
    cargo(&["doc", "--quiet", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])
}

/// What the page says is what the contract says.
fn reference_of_the_bus() -> Result<Ended, String> {
    reference::check().map(|()| Ended::Passed).map_err(|error| error.to_string())
}

fn deny() -> Result<Ended, String> {
    if host::find("cargo-deny").is_none() && !cargo_has_deny() {
        println!("installing cargo-deny with `cargo install --locked cargo-deny` (two minutes)");
        cargo(&["install", "--quiet", "--locked", "cargo-deny"], &[])?;
    }
    cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"], &[])
}

fn cargo_has_deny() -> bool {
    let mut command = host::cargo();
    command.args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The database of advisories is a git repository on the network; without it there is nothing to check against.
fn advisories() -> Result<Ended, String> {
    if cargo(&["deny", "--log-level", "off", "fetch", "db"], &[]).is_err() {
        let why =
            "LEFT OUT: its database cannot be fetched from here; known vulnerabilities were not checked";
        println!("{why}");
        return Ok(Ended::LeftOut(why));
    }
    cargo(&["deny", "--log-level", "error", "check", "advisories"], &[])
}

/// As many as keep the whole within its time.
const MOST_MUTANTS: usize = 40;

/// The core's tests notice what is changed in the lines that this change is about.
fn mutants_of_the_change() -> Result<Ended, String> {
    let Some(base) = base_of_the_change() else {
        let why = "LEFT OUT: no earlier commit is here to compare with; name one in CI_BASE";
        println!("{why}");
        return Ok(Ended::LeftOut(why));
    };
    if let Err(error) = mutants::ensure_installed() {
        let why = "LEFT OUT: cargo-mutants is not here and cannot be installed; the change was not mutated";
        println!("{why}: {error}");
        return Ok(Ended::LeftOut(why));
    }
    println!("mutants of what differs from {base}");
    let choice = mutants::Choice { diff: Some(base), shard: None, at_most: Some(MOST_MUTANTS) };
    let outcome = mutants::run(&choice).map_err(|error| error.to_string())?;
    println!("{outcome}");
    if outcome.holds() { Ok(Ended::Passed) } else { Err("the tests miss too many".to_owned()) }
}

/// What this change is based on: `CI_BASE`, else where the branch left origin/main, else ten commits ago.
fn base_of_the_change() -> Option<String> {
    let named = std::env::var("CI_BASE").ok().filter(|base| !base.is_empty());
    let git = |arguments: &[&str]| -> Option<String> {
        let mut git = Command::new("git");
        let output =
            git.current_dir(host::workspace()).args(arguments).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "HEAD"])?;
    let left_main = git(&["merge-base", "origin/main", "HEAD"]).filter(|base| *base != head);
    named.or(left_main).or_else(|| git(&["rev-parse", "--verify", "--quiet", "HEAD~10"]))
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Ended, String> {
    let mut command: Command = host::cargo();
    command.args(arguments).envs(environment.iter().copied());
    host::run(&mut command).map(|()| Ended::Passed).map_err(|error| error.to_string())
}
