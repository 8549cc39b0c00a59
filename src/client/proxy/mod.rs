//! The interfaces of the bus, member by member, without any policy. Times are microseconds: `usec` names a length,
//! `timestamp` the real time since the epoch. What is absent is 0, "" or empty. `dbus/*.xml` says more of each.
//!
//! [`Client`](super::Client) makes these proxies, without a cache of properties: every getter asks the daemon, so
//! that nothing goes stale when the daemon is restarted.

mod device;
mod pool;

pub use device::DeviceProxy;
pub use pool::{PoolProxy, ReplicaProxy};

use std::collections::HashMap;
use zbus::{ObjectPath, OwnedFd, OwnedObjectPath, OwnedVariant, Variant};

/// A row of [`ManagerProxy::list_pools`]: id, object, phase, live, ready, active leases.
pub type ListedPool = (String, OwnedObjectPath, String, bool, bool, u32);

/// What [`ManagerProxy::allocate_lease`] and [`PoolProxy::allocate_lease`] give: the lease's id, where its engine
/// answers, and the descriptor that it lives by.
pub type AllocatedLease = (String, String, OwnedFd);

/// Values by their names.
pub type Named = HashMap<String, OwnedVariant>;

/// All pools of this host.
#[zbus::proxy(
    interface = "org.llamaorch.PoolManager",
    default_service = "org.llamaorch.PoolManager",
    default_path = "/org/llamaorch/PoolManager"
)]
pub trait Manager {
    /// Lists all pools, sorted by id.
    fn list_pools(&self) -> zbus::Result<Vec<ListedPool>>;

    /// Finds a pool's object.
    fn get_pool(&self, id: &str) -> zbus::Result<OwnedObjectPath>;

    /// Whether a pool is live, and whether it is ready.
    fn get_health(&self, id: &str) -> zbus::Result<(bool, bool)>;

    /// Replies once the pool is ready. 0 and `u64::MAX` microseconds wait without limit.
    fn wait_ready(&self, id: &str, timeout_usec: u64) -> zbus::Result<()>;

    /// Starts a pool; gives the job. No option is known yet.
    #[zbus(allow_interactive_auth)]
    fn start_pool(&self, id: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Stops a pool, until it is started again; gives the job. No option is known yet.
    #[zbus(allow_interactive_auth)]
    fn stop_pool(&self, id: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Empties a pool and stops it; gives the job. 0 microseconds: what the pool's file says. No option is known yet.
    #[zbus(allow_interactive_auth)]
    fn drain_pool(
        &self,
        id: &str,
        deadline_usec: u64,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Gives a pool another model, or (where that is "") the settings of its file; gives the job. Options: `deadline_usec` (t),
    /// `strategy` (s) and `force` (b).
    #[zbus(allow_interactive_auth)]
    fn reload_pool(
        &self,
        id: &str,
        model: &str,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Forgets a pool's failures.
    #[zbus(allow_interactive_auth)]
    fn reset_pool(&self, id: &str) -> zbus::Result<()>;

    /// Takes a lease of a pool. Options: `wait_usec` (t), how long to wait for one; `ttl_usec` (t), when it ends unless it
    /// is renewed; `holder` (s), who has it, in words.
    #[zbus(allow_interactive_auth)]
    fn allocate_lease(&self, id: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<AllocatedLease>;

    /// Ends a lease.
    #[zbus(allow_interactive_auth)]
    fn release_lease(&self, lease: &str) -> zbus::Result<()>;

    /// Lets a lease last for `ttl_usec` from now.
    #[zbus(allow_interactive_auth)]
    fn renew_lease(&self, lease: &str, ttl_usec: u64) -> zbus::Result<()>;

    /// All numbers that change fast, of every pool by its id and of every device by its UUID.
    fn get_statistics(&self) -> zbus::Result<Vec<(String, Named)>>;

    /// Takes up a pool whose engines somebody else runs; gives its object. Options: `engine` (s), `endpoint` (s) and
    /// `heartbeat_timeout_usec` (t).
    #[zbus(allow_interactive_auth)]
    fn register_pool(&self, id: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Forgets an external pool.
    #[zbus(allow_interactive_auth)]
    fn unregister_pool(&self, id: &str) -> zbus::Result<()>;

    /// Reports whether an external pool is live and ready.
    #[zbus(allow_interactive_auth)]
    fn set_health(&self, id: &str, live: bool, ready: bool) -> zbus::Result<()>;

    /// Reports when an external pool was last known to work.
    #[zbus(allow_interactive_auth)]
    fn set_heartbeat(&self, id: &str, timestamp: u64) -> zbus::Result<()>;

    /// Reports the version of an external pool.
    #[zbus(allow_interactive_auth)]
    fn set_version(&self, id: &str, version: &str) -> zbus::Result<()>;

    /// Reports the last error of an external pool.
    #[zbus(allow_interactive_auth)]
    fn set_last_error(&self, id: &str, error: &str) -> zbus::Result<()>;

    /// Why a pool is as it is: `ready` (b), `live` (b), `phase` (s), `summary` (s), `reasons` (aa{sv}).
    fn explain(&self, id: &str) -> zbus::Result<Named>;

    /// Reads all configuration files again; gives the ids of the added, changed and removed pools.
    #[zbus(allow_interactive_auth)]
    fn reload_configuration(&self) -> zbus::Result<(Vec<String>, Vec<String>, Vec<String>)>;

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;

    /// The version of the running systemd.
    #[zbus(property(emits_changed_signal = "false"))]
    fn systemd_version(&self) -> zbus::Result<String>;

    /// The version of the GPU driver.
    #[zbus(property(emits_changed_signal = "false"))]
    fn driver_version(&self) -> zbus::Result<String>;

    /// The version of the library that asks the driver.
    #[zbus(property(emits_changed_signal = "false"))]
    fn nvml_version(&self) -> zbus::Result<String>;

    /// Raised with every publication.
    #[zbus(property(emits_changed_signal = "false"))]
    fn generation(&self) -> zbus::Result<u64>;

    /// How many pools there are.
    #[zbus(property(emits_changed_signal = "false"))]
    fn pool_count(&self) -> zbus::Result<u32>;

    /// How many of them are ready.
    #[zbus(property(emits_changed_signal = "false"))]
    fn ready_pool_count(&self) -> zbus::Result<u32>;

    /// How many replicas all pools have together.
    #[zbus(property(emits_changed_signal = "false"))]
    fn replica_count(&self) -> zbus::Result<u32>;

    /// How many leases are held, of all pools together.
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_leases(&self) -> zbus::Result<u32>;

    /// What is wrong with configuration files now: path and error.
    #[zbus(property(emits_changed_signal = "false"))]
    fn configuration_errors(&self) -> zbus::Result<Vec<(String, String)>>;

    /// Optional abilities of this daemon, each one word.
    #[zbus(property(emits_changed_signal = "false"))]
    fn features(&self) -> zbus::Result<Vec<String>>;

    /// Conditions of this host under which the daemon cannot keep a promise, each one word.
    #[zbus(property(emits_changed_signal = "false"))]
    fn tainted(&self) -> zbus::Result<Vec<String>>;

    /// When the daemon started.
    #[zbus(property(emits_changed_signal = "false"))]
    fn start_timestamp(&self) -> zbus::Result<u64>;

    /// A pool was added.
    #[zbus(signal)]
    fn pool_added(&self, id: &str, path: ObjectPath<'_>) -> zbus::Result<()>;

    /// A pool was removed.
    #[zbus(signal)]
    fn pool_removed(&self, id: &str, path: ObjectPath<'_>) -> zbus::Result<()>;

    /// A pool's health has changed; sent for every change.
    #[zbus(signal)]
    fn health_changed(&self, id: &str, live: bool, ready: bool, reason: &str) -> zbus::Result<()>;

    /// A job was accepted.
    #[zbus(signal)]
    fn job_new(&self, id: u32, path: ObjectPath<'_>, pool: &str, operation: &str) -> zbus::Result<()>;

    /// A job has ended.
    #[zbus(signal)]
    fn job_removed(&self, id: u32, path: ObjectPath<'_>, pool: &str, result: &str) -> zbus::Result<()>;

    /// A lease is over that its holder did not end.
    #[zbus(signal)]
    fn lease_revoked(&self, lease: &str, pool: &str, reason: &str) -> zbus::Result<()>;

    /// A device's health has changed.
    #[zbus(signal)]
    fn device_health_changed(&self, uuid: &str, health: &str, reason: &str) -> zbus::Result<()>;
}

/// A start, a stop, a drain or a reload that somebody asked for. It can be read for 60 s after it ended.
#[zbus::proxy(interface = "org.llamaorch.PoolManager.Job", default_service = "org.llamaorch.PoolManager")]
pub trait Job {
    /// Replies when the job ends, with its result.
    fn wait(&self) -> zbus::Result<String>;

    /// Calls a drain or a reload off.
    #[zbus(allow_interactive_auth)]
    fn cancel(&self) -> zbus::Result<()>;

    /// The job's number.
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<u32>;

    /// The pool's object.
    #[zbus(property(emits_changed_signal = "false"))]
    fn pool(&self) -> zbus::Result<OwnedObjectPath>;

    /// "start", "stop", "drain" or "reload".
    #[zbus(property(emits_changed_signal = "false"))]
    fn operation(&self) -> zbus::Result<String>;

    /// "running" or "done".
    #[zbus(property(emits_changed_signal = "false"))]
    fn state(&self) -> zbus::Result<String>;

    /// "done", "failed", "canceled", "timeout", "superseded" or a later version's word; empty while it runs.
    #[zbus(property(emits_changed_signal = "false"))]
    fn result(&self) -> zbus::Result<String>;

    /// Why it did not end as "done", in words.
    #[zbus(property(emits_changed_signal = "false"))]
    fn error(&self) -> zbus::Result<String>;

    /// How much of it is done, from 0 to 1.
    #[zbus(property(emits_changed_signal = "false"))]
    fn progress(&self) -> zbus::Result<f64>;

    /// What it waits for or does, in words.
    #[zbus(property(emits_changed_signal = "false"))]
    fn detail(&self) -> zbus::Result<String>;

    /// Numbers: `force_stopped` (b), `rolled_back` (b), `leases_left` (u), `duration_usec` (t).
    #[zbus(property(emits_changed_signal = "false"))]
    fn details(&self) -> zbus::Result<Named>;
}

/// Interfaces, and the contract of each.
#[cfg(test)]
pub(super) const CONTRACT: [(&str, &str); 5] = [
    ("org.llamaorch.PoolManager", include_str!("../../../dbus/org.llamaorch.PoolManager.xml")),
    ("org.llamaorch.PoolManager.Pool", include_str!("../../../dbus/org.llamaorch.PoolManager.Pool.xml")),
    (
        "org.llamaorch.PoolManager.Replica",
        include_str!("../../../dbus/org.llamaorch.PoolManager.Replica.xml"),
    ),
    ("org.llamaorch.PoolManager.Job", include_str!("../../../dbus/org.llamaorch.PoolManager.Job.xml")),
    ("org.llamaorch.PoolManager.Device", include_str!("../../../dbus/org.llamaorch.PoolManager.Device.xml")),
];

#[cfg(test)]
mod tests {
    use super::CONTRACT;
    use std::collections::BTreeSet;

    /// The members that an interface's contract names, properties with their types.
    fn promised(xml: &str) -> BTreeSet<String> {
        let attribute = |line: &str, name: &str| {
            line.split_once(&format!(" {name}=\""))
                .and_then(|(_, rest)| rest.split('"').next())
                .map(str::to_owned)
        };
        let member = |line: &str| match line.trim_start().split(' ').next()? {
            "<method" | "<signal" => attribute(line, "name"),
            "<property" => Some(attribute(line, "name")? + " " + &attribute(line, "type")?),
            _ => None,
        };
        xml.lines().filter_map(member).collect()
    }

    /// The members of a proxy, in the same form.
    fn offered(source: &str, interface: &str) -> BTreeSet<String> {
        let (_, body) = source.split_once(&format!("pub trait {interface} {{")).unwrap();
        let (body, _) = body.split_once("\n}\n").unwrap();
        let mut members = BTreeSet::new();
        let mut attribute = "";
        for line in body.lines().map(str::trim_start) {
            if line.starts_with("#[") {
                attribute = line;
            } else if let Some((name, rest)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('))
            {
                let mut member: String = name.split('_').map(capitalized).collect();
                if let Some((_, named)) = attribute.split_once("name = \"") {
                    member = named.split('"').next().unwrap().to_owned();
                }
                if attribute.contains("property") {
                    member += " ";
                    member += signature(rest);
                }
                members.insert(member);
                attribute = "";
            }
        }
        members
    }

    fn capitalized(word: &str) -> String {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    }

    fn signature(returns: &str) -> &'static str {
        let (_, result) = returns.split_once("zbus::Result<").unwrap();
        match result.strip_suffix(">;").unwrap() {
            "String" => "s",
            "bool" => "b",
            "u32" => "u",
            "u64" => "t",
            "i32" => "i",
            "f64" => "d",
            "OwnedObjectPath" => "o",
            "Vec<u8>" => "ay",
            "Vec<String>" => "as",
            "Vec<OwnedObjectPath>" => "ao",
            "Vec<(String, String)>" => "a(ss)",
            "Named" => "a{sv}",
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_proxies_have_the_members_of_the_contract() {
        let sources = concat!(include_str!("mod.rs"), include_str!("pool.rs"), include_str!("device.rs"));
        for (interface, xml) in CONTRACT {
            let name = interface.strip_prefix("org.llamaorch.PoolManager.").unwrap_or("Manager");
            assert_eq!(offered(sources, name), promised(xml), "{interface}");
        }
    }
}
