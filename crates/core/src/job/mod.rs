//! Owns long operations that somebody asked for, and everybody who waits for something. A job ends exactly once, and
//! stays readable for [`KEPT`] afterwards.

use crate::host::{RequestId, TimerId};
use crate::name::{PoolId, Usec};
use std::collections::BTreeMap;

/// How long an ended job stays readable.
pub const KEPT: Usec = Usec::from_secs(60);

/// A job's number, unique within one run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u32);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Start a pool's engines.
    Start,
    /// Stop them.
    Stop,
}

impl Operation {
    /// As it is published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Start => "start",
            Operation::Stop => "stop",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobResult {
    /// As asked.
    Done,
    /// It could not be done; the job's error says why.
    Failed,
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
            JobResult::Superseded => "superseded",
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The pool it works on.
    pub pool: PoolId,
    /// What it does.
    pub operation: Operation,
    /// Running, or how it ended.
    pub state: JobState,
    /// Who waits for its end.
    pub waiters: Vec<RequestId>,
}

/// Whether a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Somebody who waits for a pool to be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The pool.
    pub pool: PoolId,
    /// The timer that ends the waiting; none: no limit.
    pub timer: Option<TimerId>,
}

/// All jobs, running and readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jobs {
    last: u32,
    /// By number.
    pub all: BTreeMap<JobId, Job>,
}

impl Jobs {
    /// Opens a job.
    pub fn open(&mut self, pool: PoolId, operation: Operation) -> JobId {
        self.last = self.last.checked_add(1).unwrap_or(1);
        let id = JobId(self.last);
        self.all.insert(id, Job { pool, operation, state: JobState::Running, waiters: Vec::new() });
        id
    }

    /// Ends a job and hands back who waited for it; nothing where it had ended before.
    pub fn end(&mut self, id: JobId, result: JobResult, error: String) -> Option<Vec<RequestId>> {
        let job = self.all.get_mut(&id).filter(|job| job.state == JobState::Running)?;
        job.state = JobState::Ended { result, error };
        Some(std::mem::take(&mut job.waiters))
    }
}
