//! The test levels, from fast to real, and the count of what they ran.
//!
//! A level that cannot run is a failure that says what is missing; it is never passed over. All levels run whatever the
//! ones before them did. A test that says that it left itself out is counted as that, and has not passed. The last line
//! is `N passed, N failed`, and a level that could not run counts as one failed.

mod report;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use crate::dist::{self, Place};
use crate::failure::Failure;
use crate::host::{self, Tool};
use crate::image::{self, Recipe, Suite};
use crate::machine::{self, Accelerator, Kernel};
use crate::sandbox::{self, Bus};
pub use report::{LEFT_OUT, Report, Tally};

/// A level of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything that needs nothing but cargo.
    Unit,
    /// The real supervisor on paused time, beside a scripted systemd; needs nothing but cargo either.
    Simulation,
    /// The compiled daemon on a private bus, once on each program that can be one.
    Bus,
    /// The built package in a sandbox with systemd as PID 1, on each release.
    System,
    /// The built package in a virtual machine with its own kernel and all cgroup controllers, on each release.
    Machine,
}

impl Level {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Unit, Self::Simulation, Self::Bus, Self::System, Self::Machine];

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Simulation => "simulation",
            Self::Bus => "bus",
            Self::System => "system",
            Self::Machine => "machine",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.name() == word);
        found.ok_or_else(|| format!("no level `{word}`; there are unit, simulation, bus, system and machine"))
    }
}

/// What the bus level needs beside cargo.
pub const BUS_TOOLS: [Tool; 4] = [
    Tool::new("dbus-daemon", "dbus-daemon"),
    Tool::new("dbus-broker", "dbus-broker"),
    Tool::new("busctl", "systemd"),
    Tool::new("script", "bsdutils"),
];

/// Test targets that the unit level leaves to the others.
const NOT_UNIT: [&str; 5] = ["simulation", "bus", "system", "sandbox", "machine"];

/// What to run.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Levels, in the order of [`Level::ALL`].
    pub levels: Vec<Level>,
    /// Releases of the system and machine levels.
    pub suites: Vec<Suite>,
    /// Arguments of the test binaries: names to filter by, `--nocapture` and the like.
    pub filter: Vec<String>,
}

/// Runs the chosen levels.
pub fn run(choice: &Choice) -> Report {
    let mut report = Report::default();
    for level in Level::ALL.into_iter().filter(|level| choice.levels.contains(level)) {
        let begun = Instant::now();
        match level {
            Level::Unit => report.push("unit".to_owned(), begun, unit(choice)),
            Level::Simulation => report.push("simulation".to_owned(), begun, simulation(choice)),
            Level::Bus => {
                for bus in Bus::ALL {
                    let begun = Instant::now();
                    report.push(format!("bus {}", bus.name()), begun, self::bus(choice, bus));
                }
            }
            Level::System => system(choice, &mut report),
            Level::Machine => self::machine(choice, &mut report),
        }
    }
    report
}

fn unit(choice: &Choice) -> Result<Tally, Failure> {
    let mut arguments = vec!["--workspace".to_owned(), "--lib".to_owned(), "--bins".to_owned()];
    for (_, target) in test_targets()?.into_iter().filter(|(_, target)| !NOT_UNIT.contains(&target.as_str()))
    {
        arguments.extend(["--test".to_owned(), target]);
    }
    let mut tally = cargo_test(&arguments, choice, &[])?;
    tally.add(cargo_test(&["--workspace".to_owned(), "--doc".to_owned()], choice, &[])?);
    Ok(tally)
}

fn simulation(choice: &Choice) -> Result<Tally, Failure> {
    require_target("pool-managerd", "simulation")?;
    // The seeds are printed by the tests, also where they pass.
    let mut shown = choice.clone();
    shown.filter.push("--show-output".to_owned());
    // One range of random scripts, so that a run says something of the change alone; FIRST= looks at others.
    let first = std::env::var("FIRST").unwrap_or_else(|_| "500000".to_owned());
    let test = ["-p", "pool-managerd", "--test", "simulation"].map(str::to_owned);
    cargo_test(&test, &shown, &[("FIRST", first)])
}

fn bus(choice: &Choice, bus: Bus) -> Result<Tally, Failure> {
    require_target("pool-managerd", "bus")?;
    host::ensure(&BUS_TOOLS)?;
    let arguments = ["-p", "pool-managerd", "--test", "bus"].map(str::to_owned);
    // What is measured is printed by the tests, also where they pass.
    let mut shown = choice.clone();
    shown.filter.push("--show-output".to_owned());
    cargo_test(&arguments, &shown, &[("POOL_TEST_BUS", bus.name().to_owned())])
}

/// What the system level needs, in words.
pub fn system_needs() -> Vec<&'static str> {
    sandbox::NEEDS.iter().chain(image::NEEDS).copied().collect()
}

/// The programs that the system level needs.
pub fn system_tools() -> Vec<Tool> {
    sandbox::TOOLS.iter().chain(&image::TOOLS).chain(&dist::TOOLS).copied().collect()
}

fn system(choice: &Choice, report: &mut Report) {
    let begun = Instant::now();
    let prepared = prepare_system(choice);
    let environment = match prepared {
        Ok(environment) => environment,
        Err(failure) => return report.push("system".to_owned(), begun, Err(failure)),
    };
    // Built before the releases run: they would wait for each other's cargo.
    if let Err(failure) = SYSTEM_TESTS.into_iter().try_for_each(|(package, target)| built(package, target)) {
        return report.push("system".to_owned(), begun, Err(failure));
    }
    // All releases at once, for most tests wait for something to happen in their sandbox, and each has sandboxes of its
    // own. What is printed comes at a release's end, in one piece.
    thread::scope(|scope| {
        let running: Vec<_> = choice
            .suites
            .iter()
            .map(|suite| {
                let mut environment = environment.clone();
                environment.push(("POOL_TEST_SUITE", suite.name().to_owned()));
                (suite, Instant::now(), scope.spawn(move || system_on(choice, &environment)))
            })
            .collect();
        for (suite, begun, running) in running {
            let ended =
                running.join().unwrap_or_else(|_| Err(Failure::Broken("its thread panicked".to_owned())));
            report.push(format!("system {suite}"), begun, ended);
        }
    });
}

/// Packages and targets of the system level's tests.
const SYSTEM_TESTS: [(&str, &str); 2] = [("xtask", "sandbox"), ("pool-managerd", "system")];

/// Runs the system level's tests on one release.
fn system_on(choice: &Choice, environment: &[(&str, String)]) -> Result<Tally, Failure> {
    // What is measured is printed by the tests, also where they pass.
    let mut shown = choice.clone();
    shown.filter.push("--show-output".to_owned());
    let mut sum = Tally::default();
    for (package, target) in SYSTEM_TESTS {
        let arguments = ["-p", package, "--test", target].map(str::to_owned);
        let mut printed = Vec::new();
        let ended = cargo_test_to(&arguments, &shown, environment, &mut printed);
        std::io::stdout().write_all(&printed)?;
        sum.add(ended?);
    }
    Ok(sum)
}

/// Builds a test target without running it.
fn built(package: &str, target: &str) -> Result<(), Failure> {
    require_target(package, target)?;
    let mut command = host::cargo();
    command.args(["test", "--quiet", "--no-run", "-p", package, "--test", target]);
    let status =
        command.status().map_err(|source| host::Error::Spawn { command: "cargo test".to_owned(), source })?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Broken(format!("test target `{target}` was not built")))
    }
}

/// What the machine level needs, in words.
pub fn machine_needs() -> Vec<&'static str> {
    machine::NEEDS.iter().chain(image::NEEDS).copied().collect()
}

/// The programs that the machine level needs.
pub fn machine_tools() -> Vec<Tool> {
    machine::TOOLS.iter().chain(&image::TOOLS).chain(&dist::TOOLS).copied().collect()
}

fn machine(choice: &Choice, report: &mut Report) {
    let begun = Instant::now();
    let environment = match prepare_machine(choice) {
        Ok(environment) => environment,
        Err(failure) => return report.push("machine".to_owned(), begun, Err(failure)),
    };
    for suite in &choice.suites {
        let begun = Instant::now();
        let mut environment = environment.clone();
        environment.push(("POOL_TEST_SUITE", suite.name().to_owned()));
        // What was tried and what came of it is printed by the tests, also where they pass.
        let mut shown = choice.clone();
        shown.filter.push("--show-output".to_owned());
        let arguments = ["-p", "pool-managerd", "--test", "machine"].map(str::to_owned);
        let ended = require_target("pool-managerd", "machine")
            .and_then(|()| cargo_test(&arguments, &shown, &environment))
            .and_then(|tally| match tally {
                // Nobody asked for single tests: there are some, or something is wrong with them.
                Tally { passed: 0, failed: 0, .. } if choice.filter.is_empty() => {
                    Err(Failure::Broken("it has no tests".to_owned()))
                }
                tally => Ok(tally),
            });
        report.push(format!("machine {suite}"), begun, ended);
    }
}

fn prepare_machine(choice: &Choice) -> Result<Environment, Failure> {
    let makes = [
        format!("the trees of {} and a kernel in {}", names(&choice.suites), image::cache_dir()?.display()),
        "the package and the engines of the tests in target/dist".to_owned(),
        "a virtual machine per release in target/machine, one at a time, removed again".to_owned(),
    ];
    host::prepare("cargo xtask test --level machine", &machine_needs(), &machine_tools(), &makes)?;
    let systems = choice.suites.iter().copied().map(Recipe::System);
    image::ensure_all(&systems.chain([Recipe::Kernel]).collect::<Vec<_>>())?;
    let package = dist::package(Place::default())?;
    let conformance = dist::conformance_engine(Place::default())?;
    let hostile = dist::hostile_engine(Place::default())?;
    let agent = dist::machine_agent(Place::default())?;
    // Tried once for all releases.
    let accelerator = Accelerator::choose(&Kernel::ensure()?);
    Ok(vec![
        ("POOL_TEST_PACKAGE", package.display().to_string()),
        ("POOL_TEST_CONFORMANCE", conformance.display().to_string()),
        ("POOL_TEST_HOSTILE", hostile.display().to_string()),
        ("POOL_TEST_AGENT", agent.display().to_string()),
        (machine::ACCELERATOR_VARIABLE, accelerator.name().to_owned()),
        // Most tests wait for the machine; the one that has to be alone holds a place until the end.
        ("RUST_TEST_THREADS", "5".to_owned()),
    ])
}

type Environment = Vec<(&'static str, String)>;

fn prepare_system(choice: &Choice) -> Result<Environment, Failure> {
    let makes = [
        format!("the trees of {} in {}", names(&choice.suites), image::cache_dir()?.display()),
        "the package and the conformance engine in target/dist".to_owned(),
        "sandboxes in target/sandbox, one or more at a time, removed again".to_owned(),
    ];
    host::prepare("cargo xtask test --level system", &system_needs(), &system_tools(), &makes)?;
    let recipes: Vec<_> = choice.suites.iter().copied().map(Recipe::System).collect();
    image::ensure_all(&recipes)?;
    let package = dist::package(Place::default())?;
    let conformance = dist::conformance_engine(Place::default())?;
    Ok(vec![
        ("POOL_TEST_PACKAGE", package.display().to_string()),
        ("POOL_TEST_CONFORMANCE", conformance.display().to_string()),
    ])
}

fn names(suites: &[Suite]) -> String {
    suites.iter().map(|suite| suite.name()).collect::<Vec<_>>().join(", ")
}

/// Runs `cargo test` to its end, shows what it prints and counts its results.
fn cargo_test(
    arguments: &[String],
    choice: &Choice,
    environment: &[(&str, String)],
) -> Result<Tally, Failure> {
    cargo_test_to(arguments, choice, environment, &mut std::io::stdout())
}

/// The same; what it prints is written there.
fn cargo_test_to(
    arguments: &[String],
    choice: &Choice,
    environment: &[(&str, String)],
    to: &mut impl Write,
) -> Result<Tally, Failure> {
    let mut command = host::cargo();
    // A service manager that runs this must not take the daemon's notifications for its own.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    command.args(["test", "--quiet", "--no-fail-fast"]).args(arguments).arg("--").args(&choice.filter);
    command.envs(environment.iter().map(|(name, value)| (name, value))).stdout(Stdio::piped());
    eprintln!("\nxtask: cargo test {}", arguments.join(" "));
    let spawn_error = |source| host::Error::Spawn { command: "cargo test".to_owned(), source };
    let mut child = command.spawn().map_err(spawn_error)?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            to.write_all(&line)?;
            tally.count_line(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    let status = child.wait().map_err(spawn_error)?;
    if !status.success() && tally.failed == 0 {
        // It did not compile, or a test binary died before it could say anything.
        tally.failed = 1;
    }
    Ok(tally.without_left_out())
}

fn require_target(package: &str, target: &str) -> Result<(), Failure> {
    let known = test_targets()?.iter().any(|(owner, name)| owner == package && name == target);
    if known {
        return Ok(());
    }
    Err(Failure::Broken(format!(
        "package {package} has no test target `{target}` (tests/{target}.rs or tests/{target}/main.rs)"
    )))
}

/// Package and name of every integration test in the workspace.
fn test_targets() -> Result<Vec<(String, String)>, Failure> {
    let output = host::cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| host::Error::Spawn { command: "cargo metadata".to_owned(), source })?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::Broken(format!("cargo metadata says no JSON: {error}")))?;
    Ok(targets_in(&metadata))
}

fn targets_in(metadata: &serde_json::Value) -> Vec<(String, String)> {
    let list =
        |value: &serde_json::Value, key: &str| value.get(key).and_then(|list| list.as_array()).cloned();
    let text =
        |value: &serde_json::Value| value.get("name").and_then(|name| name.as_str()).map(str::to_owned);
    let mut found = Vec::new();
    for package in list(metadata, "packages").unwrap_or_default() {
        for target in list(&package, "targets").unwrap_or_default() {
            let is_test = list(&target, "kind").unwrap_or_default().iter().any(|kind| kind == "test");
            if let (true, Some(package), Some(target)) = (is_test, text(&package), text(&target)) {
                found.push((package, target));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_are_found_by_package() {
        let metadata = serde_json::json!({"packages": [
            {"name": "a", "targets": [{"name": "a", "kind": ["lib"]}, {"name": "bus", "kind": ["test"]}]},
        ]});
        assert_eq!(targets_in(&metadata), [("a".to_owned(), "bus".to_owned())]);
    }
}
