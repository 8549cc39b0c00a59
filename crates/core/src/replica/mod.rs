//! Owns one engine: the phase it is in, what was seen of its unit, and how it ended. Its life cycle is the pool's.
//!
//! Every phase carries what it needs and nothing that only another one needs. A unit's name stays taken until systemd
//! has forgotten the unit; `taken` holds those, and nothing starts while one is left.

mod backoff;
mod exit;
mod observation;
mod report;

pub use backoff::{Pause, delay};
pub use exit::ExitClass;
pub use observation::{ActiveState, UnitObservation};
pub use report::{Report, ReportError};

use crate::config::{LeaseNumbers, PoolSpec, Revision};
use crate::device::{DeviceWish, Part};
use crate::host::TimerId;
use crate::name::{Endpoint, InvocationId, ReplicaId, UnitKind, UnitName, Usec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One replica of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Who it is.
    pub id: ReplicaId,
    /// Where it stands.
    pub phase: Phase,
    /// Generation of its units.
    pub generation: u32,
    /// The least generation of the next start: names of earlier ones are kept loaded by somebody else.
    pub next_generation: u32,
    /// What its unit was started from; the pool's spec may be newer.
    pub revision: Option<Revision>,
    /// Where it listens or listened; an automatic port is kept.
    pub endpoint: Option<Endpoint>,
    /// The engine's version, where its checks could tell.
    pub engine_version: String,
    /// The devices that its engine has.
    #[serde(default)]
    pub devices: Part,
    /// Unit names that systemd has not forgotten yet.
    pub taken: BTreeMap<UnitName, Hold>,
    /// Failures in a row.
    pub failures: u32,
    /// Automatic ports that turned out to be somebody else's, since the last start.
    pub ports_tried: u16,
    /// Why systemd could not let go of a unit, and when it is asked again.
    pub stuck: Option<(TimerId, String)>,
    /// How the last engine ended.
    pub last_exit: Option<ExitClass>,
    /// What was last seen of the engine's unit.
    pub unit: Seen,
    /// What its prober said last of the engine that runs.
    pub report: Option<Report>,
    /// Leases that are held of it.
    pub leases: u32,
    /// The timer of the next length of readiness that matters, and when it rings, monotonic.
    pub steady: Option<(TimerId, Usec)>,
    /// What its engine has been ready long enough for.
    pub reached: Reached,
    /// Why the daemon itself ends its engine: that is how it ended, whatever systemd says.
    pub condemned: Option<(ExitClass, String)>,
    /// Whether somebody wanted it to start while its engine was ending by itself.
    pub start_anew: bool,
    /// Whether its next start is by what it ran and not by what is wanted now: what stopped it, or kept it from being
    /// started again, was called off or can be.
    pub as_before: bool,
}

/// What a length of readiness ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// No failure before it is in a row with one after it, and a trial has succeeded.
    Row,
    /// The next failure is the engine's first.
    Backoff,
    /// The pool's restart count is 0 again.
    Count,
}

/// The lengths of readiness that were reached, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The run of the unit that reached them: another one has reached none of them.
    pub by: InvocationId,
    /// What they end.
    pub marks: BTreeSet<Mark>,
}

/// One start of a unit: two units of one name are told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StartId(pub u64);

/// What is known of a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The start that took it.
    pub start: StartId,
    /// Whether systemd has said that it took the unit: only then can the unit be missing.
    pub confirmed: bool,
    /// Which invocation systemd was asked to let go of: another one was started since, by somebody else.
    pub let_go: Option<InvocationId>,
    /// Whether the unit was seen to be anything but inactive: a new one is inactive too.
    pub ran: bool,
    /// The timer at which it is killed.
    pub kill: Option<TimerId>,
    /// The timer at which its name is given up.
    pub give_up: Option<TimerId>,
}

/// What is published about the unit that runs now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its invocation.
    pub invocation: InvocationId,
    /// Its main process; 0 for none.
    pub main_pid: u32,
    /// What it says of itself.
    pub status_text: String,
    /// When its main process was started, realtime.
    pub started: Usec,
    /// When it became ready, realtime.
    pub became_ready: Usec,
}

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing runs and nothing will by itself.
    Stopped,
    /// It should start, but an old unit's name is not free yet.
    WaitingForName,
    /// Its checks run.
    Staging,
    /// Its engine loads.
    Starting,
    /// Its engine serves, since that monotonic time.
    Ready {
        /// When it was seen to be ready.
        since: Usec,
    },
    /// Its engine ends; nobody asked for it, and how it ended is not known yet.
    Ending,
    /// It was asked to stop.
    Stopping,
    /// It failed and will be started again.
    Backoff {
        /// The timer that starts it.
        timer: TimerId,
        /// For how long, and why.
        pause: Pause,
    },
    /// It failed and waits for the pool's breaker.
    Tripped,
    /// It failed and will not be started again by itself.
    Failed,
}

impl Replica {
    /// A replica that never ran.
    #[must_use]
    pub fn new(id: ReplicaId) -> Self {
        Replica {
            id,
            phase: Phase::Stopped,
            generation: 1,
            next_generation: 1,
            revision: None,
            endpoint: None,
            engine_version: String::new(),
            devices: Part::default(),
            taken: BTreeMap::new(),
            failures: 0,
            ports_tried: 0,
            stuck: None,
            last_exit: None,
            unit: Seen::default(),
            report: None,
            leases: 0,
            steady: None,
            reached: Reached::default(),
            condemned: None,
            start_anew: false,
            as_before: false,
        }
    }

    /// How many leases it gives at most; `None`: without limit.
    #[must_use]
    pub fn capacity(&self, numbers: &LeaseNumbers) -> Option<u32> {
        numbers.capacity.or_else(|| self.report.as_ref().and_then(|report| report.slots))
    }

    /// How many requests its engine works on, where it says.
    #[must_use]
    pub fn in_flight(&self) -> Option<u32> {
        self.report.as_ref().filter(|_| self.ready()).and_then(|report| report.in_flight)
    }

    /// Its devices as a mask; "" where it should have some and has none yet.
    #[must_use]
    pub fn device_mask(&self, spec: &PoolSpec) -> String {
        let waits = self.devices.is_empty() && spec.devices.wish != DeviceWish::None;
        if waits { String::new() } else { Part::mask([&self.devices]) }
    }

    /// The name of its unit of that kind.
    #[must_use]
    pub fn unit_name(&self, kind: UnitKind) -> UnitName {
        UnitName { kind, replica: self.id.clone(), generation: self.generation }
    }

    /// Whether that unit is the one which it runs by now: the others that it has are on their way out.
    #[must_use]
    pub fn in_use(&self, name: &UnitName) -> bool {
        let kind = match self.phase {
            Phase::Staging => UnitKind::Stage,
            Phase::Starting | Phase::Ready { .. } | Phase::Ending => UnitKind::Engine,
            Phase::Stopped
            | Phase::WaitingForName
            | Phase::Stopping
            | Phase::Backoff { .. }
            | Phase::Tripped
            | Phase::Failed => {
                return false;
            }
        };
        *name == self.unit_name(kind)
    }

    /// Whether its main process lives and is not known to hang.
    #[must_use]
    pub fn live(&self) -> bool {
        self.engine_runs() && self.unit.main_pid != 0 && self.condemned.is_none()
    }

    /// Whether it serves.
    #[must_use]
    pub fn ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// Whether its engine exited with status 0 although nobody had asked it to stop.
    #[must_use]
    pub fn ended_as_meant(&self) -> bool {
        self.phase == Phase::Stopped && self.last_exit == Some(ExitClass::Exit(0))
    }

    /// Whether it ended in a way after which nothing but somebody's wish starts it.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.last_exit == Some(ExitClass::Stopped) || self.ended_as_meant()
    }

    /// What it waits for before its restart, and by which timer.
    #[must_use]
    pub fn pause(&self) -> Option<(Pause, TimerId)> {
        match self.phase {
            Phase::Backoff { timer, pause } => Some((pause, timer)),
            Phase::Stopped
            | Phase::WaitingForName
            | Phase::Staging
            | Phase::Starting
            | Phase::Ready { .. }
            | Phase::Ending
            | Phase::Stopping
            | Phase::Tripped
            | Phase::Failed => None,
        }
    }

    /// Whether an engine of it loads or serves.
    #[must_use]
    pub fn engine_runs(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Ready { .. })
    }

    /// Whether nothing of it runs or is on its way: it is down, or waits.
    #[must_use]
    pub fn idle(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Failed) || self.waits()
    }

    /// Whether it is down and waits for its restart or for a breaker.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.phase, Phase::Backoff { .. } | Phase::Tripped)
    }

    /// Whether it is done with everything: no process, no unit, no timer.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Failed) && self.taken.is_empty()
    }
}

impl Phase {
    /// As it is published.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Phase::Stopped => "stopped",
            Phase::WaitingForName | Phase::Staging => "staging",
            Phase::Starting => "starting",
            Phase::Ready { .. } => "ready",
            Phase::Ending | Phase::Stopping => "stopping",
            Phase::Backoff { .. } => "backoff",
            Phase::Tripped => "tripped",
            Phase::Failed => "failed",
        }
    }
}
