//! What holds once nothing happens any more: what the daemon knows, what it has published and what systemd has agree.

use crate::callers::Callers;
use crate::files::Files;
use crate::systemd::World;
use pool_core::State;
use pool_core::device::DeviceUuid;
use pool_core::job::JobState;
use pool_core::name::{InvocationId, UnitKind, UnitName};
use pool_core::pool::{Pool, ReloadStage, Wish};
use pool_core::replica::{ActiveState, Phase, Replica};
use pool_core::view::View;
use std::collections::{BTreeMap, BTreeSet};

/// Engines that serve, each with its invocation.
pub type Serving = BTreeMap<UnitName, InvocationId>;

/// Everything that must hold at rest. Hands back the engines that serve.
pub fn at_rest(
    state: &State,
    view: &View,
    world: &World,
    files: &Files,
    callers: &Callers,
) -> Result<Serving, String> {
    if *view != View::of(state) {
        return Err(format!("published is {:?}, known is {:?}", view, View::of(state)));
    }
    if state.pools.keys().ne(files.there().iter()) {
        return Err(format!(
            "there are files of {:?}, known are {:?}",
            files.there(),
            state.pools.values().map(in_words).collect::<Vec<_>>()
        ));
    }
    if let Some((id, job)) = state.jobs.all.iter().find(|(_, job)| job.state == JobState::Running) {
        return Err(format!("job {} never ended, of {:?}", id.0, state.pools.get(&job.pool).map(in_words)));
    }
    if !state.waiters.is_empty() {
        return Err(format!("waiting for nothing: {:?}", state.waiters));
    }
    if !state.unclaimed.is_empty() || !state.ending.is_empty() {
        return Err(format!("nobody's units: {:?}, {:?}", state.unclaimed.keys(), state.ending));
    }
    for pool in state.pools.values() {
        wished(pool, state, files, callers)?;
        on_its_way(pool, callers)?;
        for replica in &pool.replicas {
            replica_at_rest(pool, replica, world)?;
        }
    }
    let mut serving = Serving::new();
    for (name, unit) in &world.units {
        let seen = &unit.facts.seen;
        if seen.active == ActiveState::Inactive && unit.held {
            continue;
        }
        let replica = state.pools.get(&name.replica.pool).and_then(|pool| {
            let mut replicas = pool.replicas.iter();
            replicas.find(|replica| replica.id == name.replica && replica.ready() && replica.in_use(name))
        });
        match replica {
            None => {
                let pool = state.pools.get(&name.replica.pool).map(in_words);
                return Err(format!("{name} is {:?}, and nobody's: {pool:?}", seen.active));
            }
            Some(replica) if seen.active != ActiveState::Active || seen.exited => {
                return Err(format!("{name} is {:?}, but {} is known as ready", seen.active, replica.id));
            }
            Some(replica)
                if replica.unit.invocation != seen.invocation || replica.unit.main_pid != seen.main_pid =>
            {
                return Err(format!("{name} was restarted, and the daemon does not know"));
            }
            Some(replica)
                if replica.report.as_ref().is_some_and(|report| report.invocation != seen.invocation) =>
            {
                return Err(format!("what is known of {name} is of an earlier run of it"));
            }
            Some(replica)
                if replica.revision.as_ref().is_some_and(|known| known.digest != unit.facts.spec_digest) =>
            {
                return Err(format!("{name} was started from another spec than the daemon knows"));
            }
            Some(_) => drop(serving.insert(name.clone(), seen.invocation)),
        }
    }
    leased(state, &serving, callers)?;
    placed(state, world, &serving)?;
    opened(state, world, &serving)?;
    Ok(serving)
}

/// Nothing is under way any more, and what was given up is not there.
fn on_its_way(pool: &Pool, callers: &Callers) -> Result<(), String> {
    let id = pool.id();
    if pool.drain.is_some() || pool.reload.is_some() {
        return Err(format!("pool {id} hangs: {:?}, {:?}", pool.drain, stage(pool)));
    }
    let serving = pool.replicas.iter().filter(|replica| replica.ready());
    let specs = serving.filter_map(|replica| replica.revision.as_ref()).chain([&pool.revision]);
    let discarded = callers.discarded();
    match specs.map(|revision| &revision.spec.model).find(|model| discarded.contains(*model)) {
        Some(model) => {
            Err(format!("pool {id} has {model}, of which the reload was called off or had failed"))
        }
        None => Ok(()),
    }
}

/// The daemon knows exactly those leases whose holders still have them, and whose engines have served ever since.
fn leased(state: &State, serving: &Serving, callers: &Callers) -> Result<(), String> {
    let held = callers.leases();
    let replicas = state.pools.values().flat_map(|pool| &pool.replicas);
    for (lease, _) in replicas.flat_map(|replica| state.leases.of(&replica.id)) {
        if !held.contains_key(lease) {
            return Err(format!("lease {lease} is known, and nobody holds it"));
        }
    }
    for (lease, invocation) in held {
        let mut engines = serving.iter().filter(|(name, _)| name.replica == lease.replica);
        let served = engines.any(|(_, run)| Some(run.0.as_slice()) == invocation.as_deref());
        if served != state.leases.contains(&lease) {
            let known =
                if served { "not known although its engine serves" } else { "known of an ended engine" };
            return Err(format!("lease {lease} is held, and {known}"));
        }
    }
    Ok(())
}

/// systemd knows of every engine where it may compute, and what is one engine's own is nobody else's.
fn placed(state: &State, world: &World, serving: &Serving) -> Result<(), String> {
    let known: Vec<_> = state.cpus.engines().collect();
    let serve: Vec<_> = serving.keys().map(|name| &name.replica).collect();
    if known != serve {
        return Err(format!("CPUs are of {known:?}, and {serve:?} serve"));
    }
    for name in serving.keys() {
        let unit = &world.units[name].facts;
        let knows = state.cpus.allowed(&name.replica);
        if unit.allowed_cpus != knows {
            return Err(format!("{name} may use {:?}, and the daemon knows {knows:?}", unit.allowed_cpus));
        }
        for other in serving.keys().filter(|other| *other != name) {
            let theirs = &world.units[other].facts.allowed_cpus;
            let apart = theirs.as_ref().is_some_and(|theirs| theirs.and(&unit.own_cpus).is_empty());
            if !unit.own_cpus.is_empty() && !apart {
                return Err(format!(
                    "{other} may use {theirs:?}, of which {:?} are {name}'s own",
                    unit.own_cpus
                ));
            }
        }
    }
    Ok(())
}

/// Every engine may open the nodes of its own devices, which the daemon knows, and those that are common, and no others.
fn opened(state: &State, world: &World, serving: &Serving) -> Result<(), String> {
    for name in serving.keys() {
        let unit = &world.units[name];
        let node = |uuid: &DeviceUuid| {
            let index = uuid.as_str().trim_matches(|c: char| !c.is_ascii_digit());
            format!("/dev/nvidia{index}")
        };
        let mut nodes: BTreeSet<String> = unit.facts.devices.uuids().map(node).collect();
        if !nodes.is_empty() {
            nodes.insert("/dev/nvidiactl".to_owned());
        }
        if unit.opens != nodes {
            return Err(format!("{name} has {:?} and may open {:?}", unit.facts.devices, unit.opens));
        }
        let replicas = state.pools.get(&name.replica.pool).into_iter().flat_map(|pool| &pool.replicas);
        let known = replicas.filter(|replica| replica.id == name.replica).map(|replica| &replica.devices);
        if known.clone().any(|known| *known != unit.facts.devices) {
            return Err(format!("{name} has {:?}, and known is {known:?}", unit.facts.devices));
        }
    }
    Ok(())
}

/// Whether what somebody was promised is so.
fn wished(pool: &Pool, state: &State, files: &Files, callers: &Callers) -> Result<(), String> {
    let id = pool.id();
    let wished = callers.wishes().get(id).copied().filter(|_| !files.ever_removed.contains(id));
    if wished.is_some_and(|wished| wished != pool.wish) {
        return Err(format!("pool {id} was promised to {wished:?}, and is to {:?}", pool.wish));
    }
    if state.stopped.contains(id) && pool.wish != Wish::Stop {
        return Err(format!("pool {id} is to run although it is stopped for good"));
    }
    Ok(())
}

fn replica_at_rest(pool: &Pool, replica: &Replica, world: &World) -> Result<(), String> {
    let id = &replica.id;
    let has = |name: &UnitName| world.units.contains_key(name);
    match &replica.phase {
        Phase::Ready { .. } if pool.wish == Wish::Stop => Err(format!("{id} serves although it is stopped")),
        Phase::Ready { .. } if !has(&replica.unit_name(UnitKind::Engine)) => {
            Err(format!("{id} is known as ready, and has no unit"))
        }
        Phase::Ready { .. } => Ok(()),
        Phase::Stopped | Phase::Failed if !replica.at_rest() => {
            Err(format!("{id} is at rest, and waits for {:?}", replica.taken.keys()))
        }
        // One too many stays until the pool is started anew.
        Phase::Stopped | Phase::Failed if id.index >= pool.revision.spec.replicas => Ok(()),
        // So do those that a newer file has more of.
        Phase::Stopped if of_another_file(pool) => Ok(()),
        Phase::Stopped if pool.wish == Wish::Run && replica.last_exit.is_none() => {
            Err(format!("{id} is lost: it should run, and there is no reason why it does not"))
        }
        // A reset forgets the reason of the pool.
        Phase::Failed if pool.last_error.is_none() && replica.last_exit.is_none() => {
            Err(format!("{id} failed for no reason"))
        }
        Phase::Stopped | Phase::Failed => Ok(()),
        Phase::WaitingForName
        | Phase::Staging
        | Phase::Starting
        | Phase::Ending
        | Phase::Stopping
        | Phase::Tripped
        | Phase::Backoff { .. } => {
            Err(format!("{id} hangs in {:?}, {:?}, {:?}", replica.phase, replica.taken, pool.troubles))
        }
    }
}

/// What of a pool helps to understand a failure.
fn in_words(pool: &Pool) -> String {
    let replicas: Vec<_> = pool
        .replicas
        .iter()
        .map(|replica| {
            let names: Vec<_> = replica.taken.iter().map(|(name, hold)| format!("{name} {hold:?}")).collect();
            format!("{} {:?} {names:?}", replica.id, replica.phase)
        })
        .collect();
    format!("{} {:?} leaving: {} {replicas:?} {:?}", pool.id(), pool.wish, pool.leaving, stage(pool))
}

fn stage(pool: &Pool) -> Option<&ReloadStage> {
    pool.reload.as_ref().map(|reload| &reload.stage)
}

/// Whether an engine runs on that was started from another file than the pool has now.
fn of_another_file(pool: &Pool) -> bool {
    let current = Some(&pool.revision.digest);
    let digest = |replica: &Replica| replica.revision.as_ref().map(|revision| revision.digest.clone());
    pool.replicas.iter().any(|replica| replica.ready() && digest(replica).as_ref() != current)
}

/// Everything was stopped: nothing is left.
pub fn all_stopped(state: &State, world: &World) -> Result<(), String> {
    if let Some(pool) = state.pools.values().find(|pool| !pool.at_rest() || pool.wish == Wish::Run) {
        return Err(format!("pool {} was stopped and is not", pool.id()));
    }
    if !state.leases.is_empty() {
        return Err(format!("everything was stopped, and {} leases are held", state.leases.len()));
    }
    if let Some(engine) = state.cpus.engines().next() {
        return Err(format!("everything was stopped, and {engine} has CPUs"));
    }
    let left = world.units.iter().find(|(_, unit)| !unit.held);
    left.map_or(Ok(()), |(name, _)| Err(format!("everything was stopped, and {name} is there")))
}
