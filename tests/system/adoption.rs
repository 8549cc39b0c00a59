//! A daemon that goes away and comes back: engines do not notice.

use crate::host::{conformance_file, host};
use nix::sys::signal::Signal;

#[test]
fn five_kills_of_the_daemon_leave_the_engine_alone() {
    let host = host();
    let pool = host.serving("stay");
    let before = (pool.main_pid(0), pool.invocation(0), pool.endpoint());
    for _ in 0..5 {
        host.kill_daemon();
        pool.wait_ready();
        assert!(pool.flag("Ready"));
        assert_eq!((pool.main_pid(0), pool.invocation(0), pool.endpoint()), before);
        let units: Vec<_> =
            host.units().into_iter().filter(|unit| unit.starts_with("llamaorch-engine-stay")).collect();
        assert_eq!(units, [pool.unit(0)]);
    }
    assert_eq!(pool.number("RestartCount"), 0);
}

#[test]
fn a_restart_of_the_daemon_leaves_a_loading_engine_alone() {
    let host = host();
    let pool = host.conformance("loading", &["--load-time", "4s"]);
    pool.wait_phase("starting");
    host.wait_until("its process is known", || pool.main_pid(0) != 0);
    let before = pool.main_pid(0);
    let daemon = host.daemon_pid();
    host.shell("systemctl restart pool-managerd");
    host.wait_daemon(daemon);
    assert_eq!(pool.text("Phase"), "starting");
    pool.wait_ready();
    assert_eq!(pool.main_pid(0), before);
}

#[test]
fn an_engine_that_dies_while_the_daemon_is_away_is_seen_and_started_again() {
    let host = host();
    let pool = host.conformance("away", &[]);
    pool.wait_ready();
    let victim = pool.main_pid(0);
    host.shell("systemctl stop pool-managerd");
    host.kill(victim, Signal::SIGKILL);
    host.shell("systemctl start pool-managerd");
    host.wait_until("its end is known", || pool.text("LastErrorClass") == "signal:KILL");
    pool.wait_ready();
    assert_ne!(pool.main_pid(0), victim);
}

#[test]
fn an_engine_that_exits_0_while_the_daemon_is_away_stays_down() {
    let host = host();
    let pool = host.conformance("awayclean", &["--exit-after", "3s"]);
    pool.wait_ready();
    host.shell("systemctl stop pool-managerd; sleep 3.2; systemctl start pool-managerd");
    pool.wait_phase("stopped");
    host.kill_daemon();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(pool.text("Phase"), "stopped");
}

#[test]
fn a_stopped_pool_stays_stopped_over_a_restart_of_the_daemon() {
    let host = host();
    let pool = host.conformance("quiet", &[]);
    pool.wait_ready();
    pool.stop();
    host.kill_daemon();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(pool.text("Phase"), "stopped");
    pool.start();
    pool.wait_ready();
    host.kill_daemon();
    pool.wait_ready();
}

#[test]
fn a_pool_whose_file_broke_is_run_on_over_a_restart_of_the_daemon() {
    let host = host();
    let pool = host.conformance("broken", &[]);
    pool.wait_ready();
    let before = pool.main_pid(0);
    pool.write_file("engine = \"conformance\"\nmodle = 1\n");
    host.kill_daemon();
    assert_eq!((pool.text("Phase"), pool.main_pid(0)), ("ready".into(), before));
    pool.write_file(&conformance_file(&[]));
    host.reload();
    assert_eq!(pool.main_pid(0), before);
}

#[test]
fn an_engine_whose_pool_is_gone_is_stopped_when_the_daemon_comes_back() {
    let host = host();
    let pool = host.conformance("orphan", &[]);
    pool.wait_ready();
    host.shell("systemctl stop pool-managerd");
    pool.remove_file();
    assert!(host.units().iter().any(|unit| unit.starts_with("llamaorch-engine-orphan")));
    host.shell("systemctl start pool-managerd");
    host.wait_until("it is gone", || {
        host.units().iter().all(|unit| !unit.starts_with("llamaorch-engine-orphan"))
    });
}
