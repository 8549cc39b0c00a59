//! What follows from a request that was accepted: jobs, wishes, leases.

use super::decide::may_cancel;
use super::turn::Clock;
use super::{
    Accepted, Answer, Caller, Denied, Effect, Effects, LogLine, RequestId, State, Waiter, Waits, external,
    leasing,
};
use crate::job::{JobId, JobResult, JobState, Operation};
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
            open_job(state, clock, effects, (request, &caller), &id, Operation::Start);
            keep_stopped(state, effects, &id, false);
            state.with_pool(clock, effects, &id, lifecycle::start);
            // Also where nothing is started yet: who was told of a job counts on it.
            effects.push(Effect::SaveRuntime);
        }
        Accepted::Stop(id) => {
            open_job(state, clock, effects, (request, &caller), &id, Operation::Stop);
            keep_stopped(state, effects, &id, true);
            state.with_pool(clock, effects, &id, lifecycle::stop);
        }
        Accepted::Drain(id, deadline) => drain(state, clock, effects, (request, &caller), &id, deadline),
        Accepted::Reload(id, to, deadline, force) => {
            open_job(state, clock, effects, (request, &caller), &id, Operation::Reload);
            state.with_pool(clock, effects, &id, |pool, turn| {
                lifecycle::reload::ask(pool, lifecycle::reload::Wanted { to: *to, deadline, force }, turn);
            });
        }
        Accepted::Reset(id) => {
            tell_pool(effects, &caller, &format!("reset of pool {id}"), &id);
            state.with_pool(clock, effects, &id, lifecycle::reset);
            effects.push(Effect::Reply(request, Answer::Done));
        }
        Accepted::AllocateLease(id, wish) => {
            leasing::allocate(state, clock, effects, request, caller, (id, wish));
        }
        Accepted::ReleaseLease(id) => {
            leasing::release(state, clock, effects, (request, &caller), id);
        }
        Accepted::RenewLease(id, ttl) => leasing::renew(state, clock, effects, request, (id, ttl)),
        Accepted::RegisterPool(id, external) => {
            tell_pool(effects, &caller, &format!("registration of external pool {id}"), &id);
            external::register(state, clock, effects, request, (id, external));
        }
        Accepted::UnregisterPool(id) => {
            tell_pool(effects, &caller, &format!("removal of external pool {id}"), &id);
            external::unregister(state, clock, effects, request, &id);
        }
        Accepted::Report(id, report) => {
            external::report(state, clock, effects, request, &caller, (id, report));
        }
        Accepted::QuarantineDevice(uuid, reason) => {
            let what = format!("quarantine of device {uuid} ({reason})");
            effects.push(Effect::Log(LogLine::asked(&caller, &what, Vec::new())));
            state.devices.take_out(uuid, reason);
            effects.push(Effect::SaveWishes);
            effects.push(Effect::Reply(request, Answer::Done));
        }
        Accepted::ReadmitDevice(uuid) => {
            let what = format!("readmission of device {uuid}");
            effects.push(Effect::Log(LogLine::asked(&caller, &what, Vec::new())));
            if state.devices.readmit(&uuid) {
                effects.push(Effect::SaveWishes);
            }
            effects.push(Effect::Reply(request, Answer::Done));
        }
        Accepted::CancelJob(job) => cancel(state, clock, effects, (request, &caller), job),
        Accepted::WaitReady(pool, timeout) => {
            let timer = state.wait_timer(request, timeout, effects);
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
    (request, caller): (RequestId, &Caller),
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
        tell_job(effects, caller, id, Operation::Drain, job);
        effects.push(Effect::Reply(request, Answer::Job(job)));
    } else {
        open_job(state, clock, effects, (request, caller), id, Operation::Drain);
    }
    state.with_pool(clock, effects, id, |pool, turn| lifecycle::drain::ask(pool, deadline, turn));
}

fn cancel(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    (request, caller): (RequestId, &Caller),
    id: JobId,
) {
    if let Err(denied) = may_cancel(state, id) {
        effects.push(Effect::Reply(request, Answer::Denied(denied)));
        return;
    }
    let Some(job) = state.jobs.all.get(&id) else { return };
    let (pool, operation) = (job.pool.clone(), job.operation);
    let fields = vec![("pool_id", pool.to_string()), ("job_id", id.0.to_string())];
    let what = format!("end of job {}, the {} of pool {pool},", id.0, operation.as_str());
    effects.push(Effect::Log(LogLine::asked(caller, &what, fields)));
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
    (request, caller): (RequestId, &Caller),
    id: &PoolId,
    operation: Operation,
) {
    let job = state.jobs.open(id.clone(), operation, Some(caller.uid), clock.mono);
    tell_job(effects, caller, id, operation, job);
    take_place(state, clock, effects, id, (job, operation));
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
    let job = state.jobs.open(id.clone(), operation, None, clock.mono);
    take_place(state, clock, effects, id, (job, operation));
    job
}

/// The job that ran on a pool gives way to a new one.
fn take_place(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    id: &PoolId,
    (job, operation): (JobId, Operation),
) {
    state.with_pool(clock, effects, id, |pool, turn| {
        if let Some((older, _)) = pool.job.replace((job, operation)) {
            turn.end_job(
                older,
                JobResult::Superseded,
                format!("a newer {} took its place", operation.as_str()),
            );
        }
    });
}

fn tell_job(effects: &mut Effects, caller: &Caller, id: &PoolId, operation: Operation, job: JobId) {
    let fields = vec![("pool_id", id.to_string()), ("job_id", job.0.to_string())];
    let what = format!("{} of pool {id}", operation.as_str());
    effects.push(Effect::Log(LogLine::asked(caller, &what, fields)));
}

fn tell_pool(effects: &mut Effects, caller: &Caller, what: &str, id: &PoolId) {
    effects.push(Effect::Log(LogLine::asked(caller, what, vec![("pool_id", id.to_string())])));
}
