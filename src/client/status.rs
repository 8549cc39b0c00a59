//! How the pools stand, as plain data made of one `GetManagedObjects`. Serialized, this is what `poolctl --json`
//! prints; fields are added, never taken away.
//!
//! A property that is missing, or of another type, is taken as absent: a newer or older daemon is no error.

use super::usage::Usage;
use serde::Serialize;
use std::collections::HashMap;
use zbus::fdo::ManagedObjects;
use zbus::names::OwnedInterfaceName;
use zbus::{OwnedObjectPath, OwnedVariant};

pub(super) const POOL: &str = "org.llamaorch.PoolManager.Pool";
const REPLICA: &str = "org.llamaorch.PoolManager.Replica";
pub(super) const JOB: &str = "org.llamaorch.PoolManager.Job";
pub(super) const DEVICE: &str = "org.llamaorch.PoolManager.Device";

/// How a pool stands. Timestamps are microseconds since the epoch; what is absent is 0, "" or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// The pool's id.
    pub id: String,
    /// "stopped", "staging", "starting", "ready", "draining", "stopping", "backoff", "tripped", "failed", or a later
    /// version's word.
    pub phase: String,
    /// When the phase last changed.
    pub state_change_timestamp: u64,
    /// At least one engine runs and is not known to hang.
    pub live: bool,
    /// At least one engine answers requests, and the pool is not draining.
    pub ready: bool,
    /// It is being emptied.
    pub draining: bool,
    /// "closed", "open" or "half-open": whether failures are followed by another start.
    pub breaker: String,
    /// Somebody else runs it and reports of it.
    pub external: bool,
    /// When it was last heard from.
    pub last_heartbeat: u64,
    /// The engine template's name; of an external pool, the kind of its engine.
    pub engine: String,
    /// What the engine's program says of its version.
    pub engine_version: String,
    /// Which version serves; of an external pool, as it was reported.
    pub version: String,
    /// The model's name.
    pub model_id: String,
    /// Where the model lies.
    pub model_path: String,
    /// Where the ready engines answer.
    pub endpoints: Vec<String>,
    /// Leases that are held.
    pub active_leases: u32,
    /// How many leases the ready engines give together; 0: without limit, or none is ready.
    pub lease_capacity: u32,
    /// How many requests the ready engines work on at once; 0: unknown.
    pub slots_total: u32,
    /// Those that are free.
    pub slots_free: u32,
    /// Requests that the engines work on or keep waiting; 0: none, or unknown.
    pub in_flight: u32,
    /// The last error, in words; it stays when the pool is ready again.
    pub last_error: String,
    /// Its class, for instance "exit:1".
    pub last_error_class: String,
    /// When it was seen.
    pub last_error_timestamp: u64,
    /// How often engines were started again after a failure.
    pub restart_count: u32,
    /// The length of the wait before the next start, in microseconds.
    pub backoff_usec: u64,
    /// When the next start is due.
    pub next_restart_timestamp: u64,
    /// An engine runs with settings other than those loaded from the file.
    pub needs_reload: bool,
    /// The keys whose values differ.
    pub pending: Vec<String>,
    /// Why the pool is in its phase, in words.
    pub detail: String,
    /// The number of the job that works on it; 0: none does.
    pub job: u32,
    /// What that job does: "start", "stop", "drain" or "reload".
    pub job_operation: String,
    /// How far that job is, in percent.
    pub job_percent: u32,
    /// The pool's file.
    pub config_path: String,
    /// "resident" or "manual".
    pub activation: String,
    /// Ascending device indices joined by commas, or "none".
    pub device_mask: String,
    /// The same devices by UUID.
    pub devices: Vec<String>,
    /// Memory of devices that is reserved for its engines, in bytes.
    pub vram_reserved: u64,
    /// Identifies the settings that the engines run with.
    pub spec_digest: String,
    /// The pool's engines, in the order of their numbers.
    pub replicas: Vec<ReplicaStatus>,
}

/// How an engine of a pool stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// The pool's id and the replica's number: "chat-r0".
    pub id: String,
    /// Its object on the bus.
    #[serde(skip)]
    pub object: OwnedObjectPath,
    /// What it may use and what it uses; absent where nobody asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The unit of the engine, or of the checks before it.
    pub unit: String,
    /// systemd's id of this run of the unit, 32 hexadecimal digits.
    pub invocation_id: String,
    /// The engine's main process.
    pub main_pid: u32,
    /// As a pool's.
    pub phase: String,
    /// The engine's main process runs and is not known to hang.
    pub live: bool,
    /// The engine answers requests.
    pub ready: bool,
    /// Where the engine answers; set before it is ready.
    pub endpoint: String,
    /// What the unit says of itself.
    pub status_text: String,
    /// How the last run ended, for instance "exit:1".
    pub exit_class: String,
    /// When the engine was started.
    pub start_timestamp: u64,
    /// When this run became ready.
    pub ready_timestamp: u64,
    /// Leases of it that are held.
    pub active_leases: u32,
    /// Requests that it works on or keeps waiting; 0: none, or unknown.
    pub in_flight: u32,
    /// The CPUs that it may use, as a list of ranges; empty: all of them.
    pub allowed_cpus: String,
    /// Its devices, by UUID, in the order in which it counts them.
    pub devices: Vec<String>,
}

/// The pools among the objects of the daemon, sorted by id.
pub(super) fn pools<I, N>(objects: impl IntoIterator<Item = (OwnedObjectPath, I)>) -> Vec<PoolStatus>
where
    I: IntoIterator<Item = (N, HashMap<String, OwnedVariant>)>,
    N: AsRef<str>,
{
    let mut pools = Vec::new();
    let (mut replicas, mut jobs) = (HashMap::new(), HashMap::new());
    for (path, interfaces) in objects {
        for (interface, properties) in interfaces {
            let mut properties = Properties(properties);
            match interface.as_ref() {
                POOL => pools.push((path.clone(), properties)),
                REPLICA => {
                    let replica = ReplicaStatus { object: path.clone(), ..properties.replica() };
                    replicas.insert(path.clone(), replica);
                }
                JOB if properties.take::<String>("State") == "running" => {
                    let pool: OwnedObjectPath = properties.take("Pool");
                    let percent = percent(properties.take("Progress"));
                    jobs.insert(pool, (properties.take("Id"), properties.take("Operation"), percent));
                }
                _ => {}
            }
        }
    }
    let with_its_job = |(path, properties): (OwnedObjectPath, Properties)| {
        let (job, job_operation, job_percent) = jobs.remove(&path).unwrap_or_default();
        PoolStatus { job, job_operation, job_percent, ..properties.pool(&mut replicas) }
    };
    let mut pools: Vec<PoolStatus> = pools.into_iter().map(with_its_job).collect();
    pools.sort_by(|a, b| a.id.cmp(&b.id));
    pools
}

/// A share of 0 to 1.
fn percent(share: f64) -> u32 {
    (1..=100).rev().find(|percent| share * 100.0 >= f64::from(*percent)).unwrap_or_default()
}

/// The job with a number, where it is there.
pub(super) fn job(objects: ManagedObjects, number: u32) -> Option<OwnedObjectPath> {
    let is_it = |interfaces: HashMap<_, _>| {
        let mut interfaces = interfaces.into_iter();
        interfaces.any(|(interface, properties): (OwnedInterfaceName, _)| {
            interface.as_str() == JOB && Properties(properties).take::<u32>("Id") == number
        })
    };
    objects.into_iter().find_map(|(path, interfaces)| is_it(interfaces).then_some(path))
}

/// The properties of one object, or other named values.
pub(super) struct Properties(pub(super) HashMap<String, OwnedVariant>);

impl Properties {
    pub(super) fn take<T: TryFrom<OwnedVariant> + Default>(&mut self, name: &str) -> T {
        self.0.remove(name).and_then(|value| T::try_from(value).ok()).unwrap_or_default()
    }

    fn pool(mut self, replicas: &mut HashMap<OwnedObjectPath, ReplicaStatus>) -> PoolStatus {
        let paths: Vec<OwnedObjectPath> = self.take("ReplicaObjects");
        PoolStatus {
            id: self.take("Id"),
            phase: self.take("Phase"),
            state_change_timestamp: self.take("StateChangeTimestamp"),
            live: self.take("Live"),
            ready: self.take("Ready"),
            draining: self.take("Draining"),
            external: self.take("External"),
            last_heartbeat: self.take("LastHeartbeat"),
            breaker: self.take("Breaker"),
            engine: self.take("Engine"),
            engine_version: self.take("EngineVersion"),
            version: self.take("Version"),
            model_id: self.take("ModelId"),
            model_path: self.take("ModelPath"),
            endpoints: self.take("Endpoints"),
            active_leases: self.take("ActiveLeases"),
            lease_capacity: self.take("LeaseCapacity"),
            slots_total: self.take("SlotsTotal"),
            slots_free: self.take("SlotsFree"),
            in_flight: self.take("InFlight"),
            last_error: self.take("LastError"),
            last_error_class: self.take("LastErrorClass"),
            last_error_timestamp: self.take("LastErrorTimestamp"),
            restart_count: self.take("RestartCount"),
            backoff_usec: self.take("BackoffUSec"),
            next_restart_timestamp: self.take("NextRestartTimestamp"),
            needs_reload: self.take("NeedsReload"),
            pending: self.take("Pending"),
            detail: self.take("Detail"),
            config_path: self.take("ConfigPath"),
            activation: self.take("Activation"),
            device_mask: self.take("DeviceMask"),
            devices: self.take("Devices"),
            vram_reserved: self.take("VramReserved"),
            spec_digest: self.take("SpecDigest"),
            job: 0,
            job_operation: String::new(),
            job_percent: 0,
            replicas: paths.iter().filter_map(|path| replicas.remove(path)).collect(),
        }
    }

    fn replica(mut self) -> ReplicaStatus {
        let invocation: Vec<u8> = self.take("InvocationId");
        ReplicaStatus {
            id: self.take("Id"),
            unit: self.take("Unit"),
            invocation_id: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
            main_pid: self.take("MainPid"),
            phase: self.take("Phase"),
            live: self.take("Live"),
            ready: self.take("Ready"),
            endpoint: self.take("Endpoint"),
            status_text: self.take("StatusText"),
            exit_class: self.take("ExitClass"),
            start_timestamp: self.take("StartTimestamp"),
            ready_timestamp: self.take("ReadyTimestamp"),
            active_leases: self.take("ActiveLeases"),
            in_flight: self.take("InFlight"),
            allowed_cpus: self.take("AllowedCpus"),
            devices: self.take("Devices"),
            object: OwnedObjectPath::default(),
            usage: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Variant;

    fn path(text: &str) -> OwnedObjectPath {
        OwnedObjectPath::try_from(text).unwrap()
    }

    fn object<const N: usize>(
        interface: &str,
        properties: [(&str, Variant<'static>); N],
    ) -> HashMap<OwnedInterfaceName, HashMap<String, OwnedVariant>> {
        let properties = properties
            .into_iter()
            .map(|(name, value)| (name.to_owned(), OwnedVariant::try_from(value).unwrap()))
            .collect();
        HashMap::from([(OwnedInterfaceName::try_from(interface).unwrap(), properties)])
    }

    fn two_pools() -> ManagedObjects {
        HashMap::from([
            (
                path("/p/zoo"),
                object(
                    POOL,
                    [("Id", "zoo".into()), ("Later", 7_u32.into()), ("RestartCount", "many".into())],
                ),
            ),
            (
                path("/p/chat"),
                object(
                    POOL,
                    [
                        ("Id", "chat".into()),
                        ("Phase", "ready".into()),
                        ("Ready", true.into()),
                        ("Endpoints", vec!["http://127.0.0.1:20000".to_owned()].into()),
                        ("BackoffUSec", 5_u64.into()),
                        ("ReplicaObjects", vec![path("/r/1"), path("/r/0"), path("/r/gone")].into()),
                    ],
                ),
            ),
            (
                path("/r/0"),
                object(
                    REPLICA,
                    [
                        ("Id", "chat-r0".into()),
                        ("MainPid", 42_u32.into()),
                        ("InvocationId", vec![0x0a_u8, 0xff].into()),
                    ],
                ),
            ),
            (path("/r/1"), object(REPLICA, [("Id", "chat-r1".into())])),
            (path("/j/1"), object(JOB, [("Id", 1_u32.into()), ("Pool", path("/p/zoo").into())])),
            (
                path("/j/2"),
                object(
                    JOB,
                    [
                        ("Id", 2_u32.into()),
                        ("Pool", path("/p/chat").into()),
                        ("State", "running".into()),
                        ("Operation", "drain".into()),
                        ("Progress", 0.5_f64.into()),
                    ],
                ),
            ),
        ])
    }

    #[test]
    fn pools_are_sorted_and_have_their_replicas_in_the_order_that_they_name() {
        let pools = pools(two_pools());
        let ids: Vec<_> = pools.iter().map(|pool| pool.id.as_str()).collect();
        assert_eq!(ids, ["chat", "zoo"]);
        let chat = &pools[0];
        assert!(chat.ready);
        assert_eq!(chat.phase, "ready");
        assert_eq!(chat.endpoints, ["http://127.0.0.1:20000"]);
        assert_eq!(chat.backoff_usec, 5);
        assert_eq!((chat.job, chat.job_operation.as_str(), chat.job_percent), (2, "drain", 50));
        let replicas: Vec<_> = chat.replicas.iter().map(|replica| replica.id.as_str()).collect();
        assert_eq!(replicas, ["chat-r1", "chat-r0"]);
        assert_eq!(chat.replicas[1].main_pid, 42);
        assert_eq!(chat.replicas[1].invocation_id, "0aff");
    }

    #[test]
    fn a_share_is_rounded_down_and_kept_within_its_bounds() {
        for (share, expected) in
            [(0.0, 0), (0.009, 0), (0.999, 99), (1.0, 100), (7.0, 100), (-1.0, 0), (f64::NAN, 0)]
        {
            assert_eq!(percent(share), expected, "{share}");
        }
    }

    #[test]
    fn a_job_is_found_by_its_number() {
        assert_eq!(job(two_pools(), 1), Some(path("/j/1")));
        assert_eq!(job(two_pools(), 3), None);
    }

    #[test]
    fn what_is_missing_unknown_or_of_another_type_is_absent() {
        let zoo = pools(two_pools()).remove(1);
        assert_eq!(zoo, PoolStatus { id: "zoo".to_owned(), ..PoolStatus::default() });
    }

    #[test]
    fn the_serialized_names_are_kept() {
        let pool = PoolStatus { replicas: vec![ReplicaStatus::default()], ..PoolStatus::default() };
        let keys = |value: &serde_json::Value| -> Vec<String> {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        let json = serde_json::to_value(&pool).unwrap();
        assert_eq!(
            keys(&json),
            [
                "activation",
                "active_leases",
                "backoff_usec",
                "breaker",
                "config_path",
                "detail",
                "device_mask",
                "devices",
                "draining",
                "endpoints",
                "engine",
                "engine_version",
                "external",
                "id",
                "in_flight",
                "job",
                "job_operation",
                "job_percent",
                "last_error",
                "last_error_class",
                "last_error_timestamp",
                "last_heartbeat",
                "lease_capacity",
                "live",
                "model_id",
                "model_path",
                "needs_reload",
                "next_restart_timestamp",
                "pending",
                "phase",
                "ready",
                "replicas",
                "restart_count",
                "slots_free",
                "slots_total",
                "spec_digest",
                "state_change_timestamp",
                "version",
                "vram_reserved",
            ]
        );
        assert_eq!(
            keys(&json["replicas"][0]),
            [
                "active_leases",
                "allowed_cpus",
                "devices",
                "endpoint",
                "exit_class",
                "id",
                "in_flight",
                "invocation_id",
                "live",
                "main_pid",
                "phase",
                "ready",
                "ready_timestamp",
                "start_timestamp",
                "status_text",
                "unit",
            ]
        );
    }
}
