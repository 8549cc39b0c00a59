//! Properties of units that this release's systemd does not know.

use crate::host::{NAME, ROOT, host};

#[test]
fn a_property_that_this_systemd_does_not_know_is_left_out_and_told_once() {
    let host = host();
    let words: Vec<String> = host.property(ROOT, NAME, "Tainted");
    let lines = |journal: &str| journal.matches("engines run without MemoryZSwapMax").count();
    let since_start = || {
        let pid = host.daemon_pid().to_string();
        host.sandbox.journal(&["-u", "pool-managerd", &format!("_PID={pid}")]).expect("there is a journal")
    };
    let version: String = host.property(ROOT, NAME, "SystemdVersion");
    let old = version.starts_with("252");
    assert_eq!(words.contains(&"left-out:MemoryZSwapMax".to_owned()), old, "{version}: {words:?}");
    assert_eq!(lines(&since_start()), usize::from(old), "once, on {version}");
    // And engines run, with the line where it is known.
    let pool = host.conformance("old", &[]);
    pool.wait_ready();
    let shown = |name: &str| host.shell(&format!("systemctl show -P {name} {}", pool.unit(0)));
    assert_eq!(shown("MemorySwapMax").trim(), "0");
    assert_eq!(shown("MemoryZSwapMax").trim(), if old { "" } else { "0" });
    assert_eq!(lines(&since_start()), usize::from(old), "no start says it again");
}
