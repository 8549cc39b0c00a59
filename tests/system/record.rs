//! The record of what the daemon took in: replayed, it comes to what is published.

use crate::host::{POOL, Pool, REPLICA, conformance_file, host};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::HashMap;
use xtask::replay::Replay;
use zbus::{OwnedVariant, Variant};

/// `RestartCount` is `restart_count`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// A property's value as JSON, for the types that the views have.
fn as_json(value: &OwnedVariant) -> Option<Value> {
    if let Ok(text) = <&str>::try_from(&**value) {
        return Some(json!(text));
    }
    if let Ok(flag) = bool::try_from(value) {
        return Some(json!(flag));
    }
    if let Ok(number) = u32::try_from(value) {
        return Some(json!(number));
    }
    u64::try_from(value).ok().map(|number| json!(number))
}

/// Holds every property of an object against what the replay came to; how many could be compared.
fn compare(pool: &Pool<'_>, path: &str, interface: &str, view: &Value) -> usize {
    let all: HashMap<String, OwnedVariant> =
        pool.host.call(path, "org.freedesktop.DBus.Properties", "GetAll", &(interface,)).unwrap();
    let mut compared = 0;
    // A sign of life comes with every report: there was one more between the record's last line and this question.
    for (name, value) in all.iter().filter(|(name, _)| *name != "LastHeartbeat") {
        if let (Some(said), Some(replayed)) = (as_json(value), view.get(snake(name))) {
            assert_eq!(said, *replayed, "{interface} {name}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn a_recorded_run_replayed_comes_to_what_is_published() {
    let host = host();
    let health = "[health]\ninterval = \"100ms\"\ntimeout = \"200ms\"\n[drain]\nsettle = \"400ms\"\n";
    let file = format!("{}{health}", conformance_file(&["--", "--api-key", "sk-nobody-else"]));
    let pool = host.pool("recorded", &file);
    pool.wait_ready();
    host.kill(pool.main_pid(0), Signal::SIGKILL);
    pool.wait_phase("backoff");
    pool.wait_ready();
    let drained = host.conformance("drained", &[]);
    drained.wait_ready();
    assert!(host.poolctl(&["drain", "drained", "--deadline", "1s"]).status.success());
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let held: (String, String, zbus::OwnedFd) = host.manager("AllocateLease", &("recorded", options));
    host.shell("rm -f /root/report.json; umask 077; poolctl bugreport /root/report.json");
    let report = host.sandbox.root().join("root/report.json");

    let mut replay = Replay::open(&report, false).unwrap();
    let (mut inputs, mut phases) = (0, Vec::new());
    while let Some(step) = replay.step().unwrap() {
        inputs += 1;
        phases.extend(
            step.phases.into_iter().filter(|(id, ..)| id.as_str() == "recorded").map(|(_, _, to)| to),
        );
    }
    println!("{inputs} inputs replayed");
    let story = ["staging", "starting", "ready", "stopping", "backoff", "staging", "starting", "ready"];
    let tail = phases.len().saturating_sub(story.len());
    assert_eq!(phases[tail..], story, "of all: {phases:?}");
    let view = replay.json();
    for pool in [&pool, &drained] {
        let (pools, replicas) = (&view["pools"][&pool.id], &view["replicas"][format!("{}-r0", pool.id)]);
        let compared = compare(pool, &pool.path(), POOL, pools);
        assert!(compared >= 25, "only {compared} properties of the pool could be compared");
        let compared = compare(pool, &pool.replica_path(0), REPLICA, replicas);
        assert!(compared >= 10, "only {compared} properties of the engine could be compared");
    }
    assert_eq!(view["pools"]["recorded"]["active_leases"], 1);
    drop(held);

    let text = std::fs::read_to_string(&report).unwrap();
    assert!(!text.contains("sk-nobody-else") && text.contains("[redacted]"), "a secret is in the report");
    assert!(text.contains("\"systemd\"") && text.contains("/etc/llamaorch/pools.d/recorded.toml"));
}
