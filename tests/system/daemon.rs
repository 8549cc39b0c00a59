//! The daemon's own unit.

use crate::host::{NAME, ROOT, host, text};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::time::Duration;

#[test]
fn it_runs_as_root_without_a_capability_and_says_how_it_stands() {
    let host = host();
    let pool = host.conformance("said", &[]);
    pool.wait_ready();
    let status = host.shell(&format!("cat /proc/{}/status", host.daemon_pid()));
    assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{set} in {status}");
    }
    host.wait_until("STATUS= tells", || {
        host.shell("systemctl show -P StatusText pool-managerd").trim() == "1 of 1 pools ready"
    });
}

#[test]
fn a_second_daemon_says_why_it_cannot_run_and_changes_nothing() {
    let host = host();
    let pool = host.conformance("first", &[]);
    pool.wait_ready();
    let (daemon, engine) = (host.daemon_pid(), pool.main_pid(0));
    let second = host.run(&["/usr/libexec/llamaorch/pool-managerd"]);
    assert!(!second.status.success());
    let said = text(&second.stderr);
    assert!(
        said.contains(&format!("owned by process {daemon}")) && said.contains("another pool-managerd"),
        "{said}"
    );
    assert_eq!((host.daemon_pid(), pool.main_pid(0), pool.flag("Ready")), (daemon, engine, true));
}

#[test]
fn a_daemon_that_stands_still_is_replaced_and_the_engine_lives() {
    let host = host();
    let pool = host.conformance("stall", &[]);
    pool.wait_ready();
    let engine = pool.main_pid(0);
    host.shell("mkdir -p /run/systemd/system/pool-managerd.service.d && printf '[Service]\\nWatchdogSec=1\\nTimeoutAbortSec=1\\n' > /run/systemd/system/pool-managerd.service.d/test.conf && systemctl daemon-reload && systemctl restart pool-managerd");
    pool.wait_ready();
    std::thread::sleep(Duration::from_secs(2));
    let daemon = host.daemon_pid();
    assert_eq!(
        host.shell("systemctl show -P NRestarts pool-managerd").trim(),
        "0",
        "a healthy one is left alone"
    );
    host.kill(daemon, Signal::SIGSTOP);
    host.wait_daemon(daemon);
    pool.wait_ready();
    assert_eq!(pool.main_pid(0), engine);
    host.shell("rm -r /run/systemd/system/pool-managerd.service.d && systemctl daemon-reload && systemctl restart pool-managerd");
    pool.wait_ready();
}

#[test]
fn installing_the_package_again_leaves_engines_alone() {
    let host = host();
    let pool = host.conformance("upgrade", &[]);
    pool.wait_ready();
    let (daemon, engine) = (host.daemon_pid(), pool.main_pid(0));
    let package = std::env::var("POOL_TEST_PACKAGE").unwrap();
    host.sandbox.copy_in(package.as_ref(), "/root/again.deb").unwrap();
    host.shell("apt-get install -y --reinstall /root/again.deb");
    host.wait_daemon(daemon);
    pool.wait_ready();
    assert_eq!(pool.main_pid(0), engine);
}

#[test]
fn systemd_may_be_executed_anew_or_read_its_units_again() {
    let host = host();
    let pool = host.conformance("reexec", &[]);
    pool.wait_ready();
    for verb in ["daemon-reload", "daemon-reexec"] {
        let engine = pool.main_pid(0);
        host.shell(&format!("systemctl {verb}"));
        assert_eq!((pool.text("Phase"), pool.main_pid(0)), ("ready".into(), engine), "{verb}");
        // And the daemon still listens: an end is seen.
        host.kill(engine, Signal::SIGKILL);
        pool.wait_phase("backoff");
        pool.start();
        pool.wait_ready();
    }
}

#[test]
fn the_manager_says_what_it_and_its_systemd_are() {
    let host = host();
    let all: HashMap<String, zbus::OwnedVariant> =
        host.call(ROOT, "org.freedesktop.DBus.Properties", "GetAll", &(NAME,)).unwrap();
    for name in [
        "Version",
        "SystemdVersion",
        "Generation",
        "PoolCount",
        "ConfigurationErrors",
        "Tainted",
        "StartTimestamp",
    ] {
        assert!(all.contains_key(name), "{name}");
    }
    let systemd: String = host.property(ROOT, NAME, "SystemdVersion");
    let own = host.shell("systemctl --version");
    assert!(own.contains(&systemd), "{systemd} in {own}");
}
