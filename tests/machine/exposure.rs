//! How systemd itself rates what holds an engine and the daemon, and that the shipped units are in order.

use crate::host::{Host, host};

/// systemd's mark from 0 (nothing is exposed) to 10.
const MOST: f64 = 2.0;

fn exposure(host: &Host, unit: &str) -> (f64, String) {
    let analyzed = host.run(&["systemd-analyze", "security", "--no-pager", unit]);
    let text = String::from_utf8_lossy(&analyzed.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("Overall exposure level"));
    let mark = line.and_then(|line| line.rsplit_once(": ")).and_then(|(_, mark)| mark.split(' ').next());
    let mark = mark.and_then(|mark| mark.parse().ok()).unwrap_or_else(|| panic!("{unit}: {analyzed:?}"));
    (mark, text)
}

#[test]
fn systemd_finds_little_exposed_of_an_engine_and_of_the_daemon() {
    let host = host();
    let pool = host.pool("analyzed", "conformance", &[], "");
    let mut faults = Vec::new();
    for unit in [pool.unit(), "pool-managerd.service".to_owned()] {
        let (mark, text) = exposure(host, &unit);
        println!("{}: {unit}: {mark}", host.suite());
        for line in text.lines().filter(|line| line.contains('✗')) {
            println!("  {}", line.trim());
        }
        if mark > MOST {
            faults.push(format!("{unit}: {mark}"));
        }
    }
    assert!(faults.is_empty(), "beyond {MOST}: {faults:?}");
}

#[test]
fn the_shipped_units_are_in_order() {
    let host = host();
    let script = "systemd-analyze verify --man=no /usr/lib/systemd/system/pool-managerd.service \
                  /usr/lib/systemd/system/llamaorch.slice 2>&1";
    let said = host.shell(script);
    let ours: Vec<_> =
        said.lines().filter(|line| line.contains("pool-managerd") || line.contains("llamaorch")).collect();
    assert!(ours.is_empty(), "{said}");
}
