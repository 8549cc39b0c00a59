//! The machine itself: what it has that a container has not, and that commands in it are told apart.

use crate::host::host;
use std::thread;
use std::time::Duration;

#[test]
fn it_has_a_kernel_of_its_own_and_all_controllers() {
    let (host, _turn) = host();
    assert_eq!(host.shell("cat /proc/1/comm"), "systemd\n");
    let controllers = host.shell("cat /sys/fs/cgroup/cgroup.controllers");
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        assert!(
            controllers.split_whitespace().any(|has| has == controller),
            "no {controller}: {controllers}"
        );
    }
    assert_eq!(host.shell("nproc").trim(), "2");
    let failed = host.shell("systemctl --failed --no-legend --plain");
    assert!(!failed.contains("pool-managerd"), "{failed}");
    assert_eq!(host.shell("systemctl is-active pool-managerd").trim(), "active");
}

#[test]
fn commands_have_a_status_two_outputs_and_a_limit_and_run_side_by_side() {
    let (host, _turn) = host();
    let ran = host.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(ran.status.code(), Some(7));
    assert_eq!(host.run(&["/nowhere/at/all"]).status.code(), Some(127));
    let slow = host.machine.run_for(Duration::from_millis(500), &["sh", "-c", "sleep 1000; echo never"]);
    assert!(slow.expect_err("it has a limit").to_string().contains("was killed"));
    host.wait_until("the killed command is gone", || {
        !host.run(&["pgrep", "-f", "^sleep 1000"]).status.success()
    });
    // The second makes what the first waits for.
    let script = "until test -e /run/second; do sleep 0.1; done";
    thread::scope(|scope| {
        let first = scope.spawn(|| host.shell(script));
        host.shell("touch /run/second");
        first.join().expect("it ended");
    });
}

#[test]
fn files_go_in_with_their_mode() {
    let (host, _turn) = host();
    let big = vec![b'x'; 3 << 20];
    host.machine.write("/srv/a/b/big", &big, 0o640).expect("written");
    assert_eq!(host.shell("stat -c '%s %a' /srv/a/b/big"), format!("{} 640\n", big.len()));
    host.machine.write("/srv/small", "text", 0o755).expect("written");
    assert_eq!(host.machine.read("/srv/small").expect("read"), "text");
}
