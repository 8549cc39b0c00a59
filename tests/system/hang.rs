//! An engine that lives and does not serve: found by its prober, ended by systemd, said why. And one that is only slow.

use crate::host::{Host, Pool, REPLICA, conformance_file, host, monotonic};
use nix::sys::signal::Signal;
use pool_core::replica::Report;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(15);

/// A pool that is asked five times a second and may stall for two.
fn watched<'a>(host: &'a Host, id: &str, args: &[&str]) -> Pool<'a> {
    let health = "[health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\nstall_timeout = \"2s\"\n";
    let pool = host.pool(id, &format!("{}[restart]\npolicy = \"never\"\n{health}", conformance_file(args)));
    pool.wait_ready();
    pool
}

/// A completion that takes that long, at work when this returns.
fn completion(host: &Host, pool: &Pool<'_>, milliseconds: u32) -> xtask::sandbox::Process {
    let body = format!("{{\"delay_ms\": {milliseconds}}}");
    let url = format!("{}/completion", pool.endpoint());
    let argv = ["curl", "-s", "-w", "%{http_code}", "-o", "/dev/null", "-d", &body, &url];
    let request = host.sandbox.spawn(&argv).unwrap();
    let metrics = format!("{}/metrics", pool.endpoint());
    host.wait_until("it is at work", || {
        host.http("GET", &metrics).1.contains("llamacpp:requests_processing 1")
    });
    request
}

/// Waits until it was ended by the watchdog; why.
fn verdict(host: &Host, pool: &Pool<'_>, class: &str) -> String {
    host.wait_for(class, LIMIT, || pool.text("LastErrorClass") == class);
    assert!(!pool.flag("Ready"));
    pool.text("LastError")
}

#[test]
fn a_worker_that_died_under_a_living_main_process_is_found_by_the_work_that_stands_still() {
    let host = host();
    let pool = watched(&host, "worker", &["--workers", "2", "--stall-without-workers"]);
    let _request = completion(&host, &pool, 60_000);
    // It works, and is left alone for longer than it may stall.
    std::thread::sleep(Duration::from_secs(3));
    assert!(pool.flag("Ready"));
    let workers = host.shell(&format!("cat /proc/{0}/task/{0}/children", pool.main_pid(0)));
    let worker = workers.split_whitespace().next().unwrap().parse().unwrap();
    host.kill(worker, Signal::SIGKILL);
    let killed = monotonic();
    let said = verdict(&host, &pool, "watchdog");
    println!("found and ended {:?} after the worker's death: {said}", monotonic() - killed);
    assert!(said.contains("hung: 1 in flight, no counter moved for 2"), "{said}");
    assert!(said.ends_with("1 of 3 processes of the unit are gone"), "{said}");
}

#[test]
fn a_stopped_engine_is_hung_and_one_that_works_and_answers_nothing_is_not() {
    let host = host();
    let pool = watched(&host, "stopped", &[]);
    let url = format!("{}/slow?ms=60000", pool.endpoint());
    assert_eq!(host.http("POST", &url).0, 200);
    host.wait_until("it is said to be slow", || {
        let status: String = host.property(&pool.replica_path(0), REPLICA, "StatusText");
        status.contains("serving, slow: no answer from /health")
    });
    assert!(pool.flag("Ready"), "{}", pool.text("LastError"));
    host.kill(pool.main_pid(0), Signal::SIGSTOP);
    let said = verdict(&host, &pool, "watchdog");
    assert!(said.contains("hung: ") && said.contains("no CPU time used for 2"), "{said}");
}

#[test]
fn an_engine_that_is_deaf_or_unhealthy_is_ended_with_that_reason() {
    let host = host();
    for (id, request, reason) in [
        ("deaf", "close", "dead: nothing listens on "),
        ("ill", "health?code=503", "unhealthy: 503 from /health"),
    ] {
        let pool = watched(&host, id, &[]);
        host.http("POST", &format!("{}/{request}", pool.endpoint()));
        let said = verdict(&host, &pool, "watchdog");
        assert!(said.contains(reason) && said.contains("3 times in a row"), "{said}");
    }
}

#[test]
fn a_hung_engine_is_ended_while_the_daemon_is_away() {
    let host = host();
    let pool = watched(&host, "away", &[]);
    let (unit, engine) = (pool.unit(0), pool.main_pid(0));
    host.shell("systemctl stop pool-managerd");
    host.kill(engine, Signal::SIGSTOP);
    host.wait_for("systemd ends it", LIMIT, || {
        host.shell(&format!("systemctl show -P Result {unit}")).trim() == "watchdog"
    });
    host.shell("systemctl start pool-managerd");
    let said = verdict(&host, &pool, "watchdog");
    assert!(said.contains("hung: "), "{said}");
}

#[test]
fn an_engine_that_drains_after_sigterm_is_not_taken_for_dead() {
    let host = host();
    let pool = watched(&host, "drains", &["--drain-time", "8s"]);
    let mut request = completion(&host, &pool, 6_000);
    let begun = monotonic();
    assert_eq!(pool.stop(), "done");
    let took = monotonic() - begun;
    assert!(took >= Duration::from_secs(8), "it was cut off after {took:?}");
    let mut code = String::new();
    std::io::Read::read_to_string(&mut request.stdout().unwrap(), &mut code).unwrap();
    assert_eq!(code, "200");
    assert_eq!((pool.text("Phase").as_str(), pool.text("LastErrorClass").as_str()), ("stopped", ""));
}

#[test]
fn a_prober_that_is_killed_is_missed() {
    let host = host();
    let pool = watched(&host, "missed", &[]);
    let unit = pool.unit(0);
    let cgroup = host.shell(&format!("systemctl show -P ControlGroup {unit}"));
    let prober = format!(
        "for p in $(cat /sys/fs/cgroup{}/cgroup.procs); do grep -q pool-prober /proc/$p/comm && echo $p; done; true",
        cgroup.trim()
    );
    host.kill(host.shell(&prober).trim().parse().unwrap(), Signal::SIGKILL);
    host.wait_for("it is missed", Duration::from_secs(45), || pool.text("LastErrorClass") == "prober-lost");
    assert!(pool.text("LastError").contains("the prober was not heard of"), "{}", pool.text("LastError"));
}

/// What the pool's engine reports, to a listener in the daemon's place while that is away.
fn report(host: &Host, pool: &Pool<'_>, wanted: impl Fn(&Report) -> bool) -> Report {
    let invocation = pool.invocation(0);
    let daemon = host.daemon_pid();
    host.shell("systemctl stop pool-managerd; rm -f /run/pool-managerd/report/socket");
    let path = host.sandbox.root().join("run/pool-managerd/report/socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 4096];
    let report = (0..50).find_map(|_| {
        let count = socket.recv(&mut buffer).ok()?;
        let report = Report::parse(std::str::from_utf8(&buffer[..count]).unwrap()).unwrap();
        (report.invocation.0.as_slice() == invocation && wanted(&report)).then_some(report)
    });
    host.shell("rm -f /run/pool-managerd/report/socket; systemctl start pool-managerd");
    host.wait_daemon(daemon);
    report.expect("a report of this run")
}

#[test]
fn a_unit_reports_through_the_one_folder_of_the_daemons_that_it_sees() {
    let host = host();
    host.shell("install -d -m 0755 /run/pool-managerd/report");
    let pool = watched(&host, "reports", &["--parallel", "4"]);
    let seen = host.shell(&format!("nsenter -t {} -m -- ls -A /run/pool-managerd", pool.main_pid(0)));
    assert_eq!(seen.trim(), "report");
    let report = report(&host, &pool, |_| true);
    assert_eq!((report.in_flight, report.slots, report.progress), (Some(0), Some(4), Some(0)));
    assert_eq!(report.processes, Some(1));
}

#[test]
fn a_real_llama_server_reports_its_slots_and_its_work() {
    let host = host();
    if !host.has_llama_to_test() {
        return;
    }
    host.shell("install -d -m 0755 /run/pool-managerd/report");
    let pool = host.serving("real");
    let url = format!("{}/completion", pool.endpoint());
    let body = "{\"prompt\": \"a\", \"n_predict\": 4}";
    let done = host.run(&["curl", "-s", "-m", "10", "-d", body, &url]);
    assert!(done.status.success());
    let report = report(&host, &pool, |report| report.in_flight == Some(0));
    assert!(report.slots.is_some_and(|slots| slots > 0), "{report:?}");
    assert!(report.progress.is_some_and(|progress| progress > 0), "{report:?}");
}
