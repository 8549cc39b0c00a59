//! What holds of the daemon's state at any time, also in the middle of everything.

use crate::files::Files;
use pool_core::State;
use pool_core::host::Purpose;
use pool_core::pool::{BreakerState, Pool};
use pool_core::replica::{Phase, Replica};
use std::collections::BTreeSet;

/// All of it.
pub fn holds(state: &State, files: &Files) -> Result<(), String> {
    leases(state, files)?;
    registry(state)?;
    for pool in state.pools.values() {
        timers(pool, state)?;
        for replica in pool.replicas.iter().filter(|replica| replica.phase == Phase::Tripped) {
            waits(pool, replica)?;
        }
    }
    Ok(())
}

/// Leases are counted rightly, are of engines that serve, and each has its descriptor.
fn leases(state: &State, files: &Files) -> Result<(), String> {
    let mut known = BTreeSet::new();
    for replica in state.pools.values().flat_map(|pool| &pool.replicas) {
        let its: Vec<_> = state.leases.of(&replica.id).map(|(lease, _)| lease).collect();
        if usize::try_from(replica.leases) != Ok(its.len()) || (!its.is_empty() && !replica.ready()) {
            let (id, phase, leases) = (&replica.id, &replica.phase, replica.leases);
            return Err(format!("{id} is {phase:?} with {leases} leases of {its:?}"));
        }
        known.extend(its.into_iter().map(ToString::to_string));
    }
    if known.len() != state.leases.len() {
        return Err(format!("{} leases are held, {} of engines", state.leases.len(), known.len()));
    }
    if known != files.leases() {
        return Err(format!("leases are {known:?}, and their descriptors {:?}", files.leases()));
    }
    Ok(())
}

/// The registry says of every pool what the pool is.
fn registry(state: &State) -> Result<(), String> {
    let registered = state.registry.snapshot();
    let ids: BTreeSet<_> = registered.iter().map(|entry| &entry.pool_id).collect();
    if ids != state.pools.keys().collect() {
        return Err(format!("registered are {ids:?}, known {:?}", state.pools.keys()));
    }
    for entry in &registered {
        let pool = &state.pools[&entry.pool_id];
        let error = pool.last_error.as_ref().map(|error| error.text.clone());
        if (entry.live, entry.ready, entry.draining) != (pool.live(), pool.ready(), pool.drain.is_some())
            || entry.active_leases != pool.active_leases()
            || entry.last_error != error
        {
            let (live, ready, leases) = (pool.live(), pool.ready(), pool.active_leases());
            return Err(format!(
                "registered is {entry:?}, known: live {live}, ready {ready}, {leases} leases, {:?}, {error:?}",
                pool.drain
            ));
        }
    }
    Ok(())
}

/// Whatever ends by a timer has one that runs.
fn timers(pool: &Pool, state: &State) -> Result<(), String> {
    let id = pool.id();
    let runs = |purpose: &Purpose| state.timers.runs_for(purpose);
    if pool.troubles.any_open() && !runs(&Purpose::Trial(id.clone())) {
        return Err(format!("a breaker of {id} is open for ever"));
    }
    if pool.drain.as_ref().is_some_and(|drain| drain.running.is_some()) && !runs(&Purpose::Drain(id.clone()))
    {
        return Err(format!("{id} drains without a deadline"));
    }
    let waiting = pool.replicas.iter().filter(|replica| matches!(replica.phase, Phase::Backoff { .. }));
    match waiting.into_iter().find(|replica| !runs(&Purpose::Restart(replica.id.clone()))) {
        Some(replica) => Err(format!("{} waits for a restart that is never due", replica.id)),
        None => Ok(()),
    }
}

/// What waits for a breaker waits for one that is open, or for another engine that is tried.
fn waits(pool: &Pool, replica: &Replica) -> Result<(), String> {
    let tried = |index: u16| {
        let mut others = pool.replicas.iter().filter(|other| other.id.index == index);
        others.any(|other| !matches!(other.phase, Phase::Stopped | Phase::Failed | Phase::Tripped))
    };
    let breakers = [&pool.troubles.ordinary, &pool.troubles.gpu];
    let closes = breakers.iter().any(|breaker| match breaker.state {
        BreakerState::Closed => false,
        BreakerState::Open { .. } => true,
        BreakerState::HalfOpen { trial, .. } => trial.is_some_and(tried),
    });
    // Whatever a pool is on its way through ends what waits, or has it go on.
    if closes || pool.drain.is_some() || pool.reload.is_some() {
        return Ok(());
    }
    Err(format!("{} waits for a breaker, of {:?}", replica.id, pool.troubles))
}
