//! What a caller may ask of the loop, and what it is told.

use crate::job::{JobId, JobResult};
use crate::name::{PoolId, Usec};

/// Who asked, so that the answer finds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a caller may ask of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Start a pool's engines.
    Start {
        /// Which pool.
        pool: String,
    },
    /// Stop them.
    Stop {
        /// Which pool.
        pool: String,
    },
    /// Wait until a pool is ready.
    WaitReady {
        /// Which pool.
        pool: String,
        /// For how long; 0: without limit.
        timeout: Usec,
    },
    /// Wait until a job has ended.
    WaitJob {
        /// Which job.
        job: JobId,
    },
}

/// A request that [`decide`](super::decide) let pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Start it.
    Start(PoolId),
    /// Stop it.
    Stop(PoolId),
    /// Wait for it.
    WaitReady(PoolId, Usec),
    /// Wait for it.
    WaitJob(JobId),
}

/// Why a request is refused, or what waiting came to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no such pool.
    #[error("no pool \"{0}\"; poolctl list shows those that are there")]
    NoSuchPool(String),
    /// There is no such job, or no longer.
    #[error("no job {0}; jobs are kept for 60 s after their end")]
    NoSuchJob(u32),
    /// The pool's file was removed and its engines are ending.
    #[error("the file of pool \"{0}\" was removed; its engines are ending")]
    Leaving(PoolId),
    /// The pool is not ready and will not be by itself.
    #[error("pool \"{pool}\" is not ready: {why}")]
    NotReady {
        /// Which pool.
        pool: PoolId,
        /// Why.
        why: String,
    },
    /// Too many callers wait already.
    #[error("too many callers wait for pools or jobs already; try again later")]
    TooManyWaiters,
    /// The time ran out.
    #[error("pool \"{pool}\" was not ready in time: {why}")]
    Timeout {
        /// Which pool.
        pool: PoolId,
        /// How it stood at the end.
        why: String,
    },
}

/// What a caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A job was opened.
    Job(JobId),
    /// The pool is ready.
    Ready,
    /// The job has ended.
    JobEnded(JobResult),
    /// The configuration was read.
    Reloaded {
        /// New pools.
        added: Vec<PoolId>,
        /// Pools whose files differ.
        changed: Vec<PoolId>,
        /// Pools whose files are gone.
        removed: Vec<PoolId>,
    },
    /// It cannot be.
    Denied(Denied),
}
