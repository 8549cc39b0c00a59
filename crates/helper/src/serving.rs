//! Owns the watch over an engine that is ready, for as long as it lives.
//!
//! ```text
//! every interval: health, metrics, facts ──> liveness ──> WATCHDOG=1 and STATUS=, or STATUS= and WATCHDOG=trigger
//!                                       └──> report to the daemon, if it is there
//! ```
//!
//! What always holds: one question at a time, and none to a path that still owes an answer; at most one status text a
//! second, and only one that differs; systemd hears of the engine three times in its watchdog's time; and a verdict is
//! systemd's to carry out, whether the daemon is there or not.

use std::thread;
use std::time::{Duration, Instant};

use pool_core::replica::Report;

use crate::cgroup::Cgroup;
use crate::engine::Engine;
use crate::fact::{self, Asked};
use crate::health::Answer;
use crate::http::{Question, Want};
use crate::liveness::{Limits, Liveness, Names, Round, Seen, Verdict};
use crate::metrics;
use crate::notify::{self, State};
use crate::report::Reporter;
use crate::stopping;
use crate::usage::Meter;
use crate::watch::{Progress, Watch};

/// The status text while all is well; others rely on this word.
pub(crate) const WELL: &str = "serving";
/// The longest sleep without a look at the engine: the prober ends when it does.
const NAP: Duration = Duration::from_millis(500);
/// Status texts are signals on the bus to every subscriber: no more than one in this time.
const QUIET: Duration = Duration::from_secs(1);
/// How long systemd may take to end an engine. One that lives on has its watchdogs switched off: it is watched again.
const ENDING: Duration = Duration::from_secs(120);
/// What a round may take beyond its questions.
const SLACK: Duration = Duration::from_secs(1);

/// Watches until the engine is gone.
pub(crate) fn watch(options: &Watch, engine: &Engine, cgroup: Option<&Cgroup>) {
    let mut prober = Prober::new(options, engine, cgroup);
    loop {
        let began = Instant::now();
        let verdict = prober.round();
        if engine.is_gone() {
            return;
        }
        let goes_on = match verdict {
            Verdict::Serving(status) => {
                prober.voice.well(&status);
                prober.rest(began + options.interval)
            }
            Verdict::Lost(_) if cgroup.and_then(Cgroup::unit).is_some_and(stopping::is_asked_of) => {
                while !engine.is_gone() {
                    thread::sleep(NAP);
                }
                false
            }
            Verdict::Lost(reason) => prober.give_up(&reason),
        };
        if !goes_on {
            return;
        }
    }
}

struct Prober<'a> {
    options: &'a Watch,
    engine: &'a Engine,
    cgroup: Option<&'a Cgroup>,
    started: Instant,
    health: Question<'a>,
    metrics: Option<(Question<'a>, &'a Progress)>,
    slots: Asked<'a, u32>,
    version: Asked<'a, String>,
    meter: Meter<'a>,
    liveness: Liveness,
    voice: Voice,
    reporter: Option<Reporter<'a>>,
}

impl<'a> Prober<'a> {
    fn new(options: &'a Watch, engine: &'a Engine, cgroup: Option<&'a Cgroup>) -> Self {
        let metrics = options.progress.as_ref();
        Prober {
            options,
            engine,
            cgroup,
            started: Instant::now(),
            health: Question::new(&options.health, Want::Status),
            metrics: metrics.map(|progress| (Question::new(&progress.url, Want::Body), progress)),
            slots: Asked::new(options.slots.as_ref(), fact::slots),
            version: Asked::new(options.version.as_ref(), fact::version),
            meter: Meter::new(cgroup, engine.pid()),
            liveness: liveness(options, Duration::ZERO),
            voice: Voice::new(),
            reporter: Reporter::new(&options.report),
        }
    }

    fn round(&mut self) -> Verdict {
        let timeout = self.options.timeout;
        let began = self.started.elapsed();
        let mut tick = || self.voice.tick();
        let reply = self.health.ask(timeout, &mut tick);
        let health = reply.answer.of_unit(&self.options.health, reply.peer, self.cgroup);
        reply.finish();
        let listens = !matches!(health, Answer::NotListening | Answer::Outsider | Answer::Unreachable(_));
        let seen = match &mut self.metrics {
            Some((question, progress)) if listens => {
                let reply = question.ask(timeout, &mut tick);
                match reply.answer {
                    Answer::Status(200) => {
                        Seen::Read(metrics::read(&String::from_utf8_lossy(&reply.body), progress))
                    }
                    Answer::Silent => Seen::Silent,
                    _ => Seen::Unreadable,
                }
            }
            _ => Seen::NotAsked,
        };
        if health == Answer::Status(200) {
            self.slots.ask(timeout, &mut tick);
            self.version.ask(timeout, &mut tick);
        }
        let processes = self.cgroup.and_then(Cgroup::processes).map(|mut processes| {
            processes.retain(|&pid| pid != std::process::id());
            u32::try_from(processes.len()).unwrap_or(u32::MAX)
        });
        let (ended, cpu) = (self.started.elapsed(), self.meter.cpu());
        let round = Round { began, ended, health, metrics: seen, cpu, processes };
        let verdict = self.liveness.judge(&round);
        self.report(&round);
        verdict
    }

    /// Reports a round that was judged.
    fn report(&self, round: &Round) {
        let Some(reporter) = &self.reporter else { return };
        let counters = match &round.metrics {
            Seen::Read(metrics) => metrics.counters.as_ref(),
            Seen::NotAsked | Seen::Silent | Seen::Unreadable => None,
        };
        reporter.send(&Report {
            invocation: reporter.invocation(),
            in_flight: self.liveness.in_flight(),
            slots: self.slots.known().copied(),
            version: self.version.known().cloned(),
            // A cast from a float is cut off at the type's ends.
            progress: counters.map(|counters| counters.iter().sum::<f64>() as u64),
            processes: round.processes,
            memory_peak: self.cgroup.and_then(Cgroup::memory_peak),
        });
    }

    /// Sleeps until the next round is due; `false`: the engine is gone.
    fn rest(&mut self, until: Instant) -> bool {
        loop {
            if self.engine.is_gone() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(NAP));
            self.voice.tick();
        }
    }

    /// Has systemd end the engine, and says no more until it has; `false`: the engine is gone.
    fn give_up(&mut self, reason: &str) -> bool {
        self.voice.lost(reason);
        let until = Instant::now() + ENDING;
        while Instant::now() < until {
            if self.engine.is_gone() {
                return false;
            }
            thread::sleep(NAP);
        }
        self.liveness = liveness(self.options, self.started.elapsed());
        true
    }
}

fn liveness(options: &Watch, now: Duration) -> Liveness {
    // Health, metrics, slots, version.
    let questions = 4;
    let limits = Limits {
        stall: options.stall_timeout,
        computing: options.computing_timeout,
        failures: options.failures,
        longest_round: options.interval + options.timeout * questions + SLACK,
    };
    let names = Names {
        endpoint: options.health.endpoint.to_string(),
        health: options.health.path.clone(),
        metrics: options.progress.as_ref().map(|progress| progress.url.path.clone()).unwrap_or_default(),
    };
    Liveness::new(limits, names, now)
}

/// What systemd was told last, and when.
struct Voice {
    status: String,
    status_at: Instant,
    alive_at: Instant,
    /// How often systemd has to hear that the engine lives; `None` without a watchdog.
    every: Option<Duration>,
}

impl Voice {
    /// Right after `READY=1`.
    fn new() -> Self {
        let now = Instant::now();
        let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok());
        let every = usec.map(|usec| Duration::from_micros(usec) / 3);
        Voice { status: WELL.to_owned(), status_at: now, alive_at: now, every }
    }

    fn well(&mut self, status: &str) {
        let news = status != self.status && self.status_at.elapsed() >= QUIET;
        if news {
            self.status = status.to_owned();
            self.status_at = Instant::now();
        }
        let states = [State::Watchdog, State::Status(&self.status)];
        notify::send(states.get(..if news { 2 } else { 1 }).unwrap_or(&states));
        self.alive_at = Instant::now();
    }

    /// In the middle of a round or a sleep: the last verdict holds until the next.
    fn tick(&mut self) {
        if self.every.is_some_and(|every| self.alive_at.elapsed() >= every) {
            notify::send(&[State::Watchdog]);
            self.alive_at = Instant::now();
        }
    }

    fn lost(&mut self, reason: &str) {
        notify::send(&[State::Status(reason), State::Trigger]);
        self.status = notify::one_line(reason);
        self.status_at = Instant::now();
    }
}
