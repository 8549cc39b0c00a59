//! Figures, and what has to hold of them.

use std::collections::BTreeMap;
use std::fmt;

/// Numbers by name.
#[derive(Debug, Default)]
pub(super) struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Takes up the lines `figure NAME VALUE` of a text.
    pub(super) fn read(&mut self, text: &str) {
        for line in text.lines() {
            let Some((name, value)) = line.strip_prefix("figure ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            if let Ok(value) = value.parse() {
                self.set(name, value);
            }
        }
    }

    pub(super) fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            writeln!(f, "  {name:<28} {value:>14.1}")?;
        }
        Ok(())
    }
}

/// What has to hold of a figure.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// It is at most so many times the other one.
    MostTimes(&'static str, f64),
    /// It is at least so many times the other one.
    LeastTimes(&'static str, f64),
    Most(f64),
    Least(f64),
}

/// A figure, what has to hold of it, and that in words.
const GOALS: [(&str, Rule, &str); 15] = [
    ("get.daemon.us", Rule::MostTimes("get.login1.us", 1.1), "property Get beside login1's"),
    ("get.daemon.rate", Rule::LeastTimes("get.login1.rate", 1.2), "the same, 64 in flight"),
    ("health.daemon.us", Rule::MostTimes("get.login1.us", 1.1), "GetHealth beside login1's Get"),
    (
        "objects.10.daemon.us",
        Rule::MostTimes("objects.10.bare.us", 1.5),
        "GetManagedObjects, 10 pools, beside bare zbus",
    ),
    (
        "objects.1000.daemon.us",
        Rule::MostTimes("objects.1000.bare.us", 1.5),
        "GetManagedObjects, 1,000 pools, beside bare zbus",
    ),
    ("leases.root.rate", Rule::Least(10_000.0), "leases a second, root, 64 in flight"),
    ("leases.member.rate", Rule::Least(10_000.0), "leases a second, a member of the group"),
    (
        "crash.health.us",
        Rule::MostTimes("crash.systemd.us", 1.5),
        "SIGKILL to HealthChanged beside PID 1's own signal",
    ),
    ("adoption.adopted", Rule::Least(super::bus::HELD as f64), "leases taken up after kill -9"),
    ("adoption.ms", Rule::Most(1_000.0), "ms from the daemon's start until all are"),
    ("large.health.p99.us", Rule::Most(5_000.0), "GetHealth while somebody takes all objects, p99"),
    ("calls.health.p99.us", Rule::Most(5_000.0), "GetHealth while 10,000 calls are not read, p99"),
    ("flood.health.p99.us", Rule::Most(5_000.0), "GetHealth during both, p99"),
    (
        "calls.health.p99.us",
        Rule::MostTimes("sink.health.p99.us", 1.5),
        "GetHealth while 10,000 calls are not read, beside a service that only reads them, p99",
    ),
    ("daemon.peak.mib", Rule::Most(256.0), "MiB that the daemon had at most"),
];

/// What became of every goal.
#[derive(Debug)]
pub(super) struct Verdicts(Vec<(&'static str, String, bool)>);

impl Verdicts {
    pub(super) fn all_met(&self) -> bool {
        self.0.iter().all(|(_, _, met)| *met)
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (words, figures, met) in &self.0 {
            writeln!(f, "  {:<6} {words}: {figures}", if *met { "met" } else { "missed" })?;
        }
        let met = self.0.iter().filter(|(_, _, met)| *met).count();
        write!(f, "{met} of {} goals met", self.0.len())
    }
}

/// Judges all goals; what was not measured is missed.
pub(super) fn verdicts(figures: &Figures) -> Verdicts {
    Verdicts(
        GOALS
            .into_iter()
            .map(|(name, rule, words)| {
                let (said, met) = judge(figures, name, rule).unwrap_or(("not measured".to_owned(), false));
                (words, said, met)
            })
            .collect(),
    )
}

fn judge(figures: &Figures, name: &str, rule: Rule) -> Option<(String, bool)> {
    let value = figures.get(name)?;
    Some(match rule {
        Rule::MostTimes(other, times) => {
            let other = figures.get(other)?;
            let ratio = value / other;
            (format!("{value:.0} and {other:.0}: {ratio:.2} times, at most {times}"), ratio <= times)
        }
        Rule::LeastTimes(other, times) => {
            let other = figures.get(other)?;
            let ratio = value / other;
            (format!("{value:.0} and {other:.0}: {ratio:.2} times, at least {times}"), ratio >= times)
        }
        Rule::Most(most) => (format!("{value:.0}, at most {most:.0}"), value <= most),
        Rule::Least(least) => (format!("{value:.0}, at least {least:.0}"), value >= least),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_their_lines_alone() {
        let mut figures = Figures::default();
        figures.read("ready\nfigure a.us 12.5\nfigure b x\nfigure c\n figure d 1\nfigure a.us 13\n");
        assert_eq!(figures.0, BTreeMap::from([("a.us".to_owned(), 13.0)]));
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let mut figures = Figures::default();
        assert!(!verdicts(&figures).all_met());
        for (name, rule, _) in GOALS {
            figures.set(
                name,
                match rule {
                    Rule::MostTimes(..) | Rule::Most(_) => 1.0,
                    Rule::LeastTimes(..) | Rule::Least(_) => 1e9,
                },
            );
        }
        assert!(!verdicts(&figures).all_met(), "nothing to compare with");
        for (_, rule, _) in GOALS {
            if let Rule::MostTimes(other, _) | Rule::LeastTimes(other, _) = rule {
                figures.set(other, 1.0);
            }
        }
        let all = verdicts(&figures);
        assert!(all.all_met(), "{all}");
        figures.set("get.daemon.us", 1.2);
        let text = verdicts(&figures).to_string();
        assert!(
            text.contains("missed property Get beside login1's: 1 and 1: 1.20 times, at most 1.1"),
            "{text}"
        );
        let (met, all) = (GOALS.len() - 1, GOALS.len());
        assert!(text.ends_with(&format!("{met} of {all} goals met")), "{text}");
    }
}
