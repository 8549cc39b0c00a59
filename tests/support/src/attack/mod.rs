//! Owns ways out of a unit, as a hostile engine tries them: each is one act with arguments, and says how it ended.
//!
//! ```text
//! list of acts ──> each in a process of its own ──> in_this_process ──> files | processes | kernel | network | notify | meeting
//! ```
//!
//! An act that succeeds undoes what it did, as far as it can: the same act is run outside the sandbox to prove that it
//! works at all. What it is tried on comes as arguments, so that the list of attempts is the test's and stands in one
//! place. A process each, for what one act gets (a user, a namespace, a filter's SIGSYS) is not the next one's.

mod files;
mod kernel;
mod meeting;
mod network;
mod notify;
mod processes;
mod raw;

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// One act may take so long; a walk through a file system does.
const LIMIT: Duration = Duration::from_secs(120);

/// How an act ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was to do, and what that was.
    Succeeded(String),
    /// It did not: an errno's name, a signal's, or another word, and more about it.
    Refused(String, String),
}

impl Outcome {
    /// As it is answered.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Outcome::Succeeded(detail) => json!({ "outcome": "succeeded", "detail": detail }),
            Outcome::Refused(errno, detail) => {
                json!({ "outcome": "refused", "errno": errno, "detail": detail })
            }
        }
    }
}

/// What an act comes to: a sentence, or the system's refusal.
type Done = Result<String, Refusal>;

/// Why an act did not succeed.
#[derive(Debug)]
enum Refusal {
    System(Errno),
    Word(&'static str, String),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal::System(errno)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Refusal::System(Errno::from_raw(number)),
            None if error.kind() == io::ErrorKind::TimedOut => Refusal::System(Errno::ETIMEDOUT),
            None => Refusal::Word("ERROR", error.to_string()),
        }
    }
}

/// Does the act here and now. What it gets stays with this process.
#[must_use]
pub fn in_this_process(words: &[String]) -> Outcome {
    let (way, arguments) =
        words.split_first().map_or(("", [].as_slice()), |(way, rest)| (way.as_str(), rest));
    let rooms = [files::act, processes::act, kernel::act, network::act, notify::act, meeting::act];
    let done = rooms.into_iter().find_map(|act| act(way, arguments));
    match done {
        Some(Ok(detail)) => Outcome::Succeeded(detail),
        Some(Err(Refusal::System(errno))) => Outcome::Refused(format!("{errno:?}"), errno.desc().to_owned()),
        Some(Err(Refusal::Word(word, detail))) => Outcome::Refused(word.to_owned(), detail),
        None => Outcome::Refused("UNKNOWN".to_owned(), format!("there is no such act: {words:?}")),
    }
}

/// Does the act in a process of its own.
#[must_use]
pub fn in_a_process(words: &[String]) -> Outcome {
    spawn(words).unwrap_or_else(|error| Outcome::Refused("NOT-RUN".to_owned(), error.to_string()))
}

fn spawn(words: &[String]) -> io::Result<Outcome> {
    let mut child = Command::new("/proc/self/exe")
        .arg("attempt")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if begun.elapsed() > LIMIT => {
                child.kill()?;
                child.wait()?;
                return Ok(Outcome::Refused("TIMEOUT".to_owned(), format!("nothing after {LIMIT:?}")));
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    if let Some(signal) = status.signal() {
        let name = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |signal| signal.to_string());
        return Ok(Outcome::Refused(name, "the process was ended".to_owned()));
    }
    let answer: Value = serde_json::from_str(&said)?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(if text("outcome") == "succeeded" {
        Outcome::Succeeded(text("detail"))
    } else {
        Outcome::Refused(text("errno"), text("detail"))
    })
}

/// Does all acts of a list, `[["read", "/etc/shadow"], …]`, one after the other; the answers in the same order, each with
/// the milliseconds that it took.
///
/// # Errors
///
/// Where it is no such list.
pub fn all(list: &[u8]) -> Result<Value, serde_json::Error> {
    let acts: Vec<Vec<String>> = serde_json::from_slice(list)?;
    let one = |words: &Vec<String>| {
        let begun = Instant::now();
        let mut answer = in_a_process(words).to_json();
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        answer.as_object_mut().map(|answer| answer.insert("ms".to_owned(), took.into()));
        answer
    };
    Ok(acts.iter().map(one).collect())
}

/// The argument at that place.
fn text(arguments: &[String], index: usize) -> Result<&str, Refusal> {
    let missing = || Refusal::Word("USAGE", format!("argument {index} is missing"));
    arguments.get(index).map(String::as_str).ok_or_else(missing)
}

/// The number at that place.
fn number<T: std::str::FromStr>(arguments: &[String], index: usize) -> Result<T, Refusal> {
    let word = text(arguments, index)?;
    word.parse().map_err(|_| Refusal::Word("USAGE", format!("{word:?} is not the number wanted here")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(words: &[&str]) -> Outcome {
        in_this_process(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_works_succeeds_and_what_does_not_says_its_errno() {
        assert!(matches!(act(&["read", "/proc/self/status"]), Outcome::Succeeded(_)));
        let Outcome::Refused(errno, _) = act(&["read", "/nowhere/at/all"]) else {
            unreachable!("there is no such file")
        };
        assert_eq!(errno, "ENOENT");
    }

    #[test]
    fn a_word_that_is_no_act_and_a_missing_argument_are_no_refusals_of_the_system() {
        for (words, expected) in
            [(&["fly"][..], "UNKNOWN"), (&["read"], "USAGE"), (&["signal", "x"], "USAGE")]
        {
            let Outcome::Refused(word, _) = act(words) else { unreachable!("{words:?}") };
            assert_eq!(word, expected, "{words:?}");
        }
    }
}
