//! Owns long operations that somebody asked for. A job ends exactly once, and stays readable for [`KEPT`] afterwards.

use crate::name::{PoolId, Usec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long an ended job stays readable.
pub const KEPT: Usec = Usec::from_secs(60);

/// At most so many are kept; those that ended first go before their time is over.
pub const MOST: usize = 8_192;

/// A job's number, unique within one run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub u32);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Start a pool's engines.
    Start,
    /// Stop them.
    Stop,
    /// Empty them, then stop them.
    Drain,
    /// Give them another spec.
    Reload,
}

impl Operation {
    /// As it is published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Start => "start",
            Operation::Stop => "stop",
            Operation::Drain => "drain",
            Operation::Reload => "reload",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobResult {
    /// As asked.
    Done,
    /// It could not be done; the job's error says why.
    Failed,
    /// Somebody called it off.
    Canceled,
    /// Its time was over.
    Timeout,
    /// A newer wish took its place.
    Superseded,
}

impl JobResult {
    /// As it is published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            JobResult::Done => "done",
            JobResult::Failed => "failed",
            JobResult::Canceled => "canceled",
            JobResult::Timeout => "timeout",
            JobResult::Superseded => "superseded",
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The pool it works on.
    pub pool: PoolId,
    /// What it does.
    pub operation: Operation,
    /// The user who asked for it; none: a file did.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Running, or how it ended.
    pub state: JobState,
    /// When it began, monotonic.
    pub began: Usec,
    /// What else is told of it.
    pub details: Details,
}

/// What is told of a job besides its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Whether something that still worked was stopped.
    pub force_stopped: bool,
    /// Whether what ran before runs again.
    pub rolled_back: bool,
    /// Leases that were held when its drain ended.
    pub leases_left: u32,
    /// How long it took; 0: it has not ended.
    pub duration: Usec,
}

/// Whether a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// It runs.
    Running,
    /// It ended.
    Ended {
        /// How.
        result: JobResult,
        /// Why, where it failed; else "".
        error: String,
    },
}

/// All jobs, running and readable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    last: u32,
    /// By number.
    pub all: BTreeMap<JobId, Job>,
}

impl Jobs {
    /// Opens a job.
    pub fn open(&mut self, pool: PoolId, operation: Operation, uid: Option<u32>, now: Usec) -> JobId {
        self.last = self.last.checked_add(1).unwrap_or(1);
        let id = JobId(self.last);
        let (state, details) = (JobState::Running, Details::default());
        self.all.insert(id, Job { pool, operation, uid, state, began: now, details });
        self.drop_oldest();
        id
    }

    /// Only so many are kept: what ended first goes first.
    fn drop_oldest(&mut self) {
        while self.all.len() > MOST {
            let ended = self.all.iter().find(|(_, job)| job.state != JobState::Running);
            let Some(id) = ended.map(|(id, _)| *id) else { return };
            self.all.remove(&id);
        }
    }

    /// Ends a job; false where it had ended before.
    pub fn end(&mut self, id: JobId, result: JobResult, error: String, now: Usec) -> bool {
        let running = |job: &&mut Job| job.state == JobState::Running;
        let Some(job) = self.all.get_mut(&id).filter(running) else { return false };
        job.details.duration = now.since(job.began);
        job.state = JobState::Ended { result, error };
        true
    }
}
