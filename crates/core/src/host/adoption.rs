//! Taking up what an earlier run of the daemon left: its units, and what it saved. Nothing that runs is stopped here
//! unless its pool is gone for good.

use super::turn::{Clock, Turn};
use super::{Effect, Effects, LogKind, LogLine, Saved, SavedPool, State, configure, external};
use crate::config::{Activation, Configuration, Revision};
use crate::cpu::{CpuSet, CpuWish};
use crate::device::Part;
use crate::lease::Given;
use crate::name::{Endpoint, PoolId, ReplicaId, UnitKind, UnitName, Usec};
use crate::pool::{Pool, Wish, lifecycle};
use crate::replica::{ActiveState, Hold, Replica, UnitObservation};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A unit of ours as it is found, with what the daemon had written into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFacts {
    /// The unit.
    pub seen: UnitObservation,
    /// Where its engine listens.
    pub endpoint: Option<Endpoint>,
    /// Digest of the spec it was started from.
    pub spec_digest: String,
    /// Its engine's version.
    pub engine_version: String,
    /// When it became active, realtime.
    pub became_active: Usec,
    /// The CPUs that are nobody else's.
    #[serde(default)]
    pub own_cpus: CpuSet,
    /// The CPUs that it may use; `None`: all.
    #[serde(default)]
    pub allowed_cpus: Option<CpuSet>,
    /// The devices that it was given.
    #[serde(default)]
    pub devices: Part,
    /// The nodes that systemd lets it open.
    #[serde(default)]
    pub device_allow: BTreeSet<String>,
}

impl State {
    /// The units that systemd has, or is asked for.
    #[must_use]
    pub fn units(&self) -> BTreeMap<UnitName, Hold> {
        let held = self.pools.values().flat_map(|pool| &pool.replicas).flat_map(|replica| &replica.taken);
        held.map(|(name, hold)| (name.clone(), *hold)).collect()
    }

    /// Whether a unit is one that some replica started.
    pub(super) fn expects(&self, name: &UnitName) -> bool {
        let pool = self.pools.get(&name.replica.pool);
        pool.is_some_and(|pool| pool.replicas.iter().any(|replica| replica.taken.contains_key(name)))
    }
}

/// What the daemon finds when it starts.
pub(super) struct Found {
    pub(super) configuration: Configuration,
    pub(super) units: Vec<UnitFacts>,
    pub(super) saved: Saved,
    pub(super) stopped: BTreeSet<PoolId>,
    pub(super) leases: Vec<Given>,
}

pub(super) fn started(state: &mut State, clock: Clock, effects: &mut Effects, found: Found) {
    let Found { configuration, units, mut saved, stopped, leases } = found;
    let Configuration { settings, pools, broken, errors, incomplete, inventory } = configuration;
    configure::log_errors(&errors, effects);
    if let Some(inventory) = inventory.or(saved.inventory.take()) {
        state.devices.find(inventory);
    }
    state.started = clock.real;
    state.settings = settings;
    state.errors = errors;
    state.stopped = stopped;
    for (id, revision) in pools {
        state.insert_pool(clock, effects, id, Pool::new(revision, clock.real));
    }
    // Where a file is broken or cannot be looked for, the pool is run on by its last good one.
    let unknown = |id: &PoolId| broken.contains_key(id) || incomplete;
    for (id, saved) in saved.pools.iter().filter(|(id, saved)| unknown(id) && saved.run) {
        if !state.pools.contains_key(id) {
            let mut pool = Pool::new(saved.revision.clone(), clock.real);
            pool.file_error = broken.get(id).map(|error| error.error.clone());
            state.insert_pool(clock, effects, id.clone(), pool);
        }
    }
    // What was on its way out goes on on its way.
    for (id, saved) in saved.pools.iter_mut().filter(|(_, saved)| saved.leaving) {
        if state.pools.contains_key(id) {
            // Unless its file is back.
            saved.drain = saved.drain.take().filter(|_| state.stopped.contains(id));
        } else {
            let pool = Pool { leaving: true, ..Pool::new(saved.revision.clone(), clock.real) };
            state.insert_pool(clock, effects, id.clone(), pool);
        }
    }
    // What runs has its port, its CPUs and its memory, before anything that is to start is given any.
    let over = |facts: &UnitFacts| matches!(facts.seen.active, ActiveState::Failed | ActiveState::Inactive);
    for facts in units.iter().filter(|facts| facts.seen.name.kind == UnitKind::Engine) {
        let replica = &facts.seen.name.replica;
        if let Some(pool) = state.pools.get(&replica.pool) {
            state.promises.keep(replica, &pool.revision.spec, state.host.memory);
        }
        if over(facts) {
            continue;
        }
        if let Some(port) = facts.endpoint.as_ref().and_then(Endpoint::port) {
            state.ports.keep(replica, port);
        }
        let pool = state.pools.get(&replica.pool);
        let wish = pool.map_or(CpuWish::Numa, |pool| pool.revision.spec.cpus.clone());
        let near = state.devices.near(&facts.devices, state.cpus.topology());
        state.cpus.keep(replica, &facts.own_cpus, &wish, &near, facts.allowed_cpus.clone());
    }
    let (mut adopted, mut orphans) = (0_usize, 0_usize);
    for facts in units {
        let id = facts.seen.name.replica.pool.clone();
        if state.pools.contains_key(&id) || unknown(&id) {
            adopted += usize::from(facts.seen.name.kind == UnitKind::Engine);
            state.unclaimed.insert(facts.seen.name.clone(), facts);
        } else {
            orphans += usize::from(orphaned(state, effects, &facts));
        }
    }
    let mut served = BTreeMap::new();
    for (id, saved) in &saved.pools {
        let replica = |index: &u16| ReplicaId { pool: id.clone(), index: *index };
        served.extend(saved.serving.iter().map(|(index, run)| (replica(index), *run)));
    }
    let ids: Vec<PoolId> = state.pools.keys().cloned().collect();
    for id in ids {
        let saved = saved.pools.remove(&id);
        if let Some(saved) = &saved {
            state.with_pool(clock, effects, &id, |pool, turn| saved.restore(pool, turn));
        }
        claim(state, clock, effects, &id, saved.as_ref());
        if let Some(saved) = &saved {
            state.with_pool(clock, effects, &id, |pool, turn| saved.go_on(pool, turn));
        }
        if state.pools.get(&id).is_some_and(|pool| pool.leaving && pool.drain.is_none()) {
            state.with_pool(clock, effects, &id, lifecycle::stop);
        } else {
            configure::start_resident(state, clock, effects, &id, lifecycle::resume);
        }
    }
    for (id, saved) in saved.externals {
        external::restore(state, clock, effects, id, saved);
    }
    for given in leases {
        let replica = &given.id.replica;
        let mut taken = external::adopt(state, clock, effects, &given);
        state.with_replica(clock, effects, replica, |pool, index, turn| {
            taken = lifecycle::lease::adopt(pool, index, &given, served.get(replica), turn);
        });
        if !taken {
            let reason = format!("engine {replica} no longer serves: it ended while the daemon was away");
            let lease = given.id;
            effects.push(Effect::CloseLease(lease.clone()));
            effects.push(Effect::LeaseRevoked { lease, reason });
        }
    }
    let message = format!(
        "started; pools: {}, engines adopted: {adopted}, engines stopped whose pools are gone: {orphans}, leases: {}",
        state.pools.len(),
        state.leases.len()
    );
    effects.push(Effect::Log(LogLine::plain(LogKind::DaemonStarted, message)));
    effects.push(Effect::SaveRuntime);
}

/// Ends a unit whose pool's file is gone. Whether anything of it ran.
fn orphaned(state: &mut State, effects: &mut Effects, facts: &UnitFacts) -> bool {
    let name = facts.seen.name.clone();
    if facts.seen.active == ActiveState::Inactive {
        state.kept.insert(name);
        return false;
    }
    let message = format!("{name} belongs to pool {}, whose file is gone; stopping it", name.replica.pool);
    effects.push(Effect::Log(LogLine::plain(LogKind::Anomaly, message)));
    discard(effects, &name);
    state.ending.insert(name);
    true
}

/// The files were read whole: engines that waited for the file of their pool to be mended, and have none now, end.
pub(super) fn end_orphans(state: &mut State, effects: &mut Effects, known: impl Fn(&PoolId) -> bool) {
    let kept = |name: &UnitName| known(&name.replica.pool);
    let orphans: Vec<UnitName> = state.unclaimed.keys().filter(|name| !kept(name)).cloned().collect();
    for facts in orphans.iter().filter_map(|name| state.unclaimed.remove(name)).collect::<Vec<_>>() {
        orphaned(state, effects, &facts);
    }
}

/// Gives a pool the units that are there for it.
pub(super) fn claim(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    id: &PoolId,
    saved: Option<&SavedPool>,
) {
    let is_its = |name: &&UnitName| name.replica.pool == *id;
    // What is wanted decides what becomes of a unit that has ended.
    let stopped = state.stopped.contains(id);
    state.with_pool(clock, effects, id, |pool, _| {
        pool.by_operator = stopped;
        if pool.drain.is_some() {
            pool.wish = Wish::Run;
        } else if stopped {
            pool.wish = Wish::Stop;
        } else if pool.revision.spec.activation == Activation::Resident {
            pool.wish = Wish::Run;
        }
    });
    let ending: Vec<UnitName> = state.ending.iter().filter(is_its).cloned().collect();
    for name in ending {
        state.ending.remove(&name);
        // Nothing but the name is in the way.
        state.with_pool(clock, effects, id, |pool, turn| let_go_unread(pool, &name, turn));
    }
    let kept: Vec<UnitName> = state.kept.iter().filter(is_its).cloned().collect();
    for name in kept {
        state.with_pool(clock, effects, id, |pool, _| skip_name(pool, &name));
    }
    let names: Vec<UnitName> = state.unclaimed.keys().filter(is_its).cloned().collect();
    let taken_up = engines_to_take_up(state, &names);
    for name in names {
        let Some(facts) = state.unclaimed.remove(&name) else { continue };
        if facts.seen.active == ActiveState::Inactive {
            state.with_pool(clock, effects, id, |pool, _| skip_name(pool, &name));
            state.kept.insert(name);
            continue;
        }
        state.with_pool(clock, effects, id, |pool, turn| {
            let runs = name.kind == UnitKind::Engine && facts.seen.active != ActiveState::Failed;
            let reload = pool.reload.as_ref();
            let known =
                [Some(&pool.revision), reload.map(|reload| &reload.to), reload.map(|reload| &reload.from)];
            let same = |revision: &&Revision| revision.digest == facts.spec_digest;
            let its = known.into_iter().flatten().find(same).cloned();
            let wanted = name.replica.index < pool.revision.spec.replicas;
            let Some(replica) = make_room(pool, &name) else { return };
            // One whose end was dealt with already is only in the way.
            let known = saved.is_some_and(|saved| saved.was_over(name.replica.index));
            let over = known && (!runs || facts.seen.exited);
            let read = name.kind == UnitKind::Engine && (over || !taken_up.contains(&name));
            if (!runs && !wanted) || read {
                replica.taken.insert(name.clone(), turn.hold(true));
                discard(turn.effects, &name);
                return;
            }
            if name.kind == UnitKind::Engine {
                let saved = replica.revision.take().filter(|revision| revision.digest == facts.spec_digest);
                replica.revision = its.or(saved);
            }
            if runs && pool.wish == Wish::Stop {
                // It runs although nobody is known to want it; what runs is kept.
                pool.wish = Wish::Run;
            }
            lifecycle::adopt(pool, usize::from(name.replica.index), &facts, turn);
        });
    }
    // A pool that was stopped by an operator is stopped for good, whatever runs.
    if state.stopped.contains(id) && state.pools.get(id).is_some_and(|pool| pool.drain.is_none()) {
        state.with_pool(clock, effects, id, lifecycle::stop);
    }
}

/// One engine of each replica: the newest that runs, else the newest. Another one was started by somebody else.
fn engines_to_take_up(state: &State, names: &[UnitName]) -> BTreeSet<UnitName> {
    let mut best: BTreeMap<&ReplicaId, (bool, u32, &UnitName)> = BTreeMap::new();
    for name in names.iter().filter(|name| name.kind == UnitKind::Engine) {
        let Some(facts) = state.unclaimed.get(name) else { continue };
        let ended = matches!(facts.seen.active, ActiveState::Failed | ActiveState::Inactive);
        let candidate = (!ended, name.generation, name);
        let known = best.entry(&name.replica).or_insert(candidate);
        *known = candidate.max(*known);
    }
    best.into_values().map(|(_, _, name)| name.clone()).collect()
}

/// All units were read anew: what was there and is not among them is gone.
pub(super) fn units_read(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    asked: &BTreeMap<UnitName, Hold>,
    heard: &BTreeSet<UnitName>,
    units: Vec<UnitFacts>,
) {
    let present: BTreeSet<&UnitName> = units.iter().map(|facts| &facts.seen.name).collect();
    let now = state.units();
    // What was started since the question is not the one that was read, or that is missing. One whose start had not been
    // answered by then can be there, and cannot be missing.
    let same = |name: &UnitName| {
        let start = |units: &BTreeMap<UnitName, Hold>| units.get(name).map(|hold| hold.start);
        start(asked).is_some() && start(asked) == start(&now)
    };
    // What was said since overtook what was read: taken for newer, an engine that somebody restarted would pass for the
    // one before it.
    let missing = |(name, hold): &(&UnitName, &Hold)| {
        hold.confirmed && !present.contains(name) && same(name) && !heard.contains(name)
    };
    for (name, _) in asked.iter().filter(missing) {
        super::forgotten(state, clock, effects, name);
    }
    let gone = |name: &&UnitName| !present.contains(name) && !heard.contains(name);
    let lost: Vec<UnitName> = state.ending.iter().filter(gone).cloned().collect();
    for name in lost {
        super::forgotten(state, clock, effects, &name);
    }
    for facts in units {
        let name = facts.seen.name.clone();
        if same(&name) {
            state.with_replica(clock, effects, &name.replica, |pool, index, turn| {
                lifecycle::devices::units_read(pool, index, &name, &facts.device_allow, turn);
            });
            if !heard.contains(&name) {
                super::unit_seen(state, clock, effects, facts.seen);
            }
            // A request of ours may have been lost with the signals.
            state.with_replica(clock, effects, &name.replica, lifecycle::release_again);
        } else if state.ending.contains(&name) {
            discard(effects, &name);
        } else if heard.contains(&name) {
            continue;
        } else if let Some(known) = state.unclaimed.get_mut(&name) {
            *known = facts;
        } else if facts.seen.active != ActiveState::Inactive && state.kept.contains(&name) {
            stranger(state, clock, effects, name);
        }
    }
}

/// A unit that was over, and that somebody started again.
pub(super) fn stranger(state: &mut State, clock: Clock, effects: &mut Effects, name: UnitName) {
    let message = format!("{name} was over and was started again by somebody else; stopping it");
    effects.push(Effect::Log(LogLine::plain(LogKind::Anomaly, message)));
    state.kept.remove(&name);
    let id = name.replica.pool.clone();
    let let_go = |pool: &mut Pool, turn: &mut Turn<'_>| let_go_unread(pool, &name, turn);
    if state.with_pool(clock, effects, &id, let_go).is_none() {
        discard(effects, &name);
        state.ending.insert(name);
    }
}

/// Lets go of a unit that nothing is to be learned from. Its replica starts nothing before it is gone.
fn let_go_unread(pool: &mut Pool, name: &UnitName, turn: &mut Turn<'_>) {
    if let Some(replica) = make_room(pool, name) {
        replica.taken.insert(name.clone(), turn.hold(true));
        discard(turn.effects, name);
    }
}

/// The replica that a unit is of. The file may have fewer by now; one that is there is kept until nothing of it is left.
fn make_room<'a>(pool: &'a mut Pool, name: &UnitName) -> Option<&'a mut Replica> {
    let index = name.replica.index;
    for next in u16::try_from(pool.replicas.len()).unwrap_or(u16::MAX)..=index {
        pool.replicas.push(Replica::new(ReplicaId { pool: name.replica.pool.clone(), index: next }));
    }
    pool.replicas.get_mut(usize::from(index))
}

/// Somebody else's dependency keeps a unit loaded of which nothing but the name is left: the next one has another.
fn skip_name(pool: &mut Pool, name: &UnitName) {
    if let Some(replica) = make_room(pool, name) {
        replica.next_generation = replica.next_generation.max(name.generation.saturating_add(1));
    }
}

pub(super) fn discard(effects: &mut Effects, name: &UnitName) {
    effects.push(Effect::StopUnit(name.clone()));
    effects.push(Effect::ForgetUnit(name.clone()));
}
