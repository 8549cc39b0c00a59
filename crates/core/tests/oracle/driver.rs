//! Random stories in which the core and the oracle run side by side. Time passes from timer to timer, so that whatever is
//! due at a moment has been done when the two are compared at it.

use super::acts;
use super::dice::Dice;
use super::jobs::Jobs;
use super::numbers::{self, revision};
use super::oracle::{Happening, Stands};
use super::twin::{Fine, Twin};
use super::world::World;
use pool_core::config::Configuration;
use pool_core::host::Saved;
use pool_core::name::Usec;
use pool_core::replica::{Phase, Report};
use pool_core::view::View;
use pool_core::{Event, Request};
use std::collections::BTreeSet;

/// So many things happen in a story.
pub const STEPS: usize = 220;

pub struct Story {
    pub world: World,
    pub twins: Vec<Twin>,
    pub dice: Dice,
    /// Engines seldom fail, so that they serve for long.
    pub calm: bool,
    pub jobs: Jobs,
    /// What happened, if somebody wants to read it.
    pub trail: Option<Vec<String>>,
}

pub const fn seconds(number: u64) -> Usec {
    Usec::from_secs(number)
}

impl Story {
    /// Tells a story from its beginning to its end.
    pub fn tell(seed: u64, trail: bool) -> (Fine, Vec<String>) {
        let mut story = Story::begin(seed);
        story.trail = trail.then(Vec::new);
        let mut fine = story.started();
        for _ in 0..STEPS {
            fine = fine.and_then(|()| story.step());
        }
        let fine = fine.and_then(|()| story.end());
        let lines = story.world.lines.join("\n    > ");
        story.note(|| format!("said last:\n    > {lines}"));
        (fine, story.trail.unwrap_or_default())
    }

    fn begin(seed: u64) -> Story {
        let mut dice = Dice::new(seed);
        let pools = 1 + dice.roll(2);
        let mut file = |id| {
            let replicas = 1 + u16::try_from(dice.roll(3)).unwrap();
            numbers::file(id, replicas, &mut dice)
        };
        let files: Vec<_> = ["a", "b"].into_iter().take(pools).map(&mut file).collect();
        let mut world = World::empty();
        world.tick = Usec(0);
        world.seed = dice.next();
        let calm = dice.once_in(2);
        let twins = files.into_iter().map(Twin::new).collect();
        Story { world, twins, dice, calm, jobs: Jobs::default(), trail: None }
    }

    fn started(&mut self) -> Fine {
        let configuration = self.configuration();
        self.world.start_daemon_by(configuration, Saved::default(), BTreeSet::new());
        for twin in 0..self.twins.len() {
            self.told(twin, &[Happening::OperatorStarts])?;
        }
        self.compare()
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.world.now;
        if let Some(trail) = &mut self.trail {
            trail.push(format!("{:.6} {}", now.0 as f64 / 1e6, what()));
        }
    }

    /// An event was dealt with, and this happened by it.
    pub fn told(&mut self, twin: usize, happenings: &[Happening]) -> Fine {
        let now = self.world.now.0;
        self.twins[twin].expire(&self.world);
        for happening in happenings {
            self.twins[twin].tell(now, happening)?;
        }
        self.twins[twin].take_in(&self.world)
    }

    fn step(&mut self) -> Fine {
        self.world.kinds.clear();
        self.world.lines.clear();
        self.world.started.clear();
        for twin in &mut self.twins {
            twin.forget_classes();
            (twin.replaced, twin.began, twin.mended) = (0, 0, 0);
        }
        if self.dice.once_in(20)
            && let Some((_, at)) = self.world.next_timer()
            && self.twins.iter().all(|twin| twin.nothing_starts_at(at.0))
        {
            // What happens next happens before that timer rings, at the same time.
            self.world.now = self.world.now.max(at);
            self.systemd()?;
            self.pass(Usec(0))?;
            return self.compare();
        }
        match self.dice.roll(100) {
            0..=24 => self.time_passes()?,
            25..=64 => self.systemd()?,
            65..=69 => self.operator()?,
            70..=71 => self.reload()?,
            72 => self.drain()?,
            73..=74 => self.cancel()?,
            75..=81 => self.allocate()?,
            82..=84 => self.release()?,
            85 => self.renew()?,
            86..=92 => self.report()?,
            93..=95 => self.configure()?,
            96..=97 => self.restart_daemon()?,
            _ => self.systemd()?,
        }
        self.pass(Usec(0))?;
        self.compare()
    }

    /// Time passes from timer to timer.
    fn pass(&mut self, duration: Usec) -> Fine {
        let end = self.world.now.plus(duration);
        let mut rings = 0;
        while let Some((id, at)) = self.world.next_timer().filter(|(_, at)| *at <= end) {
            self.note(|| format!("{:?} rings, due at {at}", id));
            self.world.fire(id);
            rings += 1;
            if rings > 10_000 {
                return Err("timers ring without end".to_owned());
            }
            for twin in 0..self.twins.len() {
                self.told(twin, &[])?;
            }
            self.jobs.compare(&self.world, &self.twins)?;
        }
        self.world.now = self.world.now.max(end);
        Ok(())
    }

    fn time_passes(&mut self) -> Fine {
        let now = self.world.now;
        let next = self.world.next_timer().map_or(Usec(0), |(_, at)| at.since(now));
        let twin = self.dice.roll(self.twins.len());
        let ends = self.twins[twin].oracle.windows_end();
        let span = match self.dice.roll(9) {
            0..=3 => next,
            // A failure may come in the very moment in which another one is old enough.
            8 if !ends.is_empty() => Usec(self.dice.pick(&ends)).since(now),
            4 => next.plus(Usec(1)),
            5 => Usec(self.dice.next() % seconds(2).0),
            6 => seconds(self.dice.pick(&[5, 10, 20, 35])),
            _ => seconds(self.dice.pick(&[61, 301, 601])),
        };
        self.note(|| format!("{span} pass"));
        self.pass(span)
    }

    pub fn any_twin(&mut self) -> (usize, String) {
        let twin = self.dice.roll(self.twins.len());
        (twin, self.twins[twin].id.to_string())
    }

    /// A prober says how its engine stands.
    fn report(&mut self) -> Fine {
        let engines = self.world.units.values().filter(|unit| acts::has_prober(unit));
        let engines: Vec<_> = engines.map(|unit| (unit.name.clone(), unit.invocation)).collect();
        if engines.is_empty() {
            return Ok(());
        }
        let (unit, mut invocation) = self.dice.pick(&engines);
        let twin = self.twins.iter().position(|twin| twin.id == unit.replica.pool).unwrap();
        let index = usize::from(unit.replica.index);
        let stale = self.dice.once_in(10);
        if stale {
            invocation.0[0] ^= 0xff;
        }
        let in_flight = self.dice.pick(&[None, Some(0), Some(0), Some(3)]);
        let slots = self.dice.pick(&[None, Some(1), Some(2)]);
        let replica = &self.twins[twin].pool(&self.world).replicas[index];
        // Of an engine whose signals have not come yet nothing is believed.
        let known = replica.unit.invocation == invocation;
        let counts = replica.in_use(&unit) && replica.condemned.is_none() && known;
        if counts {
            (self.twins[twin].in_flight[index], self.twins[twin].slots[index]) = (in_flight, slots);
        }
        self.note(|| format!("{unit} reports {in_flight:?} of {slots:?}, stale: {stale}"));
        let report = Report {
            invocation,
            in_flight,
            slots,
            version: None,
            progress: None,
            processes: None,
            memory_peak: None,
        };
        self.world.event(Event::Reported { unit, report });
        self.told(twin, &[])
    }

    fn configuration(&self) -> Configuration {
        let pools = self.twins.iter().map(|twin| (twin.id.clone(), revision(&twin.file)));
        Configuration { pools: pools.collect(), ..Configuration::default() }
    }

    fn configure(&mut self) -> Fine {
        // Whether a length of time is over in the moment in which it changes is nobody's question.
        self.pass(Usec(0))?;
        let (twin, _) = self.any_twin();
        let policy = self.twins[twin].file.restart.policy;
        numbers::change(&mut self.twins[twin].file, &mut self.dice);
        if self.twins[twin].emptying.is_some() {
            // Whether what fails now comes back if that is called off is not asked twice.
            self.twins[twin].file.restart.policy = policy;
        }
        self.note(|| format!("the file of {twin} changes"));
        let own = &self.twins[twin];
        let differs = own.pool(&self.world).file_digest != revision(&own.file).digest;
        let all = || 0..own.replicas();
        // A changed file may be what mends a pool that is down by failures.
        let failed = |index| match own.oracle.stands(index) {
            Stands::Down => own.oracle.has_failed(index),
            // One that waits for what is under way is not down by a failure.
            Stands::Waits => own.pool(&self.world).replicas[index].phase != Phase::Stopped,
            Stands::Runs | Stands::Serves | Stands::Ending => false,
        };
        let mends = differs && own.oracle.runs() && !own.replacing && all().all(failed);
        let configuration = self.configuration();
        self.world.event(Event::ConfigurationRead { configuration, requests: vec![] });
        let now = self.world.now.0;
        let own = &mut self.twins[twin];
        own.change(now)?;
        if mends {
            return self.told(twin, &[Happening::OperatorStarts]);
        }
        self.told(twin, &[])
    }

    /// The daemon is killed and comes back: all that it knows is what it had saved, and what runs.
    fn restart_daemon(&mut self) -> Fine {
        self.note(|| "the daemon is killed".to_owned());
        let away = self.dice.pick(&[Usec(0), Usec(0), seconds(1), seconds(70)]);
        if away > Usec(0) {
            self.world.now = self.world.now.plus(away);
            self.note(|| "and comes back".to_owned());
        }
        let text = serde_json::to_string(&self.world.saved).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        let stopped = self.world.wishes.clone();
        let configuration = self.configuration();
        self.jobs = Jobs::default();
        self.world.start_daemon_by(configuration, saved, stopped);
        let now = self.world.now.0;
        for twin in 0..self.twins.len() {
            let own = &mut self.twins[twin];
            own.in_flight.fill(None);
            // What an engine that serves has said of its slots is known of it for as long as it does.
            for index in 0..own.replicas() {
                own.slots[index] = own.slots[index].filter(|_| own.serves(index));
            }
            if let Some(emptying) = &mut own.emptying {
                // What its engines work on has to be told again first.
                emptying.settles = now + own.file.drain.settle.0.min(emptying.deadline.saturating_sub(now));
            }
            self.told(twin, &[Happening::DaemonRestarted])?;
        }
        Ok(())
    }

    fn compare(&mut self) -> Fine {
        let sketches: Vec<_> = self.twins.iter().map(|twin| twin.sketch(&self.world)).collect();
        if let Some(trail) = &mut self.trail {
            trail.push(format!("    {}", sketches.join("\n    ")));
        }
        for twin in &mut self.twins {
            twin.compare(&self.world)?;
        }
        self.jobs.compare(&self.world, &self.twins)?;
        if self.world.view != View::of(&self.world.state) {
            return Err("what is published is not what is".to_owned());
        }
        Ok(())
    }

    /// Asked to stop, everything stops, and nothing is left.
    fn end(&mut self) -> Fine {
        self.twins.iter_mut().for_each(Twin::forget_classes);
        for twin in 0..self.twins.len() {
            let pool = self.twins[twin].id.to_string();
            for request in [Request::Stop { pool: pool.clone() }, Request::Reset { pool }] {
                self.world.ask(request).map_err(|denied| denied.to_string())?;
            }
            self.twins[twin].emptying = None;
            self.told(twin, &[Happening::OperatorStops, Happening::OperatorResets])?;
        }
        while let Some(name) = self.world.units.keys().next().cloned() {
            let twin = self.twins.iter().position(|twin| twin.id == name.replica.pool).unwrap();
            self.world.forgotten(&name);
            self.told(twin, &[])?;
        }
        self.compare()?;
        self.jobs.all_ended()?;
        self.pass(seconds(120))?;
        self.compare()?;
        if !self.world.timers.is_empty() || !self.world.state.leases.is_empty() {
            return Err(format!("something is left: {:?}", self.world.timers));
        }
        Ok(())
    }
}
