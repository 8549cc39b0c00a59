//! Owns the decision whether an engine that was ready still serves, from one round of questions to the next.
//!
//! Liveness is forward progress, not a 200. Busy and moving is well however slow its answers are; busy without progress
//! for the stall time-out is a hang; refused connections are its end; bad answers without progress are its end. No answer
//! in time is never a failure by itself. It knows no clock and no socket: a round brings everything along.
//!
//! Counters say more than CPU time, for an engine can spin and do nothing. Where they can be read they alone are progress.
//! Where they cannot, CPU time is; and an engine whose counters stood still before it fell silent, but that is at work, gets
//! neither a reprieve for that nor a count against it. Counters move once a step, and a step may take minutes on a CPU, with
//! every question answered meanwhile: counters that stand still while the engine computes are a hang only after a time
//! limit of their own.

use std::time::Duration;

use pool_core::name::Usec;

use crate::health::Answer;
use crate::metrics::Metrics;
use crate::progress;

/// From here on an engine is told to be slow: shorter waits are every busy engine's.
const SLOW: Duration = Duration::from_secs(5);

/// When an engine is lost.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) stall: Duration,
    /// The same for an engine that answers and computes while its counters stand still.
    pub(crate) computing: Duration,
    pub(crate) failures: u32,
    /// More time than a round can take does not count: then it was the prober that did not run.
    pub(crate) longest_round: Duration,
}

/// What its texts call things.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) endpoint: String,
    pub(crate) health: String,
    pub(crate) metrics: String,
}

/// What one round of questions brought. Times count from an origin of the caller's.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) health: Answer,
    pub(crate) metrics: Seen,
    /// CPU time of the unit so far, without the prober's.
    pub(crate) cpu: Option<Duration>,
    /// Processes of the unit, without the prober.
    pub(crate) processes: Option<u32>,
}

/// What came of the question for metrics.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    NotAsked,
    Silent,
    /// An answer without metrics in it.
    Unreadable,
    Read(Metrics),
}

/// What to tell systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It serves; the status text.
    Serving(String),
    /// It has to be ended; the reason.
    Lost(String),
}

/// What is known from the rounds so far.
#[derive(Debug)]
pub(crate) struct Liveness {
    limits: Limits,
    names: Names,
    /// The end of the last round.
    seen: Duration,
    cpu: Option<Duration>,
    in_flight: Option<u32>,
    counters: Option<Vec<f64>>,
    /// How long it has been busy without progress.
    still: Duration,
    /// The last part of that, in which it did not compute either.
    stalled: Duration,
    /// Whether the counters were read in that time: then the CPU time is no progress.
    counted: bool,
    health_silent: Duration,
    metrics_silent: Duration,
    refused: u32,
    bad: u32,
    processes: Option<u32>,
    most_processes: u32,
}

impl Liveness {
    /// It is ready at `now`.
    pub(crate) fn new(limits: Limits, names: Names, now: Duration) -> Self {
        Liveness {
            limits,
            names,
            seen: now,
            cpu: None,
            in_flight: None,
            counters: None,
            still: Duration::ZERO,
            stalled: Duration::ZERO,
            counted: false,
            health_silent: Duration::ZERO,
            metrics_silent: Duration::ZERO,
            refused: 0,
            bad: 0,
            processes: None,
            most_processes: 0,
        }
    }

    /// Requests that it works on or has waiting; of an engine that does not say so now, what it said last, and one at least:
    /// what leaves a question unanswered is busy.
    pub(crate) fn in_flight(&self) -> Option<u32> {
        if self.metrics_silent.is_zero() { self.in_flight } else { Some(self.in_flight.unwrap_or(0).max(1)) }
    }

    pub(crate) fn judge(&mut self, round: &Round) -> Verdict {
        let since = round.ended.saturating_sub(self.seen);
        let time = since.min(self.limits.longest_round);
        let asked = round.ended.saturating_sub(round.began);
        self.seen = round.ended;
        let used = self.cpu.zip(round.cpu).map(|(before, now)| now.saturating_sub(before));
        self.cpu = round.cpu;
        self.processes = round.processes;
        self.most_processes = self.most_processes.max(round.processes.unwrap_or(0));

        let moved = self.read(&round.metrics);
        let counted = matches!(&round.metrics, Seen::Read(metrics) if metrics.counters.is_some());
        let works = !counted && used.is_some_and(|used| progress::is_work(used, since));
        let computes = counted && used.is_some_and(|used| progress::is_computing(used, since));
        let progress = moved || (works && !self.counted);
        let silent = matches!(round.health, Answer::Silent | Answer::NotHttp);
        add(&mut self.health_silent, silent, asked, time);
        add(&mut self.metrics_silent, matches!(round.metrics, Seen::Silent), asked, time);
        let unanswered = !self.health_silent.is_zero() || !self.metrics_silent.is_zero();
        let busy = unanswered || self.in_flight.is_some_and(|count| count > 0);
        if progress || !busy {
            (self.still, self.stalled) = (Duration::ZERO, Duration::ZERO);
            self.counted = false;
        } else if !works {
            self.still += time;
            self.stalled = if computes { Duration::ZERO } else { self.stalled + time };
        }
        self.count_failures(round.health, progress);
        self.verdict(round.health)
    }

    /// Takes note of the metrics, and says whether they show progress.
    fn read(&mut self, metrics: &Seen) -> bool {
        let metrics = match metrics {
            Seen::Read(metrics) => metrics,
            // What it had to do last is all that is known of it.
            Seen::NotAsked | Seen::Silent => return false,
            Seen::Unreadable => {
                self.in_flight = None;
                return false;
            }
        };
        // More in flight is the clients' doing, fewer is the engine's.
        let completed = self.in_flight.zip(metrics.in_flight).is_some_and(|(before, now)| now < before);
        self.in_flight = metrics.in_flight;
        let Some(counters) = &metrics.counters else { return completed };
        self.counted = true;
        let before = self.counters.replace(counters.clone());
        completed || before.is_some_and(|before| before != *counters)
    }

    fn count_failures(&mut self, answer: Answer, progress: bool) {
        self.refused = match answer {
            Answer::NotListening | Answer::Outsider => self.refused.saturating_add(1),
            Answer::Status(_) | Answer::Silent | Answer::NotHttp | Answer::Unreachable(_) => 0,
        };
        self.bad = match answer {
            Answer::Status(200) | Answer::NotListening | Answer::Outsider => 0,
            Answer::Status(_) if progress => 0,
            Answer::Status(_) => self.bad.saturating_add(1),
            Answer::Silent | Answer::NotHttp | Answer::Unreachable(_) => self.bad,
        };
    }

    fn verdict(&self, answer: Answer) -> Verdict {
        let failures = self.limits.failures;
        let Names { endpoint, health, .. } = &self.names;
        let trouble = match answer {
            Answer::NotListening => Some(format!("nothing listens on {endpoint}")),
            Answer::Outsider => Some(format!("{endpoint} is answered by a process outside this unit")),
            Answer::Status(200) => None,
            Answer::Status(code) => Some(format!("{code} from {health}")),
            Answer::Unreachable(kind) => Some(format!("{endpoint} cannot be reached: {kind}")),
            Answer::Silent | Answer::NotHttp => None,
        };
        if let Some(trouble) = trouble {
            return if self.refused >= failures {
                Verdict::Lost(format!("dead: {trouble}, {failures} times in a row"))
            } else if self.bad >= failures {
                Verdict::Lost(format!("unhealthy: {trouble}, {failures} times in a row"))
            } else if self.is_hung() {
                Verdict::Lost(format!("hung: {}", self.stuck(exact)))
            } else {
                Verdict::Serving(format!("serving, but {trouble}"))
            };
        }
        if self.is_hung() {
            return Verdict::Lost(format!("hung: {}", self.stuck(exact)));
        }
        let longest = self.still.max(self.health_silent).max(self.metrics_silent);
        if longest < SLOW {
            return Verdict::Serving(super::serving::WELL.to_owned());
        }
        Verdict::Serving(format!("serving, slow: {}", self.stuck(rounded)))
    }

    fn is_hung(&self) -> bool {
        self.stalled >= self.limits.stall || self.still >= self.limits.computing
    }

    /// What it does not do, in numbers.
    fn stuck(&self, time: fn(Duration) -> Usec) -> String {
        let mut parts = Vec::new();
        if let Some(count) = self.in_flight.filter(|&count| count > 0) {
            parts.push(format!("{count} in flight"));
        }
        // Both are asked in one round: what began within one of the other is one silence.
        let about_as_long = self.health_silent + self.limits.longest_round >= self.metrics_silent;
        if !self.health_silent.is_zero() && about_as_long {
            let silent = self.health_silent.max(self.metrics_silent);
            parts.push(format!("no answer from {} for {}", self.names.health, time(silent)));
        } else if !self.metrics_silent.is_zero() {
            parts.push(format!("no answer from {} for {}", self.names.metrics, time(self.metrics_silent)));
        }
        if time(self.still) > Usec::from_millis(0) {
            let what = match (self.counted, self.cpu) {
                (true, _) => "no counter moved",
                (false, Some(_)) => "no CPU time used",
                (false, None) => "nothing seen to move",
            };
            parts.push(format!("{what} for {}", time(self.still)));
            if self.stalled < self.still && self.stalled < self.limits.stall {
                parts.push("CPU time used meanwhile".to_owned());
            }
        }
        if let Some(gone) =
            self.processes.and_then(|now| self.most_processes.checked_sub(now)).filter(|&gone| gone > 0)
        {
            parts.push(format!("{gone} of {} processes of the unit are gone", self.most_processes));
        }
        parts.join(", ")
    }
}

/// How long it has been silent: the first time counts from the question.
fn add(total: &mut Duration, silent: bool, asked: Duration, time: Duration) {
    *total = match silent {
        false => Duration::ZERO,
        true if total.is_zero() => asked,
        true => *total + time,
    };
}

fn exact(time: Duration) -> Usec {
    Usec::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 100 * 100)
}

/// In few steps: each text that differs is a signal to everyone on the bus.
fn rounded(time: Duration) -> Usec {
    let step = match time.as_secs() {
        ..10 => 5,
        10..60 => 10,
        60.. => 60,
    };
    Usec::from_secs(time.as_secs() / step * step)
}

#[cfg(test)]
mod tests;
