//! Properties of units that systemd does not know or would not set.

use crate::bench::{Bench, MANAGER, NAME, SETTLE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[tokio::test]
async fn a_property_that_systemd_would_not_set_is_left_out_and_is_a_taint() {
    let bench = Bench::new().await;
    bench.systemd.book.lock().expect("no test has failed in it").cannot_set = Some("ProtectHostname");
    bench.pool_file("a", SETTLE);
    bench.pool_file("b", SETTLE);
    let daemon = bench.daemon().await;
    for pool in ["a", "b"] {
        bench.wait_phase(pool, "ready").await;
    }
    let words: Vec<String> =
        bench.property(MANAGER, NAME, "Tainted").await.try_into().expect("it is of that type");
    assert!(words.contains(&"left-out:ProtectHostname".to_owned()), "{words:?}");
    let (asked, taken) = {
        let book = bench.systemd.book.lock().expect("no test has failed in it");
        let starts = book.calls.iter().filter(|call| call.starts_with("start ")).count();
        (starts, book.properties.clone())
    };
    assert_eq!(taken.len(), 4, "checks and engine of each: {:?}", taken.keys());
    for (unit, properties) in &taken {
        assert!(!properties.contains(&"ProtectHostname".to_owned()), "{unit}");
        assert!(properties.contains(&"ProtectHome".to_owned()), "{unit}");
    }
    // Of two pools that start at once each may learn it by itself; later starts know.
    assert!((5..=6).contains(&asked), "{asked} starts were asked for");
    let pid = Pid::from_raw(i32::try_from(daemon.0.id()).expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("it runs");
    let (code, said) = daemon.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(said.matches("engines run without ProtectHostname").count(), 1, "{said}");
}

#[tokio::test]
async fn a_unit_is_not_started_without_what_it_is() {
    let bench = Bench::new().await;
    bench.systemd.book.lock().expect("no test has failed in it").cannot_set = Some("DynamicUser");
    bench.pool_file("a", &format!("{SETTLE}[restart]\npolicy = \"never\"\n"));
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "failed").await;
    let path = format!("{MANAGER}/pool/a");
    let error: String = bench
        .property(&path, "org.llamaorch.PoolManager.Pool", "LastError")
        .await
        .try_into()
        .expect("it is of that type");
    assert!(error.contains("Cannot set property DynamicUser"), "{error}");
    assert!(
        bench.systemd.book.lock().expect("no test has failed in it").properties.is_empty(),
        "nothing was started"
    );
}

#[tokio::test]
async fn a_pools_weight_is_set_on_its_slice_and_taken_back() {
    let bench = Bench::new().await;
    bench.pool_file("a-b", &format!("{SETTLE}[resources]\ncpu_weight = 200\n"));
    bench.pool_file("plain", SETTLE);
    let _daemon = bench.daemon().await;
    for pool in ["a_2db", "plain"] {
        bench.wait_phase(pool, "ready").await;
    }
    let set = || std::mem::take(&mut bench.systemd.book.lock().expect("no test has failed in it").slices);
    let first = set();
    assert!(
        !first.is_empty() && first.iter().all(|set| set.starts_with("llamaorch-a\\x2db.slice: CPUWeight=")),
        "{first:?}"
    );
    assert!(first.iter().all(|set| set.contains("200")), "{first:?}");
    bench.pool_file("a-b", SETTLE);
    bench.api().reload().await.expect("the files are read");
    bench.api().stop("a-b").await.expect("a job").wait().await.expect("it stops");
    bench.api().start("a-b").await.expect("a job").wait().await.expect("it starts");
    let then = set();
    assert!(!then.is_empty() && then.iter().all(|set| set.contains(&u64::MAX.to_string())), "{then:?}");
}
