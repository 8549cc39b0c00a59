//! Ready means that the engine's own health check answers 200: never before, and soon after.

use crate::host::{Host, Pool, host, median};
use std::time::Duration;

/// When the conformance engine itself became ready, by its stamp.
fn stamp(host: &Host, pool: &str, name: &str) -> Duration {
    let nanos = host.shell(&format!("cat /var/cache/private/llamaorch/{pool}/{name}"));
    Duration::from_nanos(nanos.trim().parse().unwrap_or_else(|_| panic!("{nanos:?}")))
}

#[test]
fn ready_follows_a_load_of_150_ms_within_30_ms() {
    let host = host();
    let mut delays = Vec::new();
    let pool =
        host.conformance("quick", &["--load-time", "150ms", "--stamp", "/var/cache/llamaorch/quick/stamp"]);
    pool.wait_ready();
    for _ in 0..20 {
        pool.stop();
        let mut signals = host.listen();
        pool.start();
        let ready = signals.when(&pool.path(), "Ready", true);
        let own = stamp(&host, "quick", "stamp");
        assert!(ready >= own, "ready {:?} before the engine was", own - ready);
        delays.push(ready - own);
    }
    assert!(median("own 200 to Ready=true after a load of 0.15 s", delays) <= Duration::from_millis(30));
}

#[test]
fn ready_follows_a_load_of_60_s_within_250_ms() {
    let host = host();
    // Loads that differ a little, side by side: one minute for all samples. One stamp each, named by the port.
    let mut pools: Vec<Pool<'_>> = Vec::new();
    let mut signals = host.listen();
    for index in 0..7_u32 {
        let id = format!("slow{index}");
        let load = format!("{}ms", 60_000 + index * 37);
        let file = format!("/var/cache/llamaorch/{id}/stamp");
        pools.push(host.conformance(&id, &["--load-time", &load, "--stamp", &file]));
    }
    let mut delays = Vec::new();
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < pools.len() {
        let signal = (0..5).find_map(|_| signals.next()).expect("the pools get ready");
        let ready = signal.changed.get("Ready").and_then(|value| bool::try_from(value).ok());
        if let (Some(pool), Some(true)) = (pools.iter().find(|pool| pool.path() == signal.path), ready) {
            seen.insert(pool.id.clone(), signal.at);
        }
    }
    for pool in &pools {
        let (ready, own) = (seen[&pool.id], stamp(&host, &pool.id, "stamp"));
        assert!(ready >= own, "{}: ready before the engine was", pool.id);
        delays.push(ready - own);
    }
    assert!(median("own 200 to Ready=true after a load of 60 s", delays) <= Duration::from_millis(250));
}

#[test]
fn an_engine_that_listens_on_the_wrong_port_is_not_ready() {
    let host = host();
    let pool = host.conformance("wrong", &["--wrong-port"]);
    pool.wait_phase("starting");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((pool.text("Phase"), pool.flag("Ready")), ("starting".into(), false));
}

#[test]
fn loading_is_told_in_words() {
    let host = host();
    let pool = host.conformance("words", &["--load-time", "30s"]);
    host.wait_until("the status says that it loads", || pool.text("Detail").contains("loading"));
    assert!(pool.flag("Live") && !pool.flag("Ready"));
}
