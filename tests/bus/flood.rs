//! Callers that mean no good: they are limited by name or thrown off by the bus, others hardly notice, and the daemon does
//! not grow.

use crate::bench::{Bench, MANAGER, NAME, memory};
use pool_bus_bench::series::Series;
use pool_bus_bench::wire::{Call, Wire};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zbus::Variant;

const POOLS: usize = 1_000;
const CALLS: usize = 10_000;
const LIMITS: &str = "org.freedesktop.DBus.Error.LimitsExceeded";

fn health() -> Call {
    Call::new((NAME, MANAGER, NAME), "GetHealth", &("p1",)).expect("a call")
}

/// Ten thousand calls and a thousand jobs at once, of which no answer is read for a while; then, by name, what came of
/// them. `None`: the bus threw it off.
fn flood(mut wire: Wire) -> Option<BTreeMap<String, usize>> {
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let mut sent = 0;
    for number in 0..POOLS {
        let stop =
            Call::new((NAME, MANAGER, NAME), "StopPool", &(format!("p{number}"), &options)).expect("a call");
        wire.send(&stop, 1).ok()?;
        sent += 1;
    }
    for _ in 0..CALLS / 100 {
        wire.send(&health(), 100).ok()?;
        sent += 100;
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut outcomes = BTreeMap::new();
    while sent > 0 {
        let incoming = wire.message().ok()?;
        // An error has a name, an answer none.
        if matches!(incoming.kind, 2 | 3) {
            *outcomes.entry(incoming.error).or_default() += 1;
            sent -= 1;
        }
    }
    Some(outcomes)
}

/// How long `GetHealth` takes during that time.
fn patience(mut wire: Wire, until: impl Fn() -> bool) -> Series {
    let mut times = Series::default();
    while !until() {
        let begun = Instant::now();
        wire.ask(&health()).expect("an answer");
        times.add(begun.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    times
}

#[tokio::test]
async fn who_floods_is_limited_and_others_hardly_notice() {
    let bench = Bench::new().await;
    for number in 0..POOLS {
        bench.pool_file(&format!("p{number}"), "activation = \"manual\"\n");
    }
    let daemon = bench.daemon().await;
    let connect = || Wire::connect_to(bench.bus.path()).expect("the bus is there");
    let before = memory(&daemon, "VmRSS");

    let wire = connect();
    let begun = Instant::now();
    let quiet =
        tokio::task::spawn_blocking(move || patience(wire, || begun.elapsed() > Duration::from_secs(3)));
    let quiet = quiet.await.expect("it does not panic");

    let over = Arc::new(AtomicBool::new(false));
    let (mut others, mut floods) = (Vec::new(), Vec::new());
    // Somebody wants everything, again and again.
    let (mut wire, ends) = (connect(), over.clone());
    let objects = std::thread::spawn(move || {
        let managed = (NAME, MANAGER, "org.freedesktop.DBus.ObjectManager");
        let call = Call::new(managed, "GetManagedObjects", &()).expect("a call");
        let mut times = 0;
        while !ends.load(Ordering::Relaxed) {
            wire.ask(&call).expect("all objects");
            times += 1;
        }
        times
    });
    for _ in 0..2 {
        let wire = connect();
        floods.push(std::thread::spawn(move || flood(wire)));
    }
    let (wire, ends) = (connect(), over.clone());
    others.push(tokio::task::spawn_blocking(move || patience(wire, || ends.load(Ordering::Relaxed))));
    let outcomes = tokio::task::spawn_blocking(move || {
        let outcomes: Vec<_> =
            floods.into_iter().map(|flood| flood.join().expect("it does not panic")).collect();
        std::thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
        (outcomes, objects.join().expect("it does not panic"))
    });
    let (outcomes, objects) = outcomes.await.expect("it does not panic");
    let flooded = others.remove(0).await.expect("it does not panic");
    let peak = memory(&daemon, "VmHWM");
    println!(
        "GetHealth, p99 (median): quiet {:?} ({:?}), flooded {:?} ({:?}) of {}; all objects {objects} times; resident {before} \
         KiB, at most {peak} KiB; {outcomes:?}",
        quiet.at(0.99),
        quiet.median(),
        flooded.at(0.99),
        flooded.median(),
        flooded.count(),
    );
    for outcomes in outcomes {
        // The bus, or the daemon.
        assert!(outcomes.is_none_or(|outcomes| outcomes.contains_key(LIMITS)), "nobody limited it");
    }
    // A debug build on a machine that does other things, and a hundred questions: the figure that counts is the bench's.
    let most = Duration::from_millis(500).max(50 * quiet.at(0.9));
    assert!(flooded.at(0.9) < most, "others waited {:?}", flooded.at(0.9));
    assert!(peak < 200 * 1024, "{peak} KiB");
}
