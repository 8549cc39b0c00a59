//! From a file to a pool that serves, and back.

use crate::host::{NAME, POOL, ROOT, host, llama_file, text};
use std::collections::HashMap;
use zbus::Variant;

#[test]
fn a_pool_file_becomes_an_engine_that_answers() {
    let host = host();
    let pool = host.serving("chat");
    assert_eq!(pool.text("Phase"), "ready");
    assert!(pool.flag("Live") && pool.flag("Ready"));
    let (code, body) = host.http("GET", &format!("{}/health", pool.endpoint()));
    assert_eq!(code, 200, "{body}");
    assert!(!pool.text("EngineVersion").is_empty());
    assert_eq!(pool.unit(0), "llamaorch-engine-chat-r0.g1.service");
    assert_eq!(pool.stop(), "done");
    assert_eq!(pool.text("Phase"), "stopped");
    let left: Vec<_> = host.units().into_iter().filter(|unit| unit.contains("chat")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(host.shell("ss -Hltn 'sport = :20000'"), "", "the port is free again");
}

#[test]
fn a_real_llama_server_generates() {
    let host = host();
    if !host.has_llama_to_test() {
        return;
    }
    let pool = host.pool("gen", &llama_file());
    pool.wait_ready();
    let request = format!(
        "curl -s -m 20 -d '{{\"prompt\":\"Hello\",\"n_predict\":8,\"ignore_eos\":true}}' {}/completion",
        pool.endpoint()
    );
    let answer = host.shell(&request);
    assert!(answer.contains("\"tokens_predicted\":8"), "{answer}");
}

#[test]
fn two_replicas_serve_on_two_ports_and_one_is_enough() {
    let host = host();
    let file = format!("replicas = 2\n{}", crate::host::conformance_file(&[]));
    let pool = host.pool("twins", &file);
    host.wait_until("both replicas are ready", || pool.number("ReadyReplicas") == 2);
    let endpoints: Vec<String> = host.property(&pool.path(), POOL, "Endpoints");
    assert_eq!(endpoints.len(), 2);
    assert_ne!(endpoints[0], endpoints[1]);
    host.kill(pool.main_pid(0), nix::sys::signal::Signal::SIGKILL);
    host.wait_until("one is gone", || pool.number("ReadyReplicas") == 1);
    assert!(pool.flag("Ready"), "one ready engine makes a ready pool");
    host.wait_until("it is back", || pool.number("ReadyReplicas") == 2);
    let user = |index| host.shell(&format!("systemctl show -P User {}", pool.unit(index)));
    assert_eq!(user(0), user(1), "replicas of a pool share one dynamic user");
}

#[test]
fn start_and_stop_are_jobs_and_a_newer_wish_wins() {
    let host = host();
    let pool = host.conformance("jobs", &["--load-time", "30s"]);
    pool.wait_phase("starting");
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let start: zbus::OwnedObjectPath = host.manager("StartPool", &("jobs", &options));
    assert_eq!(pool.stop(), "done");
    let job = |name: &str| host.property::<String>(start.as_str(), "org.llamaorch.PoolManager.Job", name);
    assert_eq!((job("State"), job("Result")), ("done".into(), "superseded".into()));
    assert_eq!(pool.text("Phase"), "stopped");
}

#[test]
fn unknown_names_and_options_are_errors_by_name() {
    let host = host();
    let none: HashMap<&str, Variant<'_>> = HashMap::new();
    let error =
        host.call::<_, zbus::OwnedObjectPath>(ROOT, NAME, "StartPool", &("nobody", &none)).unwrap_err();
    assert!(error.to_string().contains("org.llamaorch.PoolManager.Error.NoSuchPool"), "{error}");
    let _pool = host.conformance("opts", &[]);
    let odd: HashMap<&str, Variant<'_>> = HashMap::from([("colour", Variant::new("red"))]);
    let error = host.call::<_, zbus::OwnedObjectPath>(ROOT, NAME, "StartPool", &("opts", &odd)).unwrap_err();
    assert!(error.to_string().contains("org.freedesktop.DBus.Error.InvalidArgs"), "{error}");
    assert!(error.to_string().contains("colour"), "{error}");
}

#[test]
fn waiting_ends_with_the_pools_error_or_in_time() {
    let host = host();
    let pool = host.conformance("late", &["--load-time", "60s"]);
    let error = host.call::<_, ()>(ROOT, NAME, "WaitReady", &("late", 200_000_u64)).unwrap_err();
    assert!(error.to_string().contains("Error.Timeout"), "{error}");
    pool.stop();
    let error = host.call::<_, ()>(ROOT, NAME, "WaitReady", &("late", 0_u64)).unwrap_err();
    assert!(error.to_string().contains("Error.NotReady"), "{error}");
}

#[test]
fn poolctl_lists_shows_stops_and_starts() {
    let host = host();
    let pool = host.conformance("ctl", &[]);
    assert!(host.poolctl(&["wait", "ctl", "--timeout", "20s"]).status.success());
    let listed = text(&host.poolctl(&["list"]).stdout);
    let row = listed.lines().find(|line| line.starts_with("ctl ")).unwrap_or_else(|| panic!("{listed}"));
    assert!(row.contains("ready") && row.contains("http://127.0.0.1:"), "{row}");
    let json = text(&host.poolctl(&["status", "ctl", "--json"]).stdout);
    assert!(
        json.contains(&format!("\"main_pid\":{}", pool.main_pid(0)))
            || json.contains(&format!("\"main_pid\": {}", pool.main_pid(0))),
        "{json}"
    );
    assert!(host.poolctl(&["stop", "ctl"]).status.success());
    assert_eq!(pool.text("Phase"), "stopped");
    assert_eq!(host.poolctl(&["wait", "ctl"]).status.code(), Some(7));
    assert!(host.poolctl(&["start", "ctl"]).status.success());
    assert!(pool.flag("Ready"));
    let unknown = host.poolctl(&["status", "nobody"]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(text(&unknown.stderr).contains("nobody"));
}
