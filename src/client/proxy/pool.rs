//! Pools and their engines.

use super::{AllocatedLease, Named};
use std::collections::HashMap;
use zbus::{OwnedObjectPath, Variant};

/// One pool.
#[zbus::proxy(interface = "org.llamaorch.PoolManager.Pool", default_service = "org.llamaorch.PoolManager")]
pub trait Pool {
    /// Starts the pool; gives the job. No option is known yet.
    #[zbus(allow_interactive_auth)]
    fn start(&self, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Stops the pool, until it is started again; gives the job. No option is known yet.
    #[zbus(allow_interactive_auth)]
    fn stop(&self, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Empties the pool and stops it; gives the job. 0 microseconds: what its file says. No option is known yet.
    #[zbus(allow_interactive_auth)]
    fn drain(&self, deadline_usec: u64, options: HashMap<&str, Variant<'_>>)
    -> zbus::Result<OwnedObjectPath>;

    /// Gives the pool another model, or (where that is "") the settings of its file; gives the job. Options as of
    /// [`reload_pool`](super::ManagerProxy::reload_pool).
    #[zbus(allow_interactive_auth)]
    fn reload(&self, model: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Forgets the pool's failures.
    #[zbus(allow_interactive_auth)]
    fn reset(&self) -> zbus::Result<()>;

    /// Takes a lease of the pool. Options as of [`allocate_lease`](super::ManagerProxy::allocate_lease).
    #[zbus(allow_interactive_auth)]
    fn allocate_lease(&self, options: HashMap<&str, Variant<'_>>) -> zbus::Result<AllocatedLease>;

    /// The pool's id.
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<String>;

    /// Somebody else runs its engines and reports of them.
    #[zbus(property(emits_changed_signal = "false"))]
    fn external(&self) -> zbus::Result<bool>;

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

    /// The version of an external pool, as it was reported.
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;

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

    /// When an external pool was last known to work.
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_heartbeat(&self) -> zbus::Result<u64>;

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

    /// Memory of devices that the pool has reserved, in bytes.
    #[zbus(property(emits_changed_signal = "false"))]
    fn vram_reserved(&self) -> zbus::Result<u64>;

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
    /// What the engine may use of its host and what it uses, by names.
    fn get_usage(&self) -> zbus::Result<Named>;

    /// The engine's unit: name, value, and why the template loosens it.
    fn get_unit_lines(&self) -> zbus::Result<Vec<(String, String, String)>>;

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

    /// The processors that the engine may run on, as a list of ranges.
    #[zbus(property(emits_changed_signal = "false"))]
    fn allowed_cpus(&self) -> zbus::Result<String>;

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
