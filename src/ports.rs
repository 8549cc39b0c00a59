//! Owns what the loop needs of the world around it, as traits: systemd, files, probers, processors, devices, the clocks. `main` wires the real ones; the
//! simulation in `tests/simulation` wires scripted ones and runs the same loop on paused time.
//!
//! These are ports in the sense of plugs; those that engines listen on are the core's. Timers are tokio's, whose paused
//! time moves them. A call may take any time and may be dropped at any await; it has reached the other side or not.

use pool_core::config::Configuration;
use pool_core::cpu::Topology;
use pool_core::device::Inventory;
use pool_core::host::UnitFacts;
use pool_core::name::{UnitName, Usec};
use pool_core::replica::{Report, UnitObservation};
use pool_core::unit::{Property, UnitSpec};
use std::error::Error;
use std::future::Future;
use std::io;

/// What systemd can be asked for. Cheap to clone; calls of several clones may run at once.
pub trait Systemd: Clone + Send + Sync + 'static {
    /// Asks for a transient unit and its start. Properties that systemd would not set are left out, and named.
    fn start(&self, unit: &UnitSpec) -> impl Future<Output = Result<Vec<&'static str>, SystemdError>> + Send;

    /// Changes a property of a unit that runs, until it ends.
    fn change(
        &self,
        name: &UnitName,
        property: &Property,
    ) -> impl Future<Output = Result<(), SystemdError>> + Send;

    /// Asks for a unit's stop. That it is gone is told by an observation.
    fn stop(&self, name: &UnitName) -> impl Future<Output = Result<(), SystemdError>> + Send;

    /// Kills every process of a unit.
    fn kill(&self, name: &UnitName) -> impl Future<Output = Result<(), SystemdError>> + Send;

    /// Makes systemd forget that a unit failed, and with that the unit.
    fn forget(&self, name: &UnitName) -> impl Future<Output = Result<(), SystemdError>> + Send;

    /// What a unit may use and what it uses, at this moment.
    fn usage(&self, name: &UnitName) -> impl Future<Output = Result<Usage, SystemdError>> + Send;

    /// Reads all units of ours.
    fn units(&self) -> impl Future<Output = Result<Vec<UnitFacts>, SystemdError>> + Send;
}

/// What a unit may use and what it uses. A limit that is `None` is none, a use is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory, in bytes.
    pub memory_current: Option<u64>,
    /// The most memory that it has had at once.
    pub memory_peak: Option<u64>,
    /// Beyond this much it is slowed down.
    pub memory_high: Option<u64>,
    /// Beyond this much it is killed.
    pub memory_max: Option<u64>,
    /// Processes and threads.
    pub tasks_current: Option<u64>,
    /// So many of them at most.
    pub tasks_max: Option<u64>,
    /// CPU time that it has used.
    pub cpu_usage: Option<Usec>,
    /// CPU time that it may use in a second.
    pub cpu_quota: Option<Usec>,
}

/// Something systemd could not be asked or would not do.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus or systemd is away.
    #[error("systemd does not answer on the system bus")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The unit's name is in use.
    #[error("the unit exists already")]
    NameTaken,
    /// There is no such unit.
    #[error("no such unit")]
    NoSuchUnit,
    /// systemd refused, in its own words.
    #[error("{0}")]
    Refused(String),
}

/// What systemd said. Those of one unit come in the order in which they happened, and may be repeated. What a call has
/// led to by the time of its answer is said before it is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// A unit of ours, as it is now.
    Seen(UnitObservation),
    /// systemd has forgotten a unit of ours.
    Forgotten(UnitName),
    /// A job of a unit of ours ended with something else than success.
    JobFailed {
        /// Which unit.
        name: UnitName,
        /// systemd's word for how.
        result: String,
    },
    /// Signals may have been lost: systemd was executed anew or has read its units again.
    ReadAnew,
    /// The bus is gone.
    Disconnected,
}

/// The configuration's files. Cheap to clone.
pub trait Files: Clone + Send + Sync + 'static {
    /// Reads everything, however long a file system takes; never beside another reading.
    fn read(&self) -> impl Future<Output = Configuration> + Send;
}

/// Numbers that probers send of their engines, whoever they say that they are.
pub trait Probers: Send {
    /// The next report, and the unit that it is from.
    fn next(&mut self) -> impl Future<Output = io::Result<(UnitName, Report)>> + Send;
}

/// What this host computes with.
pub trait Processors: std::fmt::Debug + Send + Sync {
    /// The CPUs that run now, and their nodes; nothing, where the host does not say.
    fn read(&mut self) -> Topology;
}

/// What the kernel knows of devices.
pub trait Gpus: std::fmt::Debug + Send + Sync {
    /// Adds to an inventory what it does not say and the kernel does: which CPUs and which node a device is near to.
    fn complete(&mut self, inventory: &mut Inventory);
}

/// What an input of the core carries besides its event.
pub trait Clock: Send {
    /// Time since boot, suspend included.
    fn mono(&mut self) -> Usec;

    /// Time since the epoch.
    fn real(&mut self) -> Usec;

    /// Randomness.
    fn seed(&mut self) -> u64;
}
