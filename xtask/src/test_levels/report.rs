//! What the levels' tests came to: the counts, a row for each level, and the exit code.

use std::fmt;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// How the line begins in which a test says that it cannot run here, and why.
pub const LEFT_OUT: &str = "LEFT OUT";

/// What ran and how it ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and what could not be run.
    pub failed: u64,
    /// Tests marked to be left out.
    pub ignored: u64,
    /// Tests that said that they cannot run here.
    pub left_out: u64,
}

impl Tally {
    /// Counts one line of a test binary's output, if it is its result or a test's word that it did not run.
    pub(super) fn count_line(&mut self, line: &str) {
        // With --nocapture the test harness's own dots may stand before it.
        if line.trim_start_matches(['.', ' ']).starts_with(LEFT_OUT) {
            self.left_out += 1;
        }
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in result.split_once(". ").map_or("", |(_, counts)| counts).split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// The same once all lines are counted: a test that left itself out has passed to the test harness alone.
    pub(super) fn without_left_out(self) -> Self {
        Tally { passed: self.passed.saturating_sub(self.left_out), ..self }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.left_out += other.left_out;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// One line of the report.
#[derive(Debug)]
struct Row {
    name: String,
    tally: Tally,
    took: Duration,
    /// Set where it could not run at all.
    could_not_run: Option<Failure>,
}

/// What all levels came to.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// The sum of all levels.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for row in &self.rows {
            sum.add(row.tally);
        }
        sum
    }

    /// 0 if all passed; 77 if the only failures are levels that this machine cannot run; else 1.
    pub fn exit_code(&self) -> u8 {
        let failed = self.rows.iter().filter(|row| row.tally.failed > 0);
        let codes = failed.map(|row| row.could_not_run.as_ref().map_or(1, Failure::exit_code));
        codes.reduce(|one, other| if one == other { one } else { 1 }).unwrap_or(0)
    }

    pub(super) fn push(&mut self, name: String, begun: Instant, ended: Result<Tally, Failure>) {
        let took = begun.elapsed();
        let (tally, could_not_run) = match ended {
            Ok(tally) => (tally, None),
            Err(failure) => {
                eprintln!("\nxtask: {name} could not run:\n{failure}\n");
                (Tally { failed: 1, ..Tally::default() }, Some(failure))
            }
        };
        self.rows.push(Row { name, tally, took, could_not_run });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            write!(f, "{:<17} {}", row.name, row.tally)?;
            if row.tally.ignored > 0 {
                write!(f, ", {} ignored", row.tally.ignored)?;
            }
            if row.tally.left_out > 0 {
                write!(f, ", {} left out", row.tally.left_out)?;
            }
            if row.could_not_run.is_some() {
                write!(f, " (could not run, see above)")?;
            }
            writeln!(f, ", {:.1} s", row.took.as_secs_f64())?;
        }
        write!(f, "{}", self.tally())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;

    fn tally(passed: u64, failed: u64, ignored: u64) -> Tally {
        Tally { passed, failed, ignored, left_out: 0 }
    }

    #[test]
    fn results_are_counted_and_other_lines_are_not() {
        let mut sum = Tally::default();
        for line in [
            "test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test a ... ok",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 20.07s\n",
            "all 3 passed; 9 failed",
        ] {
            sum.count_line(line);
        }
        assert_eq!(sum, tally(17, 2, 1));
    }

    #[test]
    fn a_test_that_left_itself_out_has_not_passed() {
        let mut sum = Tally::default();
        for line in [
            "---- llama::it_serves stdout ----",
            "LEFT OUT on bookworm: no llama-server; forky runs it",
            "..LEFT OUT on bookworm: no llama-server; forky runs it",
            "nothing was LEFT OUT on bookworm",
            "test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            sum.count_line(line);
        }
        let sum = sum.without_left_out();
        assert_eq!(sum, Tally { left_out: 2, ..tally(11, 0, 1) });
        let mut report = Report::default();
        report.push("system bookworm".to_owned(), Instant::now(), Ok(sum));
        let text = report.to_string();
        assert!(text.contains("11 passed, 0 failed, 1 ignored, 2 left out, "), "{text}");
        assert_eq!(text.lines().last(), Some("11 passed, 0 failed"));
        assert_eq!(report.exit_code(), 0);
    }

    #[test]
    fn the_last_line_is_the_sum_alone() {
        let mut report = Report::default();
        report.push("unit".to_owned(), Instant::now(), Ok(tally(5, 0, 1)));
        report.push("bus".to_owned(), Instant::now(), Err(Failure::Broken("no bus".to_owned())));
        let text = report.to_string();
        assert_eq!(text.lines().last(), Some("5 passed, 1 failed"));
        assert!(text.contains("5 passed, 0 failed, 1 ignored, "), "{text}");
        assert!(text.contains("could not run"), "{text}");
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn a_machine_that_cannot_run_a_level_is_told_apart_from_a_failed_test() {
        let lacks = || Err(Failure::from(host::Error::NoApt(Vec::new())));
        let mut report = Report::default();
        report.push("unit".to_owned(), Instant::now(), Ok(tally(1, 0, 0)));
        assert_eq!(report.exit_code(), 0);
        report.push("system".to_owned(), Instant::now(), lacks());
        assert_eq!(report.exit_code(), host::EXIT_CANNOT_RUN);
        report.push("bus".to_owned(), Instant::now(), Ok(tally(0, 1, 0)));
        assert_eq!(report.exit_code(), 1);
    }
}
