//! Owns the scripted systemd: the true set of units, what is asked of it, and everything that is due to happen. It never
//! waits for the daemon and is asked under a lock; [`drive`] lets its time pass. What is asked of units is in `asked`.

mod asked;

use crate::bus::{Answer, Bus, Parcel, UnitsAnswer};
use crate::dice::Dice;
use crate::unit::{Step, Unit};
use pool_core::host::UnitFacts;
use pool_core::name::{PoolId, UnitName, Usec};
use pool_core::replica::ActiveState;
use pool_core::unit::{Property, UnitSpec};
use pool_managerd::ports::{Observation, SystemdError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// What is asked of systemd, and where the answer goes.
#[derive(Debug)]
pub enum Call {
    Start(UnitSpec, Answer),
    Change(UnitName, Property, Answer),
    Stop(UnitName, Answer),
    Kill(UnitName, Answer),
    Forget(UnitName, Answer),
    Units(UnitsAnswer),
}

/// Something that is due.
#[derive(Debug)]
enum Happening {
    /// A call of a run of the daemon has reached systemd.
    Reached {
        run: u64,
        asked: Instant,
        call: Call,
    },
    /// A unit does something by itself; void if it has another plan by now.
    Step(UnitName, u64, Step),
    /// systemd gets round to say that a unit has changed.
    Say(UnitName),
    /// A stop of a frozen unit is given up.
    StopFails(UnitName),
    /// Somebody lets go of a unit, or thaws it.
    Release(UnitName),
    /// Signals get through again.
    Hear,
    /// Units are read, one by one.
    Read {
        run: u64,
        left: Vec<UnitName>,
        read: Vec<UnitFacts>,
        answer: UnitsAnswer,
    },
    Arrived(u64, Parcel),
}

/// systemd and the bus.
#[derive(Debug)]
pub struct World {
    pub units: BTreeMap<UnitName, Unit>,
    pub bus: Bus,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// Pools of which somebody may have an engine stopped that serves.
    pub may_stop: BTreeSet<PoolId>,
    /// What must never happen and did.
    pub broken: Option<String>,
    pub trace: Vec<String>,
    agenda: BTreeMap<(Instant, u64), Happening>,
    began: Instant,
    sequence: u64,
    serial: u32,
    dice: Dice,
}

/// The world, shared with the daemon's client.
#[derive(Debug, Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
}

impl Shared {
    pub fn new(seed: u64) -> Shared {
        let world = World {
            units: BTreeMap::new(),
            bus: Bus::default(),
            calm: false,
            may_stop: BTreeSet::new(),
            broken: None,
            trace: Vec::new(),
            agenda: BTreeMap::new(),
            began: Instant::now(),
            sequence: 0,
            serial: 0,
            dice: Dice::new(seed, "systemd"),
        };
        Shared { world: Arc::new(Mutex::new(world)), changed: Arc::new(Notify::new()) }
    }

    /// The world, to look at or to change.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.changed.notify_one();
        self.world.lock().unwrap()
    }
}

/// Lets the world's time pass, for ever.
pub async fn drive(shared: Shared) {
    loop {
        let next = {
            let mut world = shared.world.lock().unwrap();
            world.pass();
            world.agenda.keys().next().map(|(at, _)| *at)
        };
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased; () = shared.changed.notified() => {}, () = due => {} }
    }
}

impl World {
    /// Realtime, which begins at some moment of 2025.
    pub fn now(&self) -> Usec {
        let since = u64::try_from(self.began.elapsed().as_micros()).unwrap();
        Usec(1_750_000_000_000_000 + since)
    }

    /// A line of the story, for whoever has to understand a failure.
    pub fn note(&mut self, line: String) {
        let at = self.began.elapsed().as_millis();
        self.trace.push(format!("{:>6}.{:03} {line}", at / 1_000, at % 1_000));
    }

    /// What must never happen has happened; the first time counts.
    pub fn fail(&mut self, what: String) {
        self.note(format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    fn due(&mut self, after: Duration, what: Happening) {
        self.due_at(Instant::now() + after, what);
    }

    fn due_at(&mut self, at: Instant, what: Happening) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), what);
    }

    /// Everything that is due by now happens.
    fn pass(&mut self) {
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let what = entry.remove();
            self.happens(what);
        }
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Reached { run, asked, call } => self.carry_out(run, asked, call),
            Happening::Step(name, plan, step) => self.step(&name, plan, step),
            Happening::Say(name) => self.say(&name),
            Happening::StopFails(name) => match self.units.get(&name) {
                Some(unit) if unit.frozen => {
                    self.say(&name);
                    self.send(
                        &name,
                        Observation::JobFailed { name: name.clone(), result: "frozen".to_owned() },
                    );
                }
                // It has thawed meanwhile.
                Some(_) => self.stop(&name),
                None => {}
            },
            Happening::Release(name) => self.release(&name),
            Happening::Hear => self.hear(),
            Happening::Read { run, left, read, answer } => self.read(run, left, read, answer),
            Happening::Arrived(to, parcel) => {
                if let Parcel::Said(what) = &parcel
                    && self.bus.listener.as_ref().is_some_and(|(run, _)| *run == to)
                {
                    self.note(format!("  heard {}", in_words(what)));
                    if let Observation::Seen(seen) = what
                        && seen.active != ActiveState::Inactive
                        && let Some(unit) = self.units.get_mut(&seen.name)
                        && unit.facts.seen.invocation == seen.invocation
                    {
                        unit.heard.get_or_insert_with(Instant::now);
                    }
                }
                if let Err(problem) = self.bus.deliver(to, parcel) {
                    self.fail(problem);
                }
            }
        }
    }

    /// A call is on its way.
    pub fn submit(&mut self, run: u64, call: Call) {
        let after = self.dice.delay();
        self.due(after, Happening::Reached { run, asked: Instant::now(), call });
    }

    /// A run of the daemon has died: each of its calls has reached systemd, or never will.
    pub fn died(&mut self, run: u64) {
        self.bus.listener = None;
        let of_it = |what: &Happening| matches!(what, Happening::Reached { run: from, .. } if *from == run);
        let calls: Vec<_> = self.agenda.iter().filter(|(_, what)| of_it(what)).map(|(key, _)| *key).collect();
        for key in calls {
            let Some(call) = self.agenda.remove(&key) else { continue };
            if self.dice.chance(50) {
                self.happens(call);
            }
        }
    }

    fn carry_out(&mut self, run: u64, asked: Instant, call: Call) {
        match call {
            Call::Start(spec, answer) => {
                let outcome = self.start(&spec, asked);
                self.note(format!("start {}: {}", spec.name, said(&outcome)));
                self.answer(run, &spec.name, answer, outcome);
            }
            Call::Change(name, property, answer) => {
                let unit = self.units.get_mut(&name).ok_or(SystemdError::NoSuchUnit);
                let outcome = unit.map(|unit| unit.change(&property));
                self.note(format!("change {} of {name}: {}", property.name(), said(&outcome)));
                self.answer(run, &name, answer, outcome);
            }
            Call::Stop(name, answer) => {
                let outcome = self.asked_to_stop(&name);
                self.note(format!("stop {name}: {}", said(&outcome)));
                self.answer(run, &name, answer, outcome);
            }
            Call::Kill(name, answer) => {
                let outcome = self.kill(&name);
                self.note(format!("kill {name}: {}", said(&outcome)));
                self.answer(run, &name, answer, outcome);
            }
            Call::Forget(name, answer) => {
                let outcome = self.forget(&name);
                self.note(format!("forget {name}: {}", said(&outcome)));
                self.answer(run, &name, answer, outcome);
            }
            Call::Units(answer) => {
                if !self.calm && self.dice.chance(3) {
                    let error = SystemdError::Refused("not now".to_owned());
                    let parcel = Parcel::Units(answer, Err(error));
                    return self.due(Duration::ZERO, Happening::Arrived(run, parcel));
                }
                let left = self.units.keys().cloned().collect();
                self.due(Duration::ZERO, Happening::Read { run, left, read: Vec::new(), answer });
            }
        }
    }

    /// Reads the next unit: while one is read, others go on.
    fn read(&mut self, run: u64, mut left: Vec<UnitName>, mut read: Vec<UnitFacts>, answer: UnitsAnswer) {
        match left.pop() {
            Some(name) => {
                read.extend(self.units.get(&name).map(Unit::read));
                let after = if self.dice.chance(80) { Duration::ZERO } else { self.dice.millis(0, 20) };
                self.due(after, Happening::Read { run, left, read, answer });
            }
            None => {
                let words: Vec<_> =
                    read.iter().map(|facts| format!("{} {:?}", facts.seen.name, facts.seen.active)).collect();
                self.note(format!("units: {}", words.join(", ")));
                let at = self.bus.arrival_behind_all(Instant::now(), &mut self.dice, false);
                self.due_at(at, Happening::Arrived(run, Parcel::Units(answer, Ok(read))));
            }
        }
    }

    fn answer(&mut self, run: u64, name: &UnitName, answer: Answer, outcome: Result<(), SystemdError>) {
        // What has happened by now is said before the answer.
        if self.dice.chance(70) {
            self.say(name);
        }
        let at = self.bus.arrival(name, Instant::now(), &mut self.dice);
        self.due_at(at, Happening::Arrived(run, Parcel::Answer(answer, outcome)));
    }

    fn step(&mut self, name: &UnitName, plan: u64, step: Step) {
        let now = self.now();
        let Some(unit) = self.units.get_mut(name).filter(|unit| unit.plan == plan) else { return };
        if step == Step::Unload {
            if unit.facts.seen.active == ActiveState::Inactive {
                if !self.calm && self.dice.chance(4) {
                    unit.held = true;
                    let after = self.dice.millis(0, 90_000);
                    self.due(after, Happening::Release(name.clone()));
                }
                self.unload(name);
            }
            return;
        }
        self.serial += 1;
        let next = unit.step(step, now, self.serial, &mut self.dice, self.calm);
        if unit.dirty {
            let (state, result) = (unit.facts.seen.active, unit.facts.seen.result.clone());
            self.note(format!("{name} is {state:?} ({result}), by {step:?}"));
        }
        match next {
            Some(next) => self.plan(name, next),
            None => self.changed(name),
        }
    }

    fn unload(&mut self, name: &UnitName) {
        self.say(name);
        let gone =
            |unit: &Unit| !unit.held && unit.facts.seen.active == ActiveState::Inactive && !unit.restarting;
        if self.units.get(name).is_some_and(gone) {
            self.units.remove(name);
            self.note(format!("{name} is gone"));
            self.send(name, Observation::Forgotten(name.clone()));
        }
    }

    /// What a unit does next, instead of what it had planned.
    fn plan(&mut self, name: &UnitName, (after, step): (Duration, Step)) {
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.plan += 1;
        unit.dirty = true;
        let plan = unit.plan;
        self.due(after, Happening::Step(name.clone(), plan, step));
        self.changed(name);
    }

    /// A unit has changed; systemd says so after a moment, once for all changes up to then.
    fn changed(&mut self, name: &UnitName) {
        let after = self.dice.millis(0, 2);
        self.due(after, Happening::Say(name.clone()));
    }

    fn say(&mut self, name: &UnitName) {
        if let Some(unit) = self.units.get_mut(name).filter(|unit| unit.dirty) {
            unit.dirty = false;
            let seen = unit.facts.seen.clone();
            // Said twice now and then.
            for _ in 0..1 + usize::from(self.dice.chance(8)) {
                self.send(name, Observation::Seen(seen.clone()));
            }
        }
    }

    /// systemd says again how a unit stands.
    pub fn repeat(&mut self, name: &UnitName) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.dirty = true;
            self.say(name);
        }
    }

    fn send(&mut self, name: &UnitName, what: Observation) {
        let Some((run, _)) = self.bus.listener else { return };
        if self.bus.deaf {
            self.note(format!("  lost: {}", in_words(&what)));
            return;
        }
        let at = self.bus.arrival(name, Instant::now(), &mut self.dice);
        self.due_at(at, Happening::Arrived(run, Parcel::Said(what)));
    }

    /// Signals are lost for a while.
    pub fn be_deaf(&mut self, during: Duration) {
        if !self.bus.deaf {
            self.note("signals are lost from now on".to_owned());
            self.bus.deaf = true;
            self.due(during, Happening::Hear);
        }
    }

    /// Signals get through again, which the daemon is told.
    pub fn hear(&mut self) {
        if std::mem::take(&mut self.bus.deaf) {
            self.read_units_again();
        }
    }

    /// Systemd reads its units again while nodes of some of them are missing.
    pub fn read_units_again(&mut self) {
        for unit in self.units.values_mut() {
            if self.dice.chance(50) {
                unit.opens.clear();
            }
        }
        if let Some((run, _)) = self.bus.listener {
            let at = self.bus.arrival_behind_all(Instant::now(), &mut self.dice, true);
            self.due_at(at, Happening::Arrived(run, Parcel::Said(Observation::ReadAnew)));
        }
    }

    /// The bus goes away.
    pub fn disconnect(&mut self) {
        if let Some((run, _)) = self.bus.listener {
            self.due(Duration::ZERO, Happening::Arrived(run, Parcel::Said(Observation::Disconnected)));
        }
    }

    /// From now on nothing goes wrong by itself; some things stay in the way, as names that are held for good.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.hear();
        let names: Vec<_> = self.units.keys().cloned().collect();
        for name in names {
            let Some(unit) = self.units.get_mut(&name) else { continue };
            unit.frozen = false;
            if unit.facts.seen.active == ActiveState::Active {
                unit.plan += 1;
            }
            if self.dice.chance(70) {
                self.release(&name);
            }
        }
    }
}

fn said(outcome: &Result<(), SystemdError>) -> String {
    outcome.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned())
}

fn in_words(what: &Observation) -> String {
    match what {
        Observation::Seen(seen) => {
            let pid = seen.main_pid;
            format!("{} {:?} pid {pid}{}", seen.name, seen.active, if seen.exited { " exited" } else { "" })
        }
        Observation::Forgotten(name) => format!("{name} forgotten"),
        Observation::JobFailed { name, result } => format!("{name} job {result}"),
        Observation::ReadAnew | Observation::Disconnected => format!("{what:?}"),
    }
}
