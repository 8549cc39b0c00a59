//! What failures add up to: a breaker that opens and is reset, and a class for every end, on the bus and in the journal.

use crate::host::{Host, Pool, REPLICA, conformance_file, host, llama_file};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Restarts that do not take the night.
const HASTY: &str = "[restart]\ninitial_delay = \"100ms\"\nmin_delay = \"100ms\"\n";

fn hasty<'a>(host: &'a Host, id: &str) -> Pool<'a> {
    let file = if host.has_llama() { llama_file() } else { conformance_file(&[]) };
    let pool = host.pool(id, &format!("{file}{HASTY}"));
    pool.wait_ready();
    pool
}

#[test]
fn five_crashes_open_the_breaker_no_sixth_start_happens_and_a_reset_starts_it() {
    let host = host();
    let pool = hasty(&host, "breaker");
    for crash in 1..=5 {
        pool.wait_ready();
        host.kill(pool.main_pid(0), Signal::SIGKILL);
        host.wait_until("it is down", || !pool.flag("Ready"));
        if crash < 5 {
            assert_eq!(pool.text("Breaker"), "closed", "after crash {crash}");
        }
    }
    pool.wait_phase("tripped");
    assert_eq!((pool.text("Breaker").as_str(), pool.number("RestartCount")), ("open", 4));
    let starts = "journalctl -u llamaorch-engine-breaker-r0.g1.service -o cat | grep -c '^Started' || true";
    let before = host.shell(starts);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.shell(starts), before, "nothing was started");
    assert_eq!(pool.text("Phase"), "tripped");
    let said = host.poolctl(&["explain", "breaker"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("after 5 failures in a row") && said.contains("poolctl reset breaker"), "{said}");
    assert!(host.poolctl(&["reset", "breaker"]).status.success());
    pool.wait_ready();
    assert_eq!((pool.text("Breaker").as_str(), pool.number("RestartCount")), ("closed", 0));
}

#[test]
fn an_open_breaker_and_its_count_survive_the_daemon_and_a_start_permits_one_attempt() {
    let host = host();
    let pool = hasty(&host, "kept");
    for _ in 0..5 {
        pool.wait_ready();
        host.kill(pool.main_pid(0), Signal::SIGKILL);
        host.wait_until("it is down", || !pool.flag("Ready"));
    }
    pool.wait_phase("tripped");
    host.kill_daemon();
    assert_eq!((pool.text("Phase").as_str(), pool.text("Breaker").as_str()), ("tripped", "open"));
    assert_eq!(pool.number("RestartCount"), 4);
    pool.start();
    pool.wait_ready();
    assert_eq!(pool.text("Breaker"), "half-open");
    host.kill(pool.main_pid(0), Signal::SIGKILL);
    pool.wait_phase("tripped");
    assert_eq!((pool.text("Breaker").as_str(), pool.number("RestartCount")), ("open", 4));
}

#[test]
fn a_pool_that_an_operator_stopped_or_drained_stays_stopped_over_a_restart_of_the_daemon() {
    let host = host();
    let (stopped, drained) = (host.serving("halted"), host.serving("emptied"));
    assert_eq!(stopped.stop(), "done");
    assert!(host.poolctl(&["drain", "emptied", "--deadline", "1s"]).status.success());
    host.kill_daemon();
    for pool in [&stopped, &drained] {
        assert_eq!((pool.text("Phase").as_str(), pool.flag("Live")), ("stopped", false));
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(host.units().iter().all(|unit| !unit.contains("halted") && !unit.contains("emptied")));
}

/// The class on the bus, of the pool and of its engine, and in the journal.
fn ended(host: &Host, pool: &Pool<'_>, class: &str) {
    host.wait_until(class, || pool.text("LastErrorClass") == class);
    let exit: String = host.property(&pool.replica_path(0), REPLICA, "ExitClass");
    assert_eq!(exit, class);
    host.shell("journalctl --sync");
    let lines = host.shell(&format!("journalctl POOL_ID={} EXIT_CLASS={class} -o cat --no-pager", pool.id));
    assert!(!lines.trim().is_empty(), "no line of the journal has EXIT_CLASS={class}");
}

#[test]
fn every_way_to_end_has_its_class_on_the_bus_and_in_the_journal() {
    let host = host();
    let health = "[health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\nstall_timeout = \"1s\"\n";
    let file = format!("{}[restart]\npolicy = \"never\"\n{health}", conformance_file(&[]));
    let pool = host.pool("ways", &file);
    let again = || {
        pool.start();
        pool.wait_ready();
    };
    pool.wait_ready();
    host.http("POST", &format!("{}/exit?code=3", pool.endpoint()));
    ended(&host, &pool, "exit:3");
    again();
    host.kill(pool.main_pid(0), Signal::SIGABRT);
    ended(&host, &pool, "signal:ABRT");
    again();
    host.kill(pool.main_pid(0), Signal::SIGSTOP);
    ended(&host, &pool, "watchdog");
    again();
    out_of_memory(&host, &pool);
    ended(&host, &pool, "oom-host");
    let slow = host
        .pool("late", &format!("{}[health]\nstart_timeout = \"1s\"\n", conformance_file(&["--never-ready"])));
    ended(&host, &slow, "start-timeout");
}

/// Kills the engine as systemd-oomd does it: marked in the cgroup, so that systemd knows why. The sandbox has no memory
/// controller of its own, by which the kernel would say so.
fn out_of_memory(host: &Host, pool: &Pool<'_>) {
    let cgroup = host.shell(&format!("systemctl show -P ControlGroup {}", pool.unit(0)));
    let folder = format!("/sys/fs/cgroup{}", cgroup.trim());
    host.shell(&format!("setfattr -n user.oomd_ooms -v 1 {folder}; setfattr -n user.oomd_kill -v 1 {folder}; for p in $(cat {folder}/cgroup.procs); do kill -KILL $p || true; done"));
}

#[test]
fn exit_0_unasked_counts_nothing_and_says_why() {
    let host = host();
    let pool = host.conformance("meant", &[]);
    pool.wait_ready();
    host.http("POST", &format!("{}/exit?code=0", pool.endpoint()));
    pool.wait_phase("stopped");
    assert_eq!((pool.number("RestartCount"), pool.text("LastErrorClass")), (0, String::new()));
    assert_eq!(pool.text("Breaker"), "closed");
    host.shell("journalctl --sync");
    let lines = host.shell("journalctl POOL_ID=meant -o cat --no-pager");
    assert!(lines.contains("it exited with status 0, which counts as meant; not restarted"), "{lines}");
    let said = String::from_utf8(host.poolctl(&["explain", "meant"]).stdout).unwrap();
    assert!(said.contains("counts as meant") && said.contains("poolctl start meant"), "{said}");
}
