//! Owns one script: a while in which everything goes wrong that can, then a while in which nothing does, and what must
//! hold after that.

use crate::always;
use crate::callers::Callers;
use crate::checks::{self, Serving};
use crate::daemon::{Daemon, Ending};
use crate::dice::Dice;
use crate::files::Files;
use crate::grave::Doom;
use crate::systemd::{Shared, World, drive};
use pool_core::name::{InvocationId, UnitName};
use pool_core::replica::Report;
use pool_managerd::supervisor::Signal;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A script that failed.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    /// The story up to there.
    pub trace: Vec<String>,
}

/// What a script did, to see that scripts do what they are for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub runs: u64,
    pub lines: usize,
    pub jobs: usize,
    pub served: usize,
    /// Leases that were given, and those that were still held at the end.
    pub leases: usize,
    pub held: usize,
}

/// Plays the script of a seed, on paused time.
pub fn play(seed: u64) -> (Result<Tally, Failure>, Vec<String>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let shared = Shared::new(seed);
        tokio::spawn(drive(shared.clone()));
        let mut dice = Dice::new(seed, "script");
        let files = Files::new(&mut dice);
        let mut script = Script { shared, dice, files, daemon: None, runs: 0, callers: Callers::default() };
        let ended = script.whole().await;
        let trace = std::mem::take(&mut script.shared.lock().trace);
        let result = ended.map(|tally| Tally { lines: trace.len(), ..tally });
        (result.map_err(|what| Failure { what, trace: trace.clone() }), trace)
    })
}

struct Script {
    shared: Shared,
    dice: Dice,
    files: Files,
    daemon: Option<Daemon>,
    runs: u64,
    callers: Callers,
}

/// Something that happens in a script.
type Act = fn(&mut Script);

/// How often what happens.
const ACTS: [(usize, Act); 14] = [
    (10, Script::somebody_asks),
    (4, Script::files_change),
    (4, Script::engines_report),
    (2, Script::reload_by_signal),
    (2, |script| script.outside(World::stop)),
    (2, |script| script.outside(World::restart)),
    (1, |script| script.outside(|world, name| drop(world.forget(name)))),
    (2, |script| script.outside(World::freeze)),
    (3, |script| script.outside(World::repeat)),
    (3, |script| {
        let during = script.dice.delay();
        script.shared.lock().be_deaf(during);
    }),
    (1, |script| script.shared.lock().be_deaf(Duration::from_secs(5))),
    (3, Script::daemon_is_killed),
    (1, Script::daemon_is_asked_to_end),
    (1, |script| script.shared.lock().disconnect()),
];

impl Script {
    async fn whole(&mut self) -> Result<Tally, String> {
        let acts = 15 + self.dice.roll(40);
        for _ in 0..acts {
            let pause = match self.dice.roll(10) {
                0 => Duration::ZERO,
                1..=5 => self.dice.delay(),
                6..=8 => self.dice.millis(0, 10_000),
                _ => self.dice.millis(0, 60_000),
            };
            self.let_pass(pause).await?;
            let act = *self.dice.weighed(&ACTS);
            act(self);
        }
        self.calm_down().await?;
        let first = self.compare().await?;
        self.come_to_rest(Duration::from_secs(150)).await?;
        let second = self.compare().await?;
        let held = self.callers.leases().len();
        if let Some(name) =
            first.iter().find(|(name, run)| second.get(*name) != Some(run)).map(|(name, _)| name)
        {
            return Err(format!("{name} did not outlive an orderly restart of the daemon"));
        }
        self.stop_all().await?;
        let lines = self.shared.lock().trace.len();
        let (jobs, leases) = (self.callers.jobs(), self.callers.given());
        Ok(Tally { runs: self.runs, lines, jobs, served: second.len(), leases, held })
    }

    /// Time passes; a daemon that died is there again after a moment.
    async fn let_pass(&mut self, pause: Duration) -> Result<(), String> {
        let until = Instant::now() + pause;
        loop {
            if let Some(broken) = &self.shared.lock().broken {
                return Err(broken.clone());
            }
            let Some(daemon) = &mut self.daemon else {
                let again = self.dice.millis(0, if self.runs == 0 { 0 } else { 3_000 });
                sleep(again).await;
                self.start();
                continue;
            };
            tokio::select! {
                biased;
                ending = daemon.end() => {
                    self.buried(&ending)?;
                }
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    fn start(&mut self) {
        self.runs += 1;
        let calm = self.shared.lock().calm;
        let doom = if calm { Doom::Never } else { Doom::by(&mut self.dice) };
        let (root, callers) = (self.files.root(), &self.callers);
        self.daemon = Some(Daemon::start(&self.shared, root, self.runs, doom, callers, &mut self.dice));
    }

    /// A run has ended.
    fn buried(&mut self, ending: &Ending) -> Result<(), String> {
        let in_calm = self.daemon.take().is_some_and(|daemon| daemon.in_calm);
        match ending {
            Ending::GaveUp(why) if in_calm => Err(format!("it gave up: {why}")),
            Ending::Died | Ending::GaveUp(_) => Ok(()),
            Ending::Ended(state) => always::holds(state, &self.files),
        }
    }

    fn somebody_asks(&mut self) {
        if let Some(daemon) = &self.daemon {
            for _ in 0..1 + self.dice.roll(3) {
                self.callers.ask(daemon, &self.shared, &mut self.dice);
            }
        }
    }

    fn files_change(&mut self) {
        for _ in 0..1 + self.dice.roll(3) {
            let what = self.files.change(&mut self.dice);
            self.shared.lock().note(what);
        }
        for id in self.files.ever_removed.iter().chain(&self.files.ever_applied) {
            self.shared.lock().may_stop.insert(id.clone());
        }
        if self.dice.chance(70) {
            self.reload_by_signal();
        }
    }

    /// Probers of engines say how those stand.
    fn engines_report(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        for _ in 0..1 + self.dice.roll(4) {
            let mut world = self.shared.lock();
            let engines: Vec<_> = world.units.values().map(|unit| unit.facts.seen.clone()).collect();
            if engines.is_empty() {
                return;
            }
            let engine = self.dice.pick(&engines);
            // Also of a run that is over.
            let invocation = if self.dice.chance(90) { engine.invocation } else { InvocationId([7; 16]) };
            let mut number =
                |sides| u32::try_from(self.dice.roll(sides)).ok().filter(|_| self.dice.chance(80));
            let report = Report {
                invocation,
                in_flight: number(3),
                slots: number(5),
                version: None,
                progress: None,
                processes: None,
                memory_peak: None,
            };
            world.note(format!(
                "{} reports {:?} in flight of {:?}",
                engine.name, report.in_flight, report.slots
            ));
            daemon.report(&engine.name, report);
        }
    }

    fn reload_by_signal(&mut self) {
        if let Some(daemon) = &self.daemon {
            self.shared.lock().note("SIGHUP".to_owned());
            daemon.signal(Signal::Reload);
        }
    }

    /// Somebody does something to a unit behind the daemon's back.
    fn outside(&mut self, what: fn(&mut World, &UnitName)) {
        let mut world = self.shared.lock();
        let names: Vec<_> = world.units.keys().cloned().collect();
        if !names.is_empty() {
            let name = self.dice.pick(&names);
            world.note(format!("somebody does something to {name}"));
            what(&mut world, name);
        }
    }

    fn daemon_is_killed(&mut self) {
        if let Some(daemon) = &self.daemon {
            daemon.grave.kill();
        }
    }

    fn daemon_is_asked_to_end(&mut self) {
        if let Some(daemon) = &self.daemon {
            daemon.signal(Signal::Terminate);
        }
    }

    /// Nothing goes wrong any more, and what was broken is mended: everything comes to rest.
    async fn calm_down(&mut self) -> Result<(), String> {
        self.shared.lock().note("calm".to_owned());
        self.shared.lock().calm_down();
        // A new run takes up what is there; an old one has to know.
        if self.dice.chance(40) {
            self.daemon_is_killed();
        }
        self.files.mend(&mut self.dice);
        self.shared.lock().may_stop.extend(self.files.ever_applied.iter().cloned());
        // A run that is doomed may still die of it; the next one is not.
        for _ in 0..3 {
            self.let_pass(Duration::from_secs(5)).await?;
            if let Some(daemon) = &self.daemon
                && self.callers.reload(daemon).await
            {
                daemon.grave.spare();
                self.come_to_rest(Duration::from_secs(400)).await?;
                self.shared.lock().read_units_again();
                return self.let_pass(Duration::from_secs(5)).await;
            }
        }
        Err("the files were not read again".to_owned())
    }

    /// Time passes, and more of it while breakers are open and what follows from them goes on: those have their end too.
    async fn come_to_rest(&mut self, least: Duration) -> Result<(), String> {
        self.let_pass(least).await?;
        for _ in 0..40 {
            let busy = self.daemon.as_ref().is_some_and(|daemon| !daemon.published.lock().unwrap().at_rest());
            if !busy {
                break;
            }
            self.let_pass(Duration::from_secs(200)).await?;
        }
        Ok(())
    }

    /// Asks the daemon to end, and holds what it knew against systemd. The next one is started.
    async fn compare(&mut self) -> Result<Serving, String> {
        let open = self.callers.open();
        if !open.is_empty() {
            return Err(format!("nobody answered {open:?}"));
        }
        let (state, view) = self.finish().await?;
        let serving = checks::at_rest(&state, &view, &self.shared.lock(), &self.files, &self.callers)?;
        self.shared.lock().read_units_again();
        self.start();
        Ok(serving)
    }

    async fn finish(&mut self) -> Result<Finished, String> {
        self.daemon_is_asked_to_end();
        let Some(mut daemon) = self.daemon.take() else { return Err("there is no daemon".to_owned()) };
        match daemon.end().await {
            Ending::Ended(state) => {
                daemon.all_published().await;
                always::holds(&state, &self.files)?;
                let view = daemon.published.lock().unwrap().view.clone();
                Ok((state, view))
            }
            other => Err(format!("asked to end, it {other:?}")),
        }
    }

    async fn stop_all(&mut self) -> Result<(), String> {
        if let Some(daemon) = &self.daemon {
            for id in self.files.there() {
                self.callers.stop(daemon, &self.shared, &id, &mut self.dice);
            }
        }
        self.let_pass(Duration::from_secs(150)).await?;
        let open = self.callers.open();
        if !open.is_empty() {
            return Err(format!("nobody answered {open:?}"));
        }
        let (state, view) = self.finish().await?;
        checks::all_stopped(&state, &self.shared.lock())?;
        checks::at_rest(&state, &view, &self.shared.lock(), &self.files, &self.callers)?;
        Ok(())
    }
}

type Finished = (Box<pool_core::State>, std::sync::Arc<pool_core::view::View>);

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.runs += other.runs;
        self.lines += other.lines;
        self.jobs += other.jobs;
        self.served += other.served;
        self.leases += other.leases;
        self.held += other.held;
    }
}
