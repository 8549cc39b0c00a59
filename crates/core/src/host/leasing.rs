//! Giving, renewing and ending leases, of the daemon's own pools and of external ones. Whoever waits is served in the
//! order in which they came.

use super::turn::Clock;
use super::{
    Answer, Caller, Denied, Effect, Effects, LeaseWish, LogKind, LogLine, Purpose, RequestId, State, Waiter,
    Waits,
};
use crate::lease::{Given, Held, LeaseEnd, LeaseId, Terms};
use crate::name::{PoolId, ReplicaId, Usec};
use crate::pool::{DrainFor, Pool, Wish, lifecycle};

/// At most so many leases are held at once: each is a descriptor of the daemon's.
const MOST_LEASES: usize = 100_000;
/// At most so many of them by one user; root has no such limit.
const MOST_LEASES_OF_A_USER: usize = MOST_LEASES / 4;

/// Whether a pool gives a lease.
pub(super) enum Offer {
    /// It does.
    Now,
    /// It does not now, but may later by itself.
    Later(Denied),
    /// It does not before somebody does something about it.
    Never(Denied),
}

/// Whether a pool gives a lease to a user.
pub(super) fn offer(state: &State, uid: u32, id: &PoolId) -> Offer {
    if state.leases.len() >= MOST_LEASES {
        return Offer::Never(Denied::TooManyLeases(MOST_LEASES));
    }
    if uid != 0 && state.leases.of_user(uid) >= MOST_LEASES_OF_A_USER {
        return Offer::Never(Denied::too_many("leases", uid, MOST_LEASES_OF_A_USER));
    }
    match state.pools.get(id) {
        Some(pool) => own(id, pool),
        None => external(state, id),
    }
}

fn own(id: &PoolId, pool: &Pool) -> Offer {
    if pool.leaving {
        return Offer::Never(Denied::Leaving(id.clone()));
    }
    if let Some(drain) = &pool.drain {
        let denied = Denied::Draining(id.clone());
        return if drain.purpose == DrainFor::Reload { Offer::Later(denied) } else { Offer::Never(denied) };
    }
    if !pool.ready() {
        let denied = Denied::NotReady { pool: id.clone(), why: pool.detail() };
        let over = pool.wish == Wish::Stop || pool.at_rest();
        return if over { Offer::Never(denied) } else { Offer::Later(denied) };
    }
    if lifecycle::lease::choose(pool).is_none() {
        let (held, capacity) = (pool.active_leases(), pool.capacity().unwrap_or(u32::MAX));
        return Offer::Later(Denied::AtCapacity { pool: id.clone(), held, capacity });
    }
    Offer::Now
}

fn external(state: &State, id: &PoolId) -> Offer {
    let Some(external) = state.registry.get_external(id) else {
        return Offer::Never(Denied::NoSuchPool(id.to_string()));
    };
    let denied = |why: &str| Denied::NotReady { pool: id.clone(), why: why.to_owned() };
    if external.endpoint.is_none() {
        return Offer::Never(denied("whoever runs it has not said where it answers; see RegisterPool"));
    }
    if state.registry.get_health(id).is_some_and(|health| health.ready) {
        return Offer::Now;
    }
    Offer::Later(denied(not_ready(state, id)))
}

/// Why an external pool is not ready, as far as its owner says.
pub(super) fn not_ready<'a>(state: &'a State, id: &PoolId) -> &'a str {
    let said = state.registry.get_last_error(id).filter(|error| !error.is_empty());
    said.unwrap_or("whoever runs it has not said that it is ready")
}

/// Gives a lease, lets the caller wait for one, or tells why there is none.
pub(super) fn allocate(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    caller: Caller,
    (id, wish): (PoolId, LeaseWish),
) {
    match offer(state, caller.uid, &id) {
        Offer::Now => give(state, clock, effects, (request, caller.uid, caller.name), &id, wish),
        Offer::Later(_) if wish.wait != Usec(0) => {
            let timer = state.wait_timer(request, wish.wait, effects);
            let waits = Waits::Lease(id, wish);
            state.waiters.insert(request, Waiter { caller: caller.name, uid: caller.uid, waits, timer });
        }
        Offer::Later(denied) | Offer::Never(denied) => {
            effects.push(Effect::Reply(request, Answer::Denied(denied)));
        }
    }
}

/// Serves whoever waits for a lease, in order.
pub(super) fn serve(state: &mut State, clock: Clock, effects: &mut Effects) {
    let waiting: Vec<RequestId> = state
        .waiters
        .iter()
        .filter_map(|(request, waiter)| matches!(waiter.waits, Waits::Lease(..)).then_some(*request))
        .collect();
    for request in waiting {
        let Some(Waiter { uid, waits: Waits::Lease(id, _), .. }) = state.waiters.get(&request) else {
            continue;
        };
        let (uid, id) = (*uid, id.clone());
        let denied = match offer(state, uid, &id) {
            Offer::Later(_) => continue,
            Offer::Now => None,
            Offer::Never(denied) => Some(denied),
        };
        let Some(waiter) = state.waiters.remove(&request) else { continue };
        if let Some(timer) = waiter.timer {
            state.timers.cancel(timer, effects);
        }
        match (denied, waiter.waits) {
            (Some(denied), _) => effects.push(Effect::Reply(request, Answer::Denied(denied))),
            (None, Waits::Lease(id, wish)) => {
                give(state, clock, effects, (request, uid, waiter.caller), &id, wish)
            }
            (None, Waits::Ready(_) | Waits::Job(_)) => {}
        }
    }
}

fn give(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    (request, uid, caller): (RequestId, u32, String),
    id: &PoolId,
    wish: LeaseWish,
) {
    let terms = Terms { uid, until: until(clock, wish.ttl), holder: wish.holder };
    let told = describe(&terms, wish.ttl);
    let given = if state.pools.contains_key(id) {
        let given = state.with_pool(clock, effects, id, |pool, turn| {
            let index = lifecycle::lease::choose(pool)?;
            lifecycle::lease::give(pool, index, (terms, caller), turn)
        });
        given.flatten()
    } else {
        state.with_external(clock, effects, id, |external, turn| {
            let endpoint = external.endpoint.clone()?;
            let lease = turn.open_lease(&ReplicaId { pool: id.clone(), index: 0 }, terms, caller);
            turn.registry.allocate_lease(id).ok()?;
            Some((lease, endpoint))
        })
    };
    let answer = match given {
        Some((lease, endpoint)) => {
            let mut line = LogLine::plain(LogKind::LeaseGiven, format!("lease {lease} given to {told}"));
            line.fields.push(("pool_id", id.to_string()));
            line.fields.push(("lease_id", lease.to_string()));
            effects.push(Effect::Log(line));
            Answer::Lease { lease, endpoint: endpoint.to_string() }
        }
        None => Answer::Denied(Denied::NoSuchPool(id.to_string())),
    };
    effects.push(Effect::Reply(request, answer));
}

fn describe(terms: &Terms, ttl: Usec) -> String {
    let holder = if terms.holder.is_empty() { String::new() } else { format!(" ({})", terms.holder) };
    let limit = if terms.until.is_some() { format!(" for {ttl}") } else { String::new() };
    format!("uid {}{holder}{limit}", terms.uid)
}

/// When a lease ends that is given for that long; 0, and what no clock reaches, is without limit.
fn until(clock: Clock, ttl: Usec) -> Option<Usec> {
    (ttl != Usec(0) && ttl != Usec(u64::MAX)).then(|| clock.mono.plus(ttl))
}

/// Whether a caller may renew or end a lease: its user and root may.
pub(super) fn may_have(state: &State, caller: &Caller, lease: &str) -> Result<LeaseId, Denied> {
    let id: Option<LeaseId> = lease.parse().ok();
    let held = id.and_then(|id| state.leases.get(&id).map(|held| (held.terms.uid, id)));
    let (uid, id) = held.ok_or_else(|| Denied::NoSuchLease(lease.to_owned()))?;
    if caller.uid != uid && caller.uid != 0 {
        return Err(Denied::NotTheHolder { lease: id, uid });
    }
    Ok(id)
}

/// Puts the end of a lease off, or brings it nearer.
pub(super) fn renew(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    (id, ttl): (LeaseId, Usec),
) {
    let Some(Held { terms, timer, .. }) = state.leases.get(&id).cloned() else {
        effects.push(Effect::Reply(request, Answer::Denied(Denied::NoSuchLease(id.to_string()))));
        return;
    };
    if let Some(timer) = timer {
        state.timers.cancel(timer, effects);
    }
    let until = until(clock, ttl);
    let timer = until.map(|_| state.timers.set(ttl, Purpose::EndLease(id.clone()), effects));
    state.leases.renew(&id, until, timer);
    effects.push(Effect::RenewLease(Given { id, terms: Terms { until, ..terms } }));
    effects.push(Effect::Reply(request, Answer::Done));
}

/// Ends a lease for a caller. Its holder cannot know of it where another connection asked: root's, or one that the same
/// user has besides. Who took a lease that is held since before the daemon started is not known.
pub(super) fn release(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    (request, caller): (RequestId, &Caller),
    lease: LeaseId,
) {
    let by_another = state.leases.get(&lease).is_some_and(|held| held.caller != caller.name);
    ended(state, clock, effects, &lease, &LeaseEnd::Closed);
    if by_another {
        let reason = format!("it was released by uid {}", caller.uid);
        effects.push(Effect::LeaseRevoked { lease, reason });
    }
    effects.push(Effect::Reply(request, Answer::Done));
}

/// A lease is over, for whatever reason but its engine.
pub(super) fn ended(state: &mut State, clock: Clock, effects: &mut Effects, lease: &LeaseId, how: &LeaseEnd) {
    let Some(held) = state.leases.get(lease) else { return };
    let whose = describe(&held.terms, Usec(0));
    let pool = &lease.replica.pool;
    let (kind, message) = match how {
        LeaseEnd::NotOpened(error) => {
            (LogKind::Anomaly, format!("the descriptor of lease {lease} could not be made: {error}"))
        }
        LeaseEnd::Closed => (LogKind::LeaseEnded, format!("lease {lease} of {whose} has ended")),
        LeaseEnd::Expired => {
            (LogKind::LeaseEnded, format!("lease {lease} of {whose} has ended at its time limit"))
        }
    };
    let mut line = LogLine::plain(kind, message);
    line.fields.push(("pool_id", pool.to_string()));
    line.fields.push(("lease_id", lease.to_string()));
    effects.push(Effect::Log(line));
    if state.pools.contains_key(pool) {
        state.with_replica(clock, effects, &lease.replica, |pool, index, turn| {
            lifecycle::lease::ended(pool, index, lease, turn);
        });
    } else {
        state.with_external(clock, effects, pool, |_, turn| end_external(turn, lease));
    }
    effects.push(Effect::CloseLease(lease.clone()));
    if *how == LeaseEnd::Expired {
        let reason = "its time limit is over".to_owned();
        effects.push(Effect::LeaseRevoked { lease: lease.clone(), reason });
    }
}

/// Drops a lease of an external pool.
pub(super) fn end_external(turn: &mut super::Turn<'_>, lease: &LeaseId) -> Option<()> {
    turn.drop_lease(lease).then_some(())?;
    turn.registry.release_lease(&lease.replica.pool).ok().map(drop)
}
