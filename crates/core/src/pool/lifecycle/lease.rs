//! Giving and ending leases. Each belongs to an engine for as long as that serves.

use crate::host::{Effect, LogKind, Turn};
use crate::lease::{Given, LeaseId, Terms};
use crate::name::{Endpoint, InvocationId};
use crate::pool::Pool;
use crate::replica::Replica;

/// Chooses the least loaded engine that has room; the lowest number among equals.
pub(crate) fn choose(pool: &Pool) -> Option<usize> {
    let numbers = &pool.revision.spec.leases;
    let has_room = |index: &usize| {
        pool.replicas.get(*index).is_some_and(|replica| {
            replica.ready() && replica.capacity(numbers).is_none_or(|capacity| replica.leases < capacity)
        })
    };
    let load = |index: &usize| pool.replicas.get(*index).map(|replica| (replica.leases, *index));
    (0..pool.replicas.len()).filter(has_room).min_by_key(load)
}

/// Gives a lease of that engine to a connection.
pub(crate) fn give(
    pool: &mut Pool,
    index: usize,
    (terms, caller): (Terms, String),
    turn: &mut Turn<'_>,
) -> Option<(LeaseId, Endpoint)> {
    let replica = pool.replicas.get_mut(index)?;
    let endpoint = replica.endpoint.clone()?;
    let id = turn.open_lease(&replica.id, terms, caller);
    replica.leases = replica.leases.saturating_add(1);
    count(pool, turn, true);
    Some((id, endpoint))
}

/// Takes up a lease that is held since before the daemon started; false where its engine does not serve, or is another one
/// than that which was known to serve.
pub(crate) fn adopt(
    pool: &mut Pool,
    index: usize,
    given: &Given,
    run: Option<&InvocationId>,
    turn: &mut Turn<'_>,
) -> bool {
    let same =
        |replica: &&mut Replica| replica.ready() && run.is_none_or(|run| *run == replica.unit.invocation);
    let Some(replica) = pool.replicas.get_mut(index).filter(same) else { return false };
    if turn.hold_lease(given.clone(), String::new()) {
        replica.leases = replica.leases.saturating_add(1);
        count(pool, turn, true);
    }
    true
}

/// A lease is over: its holder let go of it.
pub(crate) fn ended(pool: &mut Pool, index: usize, id: &LeaseId, turn: &mut Turn<'_>) {
    if turn.drop_lease(id)
        && let Some(replica) = pool.replicas.get_mut(index)
    {
        replica.leases = replica.leases.saturating_sub(1);
        count(pool, turn, false);
    }
}

/// Tells the registry.
fn count(pool: &Pool, turn: &mut Turn<'_>, more: bool) {
    let id = pool.id();
    let told = if more { turn.registry.allocate_lease(id) } else { turn.registry.release_lease(id) };
    if let Err(refused) = told {
        turn.log(pool, None, LogKind::Anomaly, format!("the registry did not count a lease: {refused}"));
    }
}

/// Leases of engines that no longer serve are revoked.
pub(super) fn revoke_what_ended(pool: &mut Pool, turn: &mut Turn<'_>) {
    for index in 0..pool.replicas.len() {
        let Some(replica) = pool.replicas.get_mut(index) else { continue };
        if replica.leases == 0 || replica.ready() {
            continue;
        }
        let gone: Vec<LeaseId> = turn.leases.of(&replica.id).map(|(id, _)| id.clone()).collect();
        let reason = format!("engine {} no longer serves: it is {}", replica.id, replica.phase.as_str());
        replica.leases = 0;
        let text = format!("{} leases revoked: {reason}", gone.len());
        for id in gone {
            turn.drop_lease(&id);
            count(pool, turn, false);
            turn.effects.push(Effect::CloseLease(id.clone()));
            turn.effects.push(Effect::LeaseRevoked { lease: id, reason: reason.clone() });
        }
        turn.log(pool, Some(index), LogKind::LeasesRevoked, text);
    }
}
