//! Owns the question for an engine's version: the run of its program, and the token in what it printed.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::notify;
use crate::program;
use crate::refused::Refused;

/// How long the program may take. One that takes longer has no known version, which is no failure.
const LIMIT: Duration = Duration::from_secs(10);
/// How long its output is waited for after its end: a child of it may hold the pipe.
const AFTER_END: Duration = Duration::from_millis(200);
/// What is kept of its output; the rest is read and dropped, so that it never waits for us.
const KEPT: usize = 64 * 1024;

/// Runs the program and finds the version in its output.
pub(crate) fn ask(program: &Path, arguments: &[OsString]) -> Result<Option<String>, Refused> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in notify::VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command.spawn().map_err(|error| program::not_run(program, error))?;
    let stdout = child.stdout.take().map(Output::of);
    let stderr = child.stderr.take().map(Output::of);
    wait(&mut child);
    let until = Instant::now() + AFTER_END;
    let text = |output: Option<Output>| output.map(|output| output.text(until)).unwrap_or_default();
    Ok(token(&text(stdout), &text(stderr)))
}

/// Waits for its end, by force at the limit.
fn wait(child: &mut Child) {
    let until = Instant::now() + LIMIT;
    let mut pause = Duration::from_millis(1);
    while Instant::now() < until {
        match child.try_wait() {
            Ok(None) => thread::sleep(pause),
            Ok(Some(_)) | Err(_) => return,
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        eprintln!("the program that was asked for its version could not be ended: {error}");
    }
}

/// One stream of the program, read by a thread of its own.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Output {
    fn of(mut stream: impl Read + Send + 'static) -> Output {
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = KEPT.saturating_sub(kept.len());
                kept.extend(buffer.iter().take(count.min(room)));
            }
        });
        Output { text, reader }
    }

    fn text(self, until: Instant) -> String {
        while !self.reader.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let kept = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// The version in what a program printed. What is said on purpose goes before what looks like it: first a line that
/// begins with "version", then a line that is nothing else, then the first token with a dot. So compute capability 9.0
/// in a line before it is not llama-server's version, nor a date or a library's path vLLM's.
fn token(stdout: &str, stderr: &str) -> Option<String> {
    let lines = || stdout.lines().chain(stderr.lines());
    let named = lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let first = words.next()?.trim_end_matches(':');
        if first.eq_ignore_ascii_case("version") { words.next().and_then(build_or_dotted) } else { None }
    });
    let alone = || lines().find_map(|line| dotted(line.trim()));
    let anywhere = || lines().flat_map(str::split_whitespace).find_map(dotted);
    named.or_else(alone).or_else(anywhere).map(str::to_owned)
}

/// A version that may be a bare number, as llama.cpp's builds are.
fn build_or_dotted(word: &str) -> Option<&str> {
    let word = bare(word);
    let number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    if number { Some(word) } else { dotted(word) }
}

/// Digits, a dot, digits, and whatever a version may end with.
fn dotted(word: &str) -> Option<&str> {
    let word = bare(word);
    let (major, rest) = word.split_once('.')?;
    let number = !major.is_empty() && major.bytes().all(|byte| byte.is_ascii_digit());
    let fits = rest.starts_with(|first: char| first.is_ascii_digit())
        && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".+-_~".contains(c));
    (number && fits && word.len() <= 64).then_some(word)
}

/// Without the punctuation around it and the `v` before it.
fn bare(word: &str) -> &str {
    let word = word.trim_matches(|c| "()[],;:'\"".contains(c)).trim_end_matches('.');
    match word.strip_prefix(['v', 'V']) {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_digit()) => rest,
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_engines_print() {
        for (stdout, stderr, version) in [
            ("", "version: 0.7.0 (abc)\nbuilt with cc (Debian 14.2.0-19) 14.2.0 for x86_64\n", "0.7.0"),
            ("", "version: 6123 (abc)\nbuilt with clang 18.1.3\n", "6123"),
            ("", "Device 0: NVIDIA H100, compute capability 9.0, VMM: yes\nversion: 6123 (a)\n", "6123"),
            ("0.11.0\n", "", "0.11.0"),
            (
                "0.11.0rc1+cu128\n",
                "INFO 10-12 12:34:56 [__init__.py:216] numpy 1.26.4 is old\n",
                "0.11.0rc1+cu128",
            ),
            ("text-generation-router 2.3.0\n", "", "2.3.0"),
            ("ollama version is v0.5.1.\n", "", "0.5.1"),
            ("Version 2.1\n", "", "2.1"),
        ] {
            assert_eq!(token(stdout, stderr).as_deref(), Some(version), "{stdout}{stderr}");
        }
    }

    #[test]
    fn what_is_no_version_is_not_one() {
        for text in [
            "",
            "usage: engine [options]",
            "/usr/lib/python3.11/site.py",
            "version: unknown",
            "12:34:56 3. .5",
        ] {
            assert_eq!(token(text, ""), None, "{text}");
        }
    }
}
