//! Who asks for something.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A connection of the bus that asked for something. Connections are told apart by their names, users by their uids.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Caller {
    /// Its unique name, which no other connection ever has; "" for the daemon itself.
    pub name: String,
    /// The user that it runs as.
    pub uid: u32,
    /// Its process; 0: unknown. Only said, never trusted: a process may be gone and its number another's.
    pub pid: u32,
    /// The unit that it runs in; "": unknown.
    pub unit: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        match (self.pid, self.unit.as_str()) {
            (0, _) => Ok(()),
            (pid, "") => write!(f, ", process {pid}"),
            (pid, unit) => write!(f, ", process {pid} in {unit}"),
        }
    }
}
