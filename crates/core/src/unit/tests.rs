use super::*;
use crate::config::Subnet;
use crate::config::{Activation, Credential, Health, Listen, Port};
use crate::engine::{EngineTemplate, Fact, HealthRecipe, ProgressRecipe, TcpWay, UnixWay, Ways};
use crate::name::UnitKind;
use std::collections::BTreeMap;

fn spec() -> PoolSpec {
    PoolSpec {
        id: "chat".parse().expect("an id"),
        path: String::new(),
        engine: "llama-cpp".into(),
        template: EngineTemplate {
            program: "llama-server".into(),
            args: vec!["--metrics".into()],
            env: BTreeMap::new(),
            version_args: vec!["--version".into()],
            listen: Ways {
                tcp: TcpWay { args: vec!["--port".into(), "{port}".into()] },
                unix: Some(UnixWay { args: vec!["--uds".into(), "{socket}".into()], ..Default::default() }),
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
    unit.properties.iter().find(|p| p.name() == name).unwrap_or_else(|| panic!("no {name}")).value().clone()
}

#[test]
fn an_engine_with_devices_may_open_their_nodes_and_sees_no_others() {
    let spec = PoolSpec { args: vec!["--split={devices}".into()], ..spec() };
    let with =
        |devices: &str, kind| unit_with(&spec, &Part::of_marks(devices, "/dev/nvidia1,/dev/nvidiactl"), kind);
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
        let marks: Vec<String> = all.into_iter().filter(|text| text.contains("_VISIBLE_DEVICES=")).collect();
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
    for name in
        ["User", "DynamicUser", "BindReadOnlyPaths", "SystemCallFilter", "ProtectHome", "TasksMax", "Slice"]
    {
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
