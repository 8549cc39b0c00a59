//! The interfaces of the bus, member by member, without any policy. Times are microseconds: `usec` names a length,
//! `timestamp` the real time since the epoch. What is absent is 0, "" or empty. `dbus/*.xml` says more of each.
//!
//! [`Client`](super::Client) makes these proxies, without a cache of properties: every getter asks the daemon, so
//! that nothing goes stale when the daemon is restarted.

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
    fn start_pool(&self, id: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Stops a pool, until it is started again; gives the job. No option is known yet.
    fn stop_pool(&self, id: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Empties a pool and stops it; gives the job. 0 microseconds: what the pool's file says. No option is known yet.
    fn drain_pool(
        &self,
        id: &str,
        deadline_usec: u64,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Gives a pool another model, or (where that is "") the settings of its file; gives the job. Options: `deadline_usec` (t),
    /// `strategy` (s) and `force` (b).
    fn reload_pool(
        &self,
        id: &str,
        model: &str,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Forgets a pool's failures.
    fn reset_pool(&self, id: &str) -> zbus::Result<()>;

    /// Takes a lease of a pool. No option is known yet.
    fn allocate_lease(&self, id: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<AllocatedLease>;

    /// Ends a lease.
    fn release_lease(&self, lease: &str) -> zbus::Result<()>;

    /// Why a pool is as it is: `ready` (b), `live` (b), `phase` (s), `summary` (s), `reasons` (aa{sv}).
    fn explain(&self, id: &str) -> zbus::Result<Named>;

    /// Reads all configuration files again; gives the ids of the added, changed and removed pools.
    fn reload_configuration(&self) -> zbus::Result<(Vec<String>, Vec<String>, Vec<String>)>;

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;

    /// The version of the running systemd.
    #[zbus(property(emits_changed_signal = "false"))]
    fn systemd_version(&self) -> zbus::Result<String>;

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
}

/// One pool.
#[zbus::proxy(interface = "org.llamaorch.PoolManager.Pool", default_service = "org.llamaorch.PoolManager")]
pub trait Pool {
    /// Starts the pool; gives the job. No option is known yet.
    fn start(&self, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Stops the pool, until it is started again; gives the job. No option is known yet.
    fn stop(&self, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Empties the pool and stops it; gives the job. 0 microseconds: what its file says. No option is known yet.
    fn drain(&self, deadline_usec: u64, options: HashMap<&str, Variant<'_>>)
    -> zbus::Result<OwnedObjectPath>;

    /// Gives the pool another model, or (where that is "") the settings of its file; gives the job. Options as of
    /// [`ManagerProxy::reload_pool`].
    fn reload(&self, model: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Forgets the pool's failures.
    fn reset(&self) -> zbus::Result<()>;

    /// Takes a lease of the pool. No option is known yet.
    fn allocate_lease(&self, options: HashMap<&str, Variant<'_>>) -> zbus::Result<AllocatedLease>;

    /// The pool's id.
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<String>;

    /// "resident" or "manual".
    #[zbus(property(emits_changed_signal = "false"))]
    fn activation(&self) -> zbus::Result<String>;

    /// The pool's file.
    #[zbus(property(emits_changed_signal = "false"))]
    fn config_path(&self) -> zbus::Result<String>;

    /// "stopped", "staging", "starting", "ready", "draining", "stopping", "backoff", "tripped", "failed", or a later
    /// version's word.
    #[zbus(property(emits_changed_signal = "false"))]
    fn phase(&self) -> zbus::Result<String>;

    /// At least one engine runs and is not known to hang.
    #[zbus(property(emits_changed_signal = "false"))]
    fn live(&self) -> zbus::Result<bool>;

    /// At least one engine answers requests, and the pool is not draining.
    #[zbus(property(emits_changed_signal = "false"))]
    fn ready(&self) -> zbus::Result<bool>;

    /// It is being emptied.
    #[zbus(property(emits_changed_signal = "false"))]
    fn draining(&self) -> zbus::Result<bool>;

    /// The engine template's name.
    #[zbus(property(emits_changed_signal = "false"))]
    fn engine(&self) -> zbus::Result<String>;

    /// What the engine's program says of its version.
    #[zbus(property(emits_changed_signal = "false"))]
    fn engine_version(&self) -> zbus::Result<String>;

    /// The model's name.
    #[zbus(property(emits_changed_signal = "false"))]
    fn model_id(&self) -> zbus::Result<String>;

    /// Where the model lies.
    #[zbus(property(emits_changed_signal = "false"))]
    fn model_path(&self) -> zbus::Result<String>;

    /// "sha256:" and 64 hexadecimal digits, where the pool's file gives them.
    #[zbus(property(emits_changed_signal = "false"))]
    fn model_digest(&self) -> zbus::Result<String>;

    /// Ascending device indices joined by commas, or "none".
    #[zbus(property(emits_changed_signal = "false"))]
    fn device_mask(&self) -> zbus::Result<String>;

    /// The same devices by UUID.
    #[zbus(property(emits_changed_signal = "false"))]
    fn devices(&self) -> zbus::Result<Vec<String>>;

    /// How many engines the pool should have.
    #[zbus(property(emits_changed_signal = "false"))]
    fn replicas(&self) -> zbus::Result<u32>;

    /// How many of them are ready.
    #[zbus(property(emits_changed_signal = "false"))]
    fn ready_replicas(&self) -> zbus::Result<u32>;

    /// The replicas' objects, in the order of their numbers.
    #[zbus(property(emits_changed_signal = "false"))]
    fn replica_objects(&self) -> zbus::Result<Vec<OwnedObjectPath>>;

    /// Where the ready engines answer.
    #[zbus(property(emits_changed_signal = "false"))]
    fn endpoints(&self) -> zbus::Result<Vec<String>>;

    /// How many leases the ready engines give together; 0: without limit, or none is ready.
    #[zbus(property(emits_changed_signal = "false"))]
    fn lease_capacity(&self) -> zbus::Result<u32>;

    /// How many leases are held.
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_leases(&self) -> zbus::Result<u32>;

    /// How many requests the ready engines work on at once; 0: unknown.
    #[zbus(property(emits_changed_signal = "false"))]
    fn slots_total(&self) -> zbus::Result<u32>;

    /// `slots_total` less `in_flight`.
    #[zbus(property(emits_changed_signal = "false"))]
    fn slots_free(&self) -> zbus::Result<u32>;

    /// Requests that the engines work on or keep waiting; 0: none, or unknown.
    #[zbus(property(emits_changed_signal = "false"))]
    fn in_flight(&self) -> zbus::Result<u32>;

    /// The last error, in words; it stays when the pool is ready again.
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_error(&self) -> zbus::Result<String>;

    /// Its class, for instance "exit:1".
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_error_class(&self) -> zbus::Result<String>;

    /// When it was seen.
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_error_timestamp(&self) -> zbus::Result<u64>;

    /// How often engines were started again after a failure.
    #[zbus(property(emits_changed_signal = "false"))]
    fn restart_count(&self) -> zbus::Result<u32>;

    /// The length of the wait before the next start.
    #[zbus(name = "BackoffUSec", property(emits_changed_signal = "false"))]
    fn backoff_usec(&self) -> zbus::Result<u64>;

    /// When the next start is due.
    #[zbus(property(emits_changed_signal = "false"))]
    fn next_restart_timestamp(&self) -> zbus::Result<u64>;

    /// "closed", "open" or "half-open".
    #[zbus(property(emits_changed_signal = "false"))]
    fn breaker(&self) -> zbus::Result<String>;

    /// Identifies the settings that the engines run with.
    #[zbus(property(emits_changed_signal = "false"))]
    fn spec_digest(&self) -> zbus::Result<String>;

    /// When the phase last changed.
    #[zbus(property(emits_changed_signal = "false"))]
    fn state_change_timestamp(&self) -> zbus::Result<u64>;

    /// An engine runs with settings other than those loaded from the file.
    #[zbus(property(emits_changed_signal = "false"))]
    fn needs_reload(&self) -> zbus::Result<bool>;

    /// The keys whose values differ.
    #[zbus(property(emits_changed_signal = "false"))]
    fn pending(&self) -> zbus::Result<Vec<String>>;

    /// Why the pool is in its phase, in words.
    #[zbus(property(emits_changed_signal = "false"))]
    fn detail(&self) -> zbus::Result<String>;
}

/// One engine of a pool.
#[zbus::proxy(interface = "org.llamaorch.PoolManager.Replica", default_service = "org.llamaorch.PoolManager")]
pub trait Replica {
    /// The pool's id and the replica's number: "chat-r0".
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<String>;

    /// The pool's object.
    #[zbus(property(emits_changed_signal = "false"))]
    fn pool(&self) -> zbus::Result<OwnedObjectPath>;

    /// The unit of the engine, or of the checks before it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn unit(&self) -> zbus::Result<String>;

    /// systemd's id of this run of the unit, 16 bytes.
    #[zbus(property(emits_changed_signal = "false"))]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;

    /// The engine's main process.
    #[zbus(property(emits_changed_signal = "false"))]
    fn main_pid(&self) -> zbus::Result<u32>;

    /// As a pool's.
    #[zbus(property(emits_changed_signal = "false"))]
    fn phase(&self) -> zbus::Result<String>;

    /// The engine's main process runs and is not known to hang.
    #[zbus(property(emits_changed_signal = "false"))]
    fn live(&self) -> zbus::Result<bool>;

    /// The engine answers requests.
    #[zbus(property(emits_changed_signal = "false"))]
    fn ready(&self) -> zbus::Result<bool>;

    /// Where the engine answers; set before it is ready.
    #[zbus(property(emits_changed_signal = "false"))]
    fn endpoint(&self) -> zbus::Result<String>;

    /// The engine's devices, by UUID.
    #[zbus(property(emits_changed_signal = "false"))]
    fn devices(&self) -> zbus::Result<Vec<String>>;

    /// What the unit says of itself.
    #[zbus(property(emits_changed_signal = "false"))]
    fn status_text(&self) -> zbus::Result<String>;

    /// How many leases of it are held.
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_leases(&self) -> zbus::Result<u32>;

    /// Requests that it works on or keeps waiting; 0: none, or unknown.
    #[zbus(property(emits_changed_signal = "false"))]
    fn in_flight(&self) -> zbus::Result<u32>;

    /// How the last run ended, for instance "exit:1".
    #[zbus(property(emits_changed_signal = "false"))]
    fn exit_class(&self) -> zbus::Result<String>;

    /// When the engine was started.
    #[zbus(property(emits_changed_signal = "false"))]
    fn start_timestamp(&self) -> zbus::Result<u64>;

    /// When this run became ready.
    #[zbus(property(emits_changed_signal = "false"))]
    fn ready_timestamp(&self) -> zbus::Result<u64>;
}

/// A start, a stop, a drain or a reload that somebody asked for. It can be read for 60 s after it ended.
#[zbus::proxy(interface = "org.llamaorch.PoolManager.Job", default_service = "org.llamaorch.PoolManager")]
pub trait Job {
    /// Replies when the job ends, with its result.
    fn wait(&self) -> zbus::Result<String>;

    /// Calls a drain or a reload off.
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

    /// What it waits for or does, in words.
    #[zbus(property(emits_changed_signal = "false"))]
    fn detail(&self) -> zbus::Result<String>;

    /// Numbers: `force_stopped` (b), `rolled_back` (b), `leases_left` (u), `duration_usec` (t).
    #[zbus(property(emits_changed_signal = "false"))]
    fn details(&self) -> zbus::Result<Named>;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    const CONTRACT: [(&str, &str); 4] = [
        ("Manager", include_str!("../../dbus/org.llamaorch.PoolManager.xml")),
        ("Pool", include_str!("../../dbus/org.llamaorch.PoolManager.Pool.xml")),
        ("Replica", include_str!("../../dbus/org.llamaorch.PoolManager.Replica.xml")),
        ("Job", include_str!("../../dbus/org.llamaorch.PoolManager.Job.xml")),
    ];

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
        for (interface, xml) in CONTRACT {
            assert_eq!(offered(include_str!("proxy.rs"), interface), promised(xml), "{interface}");
        }
    }
}
