//! What a pool is on its way through when somebody asked for more than start or stop: being emptied, being given
//! another spec.

use crate::config::Revision;
use crate::host::TimerId;
use crate::name::Usec;
use crate::replica::ExitClass;
use serde::{Deserialize, Serialize};

/// A pool is being emptied: no new leases, not ready, its engines still work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// What comes after it.
    pub purpose: DrainFor,
    /// When what is left is stopped by force, monotonic.
    pub deadline: Usec,
    /// The same, realtime.
    pub deadline_real: Usec,
    /// The timer that ends the least time of a drain; `None`: that is over.
    pub settling: Option<TimerId>,
    /// The timer of the deadline; `None`: it has passed.
    pub running: Option<TimerId>,
}

/// What comes after a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainFor {
    /// The pool is stopped.
    Stop,
    /// It is stopped, and started again: somebody asked for that while it drained.
    Restart,
    /// It is started with another spec.
    Reload,
}

/// A pool is being given another spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// What ran before, and runs again if the new one fails.
    pub from: Revision,
    /// What is to run.
    pub to: Revision,
    /// Digest of what was wanted when it began: a file that changes meanwhile is newer.
    pub wanted: String,
    /// How long its drain may take.
    pub deadline: Usec,
    /// Whether what does not end by the deadline is stopped.
    pub force: bool,
    /// The engine's version as the checks of the new one saw it.
    pub version: String,
    /// How far it is.
    pub stage: ReloadStage,
}

impl Reload {
    /// What its stage has started, and every engine of the pool is therefore to run.
    #[must_use]
    pub fn in_place(&self) -> Option<&Revision> {
        match self.stage {
            ReloadStage::Replacing { started: true } => Some(&self.to),
            ReloadStage::RollingBack { started: true, .. } => Some(&self.from),
            ReloadStage::Checking { .. }
            | ReloadStage::Draining
            | ReloadStage::Replacing { started: false }
            | ReloadStage::RollingBack { started: false, .. } => None,
        }
    }
}

/// How far a reload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReloadStage {
    /// The new spec is checked beside the engines that serve.
    Checking {
        /// Whether the unit that checks was asked for.
        asked: bool,
    },
    /// The engines that serve are emptied.
    Draining,
    /// The old engines end, and the new ones start once nothing of them is left.
    Replacing {
        /// Whether the new ones were started.
        started: bool,
    },
    /// The new ones failed: they end, and the old ones start again.
    RollingBack {
        /// Whether the old ones were started.
        started: bool,
        /// Whether somebody wanted it so.
        canceled: bool,
        /// Why, else.
        class: ExitClass,
        /// In words.
        text: String,
    },
}

impl ReloadStage {
    /// As a job's detail says it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            ReloadStage::Checking { .. } => "checking the new model beside the old engine",
            ReloadStage::Draining => "draining the old engine",
            ReloadStage::Replacing { started: false } => "ending the old engine",
            ReloadStage::Replacing { started: true } => "starting the new engine",
            ReloadStage::RollingBack { started: false, .. } => "ending the new engine",
            ReloadStage::RollingBack { started: true, .. } => "starting the old engine again",
        }
    }
}
