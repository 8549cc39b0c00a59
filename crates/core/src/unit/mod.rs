//! Owns the transient units: every property of an engine's unit and of the unit that checks before it, each from its row
//! of one table, which gives its type and the systemd version that knows it. Encoding them for the bus is the adapter's
//! work.
//!
//! Both units share one sandbox, so what the checks could read the engine can read.

mod limits;
mod property;
mod sandbox;
mod table;

pub use limits::{UNSET, pool_slice};
pub use property::{Property, Row, Value};
pub use table::{NEEDED, TABLE, unknown_to};

use crate::config::PoolSpec;
use crate::cpu::{CpuSet, Share};
use crate::device::Part;
use crate::engine::Filling;
use crate::host::HostFacts;
use crate::name::{Endpoint, ReplicaId, UnitName, Usec};
use property::{CommandLine, Mask, Mode, Pairs};

/// So many stall time-outs may one step of an engine take that computes on the CPU. On a device it is one: what waits for a
/// hung device may spin as well.
const COMPUTING: u64 = 10;
/// Where the helper is installed.
pub const HELPER: &str = "/usr/libexec/llamaorch/pool-helper";
/// Where probers report what they count, one datagram a round. An engine's unit reaches this folder of the daemon's and
/// nothing beside it: the folder rather than the socket, which is another one after the daemon's restart.
pub const REPORT_SOCKET: &str = "/run/pool-managerd/report/socket";
/// The folder of [`REPORT_SOCKET`].
pub const REPORT_FOLDER: &str = "/run/pool-managerd/report";
/// The slice that the slices of all pools lie in.
pub const SLICE: &str = "llamaorch.slice";
/// In a unit's environment: the endpoint that the daemon gave it, read back on adoption.
pub const ENDPOINT_VARIABLE: &str = "LLAMAORCH_ENDPOINT";
/// In a unit's environment: digest of the spec it was started from, read back on adoption.
pub const SPEC_VARIABLE: &str = "LLAMAORCH_SPEC";
/// In a unit's environment: the CPUs that are nobody else's, read back on adoption.
pub const OWN_CPUS_VARIABLE: &str = "LLAMAORCH_OWN_CPUS";
/// In a unit's environment: its devices, each with its index, read back on adoption.
pub const DEVICES_VARIABLE: &str = "LLAMAORCH_DEVICES";
/// In a unit's environment: the nodes of its devices, read back on adoption.
pub const NODES_VARIABLE: &str = "LLAMAORCH_DEVICE_NODES";
/// In a unit's environment: the engine's version as its checks saw it, read back on adoption.
pub const VERSION_VARIABLE: &str = "LLAMAORCH_ENGINE_VERSION";

/// Where a replica has its runtime folder, below `/run`.
fn runtime_folder(replica: &ReplicaId) -> String {
    format!("llamaorch/{replica}")
}

/// The unix socket of a replica, in its runtime folder. It fits a socket's address, because a pool id is at most 40 characters.
#[must_use]
pub fn socket(replica: &ReplicaId) -> String {
    format!("/run/{}/engine.sock", runtime_folder(replica))
}

/// A transient unit as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSpec {
    /// Its name.
    pub name: UnitName,
    /// Its properties, in the order in which they are sent.
    pub properties: Vec<Property>,
    /// Properties of the slice of its pool, which are set before it starts.
    pub slice: Vec<Property>,
}

const SIGKILL: i32 = 9;

/// What a unit is started with beyond its pool's spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch<'a> {
    /// The pool.
    pub spec: &'a PoolSpec,
    /// The spec's digest.
    pub spec_digest: &'a str,
    /// Where this replica listens.
    pub endpoint: &'a Endpoint,
    /// The engine's version, where it is known.
    pub engine_version: &'a str,
    /// Where it computes.
    pub share: &'a Share,
    /// Its devices.
    pub devices: &'a Part,
    /// The host that it runs on.
    pub host: &'a HostFacts,
    /// Folders of which it sees what its pool's file names alone.
    pub model_folders: &'a [String],
}

/// The unit that runs the engine.
#[must_use]
pub fn engine_unit(name: &UnitName, launch: &Launch<'_>) -> UnitSpec {
    let Launch { spec, endpoint, .. } = launch;
    let mut command = vec![
        HELPER.to_owned(),
        "launch".to_owned(),
        "--health".to_owned(),
        endpoint.url(&spec.template.health.path),
        "--listen".to_owned(),
        endpoint.listen(),
        "--model".to_owned(),
        spec.model.clone(),
        "--start-timeout".to_owned(),
        spec.health.start_timeout.0.to_string(),
        "--start-limit".to_owned(),
        spec.health.start_limit.0.to_string(),
    ];
    command.extend(reached(launch));
    command.extend(questions(launch));
    command.extend(["--".to_owned(), spec.program.clone()]);
    let (files, devices) = (&spec.reach.files, launch.devices.len());
    let filling = Filling { model: &spec.model, files, devices, endpoint };
    command.extend(spec.template.arguments(&spec.listen).chain(&spec.args).map(|arg| filling.fill(arg)));
    let cache = format!("llamaorch/{}", spec.id);
    let mut properties = vec![
        table::DESCRIPTION.is(format!("LLM engine {} of pool {}", name.replica.index, spec.id)),
        table::TYPE.is("notify"),
        table::NOTIFY_ACCESS.is("all"),
        // A clean exit stays visible until it has been read, also while the daemon is away.
        table::REMAIN_AFTER_EXIT.is(true),
        table::EXEC_START.is(CommandLine(command)),
        table::TIMEOUT_START.is(spec.health.start_timeout.min(spec.health.start_limit).0),
        table::TIMEOUT_STOP.is(Usec::from_secs(30).0),
        // From ready on: what the prober does not confirm for so long is ended. A hung engine has nothing to save, and a
        // core dump of its mappings helps nobody.
        table::WATCHDOG.is(spec.health.stall_timeout.max(Usec::from_secs(30)).0),
        table::WATCHDOG_SIGNAL.is(SIGKILL),
        table::KILL_MODE.is("mixed"),
        table::OOM_POLICY.is("kill"),
        table::CACHE_DIRECTORY.is(vec![cache.clone()]),
        table::CACHE_DIRECTORY_MODE.is(Mode(0o700)),
        table::RUNTIME_DIRECTORY.is(vec![runtime_folder(&name.replica)]),
        table::RUNTIME_DIRECTORY_MODE.is(Mode(0o700)),
        table::WORKING_DIRECTORY.is(format!("/var/cache/{cache}")),
        table::ENVIRONMENT.is(environment(launch, &cache)),
    ];
    properties.extend(sandbox::common(name, launch));
    properties.extend(place(launch.share));
    properties.extend(limits::lines(&spec.resources, launch.host));
    UnitSpec { name: name.clone(), properties, slice: limits::slice(&spec.resources) }
}

/// What the helper looks for besides the model: files, credentials by their names, the warm-up, nodes of devices.
fn reached(launch: &Launch<'_>) -> Vec<String> {
    let spec = launch.spec;
    let files = spec.reach.files.iter().map(|(name, path)| ("--file", format!("{name}={path}")));
    let credentials = spec.reach.credentials.iter();
    let credentials = credentials.map(|(variable, known)| ("--credential", format!("{variable}={known}")));
    let warmup = spec.reach.warmup.iter().map(|file| ("--warmup", file.clone()));
    let nodes = launch.devices.nodes().iter().map(|node| ("--node", node.clone()));
    let all = files.chain(credentials).chain(warmup).chain(nodes);
    all.flat_map(|(option, value)| [option.to_owned(), value]).collect()
}

/// What the prober asks once the engine is ready, and how often.
fn questions(launch: &Launch<'_>) -> Vec<String> {
    let Launch { spec, endpoint, .. } = launch;
    let (health, template) = (&spec.health, &spec.template);
    let url = |path: &str| endpoint.url(path);
    let stalls = if launch.devices.is_empty() { COMPUTING } else { 1 };
    let mut options = vec![
        ("--interval", health.interval.0.to_string()),
        ("--timeout", health.timeout.0.to_string()),
        ("--failures", health.failures.to_string()),
        ("--stall-timeout", health.stall_timeout.0.to_string()),
        ("--computing-timeout", health.stall_timeout.0.saturating_mul(stalls).to_string()),
        ("--report", REPORT_SOCKET.to_owned()),
    ];
    if let Some(progress) = &template.progress {
        options.push(("--progress", url(&progress.path)));
        options.extend(progress.in_flight.iter().map(|name| ("--in-flight", name.clone())));
        options.extend(progress.counters.iter().map(|name| ("--counter", name.clone())));
    }
    if let Some(slots) = &template.slots {
        options.extend([("--slots", url(&slots.path)), ("--slots-pointer", slots.pointer.clone())]);
    }
    if let Some(version) = &template.version {
        options
            .extend([("--version-url", url(&version.path)), ("--version-pointer", version.pointer.clone())]);
    }
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// The unit that checks, as the engine's user and in its sandbox, whether the engine could run. Its address is left out
/// where an engine of the pool still has it.
#[must_use]
pub fn stage_unit(name: &UnitName, launch: &Launch<'_>, address: bool) -> UnitSpec {
    let Launch { spec, endpoint, .. } = launch;
    let mut command = vec![
        HELPER.to_owned(),
        "stage".to_owned(),
        "--program".to_owned(),
        spec.program.clone(),
        "--model".to_owned(),
        spec.model.clone(),
    ];
    if address {
        command.extend(["--listen".to_owned(), endpoint.listen()]);
    }
    if let Some(digest) = &spec.digest {
        command.extend(["--digest".to_owned(), format!("sha256:{digest}")]);
    }
    command.extend(reached(launch));
    for arg in &spec.template.version_args {
        command.extend(["--version-arg".to_owned(), arg.clone()]);
    }
    let mut properties = vec![
        table::DESCRIPTION.is(format!("Checks before LLM engine {} of pool {}", name.replica.index, spec.id)),
        table::TYPE.is("oneshot"),
        table::NOTIFY_ACCESS.is("all"),
        table::REMAIN_AFTER_EXIT.is(true),
        table::EXEC_START.is(CommandLine(command)),
        table::TIMEOUT_START.is(spec.health.start_timeout.min(spec.health.start_limit).0),
        table::TIMEOUT_STOP.is(Usec::from_secs(5).0),
        table::KILL_MODE.is("control-group"),
        table::WORKING_DIRECTORY.is("/"),
        table::ENVIRONMENT.is(variables(spec)),
    ];
    properties.extend(sandbox::common(name, launch));
    properties.extend(place(launch.share));
    properties.extend(limits::lines(&spec.resources, launch.host));
    UnitSpec { name: name.clone(), properties, slice: limits::slice(&spec.resources) }
}

/// The engine's environment: the daemon's own marks, then writable places, then template and pool.
fn environment(launch: &Launch<'_>, cache: &str) -> Vec<String> {
    let mut environment = vec![
        format!("{ENDPOINT_VARIABLE}={}", launch.endpoint),
        format!("{SPEC_VARIABLE}={}", launch.spec_digest),
        format!("{VERSION_VARIABLE}={}", launch.engine_version),
        format!("HOME=/var/cache/{cache}"),
        format!("XDG_CACHE_HOME=/var/cache/{cache}"),
    ];
    environment.extend(visible(launch.devices));
    if let Some(own) = launch.share.cpus.as_ref().filter(|_| launch.share.own) {
        environment.push(format!("{OWN_CPUS_VARIABLE}={own}"));
    }
    if !launch.devices.is_empty() {
        let (devices, nodes) = launch.devices.marks();
        environment.push(format!("{DEVICES_VARIABLE}={devices}"));
        environment.push(format!("{NODES_VARIABLE}={nodes}"));
    }
    environment.extend(variables(launch.spec));
    environment
}

/// Which devices the engine's libraries are to see. They are named by UUID: by its index a library might take another one.
fn visible(devices: &Part) -> Vec<String> {
    let of = |amd: bool| -> Vec<&str> {
        devices.uuids().filter(|uuid| uuid.is_amd() == amd).map(|uuid| uuid.as_str()).collect()
    };
    let (nvidia, amd) = (of(false), of(true));
    let mut variables = Vec::new();
    // Without a card in the mask none may be found by accident. AMD's libraries heed this one as well.
    if amd.is_empty() || !nvidia.is_empty() {
        variables.push(format!("CUDA_VISIBLE_DEVICES={}", nvidia.join(",")));
    }
    if !amd.is_empty() {
        variables.push(format!("ROCR_VISIBLE_DEVICES={}", amd.join(",")));
    }
    variables
}

/// What an engine may open of devices.
#[must_use]
pub fn device_allow(devices: &Part) -> Property {
    let rules = devices.nodes().iter().map(|node| (node.clone(), "rw".to_owned()));
    table::DEVICE_ALLOW.is(Pairs(rules.collect()))
}

/// Where it computes, and where its memory should be: preferred, because bound memory is out of memory beside free memory.
fn place(share: &Share) -> Vec<Property> {
    const PREFERRED: i32 = 1;
    let mut properties: Vec<Property> = share.cpus.iter().map(|cpus| allowed_cpus(Some(cpus))).collect();
    if let Some(node) = share.node {
        properties.push(table::NUMA_POLICY.is(PREFERRED));
        properties.push(table::NUMA_MASK.is(Mask(CpuSet::from_iter([node]))));
    }
    properties
}

/// What an engine may compute on; `None`: on every CPU.
#[must_use]
pub fn allowed_cpus(cpus: Option<&CpuSet>) -> Property {
    table::ALLOWED_CPUS.is(Mask(cpus.cloned().unwrap_or_default()))
}

fn variables(spec: &PoolSpec) -> Vec<String> {
    spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests;
