//! Owns what crosses pools: the whole state, its one way in and its one way out.
//!
//! [`decide`] judges a request without being able to change anything; [`apply`] takes in an event, which cannot be
//! denied. Effects are requests to the outside and are carried out in order.

mod adoption;
mod configure;
mod event;
mod log;
mod ports;
mod request;
mod turn;

pub use adoption::{Saved, SavedPool, UnitFacts};
pub use event::{Effect, Effects, Event, Input};
pub use log::{Level, LogKind, LogLine};
pub use ports::Ports;
pub use request::{Accepted, Answer, Denied, Request, RequestId};
pub(crate) use turn::Turn;
pub use turn::{Purpose, TimerId, Timers};

use crate::config::{FileError, Settings};
use crate::job::{JobResult, JobState, Jobs, Operation, Waiter};
use crate::name::{PoolId, UnitName, Usec};
use crate::pool::{Pool, Wish, lifecycle};
use crate::replica::{ActiveState, UnitObservation};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
}

/// At most so many callers wait at once.
const MOST_WAITERS: usize = 1024;

/// Judges a request.
///
/// # Errors
/// Why it cannot be.
pub fn decide(state: &State, request: &Request) -> Result<Accepted, Denied> {
    let known = |text: &str| {
        let id: Option<PoolId> = text.parse().ok();
        id.filter(|id| state.pools.contains_key(id)).ok_or_else(|| Denied::NoSuchPool(text.to_owned()))
    };
    match request {
        Request::Start { pool } => {
            let id = known(pool)?;
            match state.pools.get(&id) {
                Some(pool) if pool.leaving => Err(Denied::Leaving(id)),
                Some(_) | None => Ok(Accepted::Start(id)),
            }
        }
        Request::Stop { pool } => known(pool).map(Accepted::Stop),
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

/// Takes in an event.
pub fn apply(state: &mut State, input: Input) -> Effects {
    let mut effects = Effects::new();
    let touched_before = std::mem::take(&mut state.touched);
    let Input { mono, real, seed, event } = input;
    let clock = turn::Clock { mono, real, seed };
    match event {
        Event::Started { configuration, units, saved, stopped } => {
            adoption::started(state, clock, &mut effects, configuration, units, saved, stopped);
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
        Event::UnitsRead { asked, units } => adoption::units_read(state, clock, &mut effects, &asked, units),
        Event::TimerFired(id) => match state.timers.take(id) {
            Some(Purpose::Restart(replica)) => {
                state.with_replica(clock, &mut effects, &replica, lifecycle::restart_due);
            }
            Some(Purpose::ReleaseAgain(replica)) => {
                state.with_replica(clock, &mut effects, &replica, lifecycle::still_stuck);
            }
            Some(Purpose::GiveUpName(name, start)) => {
                state.kept.insert(name.clone());
                state.with_replica(clock, &mut effects, &name.replica, |pool, index, turn| {
                    lifecycle::give_up_name(pool, index, &name, start, turn);
                });
            }
            Some(Purpose::Kill(name, start)) => {
                state.with_replica(clock, &mut effects, &name.replica, |pool, index, turn| {
                    lifecycle::kill(pool, index, &name, start, turn);
                });
            }
            Some(Purpose::EndAgain(name)) if state.ending.contains(&name) => {
                adoption::discard(&mut effects, &name);
            }
            Some(Purpose::EndAgain(_)) => {}
            Some(Purpose::DropJob(job)) => {
                state.jobs.all.remove(&job);
            }
            Some(Purpose::EndWait(request)) => {
                if let Some(waiter) = state.waiters.remove(&request) {
                    let why = state.pools.get(&waiter.pool).map_or(String::new(), Pool::detail);
                    effects.push(Effect::Reply(
                        request,
                        Answer::Denied(Denied::Timeout { pool: waiter.pool, why }),
                    ));
                }
            }
            // A timer that was cancelled while its ring was on its way.
            None => {}
        },
    }
    settle(state, clock, &mut effects);
    state.touched.extend(touched_before);
    effects
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
            if state.stopped.remove(&id) {
                effects.push(Effect::SaveWishes);
            }
            state.with_pool(clock, effects, &id, lifecycle::start);
            // Also where nothing is started yet: who was told of a job counts on it.
            effects.push(Effect::SaveRuntime);
        }
        Accepted::Stop(id) => {
            open_job(state, clock, effects, request, &id, Operation::Stop);
            if state.stopped.insert(id.clone()) {
                effects.push(Effect::SaveWishes);
            }
            state.with_pool(clock, effects, &id, lifecycle::stop);
        }
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

/// Opens a job on a pool; the one that runs there is superseded.
fn open_job(
    state: &mut State,
    clock: turn::Clock,
    effects: &mut Effects,
    request: RequestId,
    id: &PoolId,
    operation: Operation,
) {
    let job = state.jobs.open(id.clone(), operation);
    effects.push(Effect::Reply(request, Answer::Job(job)));
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

fn unit_seen(state: &mut State, clock: turn::Clock, effects: &mut Effects, seen: UnitObservation) {
    if state.ending.contains(&seen.name) && !state.expects(&seen.name) {
        // It belongs to no pool. One that failed on its way out is kept by systemd until it is forgotten.
        if seen.active == ActiveState::Failed {
            effects.push(Effect::ForgetUnit(seen.name));
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
        state.with_pool(clock, effects, id, lifecycle::settle);
        if state.pools.get(id).is_some_and(|pool| pool.leaving && pool.at_rest()) {
            state.remove_pool(id);
            effects.push(Effect::SaveRuntime);
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
            starts: &mut self.starts,
            settings: &self.settings,
        };
        let mut turn = Turn::new(clock, effects, outside);
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

    fn remove_pool(&mut self, id: &PoolId) {
        self.touched.insert(id.clone());
        if let Some(pool) = self.pools.remove(id) {
            for replica in &pool.replicas {
                self.ports.release(&replica.id);
            }
        }
    }
}
