//! Judging requests. Nothing here can change anything.

use super::leasing::{self, Offer};
use super::{Accepted, Caller, Denied, Request, State, external};
use crate::device::DeviceUuid;
use crate::job::{JobId, JobState, Operation};
use crate::lease::Terms;
use crate::name::{Endpoint, PoolId, Usec};
use crate::pool::DrainFor;
use crate::registry::{External, HealthStatus, Report};

/// At most so many callers wait at once.
const MOST_WAITERS: usize = 1024;
/// So many of them are kept for root, which must get through when everybody else waits.
const WAITERS_KEPT_FOR_ROOT: usize = MOST_WAITERS / 4;
/// At most so many of them of one user; root has no such limit.
const MOST_WAITERS_OF_A_USER: usize = MOST_WAITERS / 4;
/// At most so many jobs of one user, running or ended lately, besides two for each pool; root has no such limit.
const MOST_JOBS_OF_A_USER: usize = 256;

/// The name of an external pool's engine, in bytes.
const LONGEST_NAME: usize = 64;
/// Where an external pool answers, in bytes.
const LONGEST_ENDPOINT: usize = 256;
/// What an owner says of its pool's version.
const LONGEST_VERSION: usize = 256;
/// What an owner says of its pool's last error.
const LONGEST_ERROR: usize = 4_096;

/// Judges a request.
///
/// # Errors
/// Why it cannot be.
pub fn decide(state: &State, caller: &Caller, request: &Request) -> Result<Accepted, Denied> {
    let any = |text: &str| {
        let id: Option<PoolId> = text.parse().ok();
        let known = |id: &PoolId| state.pools.contains_key(id) || state.registry.get_external(id).is_some();
        id.filter(known).ok_or_else(|| Denied::NoSuchPool(text.to_owned()))
    };
    let known = |text: &str| {
        let id = any(text)?;
        if state.pools.contains_key(&id) { Ok(id) } else { Err(Denied::External(id)) }
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
            may_open(state, caller)?;
            match pool.reload {
                Some(_) => Err(Denied::TransitionInProgress { pool: id, doing: "reloaded" }),
                None => Ok(Accepted::Start(id)),
            }
        }
        Request::Stop { pool } => {
            let id = known(pool)?;
            may_open(state, caller)?;
            Ok(Accepted::Stop(id))
        }
        Request::Drain { pool, deadline } => {
            let (id, pool) = pool_of(pool)?;
            may_open(state, caller)?;
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
            may_open(state, caller)?;
            let revision = revision.clone().unwrap_or_else(|| Box::new(pool.revision.clone()));
            let own = pool.revision.spec.drain.deadline;
            let deadline = if *deadline == Usec(0) { own } else { *deadline };
            Ok(Accepted::Reload(id, revision, deadline, *force))
        }
        Request::Reset { pool } => pool_of(pool).map(|(id, _)| Accepted::Reset(id)),
        Request::AllocateLease { pool, wish } => {
            let id = any(pool)?;
            if !Terms::allows(&wish.holder) {
                return Err(Denied::InvalidArgument(format!(
                    "option \"holder\" has at most {} bytes, no \"/\" and no control characters",
                    Terms::LONGEST_HOLDER
                )));
            }
            match leasing::offer(state, caller.uid, &id) {
                Offer::Now => {}
                Offer::Later(_) if wish.wait != Usec(0) => may_wait(state, caller)?,
                Offer::Later(denied) | Offer::Never(denied) => return Err(denied),
            }
            Ok(Accepted::AllocateLease(id, wish.clone()))
        }
        Request::ReleaseLease { lease } => {
            leasing::may_have(state, caller, lease).map(Accepted::ReleaseLease)
        }
        Request::RenewLease { lease, ttl } => {
            leasing::may_have(state, caller, lease).map(|id| Accepted::RenewLease(id, *ttl))
        }
        Request::RegisterPool { pool, engine, endpoint, heartbeat_timeout } => {
            let id = new_id(pool)?;
            external::may_register(state, caller, &id)?;
            short("option \"engine\"", engine, LONGEST_NAME)?;
            short("option \"endpoint\"", endpoint, LONGEST_ENDPOINT)?;
            let mut external = External { engine: engine.clone(), ..External::of(caller.uid) };
            if !endpoint.is_empty() {
                let parsed = endpoint.parse().map_err(|error| {
                    Denied::InvalidSpec(format!("pool \"{id}\": option \"endpoint\": {error}"))
                })?;
                // Who may open a socket of somebody else's, and whether it is there, only its owner knows.
                if let Endpoint::Unix { path } = &parsed {
                    return Err(Denied::InvalidSpec(format!(
                        "pool \"{id}\": option \"endpoint\": \"unix:{path}\" is not valid: http is the only scheme"
                    )));
                }
                external.endpoint = Some(parsed);
            }
            if *heartbeat_timeout != Usec(0) {
                external.heartbeat_timeout = *heartbeat_timeout;
            }
            Ok(Accepted::RegisterPool(id, external))
        }
        Request::UnregisterPool { pool } => {
            let id = new_id(pool)?;
            external::may_unregister(state, caller, &id)?;
            Ok(Accepted::UnregisterPool(id))
        }
        Request::Report { pool, report } => {
            let id = new_id(pool)?;
            sound(report)?;
            external::may_report(state, caller, &id)?;
            Ok(Accepted::Report(id, report.clone()))
        }
        Request::QuarantineDevice { device: text, reason } => {
            short("\"reason\"", reason, LONGEST_ERROR)?;
            device(state, text).map(|uuid| Accepted::QuarantineDevice(uuid, reason.clone()))
        }
        Request::ReadmitDevice { device: text } => device(state, text).map(Accepted::ReadmitDevice),
        Request::CancelJob { job } => may_cancel(state, *job).map(|()| Accepted::CancelJob(*job)),
        Request::WaitReady { pool, timeout } => {
            let id = any(pool)?;
            may_wait(state, caller)?;
            Ok(Accepted::WaitReady(id, *timeout))
        }
        Request::WaitJob { job } => {
            if state.jobs.all.contains_key(job) {
                may_wait(state, caller)?;
                Ok(Accepted::WaitJob(*job))
            } else {
                Err(Denied::NoSuchJob(job.0))
            }
        }
    }
}

/// Whether a caller may wait for something.
fn may_wait(state: &State, caller: &Caller) -> Result<(), Denied> {
    let kept = if caller.uid == 0 { 0 } else { WAITERS_KEPT_FOR_ROOT };
    if state.waiters.len() >= MOST_WAITERS - kept {
        return Err(Denied::TooManyWaiters);
    }
    let own = || state.waiters.values().filter(|waiter| waiter.uid == caller.uid).count();
    if caller.uid != 0 && own() >= MOST_WAITERS_OF_A_USER {
        return Err(Denied::too_many("waiting calls", caller.uid, MOST_WAITERS_OF_A_USER));
    }
    Ok(())
}

/// Whether a caller may open a job: jobs are kept for a while after their end, and so are the objects that show them.
fn may_open(state: &State, caller: &Caller) -> Result<(), Denied> {
    let most = 2 * state.pools.len() + MOST_JOBS_OF_A_USER;
    let own = || state.jobs.all.values().filter(|job| job.uid == Some(caller.uid)).count();
    if caller.uid != 0 && own() >= most {
        return Err(Denied::too_many("jobs", caller.uid, most));
    }
    Ok(())
}

/// Whether a text is no longer than it may be: it is kept, and sent to everybody.
fn short(what: &str, text: &str, most: usize) -> Result<(), Denied> {
    if text.len() <= most {
        return Ok(());
    }
    Err(Denied::InvalidArgument(format!("{what} has {} bytes; it may have {most} at most", text.len())))
}

/// Whether a report makes sense.
fn sound(report: &Report) -> Result<(), Denied> {
    match report {
        Report::Health(HealthStatus { live: false, ready: true }) => Err(Denied::InvalidArgument(
            "\"ready\" is true and \"live\" is not: only what lives is ready".to_owned(),
        )),
        Report::Health(_) | Report::Heartbeat(_) | Report::LastError(None) => Ok(()),
        Report::Version(text) => short("\"version\"", text, LONGEST_VERSION),
        Report::LastError(Some(text)) => short("\"error\"", text, LONGEST_ERROR),
    }
}

fn device(state: &State, text: &str) -> Result<DeviceUuid, Denied> {
    let uuid: Option<DeviceUuid> = text.parse().ok();
    let known = uuid.filter(|uuid| state.devices.contains(uuid));
    known.ok_or_else(|| Denied::NoSuchDevice(text.to_owned()))
}

/// An id that need not be known yet.
fn new_id(text: &str) -> Result<PoolId, Denied> {
    text.parse().map_err(|error| Denied::InvalidArgument(format!("{error}")))
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
