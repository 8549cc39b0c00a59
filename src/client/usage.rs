//! What an engine may use of its host and what it uses, and the lines of its unit.

use super::Client;
use super::error::Error;
use super::status::{Properties, ReplicaStatus};
use serde::Serialize;

/// What an engine may use and what it uses. A limit that is absent is none; a use that is absent is not known. Serialized,
/// this is a part of what `poolctl status --json` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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
    /// CPU time that it has used, in microseconds.
    pub cpu_usage_usec: Option<u64>,
    /// CPU time that it may use in a second, in microseconds.
    pub cpu_quota_usec: Option<u64>,
    /// Control group controllers that this host does not have: what they limit is not limited.
    pub missing_controllers: Vec<String>,
}

/// A line of an engine's unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitLine {
    /// systemd's name of the property on the bus.
    pub name: String,
    /// Its value, as a unit file would say it.
    pub value: String,
    /// Why it is looser than for other engines; "": it is not.
    pub reason: String,
}

impl Client {
    /// What an engine may use and what it uses; systemd is asked for it. Nothing is known of one that does not run.
    ///
    /// # Errors
    /// The daemon cannot be asked.
    pub async fn usage(&self, replica: &ReplicaStatus) -> Result<Usage, Error> {
        let told = self.replica_at(replica.object.clone()).await?.get_usage().await?;
        let mut told = Properties(told);
        let missing_controllers = told.take("missing_controllers");
        let mut number = |name: &str| told.0.remove(name).and_then(|value| u64::try_from(value).ok());
        Ok(Usage {
            memory_current: number("memory_current"),
            memory_peak: number("memory_peak"),
            memory_high: number("memory_high"),
            memory_max: number("memory_max"),
            tasks_current: number("tasks_current"),
            tasks_max: number("tasks_max"),
            cpu_usage_usec: number("cpu_usage_usec"),
            cpu_quota_usec: number("cpu_quota_usec"),
            missing_controllers,
        })
    }

    /// The lines of an engine's unit, as the daemon sends them.
    ///
    /// # Errors
    /// The daemon cannot be asked.
    pub async fn unit_lines(&self, replica: &ReplicaStatus) -> Result<Vec<UnitLine>, Error> {
        let told = self.replica_at(replica.object.clone()).await?.get_unit_lines().await?;
        Ok(told.into_iter().map(|(name, value, reason)| UnitLine { name, value, reason }).collect())
    }
}
