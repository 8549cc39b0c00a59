//! Owns a pool: what is wanted of it, its replicas, and what they make of it together. Its life cycle is in
//! `lifecycle`; the phase of a pool is derived from its replicas and never stored.

pub(crate) mod lifecycle;
mod reason;
mod transition;
mod troubles;

pub use reason::{Cause, Reason};
pub use transition::{Drain, DrainFor, Reload, ReloadStage};
pub use troubles::{Breaker, BreakerState, Kind, Troubles};
pub(crate) use troubles::{Leave, Opening, Verdict};

use crate::config::Revision;
use crate::device::{DeviceWish, Part};
use crate::job::{JobId, Operation};
use crate::name::{Endpoint, PoolId, ReplicaId, Usec};
use crate::replica::{ExitClass, Phase, Replica};
use serde::{Deserialize, Serialize};

/// What is wanted of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// What it is to run: what its file says, or what a reload put in its place since.
    pub revision: Revision,
    /// Digest of what its file says.
    pub file_digest: String,
    /// What is wrong with its file now.
    pub file_error: Option<String>,
    /// What is wanted of it.
    pub wish: Wish,
    /// Whether an operator stopped or drained it, and nobody has started it since.
    pub by_operator: bool,
    /// Whether it goes away once its engines are gone.
    pub leaving: bool,
    /// Its replicas, by number.
    pub replicas: Vec<Replica>,
    /// The least generation of one that comes anew: a name that another of its number had given up may still be loaded.
    #[serde(default)]
    pub next_generation: u32,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
    /// What went wrong lately, oldest first, at most [`HISTORY`].
    pub history: Vec<LastError>,
    /// Restarts after failures.
    pub restart_count: u32,
    /// What its failures add up to.
    pub troubles: Troubles,
    /// How it is being emptied.
    pub drain: Option<Drain>,
    /// How it is being given another spec.
    pub reload: Option<Reload>,
    /// When its phase last changed, realtime.
    pub changed: Usec,
    /// The job that runs on it.
    pub job: Option<(JobId, Operation)>,
    /// Its phase when the last event had been dealt with, to see changes by.
    pub last_phase: PoolPhase,
}

/// So many past failures of a pool are kept.
pub const HISTORY: usize = 16;

/// The phase of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// It is being emptied.
    Draining,
    /// A restart is due.
    Backoff,
    /// Its breaker is open.
    Tripped,
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
            PoolPhase::Draining => "draining",
            PoolPhase::Backoff => "backoff",
            PoolPhase::Tripped => "tripped",
            PoolPhase::Failed => "failed",
        }
    }
}

impl Pool {
    /// A pool at rest.
    #[must_use]
    pub fn new(revision: Revision, now: Usec) -> Self {
        let replicas = revision.spec.replicas;
        let mut pool = Pool {
            file_digest: revision.digest.clone(),
            file_error: None,
            revision,
            wish: Wish::Stop,
            by_operator: false,
            leaving: false,
            replicas: Vec::new(),
            next_generation: 1,
            last_error: None,
            history: Vec::new(),
            restart_count: 0,
            troubles: Troubles::default(),
            drain: None,
            reload: None,
            changed: now,
            job: None,
            last_phase: PoolPhase::Stopped,
        };
        pool.resize(replicas);
        pool
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &PoolId {
        &self.revision.spec.id
    }

    /// That many replicas. One too many goes once nothing of it is left, and is handed back then.
    pub(crate) fn resize(&mut self, count: u16) -> Vec<ReplicaId> {
        let mut gone = Vec::new();
        while self.replicas.len() > usize::from(count) && self.replicas.last().is_some_and(Replica::at_rest) {
            if let Some(replica) = self.replicas.pop() {
                self.next_generation = self.next_generation.max(replica.next_generation);
                gone.push(replica.id);
            }
        }
        for index in u16::try_from(self.replicas.len()).unwrap_or(u16::MAX)..count {
            let id = ReplicaId { pool: self.id().clone(), index };
            self.replicas.push(Replica { next_generation: self.next_generation, ..Replica::new(id) });
        }
        gone
    }

    /// What its engines are to run: what a reload has put in place, else what its file says or an earlier reload did.
    #[must_use]
    pub fn in_force(&self) -> &Revision {
        self.reload.as_ref().and_then(Reload::in_place).unwrap_or(&self.revision)
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
        self.wish == Wish::Run && self.drain.is_none() && self.replicas.iter().any(Replica::ready)
    }

    /// Leases that are held of its engines.
    #[must_use]
    pub fn active_leases(&self) -> u32 {
        self.replicas.iter().fold(0, |sum, replica| sum.saturating_add(replica.leases))
    }

    /// Requests that its engines work on, as far as they say.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let known = self.replicas.iter().filter_map(Replica::in_flight);
        known.fold(0, u32::saturating_add)
    }

    /// How many leases it gives at most; `None`: without limit.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        let ready = self.replicas.iter().filter(|replica| replica.ready());
        ready
            .map(|replica| replica.capacity(&self.revision.spec.leases))
            .try_fold(0, |sum: u32, capacity| Some(sum.saturating_add(capacity?)))
    }

    /// Records what went wrong.
    pub(crate) fn went_wrong(&mut self, class: ExitClass, text: String, at: Usec) {
        let error = LastError { class, text, at };
        if self.history.len() >= HISTORY {
            self.history.remove(0);
        }
        self.history.push(error.clone());
        self.last_error = Some(error);
    }

    /// The version of its engines, as far as known.
    #[must_use]
    pub fn engine_version(&self) -> &str {
        self.replicas.iter().map(|replica| replica.engine_version.as_str()).max().unwrap_or_default()
    }

    /// The devices of its engines, each engine's part.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.replicas.iter().map(|replica| &replica.devices).filter(|part| !part.is_empty())
    }

    /// The devices of its engines as a mask; "" where they should have some and have none yet.
    #[must_use]
    pub fn device_mask(&self) -> String {
        let waits = self.parts().next().is_none() && self.in_force().spec.devices.wish != DeviceWish::None;
        if waits { String::new() } else { Part::mask(self.parts()) }
    }

    /// Its phase: the first that holds.
    #[must_use]
    pub fn phase(&self) -> PoolPhase {
        let any = |wanted: fn(&Phase) -> bool| self.replicas.iter().any(|replica| wanted(&replica.phase));
        if self.wish == Wish::Stop && !self.at_rest() {
            PoolPhase::Stopping
        } else if self.drain.is_some() {
            PoolPhase::Draining
        } else if any(|phase| matches!(phase, Phase::Ready { .. })) {
            PoolPhase::Ready
        } else if any(|phase| matches!(phase, Phase::Starting)) {
            PoolPhase::Starting
        } else if any(|phase| matches!(phase, Phase::Staging | Phase::WaitingForName)) {
            PoolPhase::Staging
        } else if any(|phase| matches!(phase, Phase::Ending | Phase::Stopping)) {
            PoolPhase::Stopping
        } else if any(|phase| matches!(phase, Phase::Backoff { .. })) {
            PoolPhase::Backoff
        } else if any(|phase| matches!(phase, Phase::Tripped)) {
            PoolPhase::Tripped
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

    /// The breaker that keeps it from being started, else the ordinary one.
    #[must_use]
    pub fn breaker(&self) -> &BreakerState {
        let Troubles { ordinary, gpu, .. } = &self.troubles;
        let open = |breaker: &&&Breaker| matches!(breaker.state, BreakerState::Open { .. });
        let half = |breaker: &&&Breaker| breaker.state != BreakerState::Closed;
        let both = [ordinary, gpu];
        let worst = both.iter().find(open).or_else(|| both.iter().find(half));
        &worst.unwrap_or(&ordinary).state
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
                let delay = self.replicas.iter().find_map(Replica::pause).map(|(pause, _)| pause.delay);
                format!("restart {} after {}{error}", self.restart_count + 1, delay.unwrap_or_default())
            }
            PoolPhase::Draining => {
                let until = self.drain.as_ref().map_or(Usec(0), |drain| drain.deadline_real);
                let left = until.since(self.changed);
                format!(
                    "draining, for {left} at most: {} leases held, {} requests in flight",
                    self.active_leases(),
                    self.in_flight()
                )
            }
            PoolPhase::Tripped => format!(
                "its breaker is {}: not started by itself{error}. Try once with: poolctl start {}; reset with: poolctl reset {}",
                self.breaker().as_str(),
                self.id(),
                self.id()
            ),
            PoolPhase::Failed => format!("failed{error}"),
        }
    }
}
