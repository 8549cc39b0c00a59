//! What holds an engine, as far as a container can prove it.
//!
//! Proved here: `DynamicUser`, `CapabilityBoundingSet`, `AmbientCapabilities`, `NoNewPrivileges`, `SystemCallFilter` (that
//! one is in force), `ProtectSystem=strict`, `ProtectHome`, `PrivateTmp`, `TemporaryFileSystem=/dev/shm`,
//! `BindReadOnlyPaths`, `UMask`, `CacheDirectory`, `RuntimeDirectory`, `ProtectProc`.
//! Not provable in a container: addresses, cgroup limits, devices.

use crate::host::{MODEL, host};

#[test]
fn an_engine_is_nobody_and_may_become_nobody() {
    let host = host();
    let pool = host.serving("caged");
    let status = host.shell(&format!("cat /proc/{}/status", pool.main_pid(0)));
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace().collect::<Vec<_>>()
    };
    for ids in [field("Uid"), field("Gid")] {
        for id in ids {
            let id: u32 = id.parse().unwrap();
            assert!((61184..=65519).contains(&id), "{id} is not in systemd's dynamic range");
        }
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("Seccomp"), ["2"], "a filter is in force");
    let user = host.shell(&format!("systemctl show -P User {}", pool.unit(0)));
    assert_eq!(user.trim(), "llamaorch-caged");
}

#[test]
fn an_engine_writes_nowhere_but_in_its_own_folders() {
    let host = host();
    let _other = host.conformance("neighbour", &[]);
    _other.wait_ready();
    let pool = host.conformance("writes", &[]);
    pool.wait_ready();
    let write = |path: &str| host.http("POST", &format!("{}/write?path={path}", pool.endpoint()));
    for path in ["/var/cache/llamaorch/writes/x", "/run/llamaorch/writes-r0/x", "/tmp/x", "/dev/shm/x"] {
        let (code, body) = write(path);
        assert_eq!(code, 200, "{path} must be writable, or the refusals below prove nothing: {body}");
    }
    for outside in ["/tmp/x", "/dev/shm/x"] {
        assert!(
            !host.run(&["test", "-e", outside]).status.success(),
            "{outside} is the engine's own, not the host's"
        );
    }
    let refused = [
        "/x",
        "/etc/x",
        "/usr/bin/x",
        "/usr/libexec/llamaorch/x",
        "/var/x",
        "/var/lib/llamaorch/x",
        "/var/cache/x",
        "/var/cache/llamaorch/neighbour/x",
        "/run/x",
        "/run/pool-managerd/x",
        "/run/pool-managerd/report/x",
        "/run/llamaorch/neighbour-r0/x",
        "/root/x",
        "/srv/models/x",
        MODEL,
        "/sys/fs/cgroup/x",
        "/proc/sys/kernel/hostname",
        "/etc/llamaorch/pools.d/x.toml",
        "/boot/x",
    ];
    for path in refused {
        let (code, body) = write(path);
        assert_eq!(code, 403, "{path}: {body}");
    }
}

#[test]
fn an_engine_sees_neither_home_nor_the_daemons_folders_nor_other_processes() {
    let host = host();
    host.shell("install -d /home/alice && echo secret > /home/alice/x");
    let pool = host.conformance("blind", &[]);
    pool.wait_ready();
    let pid = pool.main_pid(0);
    let look = |path: &str| host.run(&["nsenter", "-t", &pid.to_string(), "-m", "--", "ls", path]);
    assert!(look("/srv/models/tiny.gguf").status.success(), "its own model is there");
    assert!(!look("/home/alice/x").status.success());
    // Of the daemon's folder the one for reports is there, and nothing else.
    let daemon = host.shell(&format!(
        "ls -A /run/pool-managerd; nsenter -t {pid} -m -- ls -A /run/pool-managerd | sed s/^/seen:/"
    ));
    assert!(daemon.lines().any(|line| !line.starts_with("seen:") && line != "report"), "{daemon}");
    assert!(daemon.lines().all(|line| !line.starts_with("seen:") || line == "seen:report"), "{daemon}");
    let others =
        host.shell(&format!("nsenter -t {pid} -m -S 65534 -G 65534 -- ls /proc | grep -cx '[0-9]*' || true"));
    assert!(others.trim().parse::<u32>().unwrap() <= 3, "processes of others are invisible: {others}");
}

#[test]
fn an_engines_environment_has_no_way_to_speak_for_the_prober() {
    let host = host();
    let pool = host.conformance("env", &[]);
    pool.wait_ready();
    let (_, body) = host.http("GET", &format!("{}/env", pool.endpoint()));
    assert!(body.contains("HOME=/var/cache/llamaorch/env"), "{body}");
    for absent in ["NOTIFY_SOCKET=", "WATCHDOG_"] {
        assert!(!body.contains(absent), "{absent}: {body}");
    }
}
