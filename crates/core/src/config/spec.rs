//! A pool as it is wanted: every value checked, every default filled in.

use super::{Reach, Resources, Restart};
use crate::cpu::CpuWish;
use crate::device::DeviceMask;
use crate::engine::EngineTemplate;
use crate::name::{PoolId, Usec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pool as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The pool.
    pub id: PoolId,
    /// The file that says so.
    pub path: String,
    /// Name of the engine template.
    pub engine: String,
    /// The template as it was when the file was read.
    pub template: EngineTemplate,
    /// The program: the pool's own, else the template's.
    pub program: String,
    /// Absolute path of the model.
    pub model: String,
    /// SHA-256 of the model, 64 lower-case hex digits.
    pub digest: Option<String>,
    /// Arguments after the template's.
    pub args: Vec<String>,
    /// Environment variables, the pool's over the template's.
    pub env: BTreeMap<String, String>,
    /// What it reaches beyond its program and its model.
    #[serde(default)]
    pub reach: Reach,
    /// How many engines, at least 1.
    pub replicas: u16,
    /// Whether it starts by itself.
    pub activation: Activation,
    /// Where it listens.
    pub listen: Listen,
    /// Readiness.
    pub health: Health,
    /// What each engine may use.
    #[serde(default)]
    pub resources: Resources,
    /// What follows a failure.
    #[serde(default)]
    pub restart: Restart,
    /// How it drains.
    #[serde(default)]
    pub drain: DrainNumbers,
    /// How many leases it gives.
    #[serde(default)]
    pub leases: LeaseNumbers,
    /// What a changed file does to it while it runs.
    #[serde(default)]
    pub on_change: OnChange,
    /// Where each engine computes.
    #[serde(default)]
    pub cpus: CpuWish,
    /// The devices that its engines compute on.
    #[serde(default)]
    pub devices: DeviceMask,
}

/// `[drain]`: how a pool is emptied before its engines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainNumbers {
    /// After this time what is left is stopped by force. Default 5 min.
    pub deadline: Usec,
    /// So long it waits at least after ready turned false, for balancers that take no leases. Default 10 s.
    pub settle: Usec,
}

impl Default for DrainNumbers {
    fn default() -> Self {
        DrainNumbers { deadline: Usec::from_secs(300), settle: Usec::from_secs(10) }
    }
}

/// `[leases]`: how much work is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseNumbers {
    /// Leases of each engine at most; `None`: what the engine says of its slots, else no limit.
    pub capacity: Option<u32>,
}

/// What a changed file does to a pool that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnChange {
    /// It is marked, and waits for somebody to apply it.
    #[default]
    Hold,
    /// The pool is drained and started anew with it.
    DrainFirst,
}

/// A spec and its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// SHA-256 of the spec, hex; two specs with one digest are the same.
    pub digest: String,
    /// The spec.
    pub spec: PoolSpec,
}

/// Whether a pool starts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// With the daemon, and as soon as its file is read.
    Resident,
    /// When somebody starts it.
    Manual,
}

impl Activation {
    /// As it is written and published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Activation::Resident => "resident",
            Activation::Manual => "manual",
        }
    }
}

/// Where a pool listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listen {
    /// On an address.
    Tcp {
        /// Address or name.
        host: String,
        /// The port.
        port: Port,
    },
    /// On a unix socket for each replica, and on no network.
    Unix,
}

/// A pool's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Port {
    /// From the daemon's range, kept by each replica.
    Auto,
    /// Replica N listens on this plus N.
    Fixed(u16),
}

/// When an engine counts as ready, and when one that was counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Longest time from start to ready; default 60 min.
    pub start_limit: Usec,
    /// Longest time without progress before ready; default 10 min.
    pub start_timeout: Usec,
    /// The time between two questions to an engine that is ready; default 2 s.
    pub interval: Usec,
    /// How long one answer is waited for; default 1 s.
    pub timeout: Usec,
    /// After how many refusals or bad answers in a row it is ended; default 3.
    pub failures: u32,
    /// How long it may be busy without progress; default 2 min.
    pub stall_timeout: Usec,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            start_limit: Usec::from_secs(3_600),
            start_timeout: Usec::from_secs(600),
            interval: Usec::from_secs(2),
            timeout: Usec::from_secs(1),
            failures: 3,
            stall_timeout: Usec::from_secs(120),
        }
    }
}

impl PoolSpec {
    /// The keys of the pool file in which two specs differ, as an operator would look for them.
    #[must_use]
    pub fn changed_keys(&self, other: &PoolSpec) -> Vec<&'static str> {
        [
            ("engine", self.engine != other.engine || self.template != other.template),
            ("program", self.program != other.program && self.template.program == other.template.program),
            ("model", self.model != other.model),
            ("digest", self.digest != other.digest),
            ("args", self.args != other.args),
            ("env", self.env != other.env && self.template.env == other.template.env),
            ("groups", self.reach.groups != other.reach.groups),
            ("files", self.reach.files != other.reach.files),
            ("credentials", self.reach.credentials != other.reach.credentials),
            ("devices", self.devices.wish != other.devices.wish),
            ("devices_per_replica", self.devices.per_replica != other.devices.per_replica),
            ("replicas", self.replicas != other.replicas),
            ("network.listen", self.listen != other.listen),
            ("network.allow", self.reach.allow != other.reach.allow),
            ("resources", self.resources != other.resources),
            ("health", self.health != other.health),
            ("health.warmup", self.reach.warmup != other.reach.warmup),
            ("resources.cpus", self.cpus != other.cpus),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// The last component of the model's path, which names it in logs.
    #[must_use]
    pub fn model_id(&self) -> &str {
        self.model.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }
}
