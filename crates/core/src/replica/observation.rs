//! What was seen of a unit, in systemd's terms.

use crate::name::{InvocationId, UnitName, Usec};
use serde::{Deserialize, Serialize};

/// `ActiveState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActiveState {
    /// Not running, and nothing wrong.
    Inactive,
    /// On its way up.
    Activating,
    /// Up.
    Active,
    /// On its way down.
    Deactivating,
    /// It failed.
    Failed,
    /// A state of a newer systemd, or one that services are not in.
    Other,
}

impl ActiveState {
    /// From systemd's word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "inactive" => ActiveState::Inactive,
            "activating" => ActiveState::Activating,
            "active" | "reloading" | "refreshing" => ActiveState::Active,
            "deactivating" => ActiveState::Deactivating,
            "failed" => ActiveState::Failed,
            _ => ActiveState::Other,
        }
    }
}

/// A unit of ours as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitObservation {
    /// Which unit.
    pub name: UnitName,
    /// `InvocationID`.
    pub invocation: InvocationId,
    /// `ActiveState`.
    pub active: ActiveState,
    /// Whether `SubState` is `exited`: the main process is gone, the unit stays to be read.
    pub exited: bool,
    /// Whether it has been active in this invocation (`ActiveEnterTimestamp` is set).
    pub entered_active: bool,
    /// `MainPID`.
    pub main_pid: u32,
    /// `Result`.
    pub result: String,
    /// `ExecMainCode`.
    pub exec_code: i32,
    /// `ExecMainStatus`.
    pub exec_status: i32,
    /// `StatusText`.
    pub status_text: String,
    /// `ExecMainStartTimestamp`, realtime.
    pub started: Usec,
    /// `MemoryPeak`, in bytes; `None`: it is not known, or not to this systemd.
    #[serde(default)]
    pub memory_peak: Option<u64>,
}

impl UnitObservation {
    /// Whether the kernel killed it for want of memory.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        self.active == ActiveState::Failed && self.result == "oom-kill"
    }
}

impl UnitObservation {
    /// A unit that systemd has just been asked for.
    #[must_use]
    pub fn new(name: UnitName) -> Self {
        UnitObservation {
            name,
            invocation: InvocationId::default(),
            active: ActiveState::Activating,
            exited: false,
            entered_active: false,
            main_pid: 0,
            result: "success".to_owned(),
            exec_code: 0,
            exec_status: 0,
            status_text: String::new(),
            started: Usec::default(),
            memory_peak: None,
        }
    }
}
