//! Speaking for others: what an engine sends to systemd or to the daemon counts for itself, whatever it says.

use crate::host::{Host, host, host_alone};
use std::time::Duration;

/// For as long as nobody extends it, a start takes no longer than this.
const START_LIMIT: &str = "20s";

/// A unit that waits for its readiness, with a shell as its main process.
fn waiting(host: &Host, name: &str, limit: &str) {
    let properties = format!(
        "--property=Type=notify --property=NotifyAccess=all --property=TimeoutStartSec={limit} --property=WatchdogSec=10min"
    );
    host.shell(&format!("systemd-run --quiet --no-block --unit={name} {properties} sleep infinity"));
    host.wait_until("its main process runs", || host.unit_property(name, "MainPID") != "0");
}

/// The same words from inside the unit: a process that root puts into its cgroup.
fn from_within(host: &Host, name: &str, words: &str) {
    let group = host.unit_property(name, "ControlGroup");
    let hostile = crate::host::HOSTILE;
    let said = host.shell(&format!(
        "echo $$ >/sys/fs/cgroup{group}/cgroup.procs; exec {hostile} attempt notify {words}"
    ));
    assert!(said.contains("succeeded"), "{said}");
}

#[test]
fn readiness_is_a_units_own_word() {
    let (host, _turn) = host();
    let liar = host.pool("liar", "hostile", "");
    waiting(host, "unready.service", "infinity");
    let pid = host.unit_property("unready.service", "MainPID");
    let sent = liar.attempt(&["notify", "READY=1", "STATUS=forged", &format!("MAINPID={pid}")]);
    assert_eq!(sent["outcome"], "succeeded", "the socket takes it: {sent}");
    // The credentials of another process are refused by the kernel.
    let forged = liar.attempt(&["notify-as", &pid, "READY=1", "STATUS=forged"]);
    assert_eq!(forged["errno"], "EPERM", "{forged}");
    // It has been read, and counts for the engine itself.
    assert_eq!(host.unit_property(&liar.unit(), "StatusText"), "forged");
    assert_eq!(host.unit_property("unready.service", "ActiveState"), "activating");
    assert_eq!(host.unit_property("unready.service", "StatusText"), "");
    // A main process outside its own unit is not taken either.
    assert_eq!(host.unit_property(&liar.unit(), "MainPID"), liar.main_pid().to_string());

    let hostile = crate::host::HOSTILE;
    let as_root = host.shell(&format!("{hostile} attempt notify-as {pid} READY=1 STATUS=forged"));
    assert!(as_root.contains("succeeded"), "{as_root}");
    host.wait_until("root may speak for it", || {
        host.unit_property("unready.service", "ActiveState") == "active"
    });
    host.shell("systemctl stop unready.service");
}

#[test]
fn time_is_extended_and_a_watchdog_held_off_by_a_units_own_word() {
    // Alone: systemd forgets an extension when it reads its units again, as another test has it do.
    let (host, _turn) = host_alone();
    let liar = host.pool("extender", "hostile", "");
    // The one that is extended starts first: it would be over first.
    waiting(host, "extended.service", START_LIMIT);
    from_within(host, "extended.service", "EXTEND_TIMEOUT_USEC=3600000000 WATCHDOG=1");
    waiting(host, "unextended.service", START_LIMIT);
    let pid = host.unit_property("unextended.service", "MainPID");
    let words = ["EXTEND_TIMEOUT_USEC=3600000000", "WATCHDOG=1", &format!("MAINPID={pid}")];
    let sent = liar.attempt(&[&["notify"][..], &words].concat());
    assert_eq!(sent["outcome"], "succeeded", "{sent}");
    let seen = |unit: &str| host.unit_property(unit, "WatchdogTimestampMonotonic");
    assert_ne!(seen("extended.service"), "0", "a unit's own word is not heard");
    // While it waits: systemd forgets this at a unit's end.
    assert_eq!(seen("unextended.service"), "0", "somebody else held its watchdog off");
    let still = host.unit_property("unextended.service", "ActiveState");
    assert_eq!(still, "activating", "it was over before anything was said");
    host.wait_until("it is over in its time", || {
        host.unit_property("unextended.service", "Result") == "timeout"
    });
    assert_eq!(host.unit_property("extended.service", "ActiveState"), "activating");
    host.shell("systemctl stop extended.service; systemctl reset-failed unextended.service");
}

/// Processor time of a process so far, of its own and for the kernel.
fn cpu_time(host: &Host, pid: &str) -> Duration {
    let stat = host.shell(&format!("cat /proc/{pid}/stat"));
    let fields: Vec<_> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 =
        [11, 12].map(|field: usize| fields[field].parse::<u64>().expect("a number")).iter().sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_flood_of_messages_costs_time_and_nothing_else() {
    let (host, _turn) = host();
    let flooder = host.pool("flooder", "hostile", "");
    let bystander = host.pool("bystander", "conformance", "");
    let daemon = host.unit_property("pool-managerd", "MainPID");
    let before = (cpu_time(host, "1"), cpu_time(host, &daemon));
    // Asked in the middle of it, the daemon answers, and nobody else's engine is worse off.
    let flooding = || {
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| flooder.attempt(&["flood", "5"]));
            while !flood.is_finished() {
                assert_eq!(bystander.text("phase"), "ready");
            }
            flood.join().expect("it ended")
        })
    };
    let (flood, answered, failed) = bystander.answers_while(flooding);
    let (one, managerd) = (cpu_time(host, "1") - before.0, cpu_time(host, &daemon) - before.1);
    println!("{}: {}; PID 1 used {one:?}, the daemon {managerd:?}", host.suite(), flood["detail"]);
    assert_eq!(flood["outcome"], "succeeded", "{flood}");
    assert!(answered >= 10 && failed == 0, "{answered} answered, {failed} failed");
    assert_eq!(host.unit_property("pool-managerd", "MainPID"), daemon);
    assert_eq!(host.unit_property("pool-managerd", "NRestarts"), "0");
    assert_eq!(bystander.text("last_error"), "");
    assert_eq!(bystander.text("phase"), "ready");
}
