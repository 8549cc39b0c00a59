//! The layout of `explain` and `diff`.

use super::columns::printable;
use super::moment;
use super::paint::Paint;
use super::table::Lines;
use pool_managerd::client::{Explanation, PoolStatus, Reason};

/// How a pool stands, and a block for each reason, newest first.
pub(crate) fn explanation(explanation: &Explanation, now: u64, paint: Paint) -> String {
    let mut lines = Lines::new(paint);
    lines.add("Pool", &explanation.id);
    lines.phase("Phase", &explanation.phase, "");
    lines.yes("Ready", explanation.ready, "");
    lines.yes("Live", explanation.live, "");
    // Reasons say the same, and more of it.
    if explanation.reasons.is_empty() {
        lines.add("Summary", &explanation.summary);
    }
    for reason in &explanation.reasons {
        lines.gap();
        block(&mut lines, reason, now);
    }
    lines.aligned()
}

fn block(lines: &mut Lines, reason: &Reason, now: u64) {
    lines.add("Reason", &reason.code);
    lines.add("  Replica", &reason.replica);
    lines.add("  What", &reason.text);
    if reason.since_timestamp > 0 {
        lines.add("  Since", &moment::past(reason.since_timestamp, now));
    }
    if reason.until_timestamp > 0 {
        lines.add("  Until", &moment::future(reason.until_timestamp, now));
    }
    lines.add("  Remedy", &reason.remedy);
}

/// A line for each pool whose file has changes that wait; where one pool was asked for, a line in any case.
pub(crate) fn diff(pools: &[PoolStatus], one: bool) -> String {
    let waits = |pool: &&PoolStatus| pool.needs_reload;
    let line = |pool: &PoolStatus| format!("{}: {}\n", pool.id, printable(&pool.pending.join(", ")));
    match (pools.iter().filter(waits).map(line).collect::<String>(), pools) {
        (text, [pool]) if text.is_empty() && one => format!("{}: no changes wait\n", pool.id),
        (text, _) if text.is_empty() => "no changes wait\n".to_owned(),
        (text, _) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_764_064_815_000_000;

    #[test]
    fn each_reason_has_a_block_with_its_times_and_its_remedy() {
        let told = Explanation {
            id: "chat".into(),
            phase: "backoff".into(),
            summary: "restart 1 after 1 s".into(),
            reasons: vec![
                Reason {
                    code: "waits-for-restart".into(),
                    replica: "chat-r0".into(),
                    text: "its engine failed and is started again after a pause of 1 s".into(),
                    remedy: "to try at once: poolctl start chat".into(),
                    since_timestamp: NOW - 2_000_000,
                    until_timestamp: NOW + 5_000_000,
                    ..Reason::default()
                },
                Reason {
                    code: "earlier-failure".into(),
                    class: "exit:1".into(),
                    text: "exit:1: chat-r0\nexited".into(),
                    since_timestamp: NOW - 3_000_000,
                    ..Reason::default()
                },
            ],
            ..Explanation::default()
        };
        assert_eq!(
            explanation(&told, NOW, Paint::OFF),
            "\
Pool:      chat
Phase:     backoff
Ready:     no
Live:      no

Reason:    waits-for-restart
  Replica: chat-r0
  What:    its engine failed and is started again after a pause of 1 s
  Since:   2025-11-25 10:00:13 UTC (2 s ago)
  Until:   2025-11-25 10:00:20 UTC (in 5 s)
  Remedy:  to try at once: poolctl start chat

Reason:    earlier-failure
  What:    exit:1: chat-r0 exited
  Since:   2025-11-25 10:00:12 UTC (3 s ago)
"
        );
    }

    #[test]
    fn without_reasons_the_summary_stands_for_them() {
        let told = Explanation {
            id: "chat".into(),
            phase: "ready".into(),
            summary: "1 of 1 engines ready".into(),
            ready: true,
            live: true,
            ..Explanation::default()
        };
        let text = explanation(&told, NOW, Paint::OFF);
        assert!(text.ends_with("Live:    yes\nSummary: 1 of 1 engines ready\n"), "{text}");
    }

    #[test]
    fn a_diff_names_the_keys_of_pools_that_wait() {
        let pool = |id: &str, pending: &[&str]| PoolStatus {
            id: id.into(),
            needs_reload: !pending.is_empty(),
            pending: pending.iter().map(|&key| key.to_owned()).collect(),
            ..PoolStatus::default()
        };
        assert_eq!(diff(&[pool("a", &["args", "env"]), pool("b", &[])], false), "a: args, env\n");
        assert_eq!(diff(&[pool("b", &[])], false), "no changes wait\n");
        assert_eq!(diff(&[pool("b", &[])], true), "b: no changes wait\n");
    }
}
