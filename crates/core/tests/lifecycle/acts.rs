//! What happens in stories, in one line each.

use crate::world::{World, revision, unit};
use pool_core::config::PoolSpec;
use pool_core::host::{Answer, LeaseWish, RequestId, Saved, TimerId};
use pool_core::job::{Details, JobId, JobResult, JobState, Operation};
use pool_core::lease::LeaseId;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::{Breaker, BreakerState, Reason};
use pool_core::replica::{ActiveState, ExitClass, Report};
use pool_core::{Denied, Event, Request};
use std::collections::BTreeSet;

pub const fn seconds(seconds: u64) -> Usec {
    Usec::from_secs(seconds)
}

/// One pool of that many replicas.
pub fn of(replicas: u16) -> PoolSpec {
    PoolSpec { replicas, ..crate::world::spec("a") }
}

impl World {
    /// Time goes by: every timer that falls due rings, in order.
    pub fn pass(&mut self, time: Usec) {
        let end = self.now.plus(time);
        while self.timers.values().any(|at| *at <= end) {
            self.ring();
        }
        self.now = self.now.max(end);
    }

    /// So that the next event happens exactly then.
    pub fn wait_until(&mut self, at: Usec) {
        assert!(at.0 >= self.now.0 + 1_000, "it is past {at}: {}", self.now);
        self.now = Usec(at.0 - 1_000);
    }

    /// systemd has forgotten the unit of its checks.
    pub fn checks_are_over(&mut self, pool: &str, index: u16) {
        self.forgotten(&unit(UnitKind::Stage, pool, index));
    }

    /// The engines serve, one after the other.
    pub fn all_serve(&mut self, pool: &str) {
        for index in 0..u16::try_from(self.pool(pool).replicas.len()).unwrap() {
            self.serve(pool, index);
        }
    }

    /// An engine dies, and systemd forgets it.
    pub fn crash(&mut self, pool: &str, index: u16) {
        self.dies(pool, index);
        self.settle();
    }

    /// It serves, and dies at once; `times` over. Between two it waits for its backoff.
    pub fn crash_loop(&mut self, pool: &str, index: u16, times: usize) {
        for time in 0..times {
            if time > 0 {
                self.restart_rings(pool, index);
            }
            self.serve(pool, index);
            self.crash(pool, index);
        }
    }

    /// A replica's restart is due; how long it had waited.
    pub fn restart_rings(&mut self, pool: &str, index: u16) -> Usec {
        let before = self.now;
        assert_eq!(self.replica_phase(pool, index), "backoff");
        while self.replica_phase(pool, index) == "backoff" {
            self.ring();
        }
        self.now.since(before)
    }

    pub fn replica_phase(&self, pool: &str, index: u16) -> &'static str {
        self.pool(pool).replicas[usize::from(index)].phase.as_str()
    }

    pub fn phases(&self, pool: &str) -> Vec<&'static str> {
        self.pool(pool).replicas.iter().map(|replica| replica.phase.as_str()).collect()
    }

    /// It runs out of the host's memory, and systemd forgets it.
    pub fn out_of_memory(&mut self, pool: &str, index: u16) {
        self.seen(&unit(UnitKind::Engine, pool, index), |unit| {
            (unit.active, unit.main_pid) = (ActiveState::Failed, 0);
            (unit.result, unit.exec_code, unit.exec_status) = ("oom-kill".into(), 2, 9);
        });
        self.settle();
    }

    /// It exits with status 0, and systemd forgets it.
    pub fn exits_0(&mut self, pool: &str, index: u16) {
        self.seen(&unit(UnitKind::Engine, pool, index), |unit| {
            (unit.active, unit.exited, unit.main_pid, unit.exec_code) = (ActiveState::Active, true, 0, 1);
        });
        self.settle();
    }

    /// Somebody stops its unit.
    pub fn stopped_outside(&mut self, pool: &str, index: u16) {
        self.forgotten(&unit(UnitKind::Engine, pool, index));
    }

    /// The daemon itself ends it, and systemd forgets it.
    pub fn condemned(&mut self, pool: &str, index: u16, class: ExitClass) {
        self.condemn(pool, index, class);
        self.settle();
    }

    pub fn condemn(&mut self, pool: &str, index: u16, class: ExitClass) {
        let replica = unit(UnitKind::Engine, pool, index).replica;
        self.event(Event::EngineCondemned { replica, class, text: "its device".into() });
    }

    /// Its prober says so.
    pub fn reports(&mut self, pool: &str, index: u16, in_flight: u32, slots: Option<u32>) {
        let name = unit(UnitKind::Engine, pool, index);
        let invocation = self.units[&name].invocation;
        let report = Report {
            invocation,
            in_flight: Some(in_flight),
            slots,
            version: None,
            progress: None,
            processes: None,
            memory_peak: None,
        };
        self.event(Event::Reported { unit: name, report });
    }

    pub fn lease(&mut self, pool: &str) -> Result<LeaseId, Denied> {
        let request = self.ask(Request::AllocateLease { pool: pool.into(), wish: LeaseWish::default() })?;
        match self.answers_to(request)[..] {
            [Answer::Lease { lease, .. }] => Ok(lease.clone()),
            ref other => panic!("{other:?}"),
        }
    }

    pub fn release(&mut self, lease: &LeaseId) {
        self.ask(Request::ReleaseLease { lease: lease.to_string() }).unwrap();
    }

    pub fn drain(&mut self, pool: &str, deadline: Usec) -> JobId {
        let request = self.ask(Request::Drain { pool: pool.into(), deadline }).unwrap();
        self.job_of(request)
    }

    /// Give it that spec; its drain may take a minute.
    pub fn reload(&mut self, to: &PoolSpec, force: bool) -> Result<JobId, Denied> {
        let request = self.ask(Request::Reload {
            pool: to.id.to_string(),
            revision: Some(Box::new(revision(to))),
            deadline: seconds(60),
            force,
        })?;
        Ok(self.job_of(request))
    }

    pub fn reset(&mut self, pool: &str) {
        self.ask(Request::Reset { pool: pool.into() }).unwrap();
    }

    pub fn cancel(&mut self, job: JobId) -> Result<RequestId, Denied> {
        self.ask(Request::CancelJob { job })
    }

    pub fn job_of(&self, request: RequestId) -> JobId {
        match self.answers_to(request)[..] {
            [Answer::Job(job)] => *job,
            ref other => panic!("{other:?}"),
        }
    }

    pub fn start_job(&mut self, pool: &str) -> JobId {
        let request = self.start(pool);
        self.job_of(request)
    }

    pub fn stop_job(&mut self, pool: &str) -> JobId {
        let request = self.stop(pool);
        self.job_of(request)
    }

    /// How a job ended; `None`: it runs.
    pub fn result(&self, job: JobId) -> Option<JobResult> {
        match self.state.jobs.all[&job].state {
            JobState::Running => None,
            JobState::Ended { result, .. } => Some(result),
        }
    }

    pub fn error_of(&self, job: JobId) -> String {
        match &self.state.jobs.all[&job].state {
            JobState::Running => String::new(),
            JobState::Ended { error, .. } => error.clone(),
        }
    }

    pub fn details(&self, job: JobId) -> Details {
        self.state.jobs.all[&job].details
    }

    pub fn running_jobs(&self) -> Vec<Operation> {
        let jobs = self.state.jobs.all.values();
        jobs.filter(|job| job.state == JobState::Running).map(|job| job.operation).collect()
    }

    /// The class of what went wrong last; "": nothing did.
    pub fn last_class(&self, pool: &str) -> String {
        self.pool(pool).last_error.as_ref().map_or(String::new(), |error| error.class.to_string())
    }

    pub fn last_text(&self, pool: &str) -> String {
        self.pool(pool).last_error.as_ref().map_or(String::new(), |error| error.text.clone())
    }

    pub fn said(&self, what: &str) -> usize {
        self.lines.iter().filter(|line| line.contains(what)).count()
    }

    pub fn reasons(&self, pool: &str) -> Vec<Reason> {
        self.pool(pool).reasons()
    }

    /// The model that an engine runs.
    pub fn model(&self, pool: &str, index: u16) -> String {
        let replica = &self.pool(pool).replicas[usize::from(index)];
        replica.revision.as_ref().map_or(String::new(), |revision| revision.spec.model.clone())
    }

    /// The daemon is killed and comes back: it knows what it had saved, and no more.
    pub fn kill_daemon(&mut self, specs: &[PoolSpec]) {
        assert_eq!(self.saved, self.state.saved(), "all that matters is saved");
        assert_eq!(self.wishes, self.state.stopped);
        self.start_daemon(specs, self.saved.clone(), self.wishes.clone());
    }

    /// The host is started anew: no unit is left, and of what was saved only what operators wished.
    pub fn reboot(&mut self, specs: &[PoolSpec]) {
        self.units.clear();
        self.held.clear();
        self.start_daemon(specs, Saved::default(), self.wishes.clone());
    }

    /// Which timers run, so that none is left behind.
    pub fn timer_ids(&self) -> BTreeSet<TimerId> {
        self.timers.keys().copied().collect()
    }
}

/// How long a breaker was opened last, and when that ends; `None`: it is not open.
pub fn open(breaker: &Breaker) -> Option<(Usec, Usec)> {
    match breaker.state {
        BreakerState::Open { until, .. } => Some((breaker.open_for, until)),
        BreakerState::Closed | BreakerState::HalfOpen { .. } => None,
    }
}
