//! The compiled `poolctl` against the compiled daemon.

use crate::bench::{Bench, Daemon, SETTLE, wait_until};
use std::io::Write;
use std::process::{Output, Stdio};

async fn serving() -> (Bench, Daemon) {
    let bench = Bench::new().await;
    bench.pool_file("a", SETTLE);
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    (bench, daemon)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn lease_runs_a_command_that_holds_a_lease_while_it_runs() {
    let (bench, _daemon) = serving().await;
    let held = async || bench.api().pool("a").await.unwrap().active_leases;
    let script = "echo \"$LLAMAORCH_ENDPOINT $LLAMAORCH_LEASE\"; read -r go; exit 3";
    let mut command = bench.poolctl_command(&["lease", "a", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the lease is held", async || held().await == 1).await;
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output);
    let endpoint = bench.api().pool("a").await.unwrap().endpoints.remove(0);
    assert!(said.starts_with(&format!("{endpoint} a-r0.")), "{said}");
    wait_until("the lease is over", async || held().await == 0).await;
}

#[tokio::test]
async fn lease_refuses_before_it_runs_anything() {
    let (bench, _daemon) = serving().await;
    let touched = bench.folder.join("touched");
    let touch = |pool: &'static str| ["lease", pool, "--", "touch", touched.to_str().unwrap()];
    let unknown = bench.poolctl(&touch("b")).await;
    assert_eq!(unknown.status.code(), Some(4), "{}", text(&unknown));
    bench.api().stop("a").await.unwrap().wait().await.unwrap();
    let stopped = bench.poolctl(&touch("a")).await;
    assert_eq!(stopped.status.code(), Some(7), "{}", text(&stopped));
    assert!(text(&stopped).contains("not ready"), "{}", text(&stopped));
    assert!(!touched.exists());
    bench.api().start("a").await.unwrap().wait().await.unwrap();
    let missing = bench.poolctl(&["lease", "a", "--", "/no/such/program"]).await;
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing));
    assert!(text(&missing).contains("/no/such/program"), "{}", text(&missing));
    let folder = bench.poolctl(&["lease", "a", "--", "/"]).await;
    assert_eq!(folder.status.code(), Some(126), "{}", text(&folder));
}

#[tokio::test]
async fn a_lease_is_waited_for_and_ends_at_its_time() {
    let bench = Bench::new().await;
    bench.pool_file("a", &format!("[leases]\ncapacity = 1\n{SETTLE}"));
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let held = async || bench.api().pool("a").await.expect("a pool").active_leases;
    // One that ends at its time, although its command still runs.
    let mut first = bench.poolctl_command(&["lease", "a", "--ttl", "300ms", "--", "sleep", "infinity"]);
    let mut first = Daemon(first.stdout(Stdio::null()).spawn().expect("started"));
    wait_until("the lease is held", async || held().await == 1).await;
    let refused = bench.poolctl(&["lease", "a", "--wait", "1ms", "--", "true"]).await;
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused));
    let waited = bench.poolctl(&["lease", "a", "--wait", "20s", "--", "echo", "mine"]).await;
    assert_eq!(text(&waited), "mine\n");
    assert!(first.0.try_wait().expect("a child").is_none(), "its command still runs");
    let odd = bench.poolctl(&["lease", "a", "--holder", "a/b", "--", "true"]).await;
    assert_eq!(odd.status.code(), Some(2), "{}", text(&odd));
    assert!(text(&odd).contains("holder"), "{}", text(&odd));
}

#[tokio::test]
async fn a_pool_of_somebody_else_is_registered_reported_of_and_forgotten() {
    let (bench, _daemon) = serving().await;
    let said = async |arguments: &[&str]| text(&bench.poolctl(arguments).await);
    let endpoint = "http://10.0.0.7:8000";
    let registered = ["register", "there", "--engine", "vllm", "--endpoint", endpoint];
    assert_eq!(said(&registered).await, "there: registered\n");
    let twice = bench.poolctl(&["register", "a"]).await;
    assert_eq!(twice.status.code(), Some(5), "{}", text(&twice));
    let report =
        ["report", "there", "--health", "ready", "--heartbeat", "--engine-version", "0.11", "--error", "hot"];
    assert_eq!(said(&report).await, "there: reported\n");
    let pool = bench.api().pool("there").await.expect("a pool");
    assert!(pool.external && pool.live && pool.ready && pool.last_heartbeat > 0, "{pool:?}");
    assert_eq!(
        (pool.engine.as_str(), pool.version.as_str(), pool.last_error.as_str()),
        ("vllm", "0.11", "hot")
    );
    let listed = said(&["list"]).await;
    assert!(listed.contains("there  ready  yes    vllm"), "{listed}");
    let lease = said(&["lease", "there", "--", "sh", "-c", "echo $LLAMAORCH_ENDPOINT"]).await;
    assert_eq!(lease, format!("{endpoint}\n"));
    assert_eq!(said(&["report", "there", "--health", "live"]).await, "there: reported\n");
    assert!(!bench.api().pool("there").await.expect("a pool").ready);
    let ours = bench.poolctl(&["report", "a", "--heartbeat"]).await;
    assert_eq!(ours.status.code(), Some(7), "{}", text(&ours));
    let started = bench.poolctl(&["start", "there"]).await;
    assert_eq!(started.status.code(), Some(7), "{}", text(&started));

    let numbers = said(&["statistics", "a"]).await;
    assert!(numbers.starts_with("ID  ACTIVE_LEASES  ") && numbers.contains("\na   0 "), "{numbers}");
    assert_eq!(bench.poolctl(&["statistics", "b"]).await.status.code(), Some(4));
    assert_eq!(said(&["unregister", "there"]).await, "there: unregistered\n");
    let gone = bench.poolctl(&["unregister", "there"]).await;
    assert_eq!(gone.status.code(), Some(4), "{}", text(&gone));
}

#[tokio::test]
async fn changes_are_shown_and_applied() {
    let (bench, _daemon) = serving().await;
    assert_eq!(text(&bench.poolctl(&["diff"]).await), "no changes wait\n");
    assert_eq!(text(&bench.poolctl(&["apply", "a"]).await), "a: no changes wait\n");
    bench.pool_file("a", &format!("args = [\"--new\"]\n{SETTLE}"));
    let reloaded = bench.poolctl(&["reload"]).await;
    assert!(text(&reloaded).starts_with("changed: a "), "{}", text(&reloaded));
    assert_eq!(text(&bench.poolctl(&["diff", "a"]).await), "a: args\n");
    let status = bench.poolctl(&["status", "a"]).await;
    assert!(text(&status).contains("poolctl apply a"), "{}", text(&status));
    assert_eq!(text(&bench.poolctl(&["apply", "a"]).await), "a: applied\n");
    assert_eq!(text(&bench.poolctl(&["diff", "a"]).await), "a: no changes wait\n");
    let other = bench.poolctl(&["reload", "a", "--model", "file:/srv/other", "--deadline", "5s"]).await;
    assert_eq!(text(&other), "a: reloaded\n");
    assert_eq!(bench.api().pool("a").await.unwrap().model_path, "/srv/other");
    let invalid = bench.poolctl(&["reload", "a", "--model", "floppy:a"]).await;
    assert_eq!(invalid.status.code(), Some(2), "{}", text(&invalid));
}

#[tokio::test]
async fn a_drain_is_waited_for_or_called_off() {
    let (bench, _daemon) = serving().await;
    let lease = bench.api().allocate_lease("a").await.unwrap();
    let job = bench.poolctl(&["drain", "--no-wait", "a"]).await;
    assert_eq!(text(&bench.poolctl(&["explain", "a", "--json"]).await).matches("\"draining\"").count(), 2);
    let path = text(&job).trim().strip_prefix("a: ").unwrap().to_owned();
    let status = text(&bench.poolctl(&["status", "a"]).await);
    assert!(
        status.contains(&format!(" {} (drain, 0 %)\n", path.rsplit('/').next().expect("a message comes"))),
        "{status}"
    );
    let cancelled = bench.poolctl(&["cancel", &path]).await;
    assert!(cancelled.status.success(), "{}", text(&cancelled));
    assert_eq!(bench.phase("a").await, "ready");
    let late = bench.poolctl(&["cancel", path.rsplit('/').next().unwrap()]).await;
    assert_eq!(late.status.code(), Some(7), "{}", text(&late));
    assert_eq!(bench.poolctl(&["cancel", "4711"]).await.status.code(), Some(4));
    assert_eq!(bench.poolctl(&["cancel", "that one"]).await.status.code(), Some(2));

    let forced = bench.poolctl(&["drain", "--deadline", "300ms", "a"]).await;
    assert!(text(&forced).contains("by force at the deadline: 1 leases"), "{}", text(&forced));
    drop(lease);
    bench.api().start("a").await.unwrap().wait().await.unwrap();
    assert_eq!(text(&bench.poolctl(&["drain", "a"]).await), "a: drained and stopped\n");
}

#[tokio::test]
async fn a_refused_pool_is_explained_and_reset() {
    let bench = Bench::new().await;
    bench.systemd.book.lock().unwrap().checks_fail = Some((151, "model-unreadable: no such file".into()));
    bench.pool_file("a", "");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "failed").await;
    let status = text(&bench.poolctl(&["status", "a"]).await);
    assert_eq!(status.matches("no such file").count(), 1, "{status}");
    let explained = text(&bench.poolctl(&["explain", "a"]).await);
    assert!(explained.contains("Reason:    failed\n  Replica: a-r0\n"), "{explained}");
    assert!(explained.contains(" ago)\n  Remedy:"), "{explained}");
    bench.systemd.book.lock().unwrap().checks_fail = None;
    assert_eq!(text(&bench.poolctl(&["reset", "a"]).await), "a: its failures are forgotten\n");
    bench.wait_phase("a", "ready").await;
    let explained = text(&bench.poolctl(&["explain", "a"]).await);
    assert!(explained.contains("Summary: 1 of 1 engines ready"), "{explained}");
    assert_eq!(bench.poolctl(&["explain", "b"]).await.status.code(), Some(4));
}
