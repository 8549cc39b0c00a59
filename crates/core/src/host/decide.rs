//! Judging requests. Nothing here can change anything.

use super::{Accepted, Caller, Denied, Request, State};
use crate::job::{JobId, JobState, Operation};
use crate::lease::LeaseId;
use crate::name::{PoolId, Usec};
use crate::pool::{DrainFor, Pool, lifecycle};

/// At most so many callers wait at once.
const MOST_WAITERS: usize = 1024;
/// At most so many leases are held at once: each is a descriptor of the daemon's.
const MOST_LEASES: usize = 100_000;

/// Judges a request.
///
/// # Errors
/// Why it cannot be.
pub fn decide(state: &State, _caller: &Caller, request: &Request) -> Result<Accepted, Denied> {
    let known = |text: &str| {
        let id: Option<PoolId> = text.parse().ok();
        id.filter(|id| state.pools.contains_key(id)).ok_or_else(|| Denied::NoSuchPool(text.to_owned()))
    };
    let pool_of = |text: &str| {
        let id = known(text)?;
        match state.pools.get(&id) {
            Some(pool) if pool.leaving => Err(Denied::Leaving(id)),
            Some(pool) => Ok((id, pool)),
            None => Err(Denied::NoSuchPool(text.to_owned())),
        }
    };
    match request {
        Request::Start { pool } => {
            let (id, pool) = pool_of(pool)?;
            match pool.reload {
                Some(_) => Err(Denied::TransitionInProgress { pool: id, doing: "reloaded" }),
                None => Ok(Accepted::Start(id)),
            }
        }
        Request::Stop { pool } => known(pool).map(Accepted::Stop),
        Request::Drain { pool, deadline } => {
            let (id, pool) = pool_of(pool)?;
            let own = pool.revision.spec.drain.deadline;
            Ok(Accepted::Drain(id, if *deadline == Usec(0) { own } else { *deadline }))
        }
        Request::Reload { pool, revision, deadline, force } => {
            let (id, pool) = pool_of(pool)?;
            if pool.drain.as_ref().is_some_and(|drain| drain.purpose != DrainFor::Reload) {
                return Err(Denied::TransitionInProgress { pool: id, doing: "drained" });
            }
            if pool.reload.is_some() && !force {
                return Err(Denied::TransitionInProgress { pool: id, doing: "reloaded" });
            }
            let revision = revision.clone().unwrap_or_else(|| Box::new(pool.revision.clone()));
            let own = pool.revision.spec.drain.deadline;
            let deadline = if *deadline == Usec(0) { own } else { *deadline };
            Ok(Accepted::Reload(id, revision, deadline, *force))
        }
        Request::Reset { pool } => pool_of(pool).map(|(id, _)| Accepted::Reset(id)),
        Request::AllocateLease { pool } => {
            let (id, pool) = pool_of(pool)?;
            may_lease(state, &id, pool)?;
            Ok(Accepted::AllocateLease(id))
        }
        Request::ReleaseLease { lease } => {
            let id: Option<LeaseId> = lease.parse().ok();
            let held = id.filter(|id| state.leases.contains(id));
            held.map(Accepted::ReleaseLease).ok_or_else(|| Denied::NoSuchLease(lease.clone()))
        }
        Request::CancelJob { job } => may_cancel(state, *job).map(|()| Accepted::CancelJob(*job)),
        Request::WaitReady { .. } | Request::WaitJob { .. } if state.waiting() >= MOST_WAITERS => {
            Err(Denied::TooManyWaiters)
        }
        Request::WaitReady { pool, timeout } => Ok(Accepted::WaitReady(known(pool)?, *timeout)),
        Request::WaitJob { job } => {
            if state.jobs.all.contains_key(job) {
                Ok(Accepted::WaitJob(*job))
            } else {
                Err(Denied::NoSuchJob(job.0))
            }
        }
    }
}

/// Whether a lease can be given.
pub(super) fn may_lease(state: &State, id: &PoolId, pool: &Pool) -> Result<(), Denied> {
    if state.leases.len() >= MOST_LEASES {
        return Err(Denied::TooManyLeases(MOST_LEASES));
    }
    if pool.drain.is_some() {
        return Err(Denied::Draining(id.clone()));
    }
    if !pool.ready() {
        return Err(Denied::NotReady { pool: id.clone(), why: pool.detail() });
    }
    if lifecycle::lease::choose(pool).is_none() {
        let (held, capacity) = (pool.active_leases(), pool.capacity().unwrap_or(u32::MAX));
        return Err(Denied::AtCapacity { pool: id.clone(), held, capacity });
    }
    Ok(())
}

/// Whether a job can be called off: only while what it began can still be undone.
pub(super) fn may_cancel(state: &State, id: JobId) -> Result<(), Denied> {
    let job = state.jobs.all.get(&id).ok_or(Denied::NoSuchJob(id.0))?;
    let refused = |why| Err(Denied::NotCancelable(id.0, why));
    if job.state != JobState::Running {
        return refused("it has ended");
    }
    let pool = state.pools.get(&job.pool);
    if pool.is_some_and(|pool| pool.leaving) {
        return refused("the pool's file is gone");
    }
    match job.operation {
        Operation::Start => refused("it is a start; stop the pool instead"),
        Operation::Stop => refused("it is a stop; start the pool again instead"),
        Operation::Drain if pool.is_some_and(|pool| pool.drain.is_some()) => Ok(()),
        Operation::Drain => refused("its engines are ending already; start the pool again instead"),
        Operation::Reload if pool.is_some_and(|pool| pool.reload.is_some()) => Ok(()),
        Operation::Reload => refused("nothing of it is left to undo"),
    }
}
