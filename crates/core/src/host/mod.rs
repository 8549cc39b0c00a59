//! Owns what crosses pools: the whole state, its one way in and its one way out.
//!
//! [`decide`] judges a request without being able to change anything; [`apply`] takes in an event, which cannot be
//! denied. Effects are requests to the outside and are carried out in order.

mod adoption;
mod asked;
mod caller;
mod configure;
mod decide;
mod event;
mod external;
mod facts;
mod leasing;
mod log;
mod memory;
mod ports;
mod record;
mod request;
mod saved;
mod turn;
mod waiting;

pub use adoption::UnitFacts;
pub use caller::Caller;
pub use decide::decide;
pub use event::{Effect, Effects, Event, Input};
pub(crate) use external::phase as external_phase;
pub use external::{Expiry, SavedExternal, Since};
pub use facts::HostFacts;
pub use log::{Level, LogKind, LogLine};
pub use memory::Promises;
pub use ports::Ports;
pub use record::{RECORD_VERSION, RecordHead};
pub use request::{Accepted, Answer, Denied, LeaseWish, Request, RequestId};
pub use saved::{Saved, SavedPool};
pub(crate) use turn::Turn;
pub use turn::{Purpose, TimerId, Timers};
pub use waiting::{Waiter, Waits};

use crate::config::{FileError, Settings};
use crate::cpu::{Cpus, Topology};
use crate::device::{Devices, Inventory};
use crate::job::Jobs;
use crate::lease::{LeaseEnd, Leases};
use crate::name::{PoolId, UnitName, Usec};
use crate::pool::{Pool, Wish, lifecycle};
use crate::registry::{External, HealthStatus, Registry};
use crate::replica::{ActiveState, Hold, UnitObservation};
use crate::unit::allowed_cpus;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The daemon's settings.
    pub settings: Settings,
    /// All pools.
    pub pools: BTreeMap<PoolId, Pool>,
    /// All jobs.
    pub jobs: Jobs,
    /// Who waits for something, in the order in which they came.
    pub waiters: BTreeMap<RequestId, Waiter>,
    /// Which replica has which automatic port.
    pub ports: Ports,
    /// Who may use which CPUs.
    #[serde(default)]
    pub cpus: Cpus,
    /// Timers that run.
    pub timers: Timers,
    /// How much memory is promised to which replica.
    #[serde(default)]
    pub promises: Promises,
    /// Every lease that is held.
    pub leases: Leases,
    /// What is known of each pool by its id alone.
    pub registry: Registry,
    /// Since when what is known of external pools holds.
    #[serde(default)]
    pub since: BTreeMap<PoolId, Since>,
    /// The timer that looks for silent owners of them.
    #[serde(default)]
    pub expiry: Option<Expiry>,
    /// How many units were asked for so far.
    pub starts: u64,
    /// Pools that may have changed since [`State::take_touched`]; all that is done for every event is done for these.
    touched: BTreeSet<PoolId>,
    /// Pools that an operator stopped.
    pub stopped: BTreeSet<PoolId>,
    /// The devices of this host.
    #[serde(default)]
    pub devices: Devices,
    /// Errors of files.
    pub errors: Vec<FileError>,
    /// Engines that run although nothing is known of their pool, because its file is broken.
    pub unclaimed: BTreeMap<UnitName, UnitFacts>,
    /// Units that are being removed and belong to no pool; their names are not free yet.
    pub ending: BTreeSet<UnitName>,
    /// Units of which nothing but the name is left, because somebody else's dependency keeps them loaded.
    pub kept: BTreeSet<UnitName>,
    /// When the daemon started, realtime; 0 before [`Event::Started`].
    pub started: Usec,
    /// Why what operators asked for could not be saved; it is tried again.
    pub unsaved: Option<String>,
    /// What is known of the host.
    #[serde(default)]
    pub host: HostFacts,
    /// Properties that units are started without, because systemd does not know or would not set them.
    #[serde(default)]
    pub left_out: BTreeSet<String>,
}

/// What could not be saved is tried again after this time.
const SAVE_AGAIN: Usec = Usec::from_secs(10);

/// The parts of the state that a turn may change besides its pool; a macro, so that the pool can be borrowed meanwhile.
macro_rules! outside {
    ($state:expr) => {
        turn::Outside {
            timers: &mut $state.timers,
            ports: &mut $state.ports,
            cpus: &mut $state.cpus,
            promises: &mut $state.promises,
            jobs: &mut $state.jobs,
            waiters: &mut $state.waiters,
            leases: &mut $state.leases,
            registry: &mut $state.registry,
            starts: &mut $state.starts,
            settings: &$state.settings,
            host: &$state.host,
            devices: &$state.devices,
        }
    };
}

/// Takes in an event.
pub fn apply(state: &mut State, input: Input) -> Effects {
    let mut effects = Effects::new();
    let touched_before = std::mem::take(&mut state.touched);
    let Input { mono, real, seed, event } = input;
    let clock = turn::Clock { mono, real, seed };
    match event {
        Event::Started { configuration, units, saved, stopped, quarantined, leases, host } => {
            facts::found(state, &mut effects, host);
            state.devices = Devices::keeping(quarantined);
            let found = adoption::Found { configuration, units, saved: *saved, stopped, leases };
            adoption::started(state, clock, &mut effects, found);
        }
        Event::ConfigurationRead { configuration, requests } => {
            configure::read_again(state, clock, &mut effects, configuration, &requests);
        }
        Event::Asked { request, caller, accepted } => {
            asked::asked(state, clock, &mut effects, request, caller, accepted);
        }
        Event::CallerLeft(name) => waiting::caller_left(state, &mut effects, &name),
        Event::UnitSeen(seen) => unit_seen(state, clock, &mut effects, seen),
        Event::UnitForgotten(name) => forgotten(state, clock, &mut effects, &name),
        Event::UnitTaken(name) => {
            state.with_replica(clock, &mut effects, &name.replica, |pool, index, _| {
                lifecycle::unit_taken(pool, index, &name);
            });
        }
        Event::PropertiesLeftOut(names) => {
            let names = names.iter().map(String::as_str);
            facts::left_out(state, &mut effects, names, "systemd would not set it");
        }
        Event::UnitRefused { name, name_taken, error } => {
            let problem = if name_taken {
                lifecycle::StartProblem::NameTaken
            } else {
                lifecycle::StartProblem::Other(error)
            };
            state.with_replica(clock, &mut effects, &name.replica, |pool, index, turn| {
                lifecycle::unit_refused(pool, index, &name, problem, turn);
            });
        }
        Event::JobFailed { name, result } => {
            end_later(state, &mut effects, &name);
            state.with_replica(clock, &mut effects, &name.replica, |pool, index, turn| {
                lifecycle::job_failed(pool, index, &name, &result, turn);
            });
        }
        Event::StopRefused { name, error } => {
            end_later(state, &mut effects, &name);
            state.with_replica(clock, &mut effects, &name.replica, |pool, index, turn| {
                lifecycle::stop_refused(pool, index, &name, &error, turn);
            });
        }
        Event::UnitsRead { asked, heard, units } => {
            adoption::units_read(state, clock, &mut effects, &asked, &heard, units);
        }
        Event::Reported { unit, report } => {
            state.with_replica(clock, &mut effects, &unit.replica, |pool, index, turn| {
                lifecycle::reported(pool, index, &unit, report, turn);
            });
        }
        Event::CpusFound(topology) => cpus_found(state, &mut effects, topology),
        Event::DevicesFound(found) => {
            devices_found(state, found);
            effects.push(Effect::SaveRuntime);
        }
        Event::LeaseEnded { lease, how } => leasing::ended(state, clock, &mut effects, &lease, &how),
        Event::EngineCondemned { replica, class, text } => {
            state.with_replica(clock, &mut effects, &replica, |pool, index, turn| {
                lifecycle::condemn(pool, index, class, text, turn);
            });
        }
        Event::WishesSaved { error } => wishes_saved(state, &mut effects, error),
        Event::TimerFired(id) => {
            if let Some(purpose) = state.timers.take(id) {
                timer_fired(state, clock, &mut effects, id, purpose);
            }
            // Else it was cancelled while its ring was on its way.
        }
    }
    settle(state, clock, &mut effects);
    state.touched.extend(touched_before);
    effects
}

fn timer_fired(state: &mut State, clock: turn::Clock, effects: &mut Effects, id: TimerId, purpose: Purpose) {
    match purpose {
        Purpose::Restart(replica) => {
            state.with_replica(clock, effects, &replica, lifecycle::restart_due);
        }
        Purpose::ReleaseAgain(replica) => {
            state.with_replica(clock, effects, &replica, lifecycle::still_stuck);
        }
        Purpose::GiveUpName(name, start) => {
            state.kept.insert(name.clone());
            state.with_replica(clock, effects, &name.replica, |pool, index, turn| {
                lifecycle::give_up_name(pool, index, &name, start, turn);
            });
        }
        Purpose::Kill(name, start) => {
            state.with_replica(clock, effects, &name.replica, |pool, index, turn| {
                lifecycle::kill(pool, index, &name, start, turn);
            });
        }
        Purpose::Trial(pool) => {
            state.with_pool(clock, effects, &pool, |pool, turn| lifecycle::trial_due(pool, id, turn));
        }
        Purpose::Steady(replica) => {
            state.with_replica(clock, effects, &replica, |pool, index, _| lifecycle::steady(pool, index, id));
        }
        Purpose::Drain(pool) => {
            state.with_pool(clock, effects, &pool, |pool, turn| lifecycle::drain::timer(pool, id, turn));
        }
        Purpose::EndAgain(name) => {
            if state.ending.contains(&name) {
                adoption::discard(effects, &name);
            }
        }
        Purpose::SaveAgain => effects.push(Effect::SaveWishes),
        Purpose::DropJob(job) => {
            state.jobs.all.remove(&job);
        }
        Purpose::EndWait(request) => {
            if let Some(waiter) = state.waiters.remove(&request) {
                waiting::timed_out(state, effects, request, waiter);
            }
        }
        Purpose::EndLease(lease) => leasing::ended(state, clock, effects, &lease, &LeaseEnd::Expired),
        Purpose::ExpireExternals => external::expire(state, clock, effects),
    }
}

fn wishes_saved(state: &mut State, effects: &mut Effects, error: Option<String>) {
    if let Some(error) = &error {
        if !state.timers.runs_for(&Purpose::SaveAgain) {
            state.timers.set(SAVE_AGAIN, Purpose::SaveAgain, effects);
        }
        if state.unsaved.is_none() {
            let message =
                format!("what operators asked for cannot be saved and would be lost in a reboot: {error}");
            effects.push(Effect::Log(LogLine::plain(LogKind::NotSaved, message)));
        }
    }
    if state.unsaved != error {
        state.touched.extend(state.pools.keys().cloned());
    }
    state.unsaved = error;
}

fn unit_seen(state: &mut State, clock: turn::Clock, effects: &mut Effects, seen: UnitObservation) {
    if state.ending.contains(&seen.name) && !state.expects(&seen.name) {
        // It belongs to no pool. One that failed on its way out is kept by systemd until it is forgotten.
        if seen.active == ActiveState::Failed {
            effects.push(Effect::ForgetUnit(seen.name));
        } else if matches!(seen.active, ActiveState::Activating | ActiveState::Active) {
            // Somebody started it again.
            effects.push(Effect::StopUnit(seen.name));
        } else if seen.active == ActiveState::Inactive {
            state.ending.remove(&seen.name);
            state.give_back_orphans(&seen.name);
            state.kept.insert(seen.name);
        }
        return;
    }
    if let Some(facts) = state.unclaimed.get_mut(&seen.name) {
        facts.seen = seen;
        return;
    }
    if seen.active != ActiveState::Inactive && state.kept.contains(&seen.name) {
        // Its replica has another unit by now, or will have.
        adoption::stranger(state, clock, effects, seen.name);
        return;
    }
    let replica = seen.name.replica.clone();
    state.with_replica(clock, effects, &replica, |pool, index, turn| {
        lifecycle::unit_seen(pool, index, seen, turn);
    });
}

fn forgotten(state: &mut State, clock: turn::Clock, effects: &mut Effects, name: &UnitName) {
    state.unclaimed.remove(name);
    state.ending.remove(name);
    state.kept.remove(name);
    state.give_back_orphans(name);
    state.with_replica(clock, effects, &name.replica, |pool, index, turn| {
        lifecycle::unit_forgotten(pool, index, name, turn);
    });
}

/// What runs has the memory that it may use, and what is gone has none.
fn keep_promises(pool: &Pool, turn: &mut Turn<'_>) {
    for replica in &pool.replicas {
        if replica.at_rest() {
            turn.promises.release(&replica.id);
        } else if let Some(revision) = replica.revision.as_ref().filter(|_| replica.engine_runs()) {
            turn.promises.keep(&replica.id, &revision.spec, turn.host.memory);
        }
    }
    turn.promises.retain(pool.id(), |id| pool.replicas.iter().any(|replica| replica.id == *id));
}

/// Tells the registry how a pool stands.
fn register(pool: &Pool, turn: &mut Turn<'_>) {
    let (id, registry) = (pool.id(), &mut *turn.registry);
    registry.set_health(id, HealthStatus { live: pool.live(), ready: pool.ready() });
    registry.set_last_error(id, pool.last_error.as_ref().map(|error| error.text.as_str()));
    registry.set_version(id, pool.engine_version());
    registry.set_draining(id, pool.drain.is_some());
}

/// A unit that belongs to no pool could not be ended: systemd is asked again.
fn end_later(state: &mut State, effects: &mut Effects, name: &UnitName) {
    const AGAIN: Usec = Usec::from_secs(5);
    let purpose = Purpose::EndAgain(name.clone());
    if state.ending.contains(name) && !state.timers.runs_for(&purpose) {
        state.timers.set(AGAIN, purpose, effects);
    }
}

/// After every event, for the pools that it touched: jobs and waiters whose end has come, pools that can go.
fn settle(state: &mut State, clock: turn::Clock, effects: &mut Effects) {
    let touched = state.touched.clone();
    for id in &touched {
        state.with_pool(clock, effects, id, |pool, turn| {
            lifecycle::settle(pool, turn);
            keep_promises(pool, turn);
            register(pool, turn);
        });
        if state.pools.get(id).is_some_and(|pool| pool.leaving && pool.at_rest()) {
            state.remove_pool(id, effects);
        }
    }
    let over: Vec<(RequestId, Answer)> = state
        .waiters
        .iter()
        .filter_map(|(request, waiter)| {
            // Whoever waits for a job is answered where that ends.
            let Waits::Ready(id) = &waiter.waits else { return None };
            let answer = match state.pools.get(id) {
                None => match state.registry.get_health(id) {
                    Some(HealthStatus { ready: true, .. }) => Answer::Ready,
                    // Its owner may say at any time that it is ready.
                    Some(_) => return None,
                    None => Answer::Denied(Denied::NoSuchPool(id.to_string())),
                },
                Some(pool) if pool.ready() => Answer::Ready,
                Some(pool) if pool.wish == Wish::Stop || pool.at_rest() => {
                    Answer::Denied(Denied::NotReady { pool: id.clone(), why: pool.detail() })
                }
                Some(_) => return None,
            };
            Some((*request, answer))
        })
        .collect();
    for (request, answer) in over {
        if let Some(timer) = state.waiters.remove(&request).and_then(|waiter| waiter.timer) {
            state.timers.cancel(timer, effects);
        }
        effects.push(Effect::Reply(request, answer));
    }
    leasing::serve(state, clock, effects);
    place(state, effects);
}

/// Tells systemd of every unit that may compute elsewhere by now.
fn place(state: &mut State, effects: &mut Effects) {
    for (engine, cpus) in state.cpus.take_changed() {
        let pool = state.pools.get(&engine.pool);
        let Some(replica) = pool.and_then(|pool| pool.replicas.iter().find(|replica| replica.id == engine))
        else {
            continue;
        };
        let runs = |(name, hold): &(&UnitName, &Hold)| replica.in_use(name) && hold.let_go.is_none();
        for (name, _) in replica.taken.iter().filter(runs) {
            effects.push(Effect::ChangeUnit(name.clone(), allowed_cpus(cpus.as_ref())));
        }
        state.touched.insert(engine.pool);
    }
}

/// Takes in which CPUs there are by now.
fn cpus_found(state: &mut State, effects: &mut Effects, topology: Topology) {
    let before = state.cpus.topology().online.clone();
    state.cpus.find(topology);
    let now = &state.cpus.topology().online;
    if before.is_empty() || before == *now {
        return;
    }
    let replicas = state.pools.values().flat_map(|pool| &pool.replicas);
    let lost = replicas.map(|replica| (&replica.id, state.cpus.offline(&replica.id)));
    let lost: String = lost
        .filter(|(_, lost)| !lost.is_empty())
        .map(|(id, lost)| format!("; engine {id} goes on without its own CPUs {lost}"))
        .collect();
    let message = format!("this host's CPUs are {now} by now, they were {before}{lost}");
    effects.push(Effect::Log(LogLine::plain(LogKind::CpusChanged, message)));
}

/// Takes in which devices there are by now. Engines that run keep theirs.
fn devices_found(state: &mut State, found: Inventory) {
    state.devices.find(found);
    state.touched.extend(state.pools.keys().cloned());
}

impl State {
    /// How many files have errors; one may have several.
    #[must_use]
    pub fn files_with_errors(&self) -> usize {
        self.errors.iter().map(|error| &error.file).collect::<BTreeSet<_>>().len()
    }

    /// The pools that may have changed since this was asked last: those of which a view is out of date.
    pub fn take_touched(&mut self) -> BTreeSet<PoolId> {
        std::mem::take(&mut self.touched)
    }

    /// Takes a pool in, or replaces what its file says.
    fn insert_pool(&mut self, clock: turn::Clock, effects: &mut Effects, id: PoolId, pool: Pool) {
        self.touched.insert(id.clone());
        external::forget(self, clock, effects, &id, "the daemon runs a pool of that id itself by now");
        // Leases of an earlier run are counted before it is told whether the pool drains.
        self.registry.take_over(&id);
        self.registry.set_health(&id, HealthStatus::default());
        self.pools.insert(id, pool);
    }

    /// Runs `work` on a pool with the rest of the state at hand.
    fn with_pool<T>(
        &mut self,
        clock: turn::Clock,
        effects: &mut Effects,
        id: &PoolId,
        work: impl FnOnce(&mut Pool, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let pool = self.pools.get_mut(id)?;
        self.touched.insert(id.clone());
        let mut turn = Turn::new(clock, effects, outside!(self));
        lifecycle::catch_up(pool, &mut turn);
        Some(work(pool, &mut turn))
    }

    /// Runs `work` on an external pool with the rest of the state at hand.
    fn with_external<T>(
        &mut self,
        clock: turn::Clock,
        effects: &mut Effects,
        id: &PoolId,
        work: impl FnOnce(&External, &mut Turn<'_>) -> Option<T>,
    ) -> Option<T> {
        let external = self.registry.get_external(id)?.clone();
        self.touched.insert(id.clone());
        let mut turn = Turn::new(clock, effects, outside!(self));
        work(&external, &mut turn)
    }

    /// Runs `work` on the pool of a replica, with the replica's place in it.
    fn with_replica(
        &mut self,
        clock: turn::Clock,
        effects: &mut Effects,
        id: &crate::name::ReplicaId,
        work: impl FnOnce(&mut Pool, usize, &mut Turn<'_>),
    ) {
        self.with_pool(clock, effects, &id.pool, |pool, turn| {
            if let Some(index) = pool.replicas.iter().position(|replica| replica.id == *id) {
                work(pool, index, turn);
            }
        });
    }

    /// The CPUs of an engine that has ended and of which no pool knows.
    fn give_back_orphans(&mut self, name: &UnitName) {
        let pool = self.pools.get(&name.replica.pool);
        if !pool.is_some_and(|pool| pool.replicas.iter().any(|replica| replica.id == name.replica)) {
            self.cpus.give_back(&name.replica);
        }
    }

    /// Nothing of a pool is left, and nothing that was wanted of it holds for one of the same name.
    fn remove_pool(&mut self, id: &PoolId, effects: &mut Effects) {
        self.touched.insert(id.clone());
        self.registry.remove(id);
        effects.push(Effect::SaveRuntime);
        if self.stopped.remove(id) {
            effects.push(Effect::SaveWishes);
        }
        if let Some(mut pool) = self.pools.remove(id) {
            for timer in pool.troubles.reset() {
                self.timers.cancel(timer, effects);
            }
            for replica in &pool.replicas {
                self.ports.release(&replica.id);
                self.cpus.give_back(&replica.id);
                self.promises.release(&replica.id);
            }
        }
    }
}
