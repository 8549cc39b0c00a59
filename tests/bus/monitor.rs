//! What an operator sees who watches the bus during one start.

use crate::bench::{Bench, MANAGER, NAME};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use zbus::Variant;

#[tokio::test]
async fn busctl_monitor_shows_each_change_of_a_start_once() {
    let bench = Bench::new().await;
    bench.pool_file("a", "activation = \"manual\"\n");
    let _daemon = bench.daemon().await;
    let mut monitor = Command::new("busctl")
        .arg(format!("--address={}", bench.bus.address))
        .args(["monitor", "--json=short", "--quiet", NAME])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("busctl is needed: apt-get install systemd");
    let lines = BufReader::new(monitor.stdout.take().expect("it is piped")).lines();
    let (sender, shown) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let message: Value = serde_json::from_str(&line).expect("JSON of busctl");
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    // It sees what comes once it is a monitor, which is when it sees this.
    while shown.try_recv().is_err() {
        bench.property(MANAGER, NAME, "PoolCount").await;
    }
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    bench
        .client
        .call_method(Some(NAME), MANAGER, Some(NAME), "StartPool", &("a", options))
        .await
        .expect("a job");
    bench.wait_phase("a", "ready").await;
    // The last thing that is to be seen.
    bench.property(MANAGER, NAME, "Features").await;

    let mut known: BTreeMap<(String, String, String), Value> = BTreeMap::new();
    let mut phases = Vec::new();
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        let message = shown.recv_timeout(Duration::from_secs(10)).expect("what was done is shown");
        let body = &message["payload"]["data"];
        let member = message["member"].as_str().unwrap_or_default();
        if message["type"] == "method_call" && body[1] == "Features" {
            break;
        }
        if message["type"] != "signal" {
            continue;
        }
        *times.entry(member.to_owned()).or_default() += 1;
        if member != "PropertiesChanged" {
            continue;
        }
        let (path, interface) = (message["path"].to_string(), body[0].to_string());
        let changed = body[1].as_object().expect("a dictionary");
        assert!(!changed.is_empty() && body[2] == Value::Array(Vec::new()), "{message}");
        for (name, value) in changed {
            let before = known.insert((path.clone(), interface.clone(), name.clone()), value.clone());
            assert_ne!(
                before.as_ref(),
                Some(value),
                "{path} {interface} {name} is signalled without a change"
            );
        }
        if let Some(phase) = changed.get("Phase").filter(|_| interface.contains(".Pool\"")) {
            phases.push(phase["data"].as_str().expect("a word").to_owned());
        }
    }
    monitor.kill().expect("it runs");
    monitor.wait().expect("it has ended");
    println!("one start: {times:?}, phases {phases:?}");
    let mut each_once = phases.clone();
    each_once.sort();
    each_once.dedup();
    assert_eq!(each_once.len(), phases.len(), "a phase twice: {phases:?}");
    assert_eq!(phases.last().map(String::as_str), Some("ready"));
    assert_eq!(
        (times.get("JobNew"), times.get("JobRemoved"), times.get("HealthChanged")),
        (Some(&1), Some(&1), Some(&1))
    );
}
