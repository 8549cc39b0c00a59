//! What an event's handling may use besides the pool it works on: the time, randomness, timers, ports, jobs.

use super::{
    Answer, Effect, Effects, HostFacts, LogKind, LogLine, Ports, Promises, RequestId, Waiter, Waits,
};
use crate::config::Settings;
use crate::cpu::Cpus;
use crate::device::Devices;
use crate::job::{self, Details, JobId, JobResult, Jobs};
use crate::lease::{Given, Held, LeaseId, Leases, Terms};
use crate::name::{PoolId, ReplicaId, UnitName, Usec};
use crate::pool::Pool;
use crate::registry::Registry;
use crate::replica::{Hold, StartId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A timer's identity: a stale ring is known by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimerId(pub u64);

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Start a replica again.
    Restart(ReplicaId),
    /// Ask systemd again for what it could not do for a replica.
    ReleaseAgain(ReplicaId),
    /// A unit that has ended is still loaded: no longer wait for its name.
    GiveUpName(UnitName, StartId),
    /// A unit should have ended by now.
    Kill(UnitName, StartId),
    /// An open breaker's time is over.
    Trial(PoolId),
    /// A replica has been ready for a length of time that matters.
    Steady(ReplicaId),
    /// A drain's least or longest time is over.
    Drain(PoolId),
    /// Save again what could not be saved.
    SaveAgain,
    /// Ask systemd again to end a unit that belongs to no pool.
    EndAgain(UnitName),
    /// Forget an ended job.
    DropJob(JobId),
    /// End somebody's waiting.
    EndWait(RequestId),
    /// End a lease: its time limit is over.
    EndLease(LeaseId),
    /// Take health from external pools whose owners are silent.
    ExpireExternals,
}

/// The timers that run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    last: u64,
    running: BTreeMap<TimerId, Purpose>,
}

impl Timers {
    /// Starts a timer.
    pub fn set(&mut self, after: Usec, purpose: Purpose, effects: &mut Effects) -> TimerId {
        self.last += 1;
        let id = TimerId(self.last);
        self.running.insert(id, purpose);
        effects.push(Effect::SetTimer(id, after));
        id
    }

    /// Stops a timer.
    pub fn cancel(&mut self, id: TimerId, effects: &mut Effects) {
        if self.running.remove(&id).is_some() {
            effects.push(Effect::CancelTimer(id));
        }
    }

    /// Whether one runs for that.
    pub fn runs_for(&self, purpose: &Purpose) -> bool {
        self.running.values().any(|known| known == purpose)
    }

    /// What a timer that rang was for; `None` for one that was stopped.
    pub fn take(&mut self, id: TimerId) -> Option<Purpose> {
        self.running.remove(&id)
    }
}

/// The time and the randomness of an input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) mono: Usec,
    pub(super) real: Usec,
    pub(super) seed: u64,
}

/// The parts of the state that a pool's handling may change besides the pool.
pub(super) struct Outside<'a> {
    pub(super) timers: &'a mut Timers,
    pub(super) ports: &'a mut Ports,
    pub(super) cpus: &'a mut Cpus,
    pub(super) promises: &'a mut Promises,
    pub(super) jobs: &'a mut Jobs,
    pub(super) waiters: &'a mut BTreeMap<RequestId, Waiter>,
    pub(super) leases: &'a mut Leases,
    pub(super) registry: &'a mut Registry,
    pub(super) starts: &'a mut u64,
    pub(super) settings: &'a Settings,
    pub(super) host: &'a HostFacts,
    pub(super) devices: &'a Devices,
}

/// One event's handling.
pub(crate) struct Turn<'a> {
    pub(crate) mono: Usec,
    pub(crate) real: Usec,
    seed: u64,
    pub(crate) effects: &'a mut Effects,
    timers: &'a mut Timers,
    pub(crate) ports: &'a mut Ports,
    pub(crate) cpus: &'a mut Cpus,
    pub(crate) promises: &'a mut Promises,
    jobs: &'a mut Jobs,
    waiters: &'a mut BTreeMap<RequestId, Waiter>,
    pub(crate) leases: &'a mut Leases,
    pub(crate) registry: &'a mut Registry,
    starts: &'a mut u64,
    pub(crate) settings: &'a Settings,
    pub(crate) host: &'a HostFacts,
    pub(crate) devices: &'a Devices,
}

impl<'a> Turn<'a> {
    pub(super) fn new(clock: Clock, effects: &'a mut Effects, outside: Outside<'a>) -> Self {
        // Two pools that draw in one event must not draw the same: what was done so far tells them apart.
        let seed = clock.seed.wrapping_add(effects.len() as u64);
        let Outside {
            timers,
            ports,
            cpus,
            promises,
            jobs,
            waiters,
            leases,
            registry,
            starts,
            settings,
            host,
            devices,
        } = outside;
        let Clock { mono, real, .. } = clock;
        Turn {
            mono,
            real,
            seed,
            effects,
            timers,
            ports,
            cpus,
            promises,
            jobs,
            waiters,
            leases,
            registry,
            starts,
            settings,
            host,
            devices,
        }
    }

    /// A new start of a unit, or one that is `confirmed` to be there already.
    pub(crate) fn hold(&mut self, confirmed: bool) -> Hold {
        *self.starts += 1;
        Hold {
            start: StartId(*self.starts),
            confirmed,
            let_go: None,
            ran: confirmed,
            kill: None,
            give_up: None,
        }
    }

    /// A replica is gone: what it had is others' to have.
    pub(crate) fn release(&mut self, replica: &ReplicaId) {
        self.ports.release(replica);
        self.cpus.give_back(replica);
    }

    /// A random number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed
    }

    pub(crate) fn timer(&mut self, after: Usec, purpose: Purpose) -> TimerId {
        self.timers.set(after, purpose, self.effects)
    }

    pub(crate) fn cancel(&mut self, timer: TimerId) {
        self.timers.cancel(timer, self.effects);
    }

    /// Draws an id for a new lease of a connection and has it opened.
    pub(crate) fn open_lease(&mut self, replica: &ReplicaId, terms: Terms, caller: String) -> LeaseId {
        // A number that is taken already is drawn again; two in 2^64 hardly ever meet.
        let id = loop {
            let id = LeaseId { replica: replica.clone(), number: self.roll() };
            if !self.leases.contains(&id) {
                break id;
            }
        };
        let given = Given { id: id.clone(), terms };
        self.hold_lease(given.clone(), caller);
        self.effects.push(Effect::OpenLease(given));
        id
    }

    /// Takes a lease up, with the timer that ends it; false where it is held already.
    pub(crate) fn hold_lease(&mut self, given: Given, caller: String) -> bool {
        let Given { id, terms } = given;
        if self.leases.contains(&id) {
            return false;
        }
        let left = terms.until.map(|until| until.since(self.mono));
        let timer = left.map(|left| self.timer(left, Purpose::EndLease(id.clone())));
        self.leases.insert(id, Held { terms, caller, timer })
    }

    /// Drops a lease with its timer; false where nobody holds it.
    pub(crate) fn drop_lease(&mut self, id: &LeaseId) -> bool {
        let held = self.leases.remove(id);
        if let Some(timer) = held.as_ref().and_then(|held| held.timer) {
            self.cancel(timer);
        }
        held.is_some()
    }

    pub(crate) fn end_job(&mut self, id: JobId, result: JobResult, error: String) {
        if self.jobs.end(id, result, error, self.mono) {
            let effects = &mut *self.effects;
            self.waiters.retain(|request, waiter| {
                let over = waiter.waits == Waits::Job(id);
                if over {
                    effects.push(Effect::Reply(*request, Answer::JobEnded(result)));
                }
                !over
            });
            self.timer(job::KEPT, Purpose::DropJob(id));
        }
    }

    /// Says more of a job.
    pub(crate) fn job_details(&mut self, id: JobId, change: impl FnOnce(&mut Details)) {
        if let Some(job) = self.jobs.all.get_mut(&id) {
            change(&mut job.details);
        }
    }

    /// Writes a line about a replica, or about the pool as a whole.
    pub(crate) fn log(&mut self, pool: &Pool, replica: Option<usize>, kind: LogKind, message: String) {
        self.effects.push(Effect::Log(LogLine::of(pool, replica, kind, message, self.real)));
    }
}
