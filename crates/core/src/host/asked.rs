//! What follows from a request that was accepted: jobs, wishes, leases.

use super::decide::{may_cancel, may_lease};
use super::turn::Clock;
use super::{
    Accepted, Answer, Caller, Denied, Effect, Effects, LogKind, LogLine, Purpose, RequestId, State, Waiter,
    Waits,
};
use crate::job::{JobId, JobResult, JobState, Operation};
use crate::lease::{LeaseEnd, LeaseId};
use crate::name::{PoolId, Usec};
use crate::pool::{Pool, lifecycle};

pub(super) fn asked(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    caller: Caller,
    accepted: Accepted,
) {
    match accepted {
        Accepted::Start(id) => {
            open_job(state, clock, effects, request, &id, Operation::Start);
            keep_stopped(state, effects, &id, false);
            state.with_pool(clock, effects, &id, lifecycle::start);
            // Also where nothing is started yet: who was told of a job counts on it.
            effects.push(Effect::SaveRuntime);
        }
        Accepted::Stop(id) => {
            open_job(state, clock, effects, request, &id, Operation::Stop);
            keep_stopped(state, effects, &id, true);
            state.with_pool(clock, effects, &id, lifecycle::stop);
        }
        Accepted::Drain(id, deadline) => drain(state, clock, effects, request, &id, deadline),
        Accepted::Reload(id, to, deadline, force) => {
            open_job(state, clock, effects, request, &id, Operation::Reload);
            state.with_pool(clock, effects, &id, |pool, turn| {
                lifecycle::reload::ask(pool, lifecycle::reload::Wanted { to: *to, deadline, force }, turn);
            });
        }
        Accepted::Reset(id) => {
            state.with_pool(clock, effects, &id, lifecycle::reset);
            effects.push(Effect::Reply(request, Answer::Done));
        }
        Accepted::AllocateLease(id) => lease(state, clock, effects, request, &id),
        Accepted::ReleaseLease(id) => {
            lease_ended(state, clock, effects, &id, &LeaseEnd::Closed);
            effects.push(Effect::Reply(request, Answer::Done));
        }
        Accepted::CancelJob(job) => cancel(state, clock, effects, request, job),
        Accepted::WaitReady(pool, timeout) => {
            let timer = (timeout != Usec(0) && timeout != Usec(u64::MAX))
                .then(|| state.timers.set(timeout, Purpose::EndWait(request), effects));
            let waits = Waits::Ready(pool);
            state.waiters.insert(request, Waiter { caller: caller.name, uid: caller.uid, waits, timer });
        }
        Accepted::WaitJob(id) => match state.jobs.all.get(&id).map(|job| &job.state) {
            Some(JobState::Running) => {
                let waits = Waits::Job(id);
                let waiter = Waiter { caller: caller.name, uid: caller.uid, waits, timer: None };
                state.waiters.insert(request, waiter);
            }
            Some(JobState::Ended { result, .. }) => {
                effects.push(Effect::Reply(request, Answer::JobEnded(*result)));
            }
            None => effects.push(Effect::Reply(request, Answer::Denied(Denied::NoSuchJob(id.0)))),
        },
    }
}

/// Remembers over a reboot whether an operator wants a pool stopped.
fn keep_stopped(state: &mut State, effects: &mut Effects, id: &PoolId, stopped: bool) {
    let news = if stopped { state.stopped.insert(id.clone()) } else { state.stopped.remove(id) };
    if let Some(pool) = state.pools.get_mut(id) {
        pool.by_operator = stopped;
    }
    if news {
        effects.push(Effect::SaveWishes);
    }
}

fn drain(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    id: &PoolId,
    deadline: Usec,
) {
    keep_stopped(state, effects, id, true);
    let drains = |pool: &Pool| match (&pool.drain, pool.job) {
        (Some(_), Some((job, Operation::Drain))) => Some(job),
        _ => None,
    };
    // Asked again, it is the same job, and the earlier deadline wins.
    if let Some(job) = state.pools.get(id).and_then(drains) {
        effects.push(Effect::Reply(request, Answer::Job(job)));
    } else {
        open_job(state, clock, effects, request, id, Operation::Drain);
    }
    state.with_pool(clock, effects, id, |pool, turn| lifecycle::drain::ask(pool, deadline, turn));
}

fn lease(state: &mut State, clock: Clock, effects: &mut Effects, request: RequestId, id: &PoolId) {
    let may = state.pools.get(id).map(|pool| may_lease(state, id, pool));
    let given = match may {
        Some(Ok(())) => state.with_pool(clock, effects, id, |pool, turn| {
            let index = lifecycle::lease::choose(pool)?;
            lifecycle::lease::give(pool, index, turn)
        }),
        Some(Err(denied)) => {
            effects.push(Effect::Reply(request, Answer::Denied(denied)));
            return;
        }
        None => None,
    };
    let answer = match given.flatten() {
        Some((lease, endpoint)) => Answer::Lease { lease, endpoint: endpoint.to_string() },
        None => Answer::Denied(Denied::NoSuchPool(id.to_string())),
    };
    effects.push(Effect::Reply(request, answer));
}

fn cancel(state: &mut State, clock: Clock, effects: &mut Effects, request: RequestId, id: JobId) {
    if let Err(denied) = may_cancel(state, id) {
        effects.push(Effect::Reply(request, Answer::Denied(denied)));
        return;
    }
    let Some(job) = state.jobs.all.get(&id) else { return };
    let (pool, operation) = (job.pool.clone(), job.operation);
    match operation {
        Operation::Drain => {
            keep_stopped(state, effects, &pool, false);
            state.with_pool(clock, effects, &pool, |pool, turn| {
                pool.job = None;
                lifecycle::drain::call_off(pool, turn);
                turn.end_job(
                    id,
                    JobResult::Canceled,
                    "the drain was cancelled; the pool serves on".to_owned(),
                );
            });
        }
        Operation::Reload => {
            state.with_pool(clock, effects, &pool, lifecycle::reload::call_off);
        }
        Operation::Start | Operation::Stop => {}
    }
    effects.push(Effect::Reply(request, Answer::Done));
}

/// Opens a job on a pool; the one that runs there is superseded.
fn open_job(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    id: &PoolId,
    operation: Operation,
) {
    let job = begin_job(state, clock, effects, id, operation);
    effects.push(Effect::Reply(request, Answer::Job(job)));
}

/// Opens a job that nobody is told of.
pub(super) fn begin_job(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    id: &PoolId,
    operation: Operation,
) -> JobId {
    let job = state.jobs.open(id.clone(), operation, clock.mono);
    state.with_pool(clock, effects, id, |pool, turn| {
        if let Some((older, _)) = pool.job.replace((job, operation)) {
            turn.end_job(
                older,
                JobResult::Superseded,
                format!("a newer {} took its place", operation.as_str()),
            );
        }
    });
    job
}

pub(super) fn lease_ended(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    lease: &LeaseId,
    how: &LeaseEnd,
) {
    if !state.leases.contains(lease) {
        return;
    }
    if let LeaseEnd::NotOpened(error) = how {
        let message = format!("the descriptor of lease {lease} could not be made: {error}");
        effects.push(Effect::Log(LogLine::plain(LogKind::Anomaly, message)));
    }
    state.with_replica(clock, effects, &lease.replica, |pool, index, turn| {
        lifecycle::lease::ended(pool, index, lease, turn);
    });
    effects.push(Effect::CloseLease(lease.clone()));
}
