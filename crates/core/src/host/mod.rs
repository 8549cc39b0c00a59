//! Owns what crosses pools: the whole state, its one way in and its one way out.
//!
//! [`decide`] judges a request without being able to change anything; [`apply`] takes in an event, which cannot be
//! denied. Effects are requests to the outside and are carried out in order.

mod adoption;
mod configure;
mod event;
mod log;
mod ports;
mod record;
mod request;
mod saved;
mod turn;

pub use adoption::UnitFacts;
pub use event::{Effect, Effects, Event, Input};
pub use log::{Level, LogKind, LogLine};
pub use ports::Ports;
pub use record::{RECORD_VERSION, RecordHead};
pub use request::{Accepted, Answer, Denied, Request, RequestId};
pub use saved::{Saved, SavedPool};
pub(crate) use turn::Turn;
pub use turn::{Purpose, TimerId, Timers};

use crate::config::{FileError, Settings};
use crate::job::{JobId, JobResult, JobState, Jobs, Operation, Waiter};
use crate::lease::{LeaseEnd, LeaseId, Leases};
use crate::name::{PoolId, UnitName, Usec};
use crate::pool::{DrainFor, Pool, Wish, lifecycle};
use crate::registry::{HealthStatus, Registry};
use crate::replica::{ActiveState, UnitObservation};
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
    /// Who waits for a pool to be ready.
    pub waiters: BTreeMap<RequestId, Waiter>,
    /// Which replica has which automatic port.
    pub ports: Ports,
    /// Timers that run.
    pub timers: Timers,
    /// Every lease that is held.
    pub leases: Leases,
    /// What is known of each pool by its id alone.
    pub registry: Registry,
    /// How many units were asked for so far.
    pub starts: u64,
    /// Pools that may have changed since [`State::take_touched`]; all that is done for every event is done for these.
    touched: BTreeSet<PoolId>,
    /// Pools that an operator stopped.
    pub stopped: BTreeSet<PoolId>,
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
}

/// At most so many callers wait at once.
const MOST_WAITERS: usize = 1024;
/// At most so many leases are held at once: each is a descriptor of the daemon's.
const MOST_LEASES: usize = 100_000;
/// What could not be saved is tried again after this time.
const SAVE_AGAIN: Usec = Usec::from_secs(10);

/// Judges a request.
///
/// # Errors
/// Why it cannot be.
pub fn decide(state: &State, request: &Request) -> Result<Accepted, Denied> {
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
fn may_lease(state: &State, id: &PoolId, pool: &Pool) -> Result<(), Denied> {
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
fn may_cancel(state: &State, id: JobId) -> Result<(), Denied> {
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

/// Takes in an event.
pub fn apply(state: &mut State, input: Input) -> Effects {
    let mut effects = Effects::new();
    let touched_before = std::mem::take(&mut state.touched);
    let Input { mono, real, seed, event } = input;
    let clock = turn::Clock { mono, real, seed };
    match event {
        Event::Started { configuration, units, saved, stopped, leases } => {
            let found = adoption::Found { configuration, units, saved, stopped, leases };
            adoption::started(state, clock, &mut effects, found);
        }
        Event::ConfigurationRead { configuration, requests } => {
            configure::read_again(state, clock, &mut effects, configuration, &requests);
        }
        Event::Asked { request, accepted } => asked(state, clock, &mut effects, request, accepted),
        Event::UnitSeen(seen) => unit_seen(state, clock, &mut effects, seen),
        Event::UnitForgotten(name) => forgotten(state, clock, &mut effects, &name),
        Event::UnitTaken(name) => {
            state.with_replica(clock, &mut effects, &name.replica, |pool, index, _| {
                lifecycle::unit_taken(pool, index, &name);
            });
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
            state.with_replica(clock, &mut effects, &unit.replica, |pool, index, _| {
                lifecycle::reported(pool, index, &unit, report);
            });
        }
        Event::LeaseEnded { lease, how } => lease_ended(state, clock, &mut effects, &lease, &how),
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
                let why = state.pools.get(&waiter.pool).map_or(String::new(), Pool::detail);
                let denied = Denied::Timeout { pool: waiter.pool, why };
                effects.push(Effect::Reply(request, Answer::Denied(denied)));
            }
        }
    }
}

fn lease_ended(
    state: &mut State,
    clock: turn::Clock,
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

fn wishes_saved(state: &mut State, effects: &mut Effects, error: Option<String>) {
    if let Some(error) = &error {
        state.timers.set(SAVE_AGAIN, Purpose::SaveAgain, effects);
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

fn asked(
    state: &mut State,
    clock: turn::Clock,
    effects: &mut Effects,
    request: RequestId,
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
            state.waiters.insert(request, Waiter { pool, timer });
        }
        Accepted::WaitJob(id) => {
            match state.jobs.all.get_mut(&id).map(|job| (job.state.clone(), &mut job.waiters)) {
                Some((JobState::Running, waiters)) => waiters.push(request),
                Some((JobState::Ended { result, .. }, _)) => {
                    effects.push(Effect::Reply(request, Answer::JobEnded(result)))
                }
                None => effects.push(Effect::Reply(request, Answer::Denied(Denied::NoSuchJob(id.0)))),
            }
        }
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
    clock: turn::Clock,
    effects: &mut Effects,
    request: RequestId,
    id: &PoolId,
    deadline: Usec,
) {
    keep_stopped(state, effects, id, true);
    let drains = |pool: &Pool| match (&pool.drain, pool.job) {
        (Some(drain), Some((job, Operation::Drain))) if drain.purpose != DrainFor::Reload => Some(job),
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

fn lease(state: &mut State, clock: turn::Clock, effects: &mut Effects, request: RequestId, id: &PoolId) {
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

fn cancel(state: &mut State, clock: turn::Clock, effects: &mut Effects, request: RequestId, id: JobId) {
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
    clock: turn::Clock,
    effects: &mut Effects,
    request: RequestId,
    id: &PoolId,
    operation: Operation,
) {
    let job = begin_job(state, clock, effects, id, operation);
    effects.push(Effect::Reply(request, Answer::Job(job)));
}

/// Opens a job that nobody is told of.
fn begin_job(
    state: &mut State,
    clock: turn::Clock,
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
    state.with_replica(clock, effects, &name.replica, |pool, index, turn| {
        lifecycle::unit_forgotten(pool, index, name, turn);
    });
}

/// Tells the registry how a pool stands.
fn register(pool: &Pool, turn: &mut Turn<'_>) {
    let (id, registry) = (pool.id(), &mut *turn.registry);
    registry.set_health(id, HealthStatus { live: pool.live(), ready: pool.ready() });
    registry.set_last_error(id, pool.last_error.as_ref().map(|error| error.text.as_str()));
    registry.set_version(id, pool.engine_version());
    registry.set_draining(id, pool.drain.is_some());
    // What systemd or a prober says of it is a sign of life.
    if pool.live() {
        registry.set_heartbeat(id, turn.real);
    }
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
            let answer = match state.pools.get(&waiter.pool) {
                None => Answer::Denied(Denied::NoSuchPool(waiter.pool.to_string())),
                Some(pool) if pool.ready() => Answer::Ready,
                Some(pool) if pool.wish == Wish::Stop || pool.at_rest() => {
                    Answer::Denied(Denied::NotReady { pool: waiter.pool.clone(), why: pool.detail() })
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
}

impl State {
    /// How many callers wait for something.
    fn waiting(&self) -> usize {
        self.waiters.len() + self.jobs.all.values().map(|job| job.waiters.len()).sum::<usize>()
    }

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
    fn insert_pool(&mut self, id: PoolId, pool: Pool) {
        self.touched.insert(id.clone());
        // Leases of an earlier run are counted before it is told whether the pool drains.
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
        let outside = turn::Outside {
            timers: &mut self.timers,
            ports: &mut self.ports,
            jobs: &mut self.jobs,
            leases: &mut self.leases,
            registry: &mut self.registry,
            starts: &mut self.starts,
            settings: &self.settings,
        };
        let mut turn = Turn::new(clock, effects, outside);
        lifecycle::catch_up(pool, &mut turn);
        Some(work(pool, &mut turn))
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
            }
        }
    }
}
