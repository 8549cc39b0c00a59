//! Drains and leases: nothing new is let in, what is there runs out, and the deadline is kept.

use crate::host::{Host, NAME, POOL, Pool, ROOT, SOON, conformance_file, host, llama_file, monotonic};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::time::Duration;
use zbus::{OwnedFd, OwnedObjectPath, Variant};

const JOB: &str = "org.llamaorch.PoolManager.Job";

/// Probes often, so that a drain may settle soon; two leases, however many slots the engine has.
const PROMPT: &str = "[health]\ninterval = \"100ms\"\ntimeout = \"200ms\"\n[drain]\nsettle = \"400ms\"\n[leases]\ncapacity = 2\n";

fn prompt<'a>(host: &'a Host, id: &str) -> Pool<'a> {
    let file = if host.has_llama() { llama_file() } else { conformance_file(&[]) };
    let pool = host.pool(id, &format!("{file}{PROMPT}"));
    pool.wait_ready();
    pool
}

fn none() -> HashMap<&'static str, Variant<'static>> {
    HashMap::new()
}

fn lease(host: &Host, pool: &str) -> Result<(String, String, OwnedFd), zbus::Error> {
    host.call(ROOT, NAME, "AllocateLease", &(pool, none()))
}

fn drain(host: &Host, pool: &str, deadline: Duration) -> OwnedObjectPath {
    let deadline = u64::try_from(deadline.as_micros()).unwrap();
    host.manager("DrainPool", &(pool, deadline, none()))
}

fn result(host: &Host, job: &OwnedObjectPath) -> String {
    host.call(job.as_str(), JOB, "Wait", &()).unwrap()
}

fn refused_as<T>(called: Result<T, zbus::Error>) -> String {
    match called {
        Err(zbus::Error::MethodError(name, ..)) => name.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn a_drain_lets_nothing_new_in_and_ends_when_its_last_lease_does() {
    let host = host();
    let pool = prompt(&host, "leased");
    let (_, endpoint, held) = lease(&host, "leased").unwrap();
    assert_eq!(endpoint, pool.endpoint());
    assert_eq!(pool.number("ActiveLeases"), 1);
    let job = drain(&host, "leased", Duration::ZERO);
    assert_eq!((pool.flag("Ready"), pool.flag("Live"), pool.flag("Draining")), (false, true, true));
    assert_eq!(refused_as(lease(&host, "leased")), "org.llamaorch.PoolManager.Error.Draining");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((pool.text("Phase").as_str(), pool.number("ActiveLeases")), ("draining", 1));
    let health = format!("{endpoint}/health");
    assert_eq!(host.http("GET", &health).0, 200, "the engine works on");
    drop(held);
    assert_eq!(result(&host, &job), "done");
    assert_eq!((pool.text("Phase").as_str(), pool.text("LastError").as_str()), ("stopped", ""));
}

#[test]
fn a_drain_stops_what_is_left_by_force_at_its_deadline() {
    let host = host();
    let pool = prompt(&host, "forced");
    let (lease, _, _held) = lease(&host, "forced").unwrap();
    let deadline = Duration::from_secs(2);
    let mut signals = host.listen();
    let begun = monotonic();
    let job = drain(&host, "forced", deadline);
    let ended = signals.when(&pool.replica_path(0), "Ready", false);
    let took = ended - begun;
    println!("stopped by force {took:?} after a drain of {deadline:?} was asked for");
    assert!(took.abs_diff(deadline) <= Duration::from_millis(200), "{took:?}");
    assert_eq!(result(&host, &job), "done");
    let error = pool.text("LastError");
    assert!(error.contains("deadline passed with 1 leases held") && error.contains("by force"), "{error}");
    assert_eq!(pool.text("LastErrorClass"), "stopped");
    let details: HashMap<String, zbus::OwnedVariant> = host.property(job.as_str(), JOB, "Details");
    assert!(bool::try_from(&details["force_stopped"]).unwrap());
    let release = host.call::<_, ()>(ROOT, NAME, "ReleaseLease", &(lease.as_str(),));
    assert_eq!(refused_as(release), "org.llamaorch.PoolManager.Error.NoSuchLease");
}

#[test]
fn a_drain_waits_for_requests_in_flight_although_nobody_has_a_lease() {
    let host = host();
    let pool = host.pool("flight", &format!("{}{PROMPT}", conformance_file(&[])));
    pool.wait_ready();
    let url = format!("{}/completion", pool.endpoint());
    let argv = ["curl", "-s", "-w", "%{http_code}", "-o", "/dev/null", "-d", "{\"delay_ms\": 4000}", &url];
    let mut request = host.sandbox.spawn(&argv).unwrap();
    host.wait_until("it is at work", || pool.number("InFlight") == 1);
    let begun = monotonic();
    let job = drain(&host, "flight", Duration::ZERO);
    assert_eq!(result(&host, &job), "done");
    let took = monotonic() - begun;
    assert!(took >= Duration::from_secs(2), "it was stopped {took:?} after the request had begun");
    let mut code = String::new();
    std::io::Read::read_to_string(&mut request.stdout().unwrap(), &mut code).unwrap();
    assert_eq!(code, "200", "the request was answered");
    assert_eq!(pool.text("LastError"), "");
}

#[test]
fn a_drain_that_is_cancelled_leaves_the_pool_serving() {
    let host = host();
    let pool = prompt(&host, "undone");
    let pid = pool.main_pid(0);
    let (_, _, _held) = lease(&host, "undone").unwrap();
    let job = drain(&host, "undone", Duration::ZERO);
    assert!(host.poolctl(&["cancel", job.as_str()]).status.success());
    assert_eq!(result(&host, &job), "canceled");
    assert_eq!((pool.flag("Ready"), pool.main_pid(0)), (true, pid));
    host.kill_daemon();
    assert!(pool.flag("Ready"), "it does not stay stopped");
}

#[test]
fn leases_and_a_drain_go_on_when_the_daemon_is_killed() {
    let host = host();
    let pool = prompt(&host, "survivor");
    let (_, _, first) = lease(&host, "survivor").unwrap();
    let (_, _, second) = lease(&host, "survivor").unwrap();
    host.kill_daemon();
    assert_eq!(pool.number("ActiveLeases"), 2);
    drop(first);
    host.wait_until("one is over", || pool.number("ActiveLeases") == 1);
    drain(&host, "survivor", Duration::from_secs(30));
    host.kill_daemon();
    assert_eq!((pool.text("Phase").as_str(), pool.number("ActiveLeases")), ("draining", 1));
    assert_eq!(refused_as(lease(&host, "survivor")), "org.llamaorch.PoolManager.Error.Draining");
    drop(second);
    pool.wait_phase("stopped");
    assert_eq!(host.shell("ls /run/pool-managerd/leases").trim(), "", "nothing of a lease is left");
}

#[test]
fn the_leases_of_an_engine_that_dies_are_revoked() {
    let host = host();
    let pool = prompt(&host, "revoked");
    let (lease, _, _held) = lease(&host, "revoked").unwrap();
    host.kill(pool.main_pid(0), Signal::SIGKILL);
    host.wait_until("it is revoked", || pool.number("ActiveLeases") == 0);
    pool.wait_ready();
    let release = host.call::<_, ()>(ROOT, NAME, "ReleaseLease", &(lease.as_str(),));
    assert_eq!(refused_as(release), "org.llamaorch.PoolManager.Error.NoSuchLease");
    let total: u32 = host.property(&pool.path(), POOL, "ActiveLeases");
    assert_eq!(total, 0);
    host.wait_for("its descriptor is gone", SOON, || {
        host.shell("ls /run/pool-managerd/leases").trim().is_empty()
    });
}
