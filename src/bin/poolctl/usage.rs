//! What an engine may use and what it uses, and its unit's lines, in words.

use super::columns::printable;
use super::moment;
use pool_managerd::client::{UnitLine, Usage};

/// Memory, tasks and CPU time, each with its key; what nothing is known of is left out.
pub(crate) fn rows(usage: &Usage) -> Vec<(&'static str, String)> {
    let memory = used(usage.memory_current.map(size), usage.memory_max.map(size), size_notes(usage));
    let tasks = used(text(usage.tasks_current), text(usage.tasks_max), Vec::new());
    let quota = usage.cpu_quota_usec.map(|usec| format!("{} % of a CPU at most", usec / 10_000));
    let cpu = used(usage.cpu_usage_usec.map(moment::length), None, quota.into_iter().collect());
    let limited = [
        ("  Memory", "memory", memory, usage.memory_max.is_some() || usage.memory_high.is_some()),
        ("  Tasks", "pids", tasks, usage.tasks_max.is_some()),
        ("  CPU time", "cpu", cpu, usage.cpu_quota_usec.is_some()),
    ];
    let row = |(key, controller, text, limited): (&'static str, &str, String, bool)| {
        (key, if limited { in_force(text, controller, usage) } else { text })
    };
    limited.into_iter().filter(|(_, _, text, _)| !text.is_empty()).map(row).collect()
}

/// A limit's words, and that it is none where the host has not that controller.
pub(crate) fn in_force(mut text: String, controller: &str, usage: &Usage) -> String {
    if !text.is_empty() && usage.missing_controllers.iter().any(|missing| missing == controller) {
        text += &format!("; not in force: this host has no control group controller \"{controller}\"");
    }
    text
}

fn text(number: Option<u64>) -> Option<String> {
    number.map(|number| number.to_string())
}

fn size_notes(usage: &Usage) -> Vec<String> {
    let high = usage.memory_high.map(|high| format!("slowed down beyond {}", size(high)));
    let peak = usage.memory_peak.map(|peak| format!("{} at most so far", size(peak)));
    high.into_iter().chain(peak).collect()
}

/// What is used of what may be, and what else is to be said.
fn used(current: Option<String>, most: Option<String>, notes: Vec<String>) -> String {
    let first = match (current, most) {
        (None, None) => None,
        (Some(current), None) => Some(current),
        (Some(current), Some(most)) => Some(format!("{current} of {most}")),
        (None, Some(most)) => Some(format!("{most} at most")),
    };
    first.into_iter().chain(notes).collect::<Vec<_>>().join(", ")
}

/// An amount of memory.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, power)) = UNITS.iter().find(|(_, power)| bytes >> power > 0) else {
        return format!("{bytes} bytes");
    };
    let tenths = (u128::from(bytes) * 10) >> power;
    if tenths % 10 == 0 {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// A unit's lines, and below those that are loosened why.
pub(crate) fn unit(lines: &[UnitLine]) -> String {
    let line = |line: &UnitLine| {
        let shown = format!("  {}={}\n", line.name, printable(&line.value));
        match line.reason.as_str() {
            "" => shown,
            reason => format!("{shown}    # loosened: {}\n", printable(reason)),
        }
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_told_beside_what_may_be() {
        let usage = Usage {
            memory_current: Some(3 << 29),
            memory_peak: Some(2 << 30),
            memory_high: Some(48 << 30),
            memory_max: Some(64 << 30),
            tasks_current: Some(57),
            tasks_max: Some(4608),
            cpu_usage_usec: Some(65_000_000),
            cpu_quota_usec: Some(4_000_000),
            missing_controllers: vec!["pids".into()],
        };
        let expected = [
            ("  Memory", "1.5 GiB of 64 GiB, slowed down beyond 48 GiB, 2 GiB at most so far"),
            ("  Tasks", "57 of 4608; not in force: this host has no control group controller \"pids\""),
            ("  CPU time", "1 min 5 s, 400 % of a CPU at most"),
        ];
        let rows = rows(&usage);
        assert_eq!(rows.iter().map(|(key, text)| (*key, text.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_not_known_has_no_line_and_no_limit_is_missed_where_there_is_none() {
        assert_eq!(rows(&Usage::default()), []);
        let usage = Usage {
            memory_current: Some(1000),
            missing_controllers: vec!["memory".into()],
            ..Usage::default()
        };
        assert_eq!(rows(&usage), [("  Memory", "1000 bytes".to_owned())]);
        let usage = Usage { memory_max: Some(1 << 40), ..Usage::default() };
        assert_eq!(rows(&usage), [("  Memory", "1 TiB at most".to_owned())]);
    }

    #[test]
    fn cpus_are_not_in_force_without_their_controller() {
        let usage = Usage { missing_controllers: vec!["cpuset".into()], ..Usage::default() };
        let cpus = |text: &str| in_force(text.to_owned(), "cpuset", &usage);
        assert_eq!(cpus("0-3"), "0-3; not in force: this host has no control group controller \"cpuset\"");
        assert_eq!(cpus(""), "");
        assert_eq!(in_force("0-3".to_owned(), "cpuset", &Usage::default()), "0-3");
    }

    #[test]
    fn a_line_that_is_loosened_says_why() {
        let line = |name: &str, reason: &str| UnitLine {
            name: name.into(),
            value: "no".into(),
            reason: reason.into(),
        };
        let text = unit(&[line("PrivateTmp", ""), line("MemoryDenyWriteExecute", "it compiles\u{1b}")]);
        assert_eq!(
            text,
            "  PrivateTmp=no\n  MemoryDenyWriteExecute=no\n    # loosened: it compiles\u{fffd}\n"
        );
    }
}
