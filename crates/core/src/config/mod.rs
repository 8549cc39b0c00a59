//! Owns what an operator may write: a pool file's [`fragment`], checked against its engine template into a
//! [`PoolSpec`], and the daemon's own [`Settings`].
//!
//! Reading files and pointing at lines is the adapter's work; every error here names the key, so that it can.

mod check;
mod duration;
pub mod fragment;
mod health;
mod listen;
mod models;
mod ports;
mod reach;
mod resources;
mod restart;
mod size;
mod spec;
mod subnet;

pub use check::{check, is_mask, model_path};
pub use duration::parse_duration;
pub(crate) use models::seen;
pub use models::{MODEL_FOLDERS, check_model_folders, check_sight};
pub use ports::port_conflicts;
pub use reach::{Credential, Reach};
pub use resources::Resources;
pub use restart::{BreakerNumbers, Restart, RestartPolicy, StormNumbers};
pub use size::{Bytes, Size, parse_size};
pub use spec::{Activation, DrainNumbers, Health, LeaseNumbers, Listen, OnChange, PoolSpec, Port, Revision};
pub use subnet::Subnet;

use crate::device::Inventory;
use crate::name::PoolId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// One thing that is wrong in a file, at a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", key.join("."))]
pub struct SpecError {
    /// The key's path, for instance `["network", "listen"]`; empty for the file as a whole.
    pub key: Vec<&'static str>,
    /// What is wrong and what was expected.
    pub problem: String,
}

/// The daemon's own settings, from `pool-managerd.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Ports that `listen = "host:auto"` takes, lowest first.
    pub auto_ports: RangeInclusive<u16>,
    /// Folders of which an engine sees what its pool's file names alone.
    #[serde(default = "model_folders")]
    pub model_folders: Vec<String>,
}

fn model_folders() -> Vec<String> {
    MODEL_FOLDERS.map(str::to_owned).to_vec()
}

impl Default for Settings {
    fn default() -> Self {
        Settings { auto_ports: 20000..=20999, model_folders: model_folders() }
    }
}

/// A file that could not be used, with a text that names its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileError {
    /// The file's path.
    pub file: String,
    /// `line 3, column 1: …`.
    pub error: String,
}

/// Everything that was read from the configuration folders in one go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Configuration {
    /// The daemon's settings.
    pub settings: Settings,
    /// Pools whose files are right.
    pub pools: BTreeMap<PoolId, Revision>,
    /// Pools whose files are there but wrong; they run on as they are.
    pub broken: BTreeMap<PoolId, FileError>,
    /// Every error of every file, sorted by file.
    pub errors: Vec<FileError>,
    /// Whether a folder of pool files could not be read: a pool that is not here is not gone.
    #[serde(default)]
    pub incomplete: bool,
    /// The devices that are stated; `None`: their file is wrong, and what was known of them still holds.
    #[serde(default)]
    pub inventory: Option<Inventory>,
}
