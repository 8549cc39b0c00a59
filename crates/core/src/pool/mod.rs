//! Owns a pool: what is wanted of it, its replicas, and what they make of it together. Its life cycle is in
//! `lifecycle`; the phase of a pool is derived from its replicas and never stored.

pub(crate) mod lifecycle;

use crate::config::Revision;
use crate::job::{JobId, Operation};
use crate::name::{Endpoint, PoolId, ReplicaId, Usec};
use crate::replica::{ExitClass, Phase, Replica};
use serde::{Deserialize, Serialize};

/// What is wanted of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Its engines should run.
    Run,
    /// They should not.
    Stop,
}

/// The last thing that went wrong with a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Its class.
    pub class: ExitClass,
    /// A sentence, with a remedy where there is one.
    pub text: String,
    /// When, realtime.
    pub at: Usec,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What its file says now.
    pub revision: Revision,
    /// What is wanted of it.
    pub wish: Wish,
    /// Whether it goes away once its engines are gone.
    pub leaving: bool,
    /// Its replicas, by number.
    pub replicas: Vec<Replica>,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
    /// Restarts after failures.
    pub restart_count: u32,
    /// When its phase last changed, realtime.
    pub changed: Usec,
    /// The job that runs on it.
    pub job: Option<(JobId, Operation)>,
    /// Its phase when the last event had been dealt with, to see changes by.
    pub last_phase: PoolPhase,
}

/// The phase of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolPhase {
    /// Nothing runs.
    Stopped,
    /// Checks run.
    Staging,
    /// An engine loads.
    Starting,
    /// An engine serves.
    Ready,
    /// Engines are asked to end.
    Stopping,
    /// A restart is due.
    Backoff,
    /// It failed and waits for somebody.
    Failed,
}

impl PoolPhase {
    /// As it is published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            PoolPhase::Stopped => "stopped",
            PoolPhase::Staging => "staging",
            PoolPhase::Starting => "starting",
            PoolPhase::Ready => "ready",
            PoolPhase::Stopping => "stopping",
            PoolPhase::Backoff => "backoff",
            PoolPhase::Failed => "failed",
        }
    }
}

impl Pool {
    /// A pool at rest.
    #[must_use]
    pub fn new(revision: Revision, now: Usec) -> Self {
        let mut pool = Pool {
            revision,
            wish: Wish::Stop,
            leaving: false,
            replicas: Vec::new(),
            last_error: None,
            restart_count: 0,
            changed: now,
            job: None,
            last_phase: PoolPhase::Stopped,
        };
        pool.resize();
        pool
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &PoolId {
        &self.revision.spec.id
    }

    /// As many replicas as its file says. One too many goes once nothing of it is left, and is handed back then.
    pub(crate) fn resize(&mut self) -> Vec<ReplicaId> {
        let count = self.revision.spec.replicas;
        let mut gone = Vec::new();
        while self.replicas.len() > usize::from(count) && self.replicas.last().is_some_and(Replica::at_rest) {
            gone.extend(self.replicas.pop().map(|replica| replica.id));
        }
        for index in u16::try_from(self.replicas.len()).unwrap_or(u16::MAX)..count {
            self.replicas.push(Replica::new(ReplicaId { pool: self.id().clone(), index }));
        }
        gone
    }

    /// Whether nothing of it runs, waits or is left.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.replicas.iter().all(Replica::at_rest)
    }

    /// Whether one main process at least lives.
    #[must_use]
    pub fn live(&self) -> bool {
        self.replicas.iter().any(Replica::live)
    }

    /// Whether one engine at least serves.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.wish == Wish::Run && self.replicas.iter().any(Replica::ready)
    }

    /// Its phase: the first that holds.
    #[must_use]
    pub fn phase(&self) -> PoolPhase {
        let any = |wanted: fn(&Phase) -> bool| self.replicas.iter().any(|replica| wanted(&replica.phase));
        if self.wish == Wish::Stop && !self.at_rest() {
            PoolPhase::Stopping
        } else if any(|phase| matches!(phase, Phase::Ready { .. })) {
            PoolPhase::Ready
        } else if any(|phase| matches!(phase, Phase::Starting)) {
            PoolPhase::Starting
        } else if any(|phase| matches!(phase, Phase::Staging | Phase::WaitingForName)) {
            PoolPhase::Staging
        } else if any(|phase| matches!(phase, Phase::Ending { .. } | Phase::Stopping)) {
            PoolPhase::Stopping
        } else if any(|phase| matches!(phase, Phase::Backoff { .. })) {
            PoolPhase::Backoff
        } else if any(|phase| matches!(phase, Phase::Failed)) {
            PoolPhase::Failed
        } else {
            PoolPhase::Stopped
        }
    }

    /// The endpoints of the engines that serve.
    #[must_use]
    pub fn endpoints(&self) -> Vec<&Endpoint> {
        self.replicas
            .iter()
            .filter(|replica| replica.ready())
            .filter_map(|replica| replica.endpoint.as_ref())
            .collect()
    }

    /// The keys of its file whose new values wait for the next start.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        let mut keys: Vec<_> = self
            .replicas
            .iter()
            .filter(|replica| !matches!(replica.phase, Phase::Stopped | Phase::Failed))
            .filter_map(|replica| replica.revision.as_ref())
            .filter(|running| running.digest != self.revision.digest)
            .flat_map(|running| running.spec.changed_keys(&self.revision.spec))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// One sentence on how it stands and why.
    #[must_use]
    pub fn detail(&self) -> String {
        let error = self.last_error.as_ref().map_or(String::new(), |error| format!(": {}", error.text));
        let ready = self.replicas.iter().filter(|replica| replica.ready()).count();
        match self.phase() {
            PoolPhase::Ready => format!("{ready} of {} engines ready", self.replicas.len()),
            PoolPhase::Stopped
                if self.wish == Wish::Run && self.replicas.iter().any(Replica::ended_as_meant) =>
            {
                format!(
                    "it exited with status 0, which counts as meant; start it with: poolctl start {}",
                    self.id()
                )
            }
            PoolPhase::Stopped if self.last_error.is_some() => format!("stopped{error}"),
            PoolPhase::Stopped => "stopped; start it with: poolctl start ".to_owned() + self.id().as_str(),
            PoolPhase::Staging => "checking program, model and address as the engine's user".to_owned(),
            PoolPhase::Starting => self
                .replicas
                .iter()
                .find(|replica| matches!(replica.phase, Phase::Starting))
                .map_or(String::new(), |replica| replica.unit.status_text.clone()),
            PoolPhase::Stopping => "engines are ending".to_owned(),
            PoolPhase::Backoff => {
                let delay = self.replicas.iter().find_map(|replica| match replica.phase {
                    Phase::Backoff { delay, .. } => Some(delay),
                    Phase::Stopped
                    | Phase::WaitingForName
                    | Phase::Staging
                    | Phase::Starting
                    | Phase::Ready { .. }
                    | Phase::Ending { .. }
                    | Phase::Stopping
                    | Phase::Failed => None,
                });
                format!("restart {} after {}{error}", self.restart_count, delay.unwrap_or_default())
            }
            PoolPhase::Failed => format!("failed{error}"),
        }
    }
}
