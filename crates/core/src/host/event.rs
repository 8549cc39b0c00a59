//! What comes in, and what goes out.

use super::{Accepted, Answer, Caller, HostFacts, LogLine, RequestId, Saved, TimerId, UnitFacts};
use crate::config::Configuration;
use crate::cpu::Topology;
use crate::device::{DeviceUuid, Inventory, Quarantine};
use crate::lease::{Given, LeaseEnd, LeaseId};
use crate::name::{PoolId, ReplicaId, UnitName, Usec};
use crate::replica::{ExitClass, Hold, Report, UnitObservation};
use crate::unit::{Property, UnitSpec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The daemon started: what the files say, which units are there, what was saved.
    Started {
        /// The files.
        configuration: Configuration,
        /// Units of ours that systemd has.
        units: Vec<UnitFacts>,
        /// What the last run saved.
        saved: Box<Saved>,
        /// Pools that an operator stopped.
        stopped: BTreeSet<PoolId>,
        /// Devices that an operator took out of use.
        #[serde(default)]
        quarantined: BTreeMap<DeviceUuid, Quarantine>,
        /// Leases whose holders still have their descriptors.
        leases: Vec<Given>,
        /// What is known of the host.
        #[serde(default)]
        host: HostFacts,
    },
    /// A request was let pass.
    Asked {
        /// Which question.
        request: RequestId,
        /// Who asked.
        caller: Caller,
        /// What.
        accepted: Accepted,
    },
    /// A caller left the bus, by its unique name: nobody waits for its answers any more.
    CallerLeft(String),
    /// The files were read again.
    ConfigurationRead {
        /// What they say.
        configuration: Configuration,
        /// Who asked for it.
        requests: Vec<RequestId>,
    },
    /// A unit was seen.
    UnitSeen(UnitObservation),
    /// systemd has forgotten a unit.
    UnitForgotten(UnitName),
    /// systemd took a unit.
    UnitTaken(UnitName),
    /// systemd would not set these properties of a unit, which it took without them.
    PropertiesLeftOut(BTreeSet<String>),
    /// systemd did not take a unit.
    UnitRefused {
        /// Which.
        name: UnitName,
        /// Whether its name is in use.
        name_taken: bool,
        /// systemd's words.
        error: String,
    },
    /// A job of a unit ended with something else than success; what became of the unit is told by the unit.
    JobFailed {
        /// Which.
        name: UnitName,
        /// systemd's word for how.
        result: String,
    },
    /// systemd would not stop a unit.
    StopRefused {
        /// Which.
        name: UnitName,
        /// systemd's words.
        error: String,
    },
    /// All units were read anew, because signals may have been lost.
    UnitsRead {
        /// Those that were there or asked for when the reading began; one that was started since is not missing.
        asked: BTreeMap<UnitName, Hold>,
        /// Those of which something was said since: that is newer, or what is newer still will be said too.
        #[serde(default)]
        heard: BTreeSet<UnitName>,
        /// Those that are there.
        units: Vec<UnitFacts>,
    },
    /// A prober said how its engine stands.
    Reported {
        /// The unit that it is in.
        unit: UnitName,
        /// What it said.
        report: Report,
    },
    /// The CPUs of this host were looked at: these are all.
    CpusFound(Topology),
    /// An inventory was made of the devices: these are all.
    DevicesFound(Inventory),
    /// A lease is over, or never began.
    LeaseEnded {
        /// Which.
        lease: LeaseId,
        /// How.
        how: LeaseEnd,
    },
    /// An engine must not go on, because of something that systemd does not know: its device, for instance.
    EngineCondemned {
        /// Which.
        replica: ReplicaId,
        /// Why.
        class: ExitClass,
        /// In words.
        text: String,
    },
    /// What operators asked for was saved, or could not be.
    WishesSaved {
        /// Why not; `None`: it was.
        error: Option<String>,
    },
    /// A timer ran out.
    TimerFired(TimerId),
}

/// An event and all that `apply` may know besides the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Time since boot, suspend included.
    pub mono: Usec,
    /// Time since the epoch.
    pub real: Usec,
    /// Randomness.
    pub seed: u64,
    /// What happened.
    pub event: Event,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask systemd for a transient unit and its start.
    StartUnit(UnitSpec),
    /// Change a property of a unit that runs.
    ChangeUnit(UnitName, Property),
    /// Stop a unit.
    StopUnit(UnitName),
    /// Kill every process of a unit.
    KillUnit(UnitName),
    /// Make systemd forget a failed unit.
    ForgetUnit(UnitName),
    /// Start a timer.
    SetTimer(TimerId, Usec),
    /// Stop it.
    CancelTimer(TimerId),
    /// Save [`State::saved`](super::State::saved) to survive a restart of the daemon.
    SaveRuntime,
    /// Save [`State::stopped`](super::State::stopped) and which devices are out of use to survive a reboot.
    SaveWishes,
    /// Make a lease's descriptor, for the caller whose answer follows.
    OpenLease(Given),
    /// Keep a lease's descriptor with other terms.
    RenewLease(Given),
    /// End a lease's descriptor.
    CloseLease(LeaseId),
    /// Tell everybody that a lease has ended before its holder ended it.
    LeaseRevoked {
        /// Which.
        lease: LeaseId,
        /// Why.
        reason: String,
    },
    /// Answer a caller, after the signals of what it is told.
    Reply(RequestId, Answer),
    /// A caller that waited is gone: nobody is answered.
    ForgetCaller(RequestId),
    /// Write to the journal.
    Log(LogLine),
}

/// Effects in the order in which they are carried out.
pub type Effects = Vec<Effect>;
