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
mod tests {
    use super::*;
    use crate::config::Subnet;
    use crate::config::{Activation, Credential, Health, Listen, Port};
    use crate::engine::{EngineTemplate, Fact, HealthRecipe, ProgressRecipe, TcpWay, UnixWay, Ways};
    use crate::name::UnitKind;
    use std::collections::BTreeMap;

    fn spec() -> PoolSpec {
        PoolSpec {
            id: "chat".parse().unwrap(),
            path: String::new(),
            engine: "llama-cpp".into(),
            template: EngineTemplate {
                program: "llama-server".into(),
                args: vec!["--metrics".into()],
                env: BTreeMap::new(),
                version_args: vec!["--version".into()],
                listen: Ways {
                    tcp: TcpWay { args: vec!["--port".into(), "{port}".into()] },
                    unix: Some(UnixWay {
                        args: vec!["--uds".into(), "{socket}".into()],
                        ..Default::default()
                    }),
                },
                health: HealthRecipe { path: "/health".into() },
                progress: Some(ProgressRecipe {
                    path: "/metrics".into(),
                    in_flight: vec!["x:a".into(), "x:b".into()],
                    counters: vec!["x:c".into()],
                }),
                slots: Some(Fact { path: "/props".into(), pointer: "/total_slots".into() }),
                version: None,
                sandbox: Default::default(),
            },
            program: "llama-server".into(),
            model: "/srv/m.gguf".into(),
            digest: None,
            args: vec!["--ctx-size".into(), "512".into()],
            env: BTreeMap::from([("A".into(), "b c".into())]),
            reach: Default::default(),
            replicas: 1,
            activation: Activation::Resident,
            listen: Listen::Tcp { host: "127.0.0.1".into(), port: Port::Auto },
            health: Health {
                start_limit: Usec::from_secs(60),
                start_timeout: Usec::from_secs(10),
                ..Health::default()
            },
            resources: Default::default(),
            restart: Default::default(),
            drain: Default::default(),
            leases: Default::default(),
            on_change: Default::default(),
            cpus: Default::default(),
            devices: Default::default(),
        }
    }

    fn built(kind: UnitKind) -> UnitSpec {
        unit_of(&spec(), kind)
    }

    fn unit_of(spec: &PoolSpec, kind: UnitKind) -> UnitSpec {
        unit_with(spec, &Part::default(), kind)
    }

    fn unit_with(spec: &PoolSpec, devices: &Part, kind: UnitKind) -> UnitSpec {
        let name = UnitName { kind, replica: ReplicaId { pool: spec.id.clone(), index: 0 }, generation: 1 };
        let endpoint = &match &spec.listen {
            Listen::Tcp { host, .. } => Endpoint::Tcp { host: host.clone(), port: 20000 },
            Listen::Unix => Endpoint::Unix { path: socket(&name.replica) },
        };
        let share = Share { cpus: "0,9".parse().ok(), own: true, node: Some(1) };
        let host = &HostFacts::default();
        let launch = Launch {
            spec,
            spec_digest: "d",
            endpoint,
            engine_version: "0.7.0",
            share: &share,
            devices,
            host,
            model_folders: &["/srv".to_owned()],
        };
        match kind {
            UnitKind::Engine => engine_unit(&name, &launch),
            UnitKind::Stage => stage_unit(&name, &launch, true),
        }
    }

    fn value(unit: &UnitSpec, name: &str) -> Value {
        unit.properties
            .iter()
            .find(|p| p.name() == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .value()
            .clone()
    }

    #[test]
    fn an_engine_with_devices_may_open_their_nodes_and_sees_no_others() {
        let spec = PoolSpec { args: vec!["--split={devices}".into()], ..spec() };
        let with = |devices: &str, kind| {
            unit_with(&spec, &Part::of_marks(devices, "/dev/nvidia1,/dev/nvidiactl"), kind)
        };
        let rule = |node: &str| (node.to_owned(), "rw".to_owned());
        let rules = Value::Pairs(vec![rule("/dev/nvidia1"), rule("/dev/nvidiactl")]);
        for kind in [UnitKind::Engine, UnitKind::Stage] {
            let unit = with("7=GPU-b,1=MIG-a", kind);
            assert_eq!(value(&unit, "DevicePolicy"), Value::Text("closed".into()));
            assert_eq!(value(&unit, "DeviceAllow"), rules);
            assert_eq!(value(&unit, "LimitMEMLOCK"), Value::Limit(u64::MAX));
            let Value::Command(command) = value(&unit, "ExecStart") else { panic!() };
            let nodes: Vec<_> =
                command.windows(2).filter(|pair| pair[0] == "--node").map(|pair| &pair[1]).collect();
            assert_eq!(nodes, ["/dev/nvidia1", "/dev/nvidiactl"]);
            let Value::Fields(fields) = value(&unit, "LogExtraFields") else { panic!() };
            assert!(fields.contains(&"DEVICE_MASK=1,7".to_owned()), "{fields:?}");
            let none = unit_with(&spec, &Part::default(), kind);
            let named = |name: &str| none.properties.iter().any(|property| property.name() == name);
            assert!(!named("DeviceAllow") && !named("LimitMEMLOCK") && named("DevicePolicy"));
        }
        let engine = with("7=GPU-b,1=MIG-a", UnitKind::Engine);
        let Value::Command(command) = value(&engine, "ExecStart") else { panic!() };
        assert_eq!(command.last().map(String::as_str), Some("--split=2"));
        let after = |option: &str| command.iter().skip_while(|word| *word != option).nth(1);
        assert_eq!(
            after("--computing-timeout"),
            after("--stall-timeout"),
            "what spins may wait for a hung device"
        );
        let visible = |devices: &str| {
            let Value::Texts(all) = value(&with(devices, UnitKind::Engine), "Environment") else { panic!() };
            let marks: Vec<String> =
                all.into_iter().filter(|text| text.contains("_VISIBLE_DEVICES=")).collect();
            marks.join(" ")
        };
        assert_eq!(visible("7=GPU-b,1=MIG-a"), "CUDA_VISIBLE_DEVICES=GPU-b,MIG-a");
        assert_eq!(visible(""), "CUDA_VISIBLE_DEVICES=");
        assert_eq!(visible("0=GPU-00112233aabbccdd"), "ROCR_VISIBLE_DEVICES=GPU-00112233aabbccdd");
    }

    #[test]
    fn the_engine_is_launched_with_the_templates_arguments_then_the_pools() {
        let Value::Command(command) = value(&built(UnitKind::Engine), "ExecStart") else { panic!() };
        let tail: Vec<&str> = command.iter().map(String::as_str).skip_while(|arg| *arg != "--").collect();
        assert_eq!(tail, ["--", "llama-server", "--metrics", "--port", "20000", "--ctx-size", "512"]);
        assert_eq!(command[3], "http://127.0.0.1:20000/health");
    }

    #[test]
    fn the_prober_is_told_what_to_ask() {
        let Value::Command(command) = value(&built(UnitKind::Engine), "ExecStart") else { panic!() };
        let asked: Vec<&str> =
            command.iter().map(String::as_str).skip_while(|arg| *arg != "--interval").collect();
        let expected = "--interval 2000000 --timeout 1000000 --failures 3 --stall-timeout 120000000 \
                        --computing-timeout 1200000000 \
                        --report /run/pool-managerd/report/socket --progress http://127.0.0.1:20000/metrics \
                        --in-flight x:a --in-flight x:b --counter x:c --slots http://127.0.0.1:20000/props \
                        --slots-pointer /total_slots -- llama-server";
        assert!(asked.join(" ").starts_with(expected), "{asked:?}");
        assert!(REPORT_SOCKET.strip_prefix(REPORT_FOLDER).is_some_and(|rest| rest == "/socket"));
    }

    #[test]
    fn the_watchdog_waits_for_the_stall_timeout_and_half_a_minute_at_least() {
        for (stall_timeout, watchdog) in [(1, 30), (30, 30), (120, 120)] {
            let mut spec = spec();
            spec.health.stall_timeout = Usec::from_secs(stall_timeout);
            let unit = unit_of(&spec, UnitKind::Engine);
            assert_eq!(value(&unit, "WatchdogUSec"), Value::U64(Usec::from_secs(watchdog).0));
        }
        assert!(
            built(UnitKind::Stage).properties.iter().all(|property| !property.name().starts_with("Watchdog"))
        );
    }

    #[test]
    fn checks_and_engine_share_user_and_sandbox() {
        let (engine, stage) = (built(UnitKind::Engine), built(UnitKind::Stage));
        for name in [
            "User",
            "DynamicUser",
            "BindReadOnlyPaths",
            "SystemCallFilter",
            "ProtectHome",
            "TasksMax",
            "Slice",
        ] {
            assert_eq!(value(&engine, name), value(&stage, name), "{name}");
        }
    }

    fn reaching() -> PoolSpec {
        let mut spec = spec();
        spec.reach.groups = vec!["models".into()];
        spec.reach.files = BTreeMap::from([("sql".into(), "/mnt/lora".into())]);
        let secret = |text: &str| Credential::try_from(text.to_owned()).expect("a credential");
        spec.reach.credentials = BTreeMap::from([
            ("API_KEY".into(), secret("key")),
            ("HF_TOKEN".into(), secret("encrypted:hf")),
            ("OTHER_KEY".into(), secret("key")),
        ]);
        spec.args = vec!["--lora=sql={file:sql}".into()];
        spec.reach.warmup = Some("/etc/llamaorch/warmup/big.json".into());
        spec
    }

    #[test]
    fn what_a_pool_reaches_is_in_both_units_and_a_secret_by_its_name_alone() {
        for kind in [UnitKind::Engine, UnitKind::Stage] {
            let unit = unit_of(&reaching(), kind);
            assert_eq!(value(&unit, "SupplementaryGroups"), Value::Texts(vec!["models".into()]));
            let pair = |name: &str| Value::Pairs(vec![(name.to_owned(), name.to_owned())]);
            assert_eq!(value(&unit, "LoadCredential"), pair("key"));
            assert_eq!(value(&unit, "LoadCredentialEncrypted"), pair("hf"));
            let Value::Binds(paths) = value(&unit, "BindReadOnlyPaths") else { panic!() };
            for path in ["/mnt/lora", "/etc/llamaorch/warmup/big.json"] {
                assert!(paths.contains(&path.to_owned()), "{paths:?}");
            }
            let Value::Command(command) = value(&unit, "ExecStart") else { panic!() };
            let told = "--file sql=/mnt/lora --credential API_KEY=key --credential HF_TOKEN=encrypted:hf \
                        --credential OTHER_KEY=key --warmup /etc/llamaorch/warmup/big.json";
            assert!(command.join(" ").contains(told), "{command:?}");
            let last = command.last().expect("a command");
            assert_eq!(last == "--lora=sql=/mnt/lora", kind == UnitKind::Engine, "{last}");
            let Value::Texts(environment) = value(&unit, "Environment") else { panic!() };
            assert!(!environment.iter().any(|entry| entry.contains("API_KEY")), "{environment:?}");
        }
        let plain = built(UnitKind::Engine);
        for absent in ["SupplementaryGroups", "LoadCredential", "LoadCredentialEncrypted"] {
            assert!(plain.properties.iter().all(|property| property.name() != absent), "{absent}");
        }
    }

    #[test]
    fn an_engine_speaks_with_this_host_and_the_networks_that_are_allowed() {
        let networks = |spec: &PoolSpec, kind| {
            let Value::Networks(networks) = value(&unit_of(spec, kind), "IPAddressAllow") else { panic!() };
            networks.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut spec = spec();
        for kind in [UnitKind::Engine, UnitKind::Stage] {
            assert_eq!(networks(&spec, kind), ["127.0.0.0/8", "::1/128"]);
        }
        spec.reach.allow = vec!["10.20.0.0/16".parse().expect("a network")];
        spec.listen = Listen::Tcp { host: "10.30.1.7".into(), port: Port::Fixed(8000) };
        // Its own address too: the prober, and everyone on this host, comes from it.
        let expected = ["127.0.0.0/8", "::1/128", "10.20.0.0/16", "10.30.1.7/32"];
        assert_eq!(networks(&spec, UnitKind::Engine), expected);
        assert_eq!(value(&built(UnitKind::Engine), "IPAddressDeny"), Value::Networks(Subnet::ALL.to_vec()));
    }

    #[test]
    fn an_engine_on_a_unix_socket_has_no_network() {
        let spec = PoolSpec { listen: Listen::Unix, ..spec() };
        for kind in [UnitKind::Engine, UnitKind::Stage] {
            let unit = unit_of(&spec, kind);
            assert_eq!(value(&unit, "PrivateNetwork"), Value::Bool(true));
            assert_eq!(value(&unit, "RestrictAddressFamilies"), Value::Set(true, vec!["AF_UNIX".into()]));
            // A socket is opened by who may write to it.
            assert_eq!(value(&unit, "UMask"), Value::Mode(0o007));
        }
        let unit = unit_of(&spec, UnitKind::Engine);
        assert_eq!(value(&unit, "RuntimeDirectory"), Value::Texts(vec!["llamaorch/chat-r0".into()]));
        let Value::Command(command) = value(&unit, "ExecStart") else { panic!() };
        let command = command.join(" ");
        let path = "/run/llamaorch/chat-r0/engine.sock";
        assert!(command.contains(&format!("--health unix:{path}:/health --listen unix:{path}")), "{command}");
        assert!(command.contains(&format!("--progress unix:{path}:/metrics")), "{command}");
        assert!(command.contains(&format!(" --metrics --uds {path} --ctx-size")), "{command}");
        assert!(!command.contains("--port"), "{command}");
        let plain = built(UnitKind::Engine);
        assert_eq!(value(&plain, "PrivateNetwork"), Value::Bool(false));
        assert_eq!(value(&plain, "UMask"), Value::Mode(0o077));
    }

    #[test]
    fn the_longest_sockets_path_fits_its_address() {
        let replica = ReplicaId { pool: "x".repeat(40).parse().expect("an id"), index: u16::MAX };
        let endpoint = Endpoint::Unix { path: socket(&replica) };
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn cpus_and_nodes_are_masks_and_memory_is_preferred_where_they_are() {
        for kind in [UnitKind::Engine, UnitKind::Stage] {
            let unit = built(kind);
            assert_eq!(value(&unit, "AllowedCPUs"), Value::Mask(vec![1, 2]));
            assert_eq!(value(&unit, "NUMAPolicy"), Value::I32(1));
            assert_eq!(value(&unit, "NUMAMask"), Value::Mask(vec![2]));
        }
        assert_eq!(place(&Share::default()), []);
        assert_eq!(*allowed_cpus(None).value(), Value::Mask(vec![]), "which is systemd's word for all");
    }

    #[test]
    fn no_property_is_sent_twice() {
        for kind in [UnitKind::Engine, UnitKind::Stage] {
            let unit = unit_of(&reaching(), kind);
            let mut names: Vec<_> = unit.properties.iter().map(Property::name).collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }
}
