//! The record of what the loop took in: a head with the state that the first input met, then the inputs.

use super::State;
use serde::{Deserialize, Serialize};

/// The version of the format: every line is JSON, the first a [`RecordHead`], each further one an
/// [`Input`](super::Input).
pub const RECORD_VERSION: u32 = 2;

/// The first line of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHead {
    /// The version of the format.
    pub version: u32,
    /// The version of the daemon that wrote it.
    pub daemon: String,
    /// The state that the first input met.
    pub state: State,
}
