//! Owns the reading of an engine's metrics in Prometheus' text format: the work that it has, and what it has done.

use crate::watch::Progress;

/// What was found of what was looked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics {
    /// Requests at work or waiting; `None` where none of the gauges is there.
    pub(crate) in_flight: Option<u32>,
    /// The counters in their order, 0 for one that is not there yet; `None` where none of them is there.
    pub(crate) counters: Option<Vec<f64>>,
}

/// Reads what a template asks for; everything else is passed over.
pub(crate) fn read(text: &str, wanted: &Progress) -> Metrics {
    let mut metrics = Metrics::default();
    let mut in_flight: Option<f64> = None;
    for (name, value) in text.lines().filter_map(sample) {
        if wanted.in_flight.iter().any(|gauge| gauge == name) {
            in_flight = Some(in_flight.unwrap_or(0.0) + value);
        }
        if let Some(index) = wanted.counters.iter().position(|counter| counter == name) {
            let counters = metrics.counters.get_or_insert_with(|| vec![0.0; wanted.counters.len()]);
            if let Some(counter) = counters.get_mut(index) {
                *counter += value;
            }
        }
    }
    // A cast from a float is cut off at the type's ends.
    metrics.in_flight = in_flight.map(|sum| sum.round() as u32);
    metrics
}

/// Name and value of one line: `name{label="value"} 1.0 1700000000`. What is not a number is no sample.
fn sample(line: &str) -> Option<(&str, f64)> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at_checked(end)?;
    let rest = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => rest,
    };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name, value))
}

/// What follows the closing brace; one in a label's value closes nothing.
fn after_labels(labels: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, c) in labels.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return labels.get(index + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Url;

    fn wanted() -> Progress {
        Progress {
            url: Url::parse("http://h:1/metrics").expect("a URL"),
            in_flight: vec!["x:running".into(), "x:waiting".into()],
            counters: vec!["x:steps_total".into(), "x:tokens_total".into()],
        }
    }

    #[test]
    fn samples_add_up_over_names_and_labels() {
        let text = "# HELP x:running Requests.\n# TYPE x:running gauge\n\
                    x:running{model=\"a}b\\\"{\",engine=\"0\"} 2.0\n x:running{engine=\"1\"}1 1700000000000\n\
                    x:waiting 4\nx:running_total 100\nx:steps_total 1.5e3\nx:steps_total{a=\"b\"} 1\n";
        let metrics = read(text, &wanted());
        assert_eq!(metrics, Metrics { in_flight: Some(7), counters: Some(vec![1501.0, 0.0]) });
    }

    #[test]
    fn what_is_not_there_is_not_zero() {
        assert_eq!(read("y 1\n", &wanted()), Metrics::default());
        assert_eq!(read("x:tokens_total 0\n", &wanted()).counters, Some(vec![0.0, 0.0]));
    }

    #[test]
    fn what_is_no_number_is_passed_over() {
        for line in [
            "x:running NaN",
            "x:running +Inf",
            "x:running",
            "x:running {",
            "x:running{a=\"} 1",
            "x:running one",
        ] {
            assert_eq!(read(line, &wanted()).in_flight, None, "{line}");
        }
        assert_eq!(read("x:running NaN\nx:running 1\n", &wanted()).in_flight, Some(1));
    }

    #[test]
    fn a_sum_beyond_all_measure_is_cut_off() {
        assert_eq!(read("x:running -3", &wanted()).in_flight, Some(0));
        assert_eq!(read("x:running 1e300", &wanted()).in_flight, Some(u32::MAX));
    }
}
