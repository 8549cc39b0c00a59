//! Who may compute where, as systemd was told. Whether the kernel keeps to it is seen in a virtual machine: here it has no
//! controller for that.

use crate::host::{Pool, REPLICA, conformance_file, host};

/// The CPUs that a pool's engine may use, which systemd and the daemon agree on; "": all.
fn allowed(pool: &Pool<'_>) -> String {
    let told = pool.host.shell(&format!("systemctl show -P AllowedCPUs {}", pool.unit(0)));
    let known: String = pool.host.property(&pool.replica_path(0), REPLICA, "AllowedCpus");
    // systemd writes "0 2-3", the kernel "0,2-3".
    assert_eq!(told.trim().replace(' ', ","), known);
    known
}

#[test]
fn an_engine_s_own_cpus_are_taken_from_those_that_run_and_given_back_when_it_is_stopped() {
    let host = host();
    let online = host.shell("cat /sys/devices/system/cpu/online").trim().to_owned();
    if online == "0" {
        panic!("this host has one CPU, and two engines cannot have one each");
    }
    let all = host.serving("cpus-all");
    assert_eq!(allowed(&all), "");
    let file = format!("{}[resources]\ncpus = \"exclusive:1\"\n", conformance_file(&[]));
    let own = host.pool("cpus-own", &file);
    own.wait_ready();
    let mine = allowed(&own);
    assert!(mine.parse::<u16>().is_ok(), "one of its own: {mine}");
    host.wait_until("the other one is told", || !allowed(&all).is_empty());
    let main = all.main_pid(0);
    assert!(!allowed(&all).split([',', '-']).any(|cpu| cpu == mine), "{} and {mine}", allowed(&all));
    host.kill_daemon();
    assert_eq!((allowed(&own), all.main_pid(0)), (mine, main), "over a restart of the daemon");
    own.stop();
    host.wait_until("the other one is told", || allowed(&all).is_empty());
}
