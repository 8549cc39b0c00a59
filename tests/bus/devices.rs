//! Devices that the host's owner states: what a unit gets of them, and what is told of them.

use crate::bench::{Bench, Daemon, MANAGER, NAME, SETTLE, signal};
use serde_json::{Value, json};
use std::fs;

const POOL: &str = "org.llamaorch.PoolManager.Pool";

/// A host with two devices, and a pool on the second one.
async fn serving() -> (Bench, Daemon) {
    let bench = Bench::new().await;
    bench.devices(2);
    bench.pool_on("a", "1", SETTLE);
    bench.pool_file("cpu", SETTLE);
    let daemon = bench.daemon().await;
    for pool in ["a", "cpu"] {
        bench.wait_phase(pool, "ready").await;
    }
    (bench, daemon)
}

async fn said(bench: &Bench, arguments: &[&str]) -> Value {
    let output = bench.poolctl(&[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What systemd was told of nodes after a unit's start.
fn told_since(bench: &Bench) -> Vec<String> {
    let mut book = bench.systemd.book.lock().expect("no test has failed in it");
    let told = std::mem::take(&mut book.slices);
    told.into_iter().filter(|told| told.contains("DeviceAllow")).collect()
}

#[tokio::test]
async fn an_engine_may_open_the_nodes_of_its_own_devices() {
    let (bench, _daemon) = serving().await;
    let sent = bench.systemd.book.lock().expect("no test has failed in it").properties.clone();
    for kind in ["stage", "engine"] {
        let has = |pool: &str, property: &str| {
            sent[&format!("llamaorch-{kind}-{pool}-r0.g1.service")].contains(&property.to_owned())
        };
        assert!(has("a", "DeviceAllow") && has("a", "LimitMEMLOCK") && has("a", "DevicePolicy"));
        assert!(!has("cpu", "DeviceAllow") && !has("cpu", "LimitMEMLOCK") && has("cpu", "DevicePolicy"));
    }
    let lines = said(&bench, &["status", "--unit", "a"]).await.to_string();
    assert!(
        lines.contains("/dev/nvidia1:rw /dev/nvidiactl:rw") && !lines.contains("/dev/nvidia0"),
        "{lines}"
    );
    assert!(lines.contains("CUDA_VISIBLE_DEVICES=GPU-1"), "{lines}");
    assert_eq!(told_since(&bench), [""; 0]);
    // A node that was missing is back: whoever knows has the files read.
    said(&bench, &["reload"]).await;
    let told = told_since(&bench);
    assert!(
        matches!(told.as_slice(), [one] if one.starts_with("llamaorch-engine-a-r0.g1.service: ")
            && one.contains("/dev/nvidia1") && !one.contains("/dev/nvidia0")),
        "{told:?}"
    );
}

#[tokio::test]
async fn devices_are_told_of_with_the_pools_that_may_use_them() {
    let (bench, _daemon) = serving().await;
    let status = said(&bench, &["status", "a"]).await;
    assert_eq!((&status["device_mask"], &status["devices"]), (&json!("1"), &json!(["GPU-1"])));
    assert_eq!(status["replicas"][0]["devices"], json!(["GPU-1"]));
    let path = format!("{MANAGER}/pool/cpu");
    let mask: String = bench.property(&path, POOL, "DeviceMask").await.try_into().expect("a text");
    assert_eq!(mask, "none");
    let devices = said(&bench, &["devices"]).await;
    let known: Vec<_> = devices
        .as_array()
        .expect("an array")
        .iter()
        .map(|device| (device["uuid"].clone(), device["health"].clone(), device["pools"].clone()))
        .collect();
    assert_eq!(
        known,
        [(json!("GPU-0"), json!("ok"), json!([])), (json!("GPU-1"), json!("ok"), json!(["a"])),]
    );
}

#[tokio::test]
async fn what_is_out_of_use_or_not_there_starts_nothing_and_says_why() {
    let (bench, _daemon) = serving().await;
    let taken = said(&bench, &["quarantine", "GPU-1", "it smells"]).await;
    assert_eq!(taken, json!({ "device": "GPU-1", "result": "quarantined" }));
    assert_eq!(bench.phase("a").await, "ready", "what runs goes on");
    said(&bench, &["stop", "a"]).await;
    let refused = bench.poolctl(&["start", "a"]).await;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("device 1 (GPU-1) is out of use: it smells"),
        "{words}"
    );
    let reasons = said(&bench, &["explain", "a"]).await.to_string();
    assert!(reasons.contains("not-admitted") && reasons.contains("poolctl readmit GPU-1"), "{reasons}");
    said(&bench, &["readmit", "GPU-1"]).await;
    said(&bench, &["start", "a"]).await;
    assert_eq!(bench.poolctl(&["readmit", "GPU-9"]).await.status.code(), Some(4));

    // A pool whose device comes later is started then, by nobody but the file.
    let mut signals = bench.signals().await;
    bench.pool_on("b", "2", SETTLE);
    said(&bench, &["reload"]).await;
    bench.wait_phase("b", "failed").await;
    bench.devices(3);
    said(&bench, &["reload"]).await;
    bench.wait_phase("b", "ready").await;
    signal(&mut signals, "InterfacesAdded").await;
}

#[tokio::test]
async fn a_file_with_a_mistake_is_told_and_what_was_known_holds() {
    let (bench, _daemon) = serving().await;
    let file = bench.folder.join("etc/llamaorch/devices.toml");
    fs::write(&file, "[[device]]\nuuid = \"GPU-7\"\nindex = 7\n").expect("a file of the test's own");
    let output = bench.poolctl(&["reload"]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("devices.toml") && words.contains("device.nodes: missing"), "{words}");
    let errors: Vec<(String, String)> =
        bench.property(MANAGER, NAME, "ConfigurationErrors").await.try_into().expect("of that type");
    assert!(errors.iter().any(|(file, _)| file.ends_with("devices.toml")), "{errors:?}");
    let root = bench.folder.to_str().expect("a path");
    assert_eq!(bench.poolctl(&["check", "--root", root]).await.status.code(), Some(2));
    let file = file.to_str().expect("a path");
    assert_eq!(bench.poolctl(&["check", file]).await.status.code(), Some(2));
    assert_eq!(said(&bench, &["devices"]).await.as_array().map(Vec::len), Some(2));
    said(&bench, &["stop", "a"]).await;
    said(&bench, &["start", "a"]).await;
    bench.devices(1);
    assert_eq!(said(&bench, &["check", file]).await, json!({ "files": 1, "errors": [] }));
}
