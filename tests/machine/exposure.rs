//! How systemd itself rates what holds an engine and the daemon, and that the shipped units are in order.

use crate::host::{Host, host};
use std::collections::BTreeSet;

/// systemd's mark from 0 (nothing is exposed) to 10.
const MOST: f64 = 2.0;

/// What is said of each line that systemd shows with a cross.
const DOCUMENT: &str = include_str!("../../docs/sandbox.md");

/// systemd's mark, and the lines that it shows with a cross.
fn exposure(host: &Host, unit: &str) -> (f64, Vec<String>) {
    let analyzed = host.run(&["systemd-analyze", "security", "--no-pager", unit]);
    let text = String::from_utf8_lossy(&analyzed.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("Overall exposure level"));
    let mark = line.and_then(|line| line.rsplit_once(": ")).and_then(|(_, mark)| mark.split(' ').next());
    let mark = mark.and_then(|mark| mark.parse().ok()).unwrap_or_else(|| panic!("{unit}: {analyzed:?}"));
    let crossed = text.lines().filter_map(|line| line.trim_start().strip_prefix('✗'));
    (mark, crossed.map(|line| line.trim().to_owned()).collect())
}

/// The lines of a section of the document that are explained for that systemd.
fn explained(heading: &str, version: &str) -> BTreeSet<String> {
    let section = DOCUMENT.split_once(&format!("\n### {heading}\n")).map_or("", |(_, rest)| rest);
    let section = section.split_once("\n#").map_or(section, |(section, _)| section);
    let mut lines = BTreeSet::new();
    for row in section.lines().filter(|row| row.starts_with("| `")) {
        // A bar in a cell is escaped.
        let row = row.replace("\\|", "\0");
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('\0', "|")).collect();
        let [_, line, versions, why, _] = cells.as_slice() else { panic!("{row}") };
        assert!(why.len() > 20, "{line} is not explained");
        if versions.split(' ').any(|its| its == version) {
            lines.insert(line.trim_matches('`').to_owned());
        }
    }
    assert!(!lines.is_empty(), "nothing is explained for {heading} of systemd {version}");
    lines
}

#[test]
fn systemd_finds_little_exposed_of_an_engine_and_of_the_daemon_and_each_line_is_explained() {
    let (host, _turn) = host();
    let pool = host.pool("analyzed", "conformance", "");
    let version = host.shell("systemctl --version");
    let version = version.split(' ').nth(1).and_then(|version| version.split(['.', '~']).next());
    let version = version.expect("a version");
    let mut faults = Vec::new();
    for (heading, unit) in
        [("An engine", pool.unit()), ("pool-managerd.service", "pool-managerd.service".to_owned())]
    {
        let (mark, crossed) = exposure(host, &unit);
        println!("systemd {version}: {unit}: {mark}\n  {}", crossed.join("\n  "));
        if mark > MOST {
            faults.push(format!("{unit}: {mark}, beyond {MOST}"));
        }
        let first_word = |line: &String| line.split_whitespace().next().unwrap_or_default().to_owned();
        let shown: BTreeSet<String> = crossed.iter().map(first_word).collect();
        let explained = explained(heading, version);
        let unexplained = shown.difference(&explained).map(|line| format!("{unit}: {line} is not explained"));
        faults.extend(unexplained);
        let gone =
            explained.difference(&shown).map(|line| format!("{unit}: {line} is explained and not shown"));
        faults.extend(gone);
    }
    assert!(faults.is_empty(), "see docs/sandbox.md:\n{}", faults.join("\n"));
}

#[test]
fn the_shipped_units_are_in_order() {
    let (host, _turn) = host();
    let units = host.shell("dpkg --listfiles pool-managerd | grep '^/usr/lib/systemd/system/[^/]*$'");
    let units: Vec<_> = units.split_whitespace().collect();
    assert!(units.contains(&"/usr/lib/systemd/system/pool-managerd.service"), "{units:?}");
    let verified = host.run(&[&["systemd-analyze", "verify", "--man=no"], units.as_slice()].concat());
    let said = [verified.stdout.as_slice(), verified.stderr.as_slice()].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    println!("{}: {units:?}: {}\n{said}", host.suite(), verified.status);
    // It looks at all that they pull in, too.
    let ours = |line: &&str| units.iter().any(|unit| line.contains(unit.rsplit('/').next().unwrap_or(unit)));
    assert_eq!(said.lines().filter(ours).collect::<Vec<_>>(), Vec::<&str>::new());
    let broken = host.run(&["sh", "-c", "cd /run && printf '[Service]\nExecStart=x\nNoSuchKey=1\n' >broken.service && systemd-analyze verify --man=no ./broken.service 2>&1; rm broken.service"]);
    assert!(String::from_utf8_lossy(&broken.stdout).contains("NoSuchKey"), "it finds nothing: {broken:?}");
}
