//! What a client sees, in which order.

use crate::bench::{Bench, MANAGER, NAME, SETTLE, wait_until};
use futures_util::StreamExt;
use pool_bus_bench::wire::{BUS, Call, Wire};
use std::collections::HashMap;
use zbus::{MessageStream, Variant};

#[tokio::test]
async fn the_name_is_taken_when_everything_is_there() {
    let bench = Bench::new().await;
    for id in ["a", "b", "c"] {
        bench.pool_file(id, "activation = \"manual\"\n");
    }
    let bus = zbus::fdo::DBusProxy::new(&bench.client).await.unwrap();
    let mut owners = bus.receive_name_owner_changed_with_args(&[(0, NAME)]).await.unwrap();
    let _daemon = bench.daemon().await;
    owners.next().await.unwrap();
    let reply = bench.client.call_method(Some(NAME), MANAGER, Some(NAME), "ListPools", &()).await.unwrap();
    let pools: Vec<(String, zbus::OwnedObjectPath, String, bool, bool, u32)> =
        reply.body().deserialize().unwrap();
    assert_eq!(pools.iter().map(|pool| pool.0.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_reply_comes_after_the_signals_of_what_it_says() {
    let bench = Bench::new().await;
    bench.pool_file("a", "activation = \"manual\"\n");
    let _daemon = bench.daemon().await;
    let rule = zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(NAME).build().unwrap();
    let mut signals = MessageStream::for_match_rule(rule, &bench.client, None).await.unwrap();
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let reply = bench
        .client
        .call_method(Some(NAME), MANAGER, Some(NAME), "StartPool", &("a", options))
        .await
        .unwrap();
    let job: zbus::OwnedObjectPath = reply.body().deserialize().unwrap();
    loop {
        let signal = signals.next().await.unwrap().unwrap();
        let member = signal.header().member().unwrap().to_string();
        if member == "JobNew" {
            let body = signal.body();
            let (_, path, _, _): (u32, zbus::OwnedObjectPath, String, String) = body.deserialize().unwrap();
            assert_eq!(path, job);
            assert!(signal.recv_position() < reply.recv_position(), "the signal came after the reply");
            return;
        }
    }
}

#[tokio::test]
async fn one_start_signals_each_phase_once_and_health_by_its_own_signal() {
    let bench = Bench::new().await;
    bench.pool_file("a", "activation = \"manual\"\n");
    let _daemon = bench.daemon().await;
    let rule = zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(NAME).build().unwrap();
    let mut signals = MessageStream::for_match_rule(rule, &bench.client, None).await.unwrap();
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    bench.client.call_method(Some(NAME), MANAGER, Some(NAME), "StartPool", &("a", options)).await.unwrap();
    let (mut phases, mut health) = (Vec::new(), Vec::new());
    while phases.last().map(String::as_str) != Some("ready") || health.is_empty() {
        let signal = signals.next().await.unwrap().unwrap();
        let body = signal.body();
        match signal.header().member().unwrap().as_str() {
            "HealthChanged" => {
                let (id, live, ready, _): (String, bool, bool, String) = body.deserialize().unwrap();
                health.push((id, live, ready));
            }
            "PropertiesChanged" => {
                let (interface, changed, invalidated): (String, HashMap<String, Variant<'_>>, Vec<String>) =
                    body.deserialize().unwrap();
                assert!(invalidated.is_empty() && !changed.is_empty());
                if interface.ends_with(".Pool") {
                    phases.extend(changed.get("Phase").map(|phase| String::try_from(phase).unwrap()));
                }
            }
            _ => {}
        }
    }
    let mut unique = phases.clone();
    unique.dedup();
    assert_eq!(phases, unique, "no phase is signalled twice in a row");
    assert_eq!(health, [("a".to_owned(), true, true)]);
}

#[tokio::test]
async fn objects_come_and_go_with_their_pools() {
    let bench = Bench::new().await;
    bench.pool_file("a", &format!("replicas = 2\n{SETTLE}"));
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let objects = async || {
        let reply = bench
            .client
            .call_method(
                Some(NAME),
                MANAGER,
                Some("org.freedesktop.DBus.ObjectManager"),
                "GetManagedObjects",
                &(),
            )
            .await
            .unwrap();
        let body = reply.body();
        let objects: HashMap<zbus::OwnedObjectPath, HashMap<String, HashMap<String, zbus::OwnedVariant>>> =
            body.deserialize().unwrap();
        // Elements of paths without an object of ours are listed with the standard interfaces only.
        let ours = |interfaces: &HashMap<String, _>| interfaces.keys().any(|name| name.starts_with(NAME));
        let mut paths: Vec<String> = objects
            .iter()
            .filter(|(_, interfaces)| ours(interfaces))
            .map(|(path, _)| path.to_string())
            .collect();
        paths.sort();
        paths
    };
    let expected = ["pool/a", "replica/a_2dr0", "replica/a_2dr1"].map(|path| format!("{MANAGER}/{path}"));
    assert_eq!(objects().await, expected);
    std::fs::remove_file(bench.folder.join("etc/llamaorch/pools.d/a.toml")).unwrap();
    bench.client.call_method(Some(NAME), MANAGER, Some(NAME), "ReloadConfiguration", &()).await.unwrap();
    wait_until("all are gone", async || objects().await.is_empty()).await;
}

type Objects = HashMap<zbus::OwnedObjectPath, HashMap<String, HashMap<String, zbus::OwnedVariant>>>;

/// What an object manager's client knows, as text that can be compared.
type Known = std::collections::BTreeMap<(String, String, String), String>;

fn learn(known: &mut Known, path: &str, interface: &str, properties: HashMap<String, impl std::fmt::Debug>) {
    // Their changes are not signalled, as their annotations say.
    let silent = ["Generation", "ActiveLeases", "SlotsFree", "InFlight", "LastHeartbeat"];
    for (name, value) in properties.into_iter().filter(|(name, _)| !silent.contains(&name.as_str())) {
        known.insert((path.to_owned(), interface.to_owned(), name), format!("{value:?}"));
    }
}

async fn managed(bench: &Bench) -> Known {
    let object_manager = Some("org.freedesktop.DBus.ObjectManager");
    let reply = bench
        .client
        .call_method(Some(NAME), MANAGER, object_manager, "GetManagedObjects", &())
        .await
        .unwrap();
    let body = reply.body();
    let mut known = Known::new();
    for (path, interfaces) in body.deserialize::<Objects>().unwrap() {
        for (interface, properties) in interfaces {
            let properties =
                properties.into_iter().map(|(name, value)| (name, value.try_clone().unwrap())).collect();
            learn(&mut known, path.as_str(), &interface, properties);
        }
    }
    let reply = bench
        .client
        .call_method(Some(NAME), MANAGER, Some("org.freedesktop.DBus.Properties"), "GetAll", &(NAME,))
        .await
        .unwrap();
    learn(
        &mut known,
        MANAGER,
        NAME,
        reply.body().deserialize::<HashMap<String, zbus::OwnedVariant>>().unwrap(),
    );
    known
}

#[tokio::test]
async fn a_client_that_folds_signals_knows_what_a_fresh_look_shows() {
    let bench = Bench::new().await;
    bench.pool_file("a", "activation = \"manual\"\n");
    let _daemon = bench.daemon().await;
    let rule = zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(NAME).build().unwrap();
    let mut signals =
        MessageStream::for_match_rule(rule, &bench.client, Some(4096.try_into().unwrap())).await.unwrap();
    let mut known = managed(&bench).await;
    let before = known.clone();

    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    bench.client.call_method(Some(NAME), MANAGER, Some(NAME), "StartPool", &("a", options)).await.unwrap();
    bench.wait_phase("a", "ready").await;
    bench.pool_file("a", "args = [\"--new\"]\nactivation = \"manual\"\n");
    bench.pool_file("b", &format!("replicas = 2\n[leases]\ncapacity = 3\n{SETTLE}"));
    bench.pool_file("broken", "typo = 1\n");
    bench.client.call_method(Some(NAME), MANAGER, Some(NAME), "ReloadConfiguration", &()).await.unwrap();
    bench.wait_phase("b", "ready").await;
    let engine = "llamaorch-engine-a-r0.g1.service";
    crate::systemd::say(&bench.systemd_bus, None, engine, "failed", "failed", 0).await.unwrap();
    bench.wait_phase("a", "backoff").await;
    let _lease = bench.api().allocate_lease("b").await.unwrap();
    bench.api().drain("b", None).await.unwrap();

    // What is signalled before the answer to this call is all that the answer shows.
    let fresh = managed(&bench).await;
    while let Ok(Some(Ok(signal))) =
        tokio::time::timeout(std::time::Duration::from_millis(300), signals.next()).await
    {
        let header = signal.header();
        let body = signal.body();
        match header.member().unwrap().as_str() {
            "PropertiesChanged" => {
                let (interface, changed, _): (String, HashMap<String, zbus::OwnedVariant>, Vec<String>) =
                    body.deserialize().unwrap();
                learn(&mut known, header.path().unwrap().as_str(), &interface, changed);
            }
            "InterfacesAdded" => {
                let (path, interfaces): (
                    zbus::OwnedObjectPath,
                    HashMap<String, HashMap<String, zbus::OwnedVariant>>,
                ) = body.deserialize().unwrap();
                for (interface, properties) in interfaces {
                    learn(&mut known, path.as_str(), &interface, properties);
                }
            }
            _ => {}
        }
    }
    assert_ne!(before, fresh);
    let differs: Vec<_> = fresh.iter().filter(|(key, value)| known.get(*key) != Some(*value)).collect();
    assert!(differs.is_empty(), "folded differently: {differs:#?}");
}

#[tokio::test]
async fn a_refusal_does_not_come_before_the_news_that_it_is_judged_by() {
    let bench = Bench::new().await;
    let _daemon = bench.daemon().await;
    let socket = bench.bus.path().to_owned();
    let ask = move || {
        let mut wire = Wire::connect_to(&socket).expect("the bus is there");
        let rule = format!("type='signal',sender='{NAME}',member='PoolAdded'");
        wire.ask(&Call::new(BUS, "AddMatch", &(rule,)).expect("a call")).expect("the bus takes it");
        let options = HashMap::from([("engine", Variant::from("vllm"))]);
        let register = Call::new((NAME, MANAGER, NAME), "RegisterPool", &("x", options)).expect("a call");
        // Both at once, so that they are looked at together.
        wire.send(&register, 2).expect("the bus takes it");
        let mut came = Vec::new();
        while came.iter().filter(|what| **what != "PoolAdded").count() < 2 {
            let incoming = wire.message().expect("a message");
            match incoming.kind {
                2 => came.push("registered"),
                3 => came.push("refused"),
                _ if incoming.member == "PoolAdded" => came.push("PoolAdded"),
                _ => {}
            }
        }
        came
    };
    let came = tokio::task::spawn_blocking(ask).await.expect("it does not panic");
    assert_eq!(came, ["PoolAdded", "registered", "refused"]);
}
