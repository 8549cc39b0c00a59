//! What engines may use and what they use, as systemd says it when it is asked.

use crate::bench::{Bench, MANAGER, SETTLE, wait_until};
use crate::systemd::{self, FakeUnit};

const UNIT: &str = "llamaorch-engine-a-r0.g1.service";

async fn serving() -> (Bench, crate::bench::Daemon) {
    let bench = Bench::new().await;
    bench.pool_file("a", &format!("{SETTLE}[resources]\nmemory_max = \"64MiB\"\n"));
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    bench.systemd_bus.object_server().at(systemd::path(UNIT), FakeUnit).await.expect("it is served");
    (bench, daemon)
}

#[tokio::test]
async fn a_status_tells_limits_and_what_is_used() {
    let (bench, _daemon) = serving().await;
    let output = bench.poolctl(&["status", "a"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Memory:     1 GiB of 64 GiB, 2 GiB at most so far"), "{text}");
    assert!(text.contains("Tasks:      4608 at most"), "{text}");
    assert!(text.contains("CPU time:   1 min 5 s"), "{text}");
    let pool = bench.api().pool("a").await.expect("a pool");
    let usage = bench.api().usage(&pool.replicas[0]).await.expect("an answer");
    assert_eq!((usage.memory_current, usage.memory_high, usage.tasks_current), (Some(1 << 30), None, None));
    // What does not run uses nothing that is known, and the missing controllers are those of the taint.
    bench.api().stop("a").await.expect("a job").wait().await.expect("it stops");
    let usage = bench.api().usage(&pool.replicas[0]).await.expect("an answer");
    assert_eq!((usage.memory_current, usage.memory_max), (None, None));
    let words: Vec<String> =
        bench.property(MANAGER, crate::bench::NAME, "Tainted").await.try_into().expect("it is of that type");
    let of = |word: &String| word.strip_prefix("no-controller:").map(str::to_owned);
    assert_eq!(words.iter().filter_map(of).collect::<Vec<_>>(), usage.missing_controllers);
}

#[tokio::test]
async fn a_units_lines_are_told_with_the_reasons_for_loosened_ones() {
    let bench = Bench::new().await;
    std::fs::write(
        bench.folder.join("etc/llamaorch/engines.d/test.toml"),
        "program = \"server\"\n[health]\npath = \"/health\"\n[sandbox]\nmemory_deny_write_execute = false\n\
         [sandbox.reasons]\nmemory_deny_write_execute = \"it compiles\"\n",
    )
    .expect("a folder of the test's own");
    bench.pool_file("a", SETTLE);
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let output = bench.poolctl(&["status", "--unit", "a"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("a-r0:\n  Description="), "{text}");
    assert!(text.contains("  MemoryDenyWriteExecute=no\n    # loosened: it compiles\n"), "{text}");
    let sent = bench.systemd.book.lock().expect("no test has failed in it").properties[UNIT].clone();
    let told: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once('='))
        .map(|(name, _)| name)
        .collect();
    let told: Vec<&str> = told.into_iter().filter(|name| !name.starts_with(' ')).collect();
    assert_eq!(told, sent, "as they were sent");
}

#[tokio::test]
async fn who_ran_out_of_memory_is_told_by_its_peak() {
    let (bench, _daemon) = serving().await;
    systemd::runs_out(&bench.systemd_bus, UNIT).await.expect("it is said");
    let pool = format!("{MANAGER}/pool/a");
    let text = async |name: &str| -> String {
        let value = bench.property(&pool, "org.llamaorch.PoolManager.Pool", name).await;
        value.try_into().expect("it is of that type")
    };
    wait_until("it is seen", async || text("LastErrorClass").await == "oom-host").await;
    let error = text("LastError").await;
    assert!(error.contains("it had 2 GiB at its peak, resources.memory_max is 64 MiB"), "{error}");
}
