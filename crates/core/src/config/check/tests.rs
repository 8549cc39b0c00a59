use super::*;
use crate::config::fragment::{BreakerFragment, DrainFragment, LeasesFragment, StormFragment};
use crate::config::{Port, Restart};
use crate::engine::HealthRecipe;

pub(in crate::config) fn templates() -> BTreeMap<String, EngineTemplate> {
    let template = EngineTemplate {
        program: "llama-server".into(),
        args: vec!["--model".into(), "{model}".into()],
        env: BTreeMap::from([("A".into(), "1".into())]),
        version_args: vec![],
        listen: Default::default(),
        health: HealthRecipe { path: "/health".into() },
        progress: None,
        slots: None,
        version: None,
        sandbox: Default::default(),
    };
    BTreeMap::from([("llama-cpp".into(), template)])
}

pub(in crate::config) fn minimal() -> PoolFragment {
    PoolFragment {
        engine: Some("llama-cpp".into()),
        model: Some("file:/srv/m.gguf".into()),
        devices: Some(vec!["none".into()]),
        ..PoolFragment::default()
    }
}

fn run(fragment: PoolFragment) -> Result<PoolSpec, Vec<String>> {
    check(&"chat".parse().expect("an id"), "/etc/x.toml", fragment, &templates())
        .map_err(|errors| errors.iter().map(|error| error.key.join(".")).collect())
}

#[test]
fn the_smallest_file_gets_the_designs_defaults() {
    let spec = run(minimal()).expect("a valid file");
    assert_eq!(spec.program, "llama-server");
    assert_eq!(spec.listen, Listen::Tcp { host: "127.0.0.1".into(), port: Port::Auto });
    assert_eq!((spec.replicas, spec.activation, spec.restart), (1, Activation::Resident, Restart::default()));
    assert_eq!(spec.health, Health::default());
    assert_eq!(spec.model_id(), "m.gguf");
}

#[test]
fn an_empty_file_names_every_missing_key() {
    assert_eq!(run(PoolFragment::default()), Err(vec!["engine".into(), "model".into(), "devices".into()]));
}

#[test]
fn each_wrong_value_is_refused_at_its_key() {
    type Spoil = fn(&mut PoolFragment);
    let cases: [(&str, Spoil); 51] = [
        ("model", |f| f.model = Some("file:/srv/a\0b".into())),
        ("program", |f| f.program = Some("/bin/x\0y".into())),
        ("args", |f| f.args = Some(vec!["a\0b".into()])),
        ("env", |f| f.env = Some(BTreeMap::from([("LLAMAORCH_SPEC".into(), "x".into())]))),
        ("network.listen", |f| f.network.get_or_insert_default().listen = Some("10.20.1.7:8000".into())),
        ("engine", |f| f.engine = Some("lama".into())),
        ("model", |f| f.model = Some("/srv/m".into())),
        ("model", |f| f.model = Some("file:/srv/../m".into())),
        ("model", |f| f.model = Some("hf:org/repo@rev::f".into())),
        ("digest", |f| f.digest = Some("sha256:12".into())),
        ("devices", |f| f.devices = Some(vec!["0".into(), "none".into()])),
        ("devices", |f| {
            f.devices = Some(vec!["0".into(), "1".into()]);
            f.replicas = Some(3);
        }),
        ("devices_per_replica", |f| f.devices_per_replica = Some(2)),
        ("devices_per_replica", |f| {
            f.devices = Some(vec!["all".into()]);
            f.devices_per_replica = Some(-1);
        }),
        ("env", |f| f.env = Some(BTreeMap::from([("CUDA_VISIBLE_DEVICES".into(), "1".into())]))),
        ("args", |f| f.args = Some(vec!["{modle}".into()])),
        ("env", |f| f.env = Some(BTreeMap::from([("HF_TOKEN".into(), "x".into())]))),
        ("program", |f| f.program = Some("./x".into())),
        ("replicas", |f| f.replicas = Some(0)),
        ("activation", |f| f.activation = Some("on-demand".into())),
        ("on_change", |f| f.on_change = Some("rolling".into())),
        ("network.listen", |f| f.network.get_or_insert_default().listen = Some("localhost".into())),
        ("network.listen", |f| {
            f.network.get_or_insert_default().listen = Some("localhost:65535".into());
            f.replicas = Some(2);
        }),
        ("health.start_limit", |f| f.health.get_or_insert_default().start_limit = Some("1 parsec".into())),
        ("health.failures", |f| f.health.get_or_insert_default().failures = Some(0)),
        ("restart.policy", |f| f.restart.get_or_insert_default().policy = Some("sometimes".into())),
        ("restart.initial_delay", |f| f.restart.get_or_insert_default().initial_delay = Some("1ms".into())),
        ("restart.max_delay", |f| f.restart.get_or_insert_default().max_delay = Some("900ms".into())),
        ("restart.max_delay", |f| {
            let restart = f.restart.get_or_insert_default();
            (restart.min_delay, restart.max_delay) = (Some("5s".into()), Some("4s".into()));
        }),
        ("restart.jitter", |f| f.restart.get_or_insert_default().jitter = Some(51)),
        ("restart.gpu_factor", |f| f.restart.get_or_insert_default().gpu_factor = Some(0)),
        ("restart.breaker.failures", |f| {
            let breaker = BreakerFragment { failures: Some(0), ..Default::default() };
            f.restart.get_or_insert_default().breaker = Some(breaker);
        }),
        ("restart.breaker.max_open_for", |f| {
            let breaker = BreakerFragment { max_open_for: Some("299s".into()), ..Default::default() };
            f.restart.get_or_insert_default().breaker = Some(breaker);
        }),
        ("restart.storm.wait_after", |f| {
            let storm = StormFragment { wait_after: Some(4), ..Default::default() };
            f.restart.get_or_insert_default().storm = Some(storm);
        }),
        ("drain.deadline", |f| {
            let (deadline, settle) = (Some("5s".into()), Some("6s".into()));
            f.drain = Some(DrainFragment { deadline, settle });
        }),
        ("drain.settle", |f| {
            f.drain = Some(DrainFragment { settle: Some("soon".into()), ..Default::default() });
        }),
        ("drain.settle", |f| {
            f.drain = Some(DrainFragment { settle: Some("2s".into()), ..Default::default() });
        }),
        ("resources.vram", |f| f.resources.get_or_insert_default().vram = Some("90%".into())),
        ("resources.memory_max", |f| {
            f.resources.get_or_insert_default().memory_max = Some("all of it".into());
        }),
        ("network.listen", |f| f.network.get_or_insert_default().listen = Some("unix".into())),
        ("args", |f| f.args = Some(vec!["{socket}".into()])),
        ("health.warmup", |f| f.health.get_or_insert_default().warmup = Some("w.json".into())),
        ("network.allow", |f| f.network.get_or_insert_default().allow = Some(vec!["10.0.0.1/8".into()])),
        ("groups", |f| f.groups = Some(vec!["root".into()])),
        ("files", |f| f.files = Some(BTreeMap::from([("a".into(), "file:/srv/a".into())]))),
        ("credentials", |f| f.credentials = Some(BTreeMap::from([("A".into(), "a/b".into())]))),
        ("leases.capacity", |f| f.leases = Some(LeasesFragment { capacity: Some(0) })),
        ("on_change", |f| f.on_change = Some("at once".into())),
        ("resources.cpus", |f| f.resources.get_or_insert_default().cpus = Some("exclusive:0".into())),
        ("resources.cpus", |f| f.resources.get_or_insert_default().cpus = Some(String::new())),
        ("resources.cpus", |f| f.resources.get_or_insert_default().cpus = Some("near".into())),
    ];
    for (key, spoil) in cases {
        let mut fragment = minimal();
        spoil(&mut fragment);
        assert_eq!(run(fragment), Err(vec![key.to_owned()]), "{key}");
    }
}

#[test]
fn cpus_are_near_ones_a_list_or_so_many_of_its_own() {
    let wish = |text: Option<&str>| {
        let mut fragment = minimal();
        fragment.resources.get_or_insert_default().cpus = text.map(str::to_owned);
        run(fragment).expect("a valid file").cpus
    };
    assert_eq!((wish(None), wish(Some("numa"))), (CpuWish::Numa, CpuWish::Numa));
    assert_eq!(wish(Some("0-3,8")), CpuWish::List("0-3,8".parse().expect("a list")));
    assert_eq!(wish(Some("exclusive:2")), CpuWish::Exclusive(2));
}

#[test]
fn a_short_drain_settles_within_its_deadline() {
    let mut fragment = minimal();
    fragment.drain = Some(DrainFragment { deadline: Some("3s".into()), ..Default::default() });
    let drain = run(fragment).expect("a valid file").drain;
    assert_eq!((drain.deadline, drain.settle), (Usec::from_secs(3), Usec::from_secs(3)));
}

#[test]
fn a_drain_of_an_engine_that_is_seldom_asked_settles_for_as_long() {
    let mut fragment = minimal();
    fragment.health =
        Some(crate::config::fragment::HealthFragment { interval: Some("50s".into()), ..Default::default() });
    let spec = run(fragment).expect("a valid file");
    assert_eq!(spec.drain.settle, spec.health.interval.plus(spec.health.timeout));
}

#[test]
fn a_changed_file_names_the_keys_that_wait() {
    let old = run(minimal()).expect("a valid file");
    let mut fragment = minimal();
    fragment.model = Some("file:/srv/n.gguf".into());
    fragment.replicas = Some(2);
    fragment.resources.get_or_insert_default().memory_max = Some("1G".into());
    let new = run(fragment).expect("a valid file");
    assert_eq!(old.changed_keys(&new), ["model", "replicas", "resources"]);
    assert!(old.changed_keys(&old).is_empty());
}
