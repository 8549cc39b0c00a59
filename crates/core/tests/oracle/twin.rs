//! One pool of the core beside its oracle: what happened is told to the oracle, what the core makes of it is held against
//! what the oracle says.

use super::numbers::rules;
use super::oracle::{GPU, Happening, Leases, ORDINARY, Oracle, Standing, Stands};
use super::world::World;
use pool_core::config::{PoolSpec, RestartPolicy};
use pool_core::host::LogKind;
use pool_core::name::{PoolId, UnitName};
use pool_core::pool::{BreakerState, DrainFor, Kind, Pool, Reload, ReloadStage, Wish};
use pool_core::replica::{ActiveState, ExitClass, Phase, UnitObservation};
use std::collections::BTreeSet;

/// What does not hold.
pub type Fine = Result<(), String>;

/// A pool that is being emptied.
#[derive(Debug, Clone, Copy)]
pub struct Emptying {
    pub deadline: u64,
    /// So long it waits at least.
    pub settles: u64,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stop,
    Restart,
    Replace { force: bool },
}

pub struct Twin {
    pub id: PoolId,
    pub oracle: Oracle,
    pub leases: Leases,
    /// What its file says.
    pub file: PoolSpec,
    pub emptying: Option<Emptying>,
    /// Of the reload that runs: for how long it may drain, and whether by force then.
    pub reload: (u64, bool),
    pub replacing: bool,
    /// What each engine says of itself.
    pub in_flight: Vec<Option<u32>>,
    pub slots: Vec<Option<u32>>,
    /// Why the daemon ends an engine.
    pub condemned: Vec<Option<ExitClass>>,
    /// The class that the last end of a replica is to be told with.
    told_class: Vec<Option<String>>,
    /// Something ended for good since a reload was asked for.
    pub ended_for_good: bool,
    /// Somebody asked for starts since then.
    pub asked: bool,
    /// Its file has changed since then.
    pub changed: bool,
    /// How often in this step its spec was replaced while nothing of it ran, and how often a reload of it began.
    pub replaced: usize,
    pub began: usize,
    /// How often a file that had changed meanwhile was tried because new and old spec had failed.
    pub mended: usize,
    /// The reload that begins is one that somebody asked for.
    pub reload_asked: bool,
}

/// Whether a process of a unit runs.
pub fn alive(unit: &UnitObservation) -> bool {
    let up = match unit.active {
        ActiveState::Activating | ActiveState::Active | ActiveState::Deactivating => true,
        ActiveState::Inactive | ActiveState::Failed | ActiveState::Other => false,
    };
    up && !unit.exited
}

/// What a replica of the core does, in the oracle's words.
fn stands(phase: &Phase) -> Stands {
    match phase {
        Phase::Stopped | Phase::Failed => Stands::Down,
        Phase::Backoff { .. } | Phase::Tripped => Stands::Waits,
        Phase::WaitingForName | Phase::Staging | Phase::Starting | Phase::Ending => Stands::Runs,
        Phase::Ready { .. } => Stands::Serves,
        Phase::Stopping => Stands::Ending,
    }
}

impl Twin {
    pub fn new(file: PoolSpec) -> Twin {
        let replicas = usize::from(file.replicas);
        Twin {
            id: file.id.clone(),
            oracle: Oracle::new(rules(&file.restart), replicas),
            leases: Leases::new(usize::MAX, replicas),
            file,
            emptying: None,
            reload: (0, false),
            replacing: false,
            in_flight: vec![None; replicas],
            slots: vec![None; replicas],
            condemned: vec![None; replicas],
            told_class: vec![None; replicas],
            ended_for_good: false,
            asked: false,
            changed: false,
            replaced: 0,
            mended: 0,
            began: 0,
            reload_asked: false,
        }
    }

    pub fn replicas(&self) -> usize {
        self.in_flight.len()
    }

    pub fn pool<'a>(&self, world: &'a World) -> &'a Pool {
        &world.state.pools[&self.id]
    }

    pub fn serves(&self, index: usize) -> bool {
        self.oracle.runs() && self.oracle.stands(index) == Stands::Serves
    }

    /// Whether nothing waits for that very moment, so that what happens at it may as well happen before its timers ring.
    pub fn nothing_starts_at(&self, at: u64) -> bool {
        let mut then = self.oracle.clone();
        then.tell(at.max(then.now()), &Happening::TimePasses).is_ok() && then.overdue().is_empty()
    }

    /// The file's numbers changed.
    pub fn change(&mut self, now: u64) -> Fine {
        self.oracle.tell(now, &Happening::TimePasses)?;
        self.changed = true;
        self.oracle.change(rules(&self.file.restart));
        Ok(())
    }

    /// Begins to empty it, unless nothing serves: then there is nothing to wait for.
    pub fn empty(&mut self, now: u64, deadline: u64, then: Then) -> Fine {
        let serves = (0..self.replicas()).any(|index| self.serves(index));
        if !serves && then == Then::Stop {
            self.emptying = None;
            return self.tell(now, &Happening::OperatorStops);
        }
        let settles = now + self.file.drain.settle.0.min(deadline);
        self.emptying = Some(Emptying { deadline: now + deadline, settles, then });
        self.tell(now, &Happening::Drains)
    }

    pub fn tell(&mut self, now: u64, happening: &Happening) -> Fine {
        let happening = match happening {
            Happening::Failed(index, class) => {
                // One that is replaced leaves nothing behind, nor does one whose start was asked for since.
                let kept = !self.replacing && !self.oracle.asked(*index);
                self.told_class[*index] = kept.then(|| class.clone());
                let never = self.file.restart.policy == RestartPolicy::Never;
                if never { Happening::Refused(*index) } else { happening.clone() }
            }
            other => other.clone(),
        };
        self.ended_for_good |= matches!(happening, Happening::Refused(_) | Happening::Ended(_));
        if matches!(happening, Happening::OperatorStarts | Happening::OperatorResets) {
            self.asked = true;
            // What is started because somebody asks for it has no end behind it.
            self.forget_classes();
        }
        let told = self.oracle.tell(now, &happening);
        told.map(drop).map_err(|why| format!("{}, {happening:?}: {why}", self.id))
    }

    /// After an event: what the core did about it is told too, where the oracle lets it.
    pub fn take_in(&mut self, world: &World) -> Fine {
        let now = world.now.0;
        self.oracle.tell(now, &Happening::TimePasses)?;
        self.share_leases();
        self.is_empty(world)?;
        self.replaced_at_rest(world)?;
        self.newest_is_tried(world)?;
        self.reloads(world);
        let candidate = candidate(self.pool(world));
        if candidate && !self.replacing {
            if self.pool(world).reload.as_ref().is_some_and(replaces) {
                return Err(format!("{}: engines are replaced that were not drained", self.id));
            }
            self.replacing = true;
            self.tell(now, &Happening::Replaces)?;
        }
        let warned = self.oracle.storm_warns();
        let mut restarted = false;
        for index in 0..self.replicas() {
            restarted |= self.follow(world, index)?;
        }
        if !candidate && std::mem::take(&mut self.replacing) {
            self.tell(now, &Happening::ReplacementEnds)?;
        }
        if restarted && !warned && self.oracle.storm_warns() && !world.kinds.contains(&LogKind::RestartStorm)
        {
            return Err(format!("{}: nobody was warned of a storm", self.id));
        }
        self.share_leases();
        Ok(())
    }

    /// A reload of a pool of which nothing runs replaces its spec; what waits or has failed is tried with it at once.
    fn replaced_at_rest(&mut self, world: &World) -> Fine {
        let line = format!("pool {}: its spec was replaced; nothing of it ran", self.id);
        let replaced = world.lines.iter().filter(|said| **said == line).count();
        if replaced == std::mem::replace(&mut self.replaced, replaced) {
            return Ok(());
        }
        let oracle = &self.oracle;
        let waits = |index| match oracle.stands(index) {
            Stands::Down => oracle.has_failed(index),
            Stands::Ending => false,
            Stands::Waits | Stands::Runs | Stands::Serves => true,
        };
        if oracle.runs() && (0..self.replicas()).any(waits) {
            return self.tell(world.now.0, &Happening::OperatorStarts);
        }
        Ok(())
    }

    /// New and old spec have failed, and a file that changed meanwhile is tried as if somebody had asked for it.
    fn newest_is_tried(&mut self, world: &World) -> Fine {
        let line = format!("pool {}: both models failed; the file has changed since, and is tried", self.id);
        let mended = world.lines.iter().filter(|said| **said == line).count();
        if mended == std::mem::replace(&mut self.mended, mended) {
            return Ok(());
        }
        let failed = |index| self.oracle.stands(index) == Stands::Waits || self.oracle.has_failed(index);
        if !self.changed || !(0..self.replicas()).all(failed) {
            let stand: Vec<_> = (0..self.replicas()).map(|index| self.oracle.stands(index)).collect();
            return Err(format!("{}: changed: {}; a file is tried beside {stand:?}", self.id, self.changed));
        }
        self.tell(world.now.0, &Happening::OperatorStarts)
    }

    /// A reload has begun. One that nobody asked for follows from a changed file, and goes by that.
    fn reloads(&mut self, world: &World) {
        let line = format!("pool {}: reloading from ", self.id);
        let began = world.lines.iter().filter(|said| said.starts_with(&line)).count();
        let asked = std::mem::take(&mut self.reload_asked);
        if began > std::mem::replace(&mut self.began, began) && !asked {
            self.reload = (self.file.drain.deadline.0, false);
            (self.ended_for_good, self.asked, self.changed) = (false, false, false);
        }
    }

    /// Follows one replica to where the core has it; says whether it was started again by itself.
    fn follow(&mut self, world: &World, index: usize) -> Result<bool, String> {
        let now = world.now.0;
        let mut restarted = false;
        for _ in 0..4 {
            let core = stands(&self.pool(world).replicas[index].phase);
            let happening = match (self.oracle.stands(index), core) {
                (known, core) if known == core => break,
                (Stands::Ending, _) => {
                    if let Some(name) = self.processes(world, index).next() {
                        return Err(format!("{name} runs, and its replica counts as gone"));
                    }
                    Happening::Ended(index)
                }
                (Stands::Down | Stands::Waits, Stands::Runs | Stands::Serves)
                    if !(self.replacing && self.oracle.stands(index) == Stands::Waits) =>
                {
                    (self.in_flight[index], self.slots[index]) = (None, None);
                    restarted |= self.oracle.may_start(index).is_ok_and(|(restart, _)| restart);
                    Happening::Started(index)
                }
                (Stands::Runs | Stands::Serves, Stands::Ending)
                | (Stands::Runs | Stands::Waits, Stands::Down)
                | (Stands::Waits, Stands::Runs)
                    if self.replacing =>
                {
                    Happening::TakenDown(index)
                }
                _ => break,
            };
            self.tell(now, &happening)?;
        }
        if self.oracle.stands(index) != Stands::Runs {
            self.condemned[index] = None;
        }
        Ok(restarted)
    }

    /// Units of a replica that have a process.
    fn processes<'a>(&self, world: &'a World, index: usize) -> impl Iterator<Item = &'a UnitName> {
        let id = self.pool(world).replicas[index].id.clone();
        let units = world.units.values().filter(move |unit| unit.name.replica == id && alive(unit));
        // The checks of a reload are nobody's process.
        // One that was started since is another.
        let names = units.map(|unit| &unit.name).filter(|name| !world.started.contains(name));
        names.filter(|name| name.kind == pool_core::name::UnitKind::Engine)
    }

    /// Those that serve are those that give leases; with an engine go its leases.
    fn share_leases(&mut self) {
        self.leases.draining = self.emptying.is_some();
        for index in 0..self.replicas() {
            let own = self.file.leases.capacity.or(self.slots[index]);
            self.leases.capacity[index] = own.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
            if self.serves(index) {
                self.leases.ready(index, true);
            } else {
                self.leases.engine_ended(index);
            }
        }
    }

    /// Whether what was being emptied is empty, or its time is over, and what follows.
    fn is_empty(&mut self, world: &World) -> Fine {
        let now = world.now.0;
        let Some(Emptying { deadline, settles, then }) = self.emptying else { return Ok(()) };
        let serving: Vec<usize> = (0..self.replicas()).filter(|index| self.serves(*index)).collect();
        let works = serving.iter().any(|index| self.in_flight[*index].is_some_and(|number| number > 0));
        let done = serving.is_empty() || (self.leases.of_pool() == 0 && !works && settles <= now);
        if !done && now < deadline {
            return Ok(());
        }
        // Its timer may be among those that are about to ring.
        let rings = world.next_timer().is_some_and(|(_, at)| at.0 <= now);
        if rings && !serving.is_empty() && self.pool(world).drain.is_some() {
            return Ok(());
        }
        self.emptying = None;
        match then {
            Then::Stop => self.tell(now, &Happening::OperatorStops)?,
            Then::Restart => {
                self.tell(now, &Happening::OperatorStops)?;
                self.tell(now, &Happening::OperatorStarts)?;
            }
            Then::Replace { force: false } if !done => self.tell(now, &Happening::DrainCalledOff)?,
            Then::Replace { .. } => {
                self.replacing = true;
                self.tell(now, &Happening::Replaces)?;
            }
        }
        self.share_leases();
        Ok(())
    }

    /// Everything that is due has been done: the core is where the oracle is.
    pub fn compare(&mut self, world: &World) -> Fine {
        self.oracle.tell(world.now.0, &Happening::TimePasses)?;
        let pool = self.pool(world);
        let oracle = &self.oracle;
        let spec = &pool.revision.spec;
        self.is("the file's numbers", (spec.restart, spec.drain, spec.leases), {
            (self.file.restart, self.file.drain, self.file.leases)
        })?;
        self.is("should it run", pool.wish == Wish::Run, oracle.runs())?;
        self.is("drains", pool.drain.is_some(), self.emptying.is_some())?;
        if let (Some(core), Some(own)) = (&pool.drain, self.emptying) {
            self.is("until when it drains", core.deadline.0, own.deadline)?;
            let then = match core.purpose {
                DrainFor::Stop => Then::Stop,
                DrainFor::Restart => Then::Restart,
                DrainFor::Reload => Then::Replace { force: self.reload.1 },
            };
            self.is("what it drains for", then, own.then)?;
        }
        // What is to start waits for what ends, and for a reload that will replace it anyway.
        let late = pool.reload.is_some() || pool.replicas.iter().any(|other| other.phase == Phase::Stopping);
        for (index, replica) in pool.replicas.iter().enumerate() {
            let core = stands(&replica.phase);
            if !(late && core == Stands::Down && oracle.stands(index) == Stands::Waits) {
                self.is(&format!("replica {index}"), core, oracle.stands(index))?;
            }
            self.is(&format!("failures of replica {index}"), replica.failures, oracle.failures(index))?;
            self.is(
                &format!("leases of replica {index}"),
                replica.leases as usize,
                self.leases.of_replica(index),
            )?;
            let left = world.units.keys().any(|name| name.replica == replica.id);
            if replica.phase == Phase::Stopping && !left {
                return Err(format!("{}: replica {index} stops although nothing of it is left", self.id));
            }
            let down = matches!(oracle.stands(index), Stands::Down | Stands::Waits);
            if let Some(class) = self.told_class[index].as_ref().filter(|_| down) {
                let core = replica.last_exit.as_ref().map(ToString::to_string);
                self.is(&format!("how replica {index} ended"), core.as_ref(), Some(class))?;
            }
        }
        for (kind, which) in [(Kind::Ordinary, ORDINARY), (Kind::Gpu, GPU)] {
            let breaker = pool.troubles.breaker(kind);
            let standing = match breaker.state {
                BreakerState::Closed => Standing::Closed,
                BreakerState::Open { until, .. } => Standing::Open { until: until.0 },
                BreakerState::HalfOpen { .. } => Standing::HalfOpen,
            };
            self.is(&format!("{kind:?} breaker"), standing, oracle.breaker(which))?;
            // While it is not closed nobody goes by the row: it closes with none.
            if standing == Standing::Closed {
                self.is(&format!("{kind:?} row"), breaker.in_row, oracle.row(which))?;
            }
        }
        self.is("restart count", pool.restart_count, oracle.restart_count())?;
        // What a reload will replace anyway need not be started before.
        if pool.reload.is_none() && !oracle.overdue().is_empty() {
            return Err(format!("{}: replicas {:?} should have been started", self.id, oracle.overdue()));
        }
        let all = (0..self.replicas()).all(|index| self.serves(index));
        let started = |reload: &Reload| reload.stage == ReloadStage::Replacing { started: true };
        if all && pool.reload.as_ref().is_some_and(started) {
            return Err(format!("{}: everything was replaced, and its reload goes on", self.id));
        }
        self.compare_leases(world)
    }

    /// Leases whose time is over, as soon as the daemon says so and no sooner.
    pub fn expire(&mut self, world: &World) {
        let held = world.held.iter().filter(|lease| lease.replica.pool == self.id);
        let held = held.map(|lease| lease.number).collect();
        self.leases.expire(world.now.0, &held);
    }

    fn compare_leases(&self, world: &World) -> Fine {
        self.is("leases past their time limit", self.leases.overdue(world.now.0), Vec::new())?;
        let own: BTreeSet<u64> = self.leases.held().collect();
        let opened = world.held.iter().filter(|lease| lease.replica.pool == self.id);
        self.is("descriptors", &opened.map(|lease| lease.number).collect(), &own)?;
        let known = self.pool(world).replicas.iter().flat_map(|replica| world.state.leases.of(&replica.id));
        self.is("leases", &known.map(|(lease, _)| lease.number).collect(), &own)
    }

    fn is<T: PartialEq + std::fmt::Debug>(&self, what: &str, core: T, oracle: T) -> Fine {
        if core == oracle {
            Ok(())
        } else {
            Err(format!("{}, {what}: the core says {core:?}, the oracle {oracle:?}", self.id))
        }
    }

    /// Where everything stands, for who reads a story.
    pub fn sketch(&self, world: &World) -> String {
        let all = || 0..self.replicas();
        let core: Vec<_> = self.pool(world).replicas.iter().map(|replica| replica.phase.as_str()).collect();
        let oracle: Vec<_> = all().map(|index| format!("{:?}", self.oracle.stands(index))).collect();
        format!(
            "{} {} | {} | {:?} | {}",
            self.id,
            core.join(" "),
            oracle.join(" "),
            self.emptying.map(|emptying| emptying.then),
            self.pool(world).reload.as_ref().map_or("", |reload| reload.stage.as_str())
        )
    }

    /// How a replica ended last is no longer told.
    pub fn forget_classes(&mut self) {
        self.told_class.fill(None);
    }
}

/// Whether what runs is to be replaced.
fn candidate(pool: &Pool) -> bool {
    pool.reload.as_ref().is_some_and(|reload| {
        matches!(
            reload.stage,
            ReloadStage::Replacing { .. } | ReloadStage::RollingBack { started: false, .. }
        )
    })
}

fn replaces(reload: &Reload) -> bool {
    matches!(reload.stage, ReloadStage::Replacing { .. })
}
