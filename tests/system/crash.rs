//! An engine that dies: seen at once, counted, classed, started again.

use crate::host::{REPLICA, SOON, host, median, monotonic};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::time::Duration;

#[test]
fn ready_turns_false_within_50_ms_of_a_sigkill() {
    let host = host();
    let pool = host.serving("crash");
    let mut delays = Vec::new();
    for _ in 0..20 {
        let victim = host.host_pid(pool.main_pid(0));
        let mut signals = host.listen();
        let killed = monotonic();
        kill(victim, Signal::SIGKILL).unwrap();
        delays.push(signals.when(&pool.path(), "Ready", false) - killed);
        // The prober outlives the main process by what systemd needs to end it; only then is the unit's result there.
        host.wait_until("its end is known", || pool.text("LastErrorClass") == "signal:KILL");
        assert!(pool.text("LastError").contains("SIGKILL"), "{}", pool.text("LastError"));
        pool.start();
        pool.wait_ready();
    }
    assert!(median("SIGKILL to Ready=false on the bus", delays) < Duration::from_millis(50));
}

#[test]
fn a_killed_engine_comes_back_by_itself_after_the_backoff() {
    let host = host();
    let pool = host.serving("back");
    let before = pool.main_pid(0);
    let mut signals = host.listen();
    let killed = monotonic();
    host.kill(before, Signal::SIGKILL);
    let down = signals.when(&pool.path(), "Ready", false);
    pool.wait_phase("backoff");
    let up = signals.when(&pool.path(), "Ready", true);
    assert!(down > killed);
    assert!(
        up - down >= Duration::from_millis(900),
        "the first backoff is 1 s ± 10 %, it took {:?}",
        up - down
    );
    assert!(up - down < Duration::from_secs(5), "{:?}", up - down);
    assert_eq!(pool.number("RestartCount"), 1);
    assert_ne!(pool.main_pid(0), before);
}

#[test]
fn exit_codes_and_signals_have_their_classes() {
    let host = host();
    let pool = host.conformance("classes", &[]);
    for (request, class, said) in [
        ("exit?code=3", "exit:3", "status 3"),
        ("signal?name=SIGSEGV", "signal:SEGV", "SIGSEGV"),
        ("signal?name=SIGABRT", "signal:ABRT", "SIGABRT"),
    ] {
        pool.wait_ready();
        host.http("POST", &format!("{}/{request}", pool.endpoint()));
        host.wait_until(class, || pool.text("LastErrorClass") == class);
        assert!(pool.text("LastError").contains(said), "{}", pool.text("LastError"));
        let exit: String = host.property(&pool.replica_path(0), REPLICA, "ExitClass");
        assert_eq!(exit, class);
        pool.start();
    }
}

#[test]
fn exit_0_is_taken_as_meant() {
    let host = host();
    let pool = host.conformance("clean", &[]);
    pool.wait_ready();
    host.http("POST", &format!("{}/exit?code=0", pool.endpoint()));
    pool.wait_phase("stopped");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(pool.text("Phase"), "stopped");
    assert_eq!((pool.number("RestartCount"), pool.text("LastErrorClass")), (0, String::new()));
    pool.start();
    pool.wait_ready();
}

#[test]
fn nothing_of_an_engine_is_left_when_the_next_one_starts() {
    let host = host();
    // Twenty failures in a row are no reason to give up here.
    let patient = "[restart.breaker]\nfailures = 1000\n";
    let file = crate::host::conformance_file(&["--workers", "4"]);
    let pool = host.pool("workers", &format!("{file}{patient}"));
    pool.wait_ready();
    for run in 0..20 {
        let unit = pool.unit(0);
        let cgroup = host.shell(&format!("systemctl show -P ControlGroup {unit}"));
        let procs = format!("/sys/fs/cgroup{}/cgroup.procs", cgroup.trim());
        let inside = host.shell(&format!("cat {procs}"));
        let members: Vec<_> =
            inside.split_whitespace().map(|pid| host.host_pid(pid.parse().unwrap())).collect();
        assert!(members.len() >= 5, "the engine and its four workers: {inside}");
        let mut signals = host.listen();
        host.kill(pool.main_pid(0), Signal::SIGKILL);
        signals.when(&pool.path(), "Ready", false);
        // A start is possible from this moment on: it was not before.
        host.wait_for("a restart is due", SOON, || pool.text("Phase") == "backoff");
        let alive: Vec<_> = members.iter().filter(|pid| running(pid.as_raw())).collect();
        assert!(alive.is_empty(), "run {run}: {alive:?} still run");
        pool.start();
        pool.wait_ready();
    }
}

/// Whether a process runs: a zombie holds nothing any more.
fn running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start());
        !state.starts_with('Z') && !state.starts_with('X')
    })
}

#[test]
fn an_engine_that_never_gets_ready_is_ended_in_time() {
    let host = host();
    let file =
        format!("{}[health]\nstart_timeout = \"1s\"\n", crate::host::conformance_file(&["--never-ready"]));
    let pool = host.pool("never", &file);
    host.wait_until("it timed out", || pool.text("LastErrorClass") == "start-timeout");
    assert!(!pool.flag("Ready"));
    assert!(pool.text("LastError").contains("start_timeout"), "{}", pool.text("LastError"));
}

#[test]
fn an_engine_that_takes_no_notice_of_sigterm_is_stopped_all_the_same() {
    let host = host();
    let pool = host.conformance("deaf", &["--ignore-sigterm"]);
    pool.wait_ready();
    let begun = monotonic();
    assert_eq!(pool.stop(), "done");
    let took = monotonic() - begun;
    assert!(
        took >= Duration::from_secs(29) && took < Duration::from_secs(35),
        "the stop time-out is 30 s, it took {took:?}"
    );
    assert_eq!(pool.text("Phase"), "stopped");
}

#[test]
fn a_unit_that_is_stopped_behind_the_daemons_back_is_not_fought_over() {
    let host = host();
    let pool = host.conformance("outside", &[]);
    pool.wait_ready();
    host.shell(&format!("systemctl stop {}", pool.unit(0)));
    pool.wait_phase("stopped");
    assert_eq!(pool.text("LastErrorClass"), "stopped");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(pool.text("Phase"), "stopped");
    pool.start();
    pool.wait_ready();
}

#[test]
fn a_unit_that_is_restarted_from_outside_is_followed() {
    let host = host();
    let pool = host.conformance("again", &[]);
    pool.wait_ready();
    let before = pool.main_pid(0);
    host.shell(&format!("systemctl restart {}", pool.unit(0)));
    host.wait_until("the new one serves", || pool.flag("Ready") && pool.main_pid(0) != before);
    assert_eq!(pool.number("RestartCount"), 0);
    assert_eq!(pool.stop(), "done");
}

#[test]
fn a_frozen_engine_is_stopped_when_it_can_be_and_told_until_then() {
    let host = host();
    let pool = host.conformance("frozen", &[]);
    pool.wait_ready();
    let unit = pool.unit(0);
    host.shell(&format!("systemctl freeze {unit}"));
    let options: std::collections::HashMap<&str, zbus::Variant<'_>> = std::collections::HashMap::new();
    let job: zbus::OwnedObjectPath = host.manager("StopPool", &("frozen", options));
    // The newer systemds leave a frozen unit alone; 252 thaws it first.
    host.wait_until("it is stopped, or the reason is told", || {
        pool.text("Phase") == "stopped" || pool.text("LastErrorClass") == "unkillable"
    });
    if pool.text("Phase") != "stopped" {
        assert!(pool.text("LastError").contains("systemctl thaw"), "{}", pool.text("LastError"));
        host.shell(&format!("systemctl thaw {unit}"));
    }
    let result: String = host.call(job.as_str(), "org.llamaorch.PoolManager.Job", "Wait", &()).unwrap();
    assert_eq!((result.as_str(), pool.text("Phase").as_str()), ("done", "stopped"));
}

#[test]
fn a_deaf_engine_that_is_stopped_from_outside_stays_down() {
    let host = host();
    let pool = host.conformance("deafout", &["--ignore-sigterm"]);
    pool.wait_ready();
    host.shell(&format!("systemctl stop {}", pool.unit(0)));
    pool.wait_phase("stopped");
    assert_eq!(pool.text("LastErrorClass"), "stopped");
}

#[test]
fn a_unit_that_somebody_else_is_ordered_after_does_not_hold_up_its_pool() {
    let host = host();
    let pool = host.conformance("ordered", &[]);
    pool.wait_ready();
    let unit = pool.unit(0);
    host.shell(&format!("systemd-run --quiet --unit=client-of-ordered --property=After={unit} sleep 1000"));
    assert_eq!(pool.stop(), "done");
    pool.start();
    pool.wait_ready();
    assert_ne!(pool.unit(0), unit, "its old name is still taken");
    host.shell("systemctl stop client-of-ordered");
}
