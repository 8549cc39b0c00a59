//! Owns the served objects: one file per interface, the publisher that alone touches the object server, and the
//! errors by name. It runs on a thread and a bus connection of its own.
//!
//! Getters read the object's own last view: they cannot fail, and never ask the loop.

/// The properties in which two views differ, by name, with their new values.
macro_rules! changed {
    ($old:ident, $new:ident; $($name:literal: $field:ident => $value:expr,)*) => {{
        let mut changes = HashMap::new();
        $(if $old.$field != $new.$field {
            changes.insert($name, Variant::new($value));
        })*
        changes
    }};
}

mod access;
mod calls;
mod device;
mod error;
mod job;
mod log_control;
mod manager;
mod objects;
mod pool;
mod publisher;
mod raw;
mod replica;
mod server;
mod socket;

pub use error::Error;
pub use server::{ServeError, Server, Versions, client};

use pool_core::device::DeviceUuid;
use pool_core::name::{PoolId, ReplicaId, path_element};

/// The name on the bus.
pub const NAME: &str = "org.llamaorch.PoolManager";
/// The manager's object.
pub const ROOT: &str = "/org/llamaorch/PoolManager";

fn pool_path(id: &PoolId) -> String {
    format!("{ROOT}/pool/{}", path_element(id.as_str()))
}

fn replica_path(id: &ReplicaId) -> String {
    format!("{ROOT}/replica/{}", path_element(&id.to_string()))
}

fn device_path(uuid: &DeviceUuid) -> String {
    format!("{ROOT}/device/{}", path_element(uuid.as_str()))
}

fn job_path(id: u32) -> String {
    format!("{ROOT}/job/{id}")
}

/// An object path of ours. They are made of safe characters only, so "/" is never what it comes to.
fn path(text: String) -> zbus::OwnedObjectPath {
    zbus::OwnedObjectPath::try_from(text).unwrap_or_default()
}
