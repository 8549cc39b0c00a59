//! Owns the prober: it stands beside the engine, and until that is ready tells systemd how far it is.
//!
//! What always holds: no `READY=1` before the engine's own 200, and a good answer to the warm-up where there is one; one question at a time; at most one status text and one
//! extension a second; no extension beyond the start limit; and it ends when the engine does.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::ProbeOptions;
use crate::cgroup::Cgroup;
use crate::engine::Engine;
use crate::health::Answer;
use crate::http::{Question, Want};
use crate::notify::{self, State};
use crate::pace;
use crate::progress::{self, Usage};
use crate::serving;
use crate::usage::Meter;
use crate::warmup::Warmup;
use crate::watch::Watch;

/// The time between two looks at the engine's progress, which is the time between two messages about it.
const LOOK: Duration = Duration::from_secs(1);

/// Detaches from the process that started it, so that it is nobody's child, and probes until the engine is gone.
///
/// A fork is enough for that, where a second execution would cost the start another millisecond.
pub(crate) fn run_detached(options: &ProbeOptions) -> ExitCode {
    match nix::unistd::daemon(false, true) {
        Ok(()) => {
            run(options.pid, &options.watch);
            ExitCode::SUCCESS
        }
        Err(errno) => {
            eprintln!("the prober could not detach: {errno}");
            ExitCode::FAILURE
        }
    }
}

fn run(pid: u32, options: &Watch) {
    let started = Instant::now();
    // Else it would be called "exe" in every list of processes. If not, it works all the same.
    drop(fs::write("/proc/self/comm", "pool-prober"));
    let engine = Engine::watch(pid);
    let cgroup = Cgroup::own();
    let mut loading = Loading::begin(options, Meter::new(cgroup.as_ref(), engine.pid()));
    let mut warmup = options.warmup.as_deref();
    loop {
        // A new question each time: one that came too early may never be answered.
        let reply = Question::new(&options.health, Want::Status).ask(options.timeout, &mut || {});
        if engine.is_gone() {
            return;
        }
        let answer = reply.answer.of_unit(&options.health, reply.peer, cgroup.as_ref());
        if answer == Answer::Status(200) {
            if let Some(file) = warmup.take() {
                reply.finish();
                if let Err(problem) = warm_up(file, options, &mut loading, started) {
                    return end(&problem, &engine);
                }
                // It is healthy still, or the next answer says that it is not.
                continue;
            }
            let ready = notify::send(&[State::Status(serving::WELL), State::Ready]);
            reply.finish();
            if ready {
                return serving::watch(options, &engine, cgroup.as_ref());
            }
        } else {
            reply.finish();
        }
        let elapsed = started.elapsed();
        if elapsed >= loading.next_look() {
            let new_answer = loading.answered.replace(answer) != Some(answer);
            loading.look(elapsed, new_answer, &format!("loading: {}", answer.describe(&options.health)));
        }
        thread::sleep(pace::pause(elapsed));
    }
}

/// Has the engine answer its first request; in words what went wrong. It may take until the start limit, as long as the
/// engine gets on with it.
fn warm_up(file: &Path, options: &Watch, loading: &mut Loading<'_>, started: Instant) -> Result<(), String> {
    let warmup = Warmup::read(file).map_err(|refused| refused.text().to_owned())?;
    let left = options.start_limit.saturating_sub(started.elapsed());
    let words = format!("warming up: {warmup}");
    let mut look = || {
        let elapsed = started.elapsed();
        if elapsed >= loading.next_look() {
            loading.look(elapsed, false, &words);
        }
    };
    warmup.ask(&options.health, left, &mut look)
}

/// Has systemd end an engine that will not become ready, and waits for that.
fn end(problem: &str, engine: &Engine) {
    notify::send(&[State::Status(&format!("unhealthy: {problem}")), State::Trigger]);
    while !engine.is_gone() {
        thread::sleep(LOOK);
    }
}

/// What was last seen of the load, and last said.
struct Loading<'a> {
    options: &'a Watch,
    meter: Meter<'a>,
    seen: Usage,
    answered: Option<Answer>,
    said: String,
}

impl<'a> Loading<'a> {
    fn begin(options: &'a Watch, mut meter: Meter<'a>) -> Self {
        let seen = meter.read(Duration::ZERO);
        Loading { options, meter, seen, answered: None, said: String::new() }
    }

    fn next_look(&self) -> Duration {
        self.seen.at + LOOK
    }

    /// Compares with the last look, and says what there is to say in one message.
    fn look(&mut self, elapsed: Duration, new_answer: bool, words: &str) {
        let now = self.meter.read(elapsed);
        let progress = progress::is_seen(&self.seen, &now, new_answer);
        self.seen = now;
        let status = format!("{words}{now}");
        let news = status != self.said;
        self.said = status;
        let extension = extension(elapsed, self.options.start_timeout, self.options.start_limit);
        let states = [
            news.then_some(State::Status(&self.said)),
            extension.filter(|_| progress).map(State::ExtendTimeout),
        ];
        let states: Vec<State<'_>> = states.into_iter().flatten().collect();
        if !states.is_empty() {
            notify::send(&states);
        }
    }
}

/// The extension to ask for, in microseconds from now: the start time-out, cut off at the start limit. systemd never
/// shortens a time-out by one, so the end is the limit itself.
fn extension(elapsed: Duration, start_timeout: Duration, start_limit: Duration) -> Option<u64> {
    let left = start_limit.checked_sub(elapsed)?;
    u64::try_from(start_timeout.min(left).as_micros()).ok().filter(|&usec| usec > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_limit_ends_all_extensions() {
        let seconds = Duration::from_secs;
        for (elapsed, expected) in [
            (1, Some(600_000_000)),
            (3_000, Some(600_000_000)),
            (3_500, Some(100_000_000)),
            (3_600, None),
            (4_000, None),
        ] {
            assert_eq!(
                extension(seconds(elapsed), seconds(600), seconds(3_600)),
                expected,
                "after {elapsed} s"
            );
        }
    }
}
