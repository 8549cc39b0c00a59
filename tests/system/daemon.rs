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
fn everyone_may_look_and_root_alone_may_touch() {
    let host = host();
    let _pool = host.conformance("public", &[]);
    _pool.wait_ready();
    let as_nobody = |args: &[&str]| {
        let argv = [
            &[
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "busctl",
                "--system",
                "call",
                NAME,
            ],
            args,
        ]
        .concat();
        host.run(&argv)
    };
    let pool = format!("{ROOT}/pool/public");
    // The policy refuses before anybody asks whether there is such a job.
    let job = format!("{ROOT}/job/1");
    for looks in [
        vec![ROOT, NAME, "ListPools"],
        vec![ROOT, NAME, "GetHealth", "s", "public"],
        vec![ROOT, NAME, "Explain", "s", "public"],
        vec![ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"],
        vec![
            pool.as_str(),
            "org.freedesktop.DBus.Properties",
            "Get",
            "ss",
            "org.llamaorch.PoolManager.Pool",
            "Phase",
        ],
        vec![pool.as_str(), "org.freedesktop.DBus.Introspectable", "Introspect"],
    ] {
        let output = as_nobody(&looks);
        assert!(output.status.success(), "{looks:?}: {}", text(&output.stderr));
    }
    for touches in [
        vec![ROOT, NAME, "StartPool", "sa{sv}", "public", "0"],
        vec![ROOT, NAME, "StopPool", "sa{sv}", "public", "0"],
        vec![ROOT, NAME, "DrainPool", "sta{sv}", "public", "0", "0"],
        vec![ROOT, NAME, "ReloadPool", "ssa{sv}", "public", "", "0"],
        vec![ROOT, NAME, "ResetPool", "s", "public"],
        vec![ROOT, NAME, "AllocateLease", "sa{sv}", "public", "0"],
        vec![ROOT, NAME, "ReleaseLease", "s", "public-r0.0000000000000001"],
        vec![ROOT, NAME, "ReloadConfiguration"],
        vec![pool.as_str(), "org.llamaorch.PoolManager.Pool", "Start", "a{sv}", "0"],
        vec![pool.as_str(), "org.llamaorch.PoolManager.Pool", "Stop", "a{sv}", "0"],
        vec![pool.as_str(), "org.llamaorch.PoolManager.Pool", "Drain", "ta{sv}", "0", "0"],
        vec![pool.as_str(), "org.llamaorch.PoolManager.Pool", "Reload", "sa{sv}", "", "0"],
        vec![pool.as_str(), "org.llamaorch.PoolManager.Pool", "Reset"],
        vec![pool.as_str(), "org.llamaorch.PoolManager.Pool", "AllocateLease", "a{sv}", "0"],
        vec![job.as_str(), "org.llamaorch.PoolManager.Job", "Cancel"],
    ] {
        let output = as_nobody(&touches);
        assert!(!output.status.success(), "{touches:?}");
        assert!(
            text(&output.stderr).contains("denied") || text(&output.stderr).contains("not allowed"),
            "{}",
            text(&output.stderr)
        );
    }
    let denied = host.run(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "poolctl",
        "stop",
        "public",
    ]);
    assert_eq!(denied.status.code(), Some(77), "{}", text(&denied.stderr));
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
