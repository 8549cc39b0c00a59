//! What a caller may ask of the loop, and what it is told.

use crate::config::Revision;
use crate::device::DeviceUuid;
use crate::job::{JobId, JobResult};
use crate::lease::LeaseId;
use crate::name::{PoolId, Usec};
use crate::registry::{External, ExternalRefused, Report};
use serde::{Deserialize, Serialize};

/// Who asked, so that the answer finds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Empty them, then stop them.
    Drain {
        /// Which pool.
        pool: String,
        /// How long that may take; 0: what the pool's file says.
        deadline: Usec,
    },
    /// Give them another spec, drain-first.
    Reload {
        /// Which pool.
        pool: String,
        /// The spec; `None`: what the pool's file says.
        revision: Option<Box<Revision>>,
        /// How long its drain may take; 0: what the pool's file says.
        deadline: Usec,
        /// Whether what does not end by then is stopped, and a reload that runs gives way.
        force: bool,
    },
    /// Forget a pool's failures.
    Reset {
        /// Which pool.
        pool: String,
    },
    /// Take a lease of a pool's engine.
    AllocateLease {
        /// Which pool.
        pool: String,
        /// On what terms.
        wish: LeaseWish,
    },
    /// Give a lease back.
    ReleaseLease {
        /// Which lease.
        lease: String,
    },
    /// Put the end of a lease off.
    RenewLease {
        /// Which lease.
        lease: String,
        /// How long it lasts from now on; 0: without limit.
        ttl: Usec,
    },
    /// Make a pool known that the caller runs itself.
    RegisterPool {
        /// Its id.
        pool: String,
        /// The kind of its engine; "" where the caller does not say.
        engine: String,
        /// Where it answers; "" where the caller does not say.
        endpoint: String,
        /// How long the caller may be silent; 0: the default.
        heartbeat_timeout: Usec,
    },
    /// Take a pool that the caller registered off the list.
    UnregisterPool {
        /// Which pool.
        pool: String,
    },
    /// Say something of a pool that the caller runs itself.
    Report {
        /// Which pool.
        pool: String,
        /// What.
        report: Report,
    },
    /// Take a device out of use.
    QuarantineDevice {
        /// Which device, by its UUID.
        device: String,
        /// Why.
        reason: String,
    },
    /// Take it into use again.
    ReadmitDevice {
        /// Which device, by its UUID.
        device: String,
    },
    /// Call a job off.
    CancelJob {
        /// Which job.
        job: JobId,
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

/// How somebody wants a lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseWish {
    /// How long the caller waits for one; 0: not at all, `u64::MAX`: without limit.
    pub wait: Usec,
    /// How long it lasts; 0: without limit.
    pub ttl: Usec,
    /// What its holder calls itself; "": nothing.
    pub holder: String,
}

/// A request that [`decide`](super::decide) let pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accepted {
    /// Start it.
    Start(PoolId),
    /// Stop it.
    Stop(PoolId),
    /// Empty it within that time.
    Drain(PoolId, Usec),
    /// Give it that spec; its drain may take that time; by force or not.
    Reload(PoolId, Box<Revision>, Usec, bool),
    /// Forget its failures.
    Reset(PoolId),
    /// A lease of it.
    AllocateLease(PoolId, LeaseWish),
    /// Give it back.
    ReleaseLease(LeaseId),
    /// Have it last so long from now on.
    RenewLease(LeaseId, Usec),
    /// Make it known.
    RegisterPool(PoolId, External),
    /// Take it off the list.
    UnregisterPool(PoolId),
    /// Say that of it.
    Report(PoolId, Report),
    /// Take it out of use, for that reason.
    QuarantineDevice(DeviceUuid, String),
    /// Take it into use again.
    ReadmitDevice(DeviceUuid),
    /// Call it off.
    CancelJob(JobId),
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
    /// There is no such device.
    #[error("no device \"{0}\" is in this host; it may be gone, or its driver not loaded")]
    NoSuchDevice(String),
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
    /// It is being emptied.
    #[error("pool \"{0}\" is draining and gives no leases; see poolctl explain {0}")]
    Draining(PoolId),
    /// Every engine of it that serves has as many leases as it gives.
    #[error(
        "pool \"{pool}\" is at its capacity: {held} of {capacity} leases are held; try again when one ends"
    )]
    AtCapacity {
        /// Which pool.
        pool: PoolId,
        /// Leases that are held.
        held: u32,
        /// How many it gives.
        capacity: u32,
    },
    /// There is no such lease, or no longer.
    #[error("no lease \"{0}\"; it may have ended with its engine, or when its descriptor was closed")]
    NoSuchLease(String),
    /// The lease is somebody else's.
    #[error("lease {lease} is held by uid {uid}; that user and root may renew or end it")]
    NotTheHolder {
        /// The lease.
        lease: LeaseId,
        /// Whose it is.
        uid: u32,
    },
    /// No lease came free in time.
    #[error("no lease of pool \"{pool}\" came free in time: {why}")]
    NoLeaseInTime {
        /// Which pool.
        pool: PoolId,
        /// How it stood at the end.
        why: String,
    },
    /// The daemon does not run that pool.
    #[error(
        "pool \"{0}\" is external: whoever runs it starts, stops and reloads it; the daemon only knows what it reports"
    )]
    External(PoolId),
    /// Something of an external pool cannot be.
    #[error(transparent)]
    Refused(#[from] ExternalRefused),
    /// There are too many external pools already.
    #[error("{0} external pools are known on this host, which is the most; unregister some")]
    TooManyExternals(usize),
    /// Something that was given is not valid.
    #[error("{0}")]
    InvalidArgument(String),
    /// A user has too much of something already.
    #[error("uid {uid} has {most} {what} already, which is the most for one user; try again when some end")]
    TooManyOfAUser {
        /// Of what.
        what: &'static str,
        /// Who.
        uid: u32,
        /// How many.
        most: usize,
    },
    /// Too many leases are held already.
    #[error("{0} leases are held on this host, which is the most; try again when some end")]
    TooManyLeases(usize),
    /// A lease's descriptor could not be made.
    #[error("the lease's descriptor could not be made: {0}")]
    LeaseNotOpened(String),
    /// What a pool is to run is not valid.
    #[error("{0}")]
    InvalidSpec(String),
    /// Something else must end first.
    #[error("pool \"{pool}\" is being {doing}; wait for that job, cancel it, or stop the pool")]
    TransitionInProgress {
        /// Which pool.
        pool: PoolId,
        /// What is under way.
        doing: &'static str,
    },
    /// A job cannot be called off.
    #[error("job {0} cannot be cancelled: {1}")]
    NotCancelable(u32, &'static str),
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

impl Denied {
    pub(super) fn too_many(what: &'static str, uid: u32, most: usize) -> Denied {
        Denied::TooManyOfAUser { what, uid, most }
    }
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
    /// It is done.
    Done,
    /// A lease was given; its descriptor goes with the answer.
    Lease {
        /// Its id.
        lease: LeaseId,
        /// Where its engine answers.
        endpoint: String,
    },
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
