//! Mutation testing of the core: small changes are made to it one by one, and its tests have to notice.
//!
//! What is changed and by which tests it is judged stands in `.cargo/mutants.toml`; cargo-mutants does the work.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::host;

/// At least so many of a hundred mutants that compile have to be noticed.
const LEAST_PERCENT: usize = 90;

/// Which mutants are made.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Only where the working tree differs from that revision.
    pub diff: Option<String>,
    /// The k-th of n parts, from 0: `0/4`.
    pub shard: Option<String>,
    /// So many at most, spread evenly.
    pub at_most: Option<usize>,
}

/// What became of the mutants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A test failed, or none ended in time.
    pub caught: usize,
    /// No test noticed: each with its place.
    pub missed: Vec<String>,
    /// It did not compile.
    pub unviable: usize,
    /// Mutants that were there to be made, beyond the ones that were.
    pub left_out: usize,
}

impl Outcome {
    /// Whether enough were noticed. A handful of mutants may miss one.
    pub fn holds(&self) -> bool {
        let viable = self.caught + self.missed.len();
        self.missed.len() <= 1 || self.caught * 100 >= viable * LEAST_PERCENT
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for missed in &self.missed {
            writeln!(f, "missed: {missed}")?;
        }
        let viable = self.caught + self.missed.len();
        write!(f, "{} of {viable} mutants caught", self.caught)?;
        if let Some(percent) = (self.caught * 100).checked_div(viable) {
            write!(f, " ({percent} %)")?;
        }
        write!(f, ", {} did not compile", self.unviable)?;
        match self.left_out {
            0 => Ok(()),
            number => write!(f, ", {number} LEFT OUT for time"),
        }
    }
}

/// Makes them, tests them, and says what became of them.
///
/// # Errors
/// cargo-mutants cannot be had, the tests fail without any mutant, or git knows no such revision.
pub fn run(choice: &Choice) -> Result<Outcome, Failure> {
    ensure_installed()?;
    let folder = host::target_dir().join("mutants");
    fs::create_dir_all(&folder)?;
    let diff = choice.diff.as_deref().map(|revision| write_diff(revision, &folder)).transpose()?;
    let mut selection = Vec::new();
    if let Some(file) = &diff {
        selection.extend(["--in-diff".to_owned(), file.display().to_string()]);
    }
    if let Some(shard) = &choice.shard {
        selection.extend(["--shard".to_owned(), shard.clone()]);
    }
    let there = list(&selection)?;
    let parts = choice.at_most.map_or(1, |most| there.div_ceil(most.max(1)));
    if parts > 1 {
        selection.extend([
            "--shard".to_owned(),
            format!("0/{parts}"),
            "--sharding".to_owned(),
            "round-robin".to_owned(),
        ]);
    }
    match (there, &diff) {
        (0, Some(_)) => return Ok(Outcome::default()),
        (0, None) => {
            return Err(Failure::Broken("there is nothing to change; see .cargo/mutants.toml".to_owned()));
        }
        _ => {}
    }
    let results = folder.join("mutants.out");
    match fs::remove_dir_all(&results) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut command = mutants();
    command.args(["--no-shuffle", "--colors", "never", "--output"]).arg(&folder).args(&selection);
    let status = command.status()?;
    // 2: some were missed; 3: some never ended. Both are judged below.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        return Err(host::Error::Failed { command: host::typed(&command), status }.into());
    }
    let mut outcome = read(&results)?;
    let made = outcome.caught + outcome.missed.len() + outcome.unviable;
    outcome.left_out = there.saturating_sub(made);
    Ok(outcome)
}

/// How many mutants a selection has.
fn list(selection: &[String]) -> Result<usize, Failure> {
    let mut command = mutants();
    command.arg("--list").args(selection).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(host::Error::Failed { command: host::typed(&command), status: output.status }.into());
    }
    Ok(lines(&String::from_utf8_lossy(&output.stdout)).len())
}

fn read(results: &Path) -> Result<Outcome, Failure> {
    let of = |name: &str| fs::read_to_string(results.join(name)).map(|text| lines(&text));
    let (caught, timeout, unviable) = (of("caught.txt")?, of("timeout.txt")?, of("unviable.txt")?);
    Ok(Outcome {
        caught: caught.len() + timeout.len(),
        missed: of("missed.txt")?,
        unviable: unviable.len(),
        left_out: 0,
    })
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn write_diff(revision: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let mut git = Command::new("git");
    git.current_dir(host::workspace()).args(["diff", "--no-ext-diff", revision, "--", "crates/core/src"]);
    let output = git.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(host::Error::Failed { command: host::typed(&git), status: output.status }.into());
    }
    let file = folder.join("since.diff");
    fs::write(&file, output.stdout)?;
    Ok(file)
}

fn mutants() -> Command {
    let mut command = host::cargo();
    command.args(["mutants", "--package", "pool-core"]);
    command
}

/// Installs cargo-mutants where it is missing.
///
/// # Errors
/// It cannot be had.
pub fn ensure_installed() -> Result<(), Failure> {
    let mut version = mutants();
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if !version.status().is_ok_and(|status| status.success()) {
        println!("installing cargo-mutants with `cargo install --locked cargo-mutants` (two minutes)");
        host::run(host::cargo().args(["install", "--quiet", "--locked", "cargo-mutants"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(caught: usize, missed: usize) -> Outcome {
        Outcome { caught, missed: vec!["a.rs:1:2: it".to_owned(); missed], ..Outcome::default() }
    }

    #[test]
    fn nine_of_ten_have_to_be_caught_and_a_handful_may_miss_one() {
        let table = [
            (0, 0, true),
            (0, 1, true),
            (1, 1, true),
            (0, 2, false),
            (90, 10, true),
            (89, 11, false),
            (9, 2, false),
        ];
        for (caught, missed, holds) in table {
            assert_eq!(outcome(caught, missed).holds(), holds, "{caught} {missed}");
        }
    }

    #[test]
    fn what_was_missed_or_left_out_is_said() {
        let told = Outcome { left_out: 7, unviable: 2, ..outcome(3, 1) }.to_string();
        assert_eq!(
            told,
            "missed: a.rs:1:2: it\n3 of 4 mutants caught (75 %), 2 did not compile, 7 LEFT OUT for time"
        );
        assert_eq!(outcome(0, 0).to_string(), "0 of 0 mutants caught, 0 did not compile");
    }

    #[test]
    fn results_are_read_and_one_that_is_not_there_is_an_error() {
        let folder = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in [("caught.txt", "a\nb\n"), ("timeout.txt", "c\n"), ("missed.txt", "d\n")] {
            fs::write(folder.join(name), text).expect("a file");
        }
        assert!(read(&folder).is_err());
        fs::write(folder.join("unviable.txt"), "").expect("a file");
        let found = read(&folder).expect("all four are there");
        assert_eq!((found.caught, found.missed, found.unviable), (3, vec!["d".to_owned()], 0));
        fs::remove_dir_all(&folder).expect("it goes");
    }
}
