//! The bus goes and comes back: engines do not notice, and the daemon takes them up again. And many leases, whose holders
//! do not notice that the daemon was away.

use crate::host::{Host, NAME, POOL, REPLICA, ROOT, conformance_file, host};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use pool_bus_bench::wire::{Call, Wire};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use xtask::sandbox::Bus;
use zbus::Variant;

#[test]
fn a_bus_that_is_restarted_costs_no_engine() {
    for bus in Bus::ALL {
        restart(bus);
    }
}

fn restart(bus: Bus) {
    // One of its own: the connection that the other tests share ends with the bus.
    let host = Host::boot("bus", bus);
    let pool = host.conformance("overbus", &[]);
    pool.wait_ready();
    let (main, unit, daemon) = (pool.main_pid(0), pool.unit(0), host.daemon_pid());
    let (pool_path, replica_path) = (pool.path(), pool.replica_path(0));
    // What the registry says of it, and what tells that its engine is the same one. The test's own connection is gone
    // later on, so busctl asks.
    let registry = || {
        let of_pool =
            ["Phase", "Ready", "RestartCount", "ReadyReplicas", "SpecDigest", "LastError", "Detail"];
        let of_replica = ["Phase", "Unit", "MainPid", "InvocationId", "Endpoint", "ExitClass"];
        let get = |path: &str, interface: &str, names: &[&str]| {
            host.shell(&format!("busctl get-property {NAME} {path} {interface} {}", names.join(" ")))
        };
        get(&pool_path, POOL, &of_pool) + &get(&replica_path, REPLICA, &of_replica)
    };
    let before = registry();
    let health = || {
        let asked = host.run(&["busctl", "call", NAME, ROOT, NAME, "GetHealth", "s", "overbus"]);
        String::from_utf8_lossy(&asked.stdout).trim().to_owned()
    };
    host.shell("systemctl restart dbus.service");
    host.wait_daemon(daemon);
    host.wait_until("it serves again", || health() == "bb true true");
    assert_eq!(registry(), before);
    let shown = host.shell(&format!("systemctl show -P MainPID {unit}"));
    assert_eq!(shown.trim(), main.to_string(), "the engine is another one");
    let said = host.shell("journalctl --boot --unit=pool-managerd --output=cat --no-pager");
    assert!(said.contains("the system bus is gone"), "{said}");
    // It hears of a crash as before, and brings the engine back.
    host.kill(main, Signal::SIGKILL);
    host.wait_until("the crash is seen", || health() == "bb false false");
    host.wait_until("the engine is back", || health() == "bb true true");
    let count = format!("busctl get-property {NAME} {pool_path} {POOL} RestartCount");
    assert_eq!(host.shell(&count).trim(), "u 1");
    // The pool's own way of going would ask a bus that is no more.
    std::mem::forget(pool);
}

#[test]
fn thousands_of_leases_are_taken_up_by_the_next_daemon_and_end_afterwards() {
    const MANY: usize = 10_000;
    let host = host();
    let file = format!("{}[leases]\ncapacity = {MANY}\n", conformance_file(&[]));
    let pool = host.pool("many", &file);
    pool.wait_ready();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may be raised");
    let socket = host.sandbox.root().join("run/dbus/system_bus_socket");
    let mut wire = Wire::connect_to(&socket).expect("the bus is there");
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let take = Call::new((NAME, ROOT, NAME), "AllocateLease", &("many", options)).expect("a call");
    let held = Call::get((NAME, ROOT, NAME), "ActiveLeases").expect("a call");
    let leases: Vec<OwnedFd> = (0..MANY)
        .map(|_| {
            wire.ask(&take).expect("a lease");
            wire.descriptor().expect("its descriptor")
        })
        .collect();
    let daemon = host.daemon_pid();
    host.kill(daemon, Signal::SIGKILL);
    host.wait_daemon(daemon);
    let count = u32::try_from(MANY).expect("a small number");
    assert_eq!(wire.ask(&held).expect("an answer").value(), count, "all are taken up when the name is");
    let started = host.shell("systemctl show -P ExecMainStartTimestampMonotonic pool-managerd");
    let ready = host.shell("systemctl show -P ActiveEnterTimestampMonotonic pool-managerd");
    let [started, ready] = [started, ready].map(|text| text.trim().parse::<u64>().expect("a number"));
    println!(
        "{MANY} leases were taken up {:?} after the daemon's start",
        Duration::from_micros(ready - started)
    );
    let begun = Instant::now();
    drop(leases);
    host.wait_until("they are over", || wire.ask(&held).expect("an answer").value() == 0);
    println!("and were over {:?} after their end", begun.elapsed());
}
