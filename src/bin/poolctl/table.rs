//! The layout of `list` and `status`: plain text, aligned by spaces.

use super::columns::{cell, columns, printable};
use super::moment;
use super::paint::Paint;
use super::usage;
use pool_managerd::client::{PoolStatus, ReplicaStatus};
use std::iter;

/// A line of headings and a line for each pool. Every cell has a text, so that no column is mistaken for its neighbour.
pub(crate) fn list(pools: &[PoolStatus], paint: Paint) -> String {
    let headings = ["POOL", "PHASE", "READY", "ENGINE", "MODEL", "ENDPOINTS", "RESTARTS"].map(str::to_owned);
    let rows: Vec<_> = iter::once(headings).chain(pools.iter().map(row)).collect();
    columns(&rows, |row, column, padded| match column {
        PHASE if row > 0 => paint.phase(padded.trim_end(), &padded),
        _ => padded,
    })
}

const PHASE: usize = 1;

fn row(pool: &PoolStatus) -> [String; 7] {
    [
        cell(&pool.id),
        cell(&pool.phase),
        // How many engines an external pool has, nobody says.
        if pool.external {
            yes(pool.ready).to_owned()
        } else {
            format!("{}/{}", ready(pool), pool.replicas.len())
        },
        cell(&pool.engine),
        cell(&pool.model_id),
        cell(&pool.endpoints.join(",")),
        pool.restart_count.to_string(),
    ]
}

/// Everything of one pool that an operator asks for.
pub(crate) fn status(pool: &PoolStatus, now: u64, paint: Paint) -> String {
    let mut lines = Lines::new(paint);
    lines.add("Pool", &pool.id);
    lines.phase("Phase", &pool.phase, &since(pool.state_change_timestamp, now));
    lines.add("Detail", &detail(pool));
    if pool.job > 0 {
        lines.add("Job", &format!("{} ({}, {} %)", pool.job, pool.job_operation, pool.job_percent));
    }
    let of = if pool.external {
        String::new()
    } else {
        format!(" ({} of {} replicas)", ready(pool), pool.replicas.len())
    };
    lines.yes("Ready", pool.ready, &of);
    lines.yes("Live", pool.live, "");
    if pool.draining {
        lines.add("Draining", "yes");
    }
    if pool.breaker != "closed" {
        lines.add("Breaker", &pool.breaker);
    }
    lines.add("Leases", &leases(pool));
    lines.add("Requests", &requests(pool));
    let version = if pool.engine_version.is_empty() { &pool.version } else { &pool.engine_version };
    lines.add("Engine", format!("{} {version}", pool.engine).trim());
    if pool.external {
        lines.add("External", "somebody else runs it and reports of it");
        if pool.last_heartbeat > 0 {
            lines.add("Heard of", &moment::past(pool.last_heartbeat, now));
        }
    }
    lines.add("Model", &pool.model_id);
    lines.add("  Path", &pool.model_path);
    lines.add("Devices", &pool.device_mask);
    lines.add("Endpoints", &pool.endpoints.join(", "));
    lines.add("Activation", &pool.activation);
    lines.add("File", &pool.config_path);
    lines.add("Restarts", &pool.restart_count.to_string());
    if pool.next_restart_timestamp > 0 {
        let wait = moment::length(pool.backoff_usec);
        lines.add(
            "Next start",
            &format!("{}, after {wait}", moment::future(pool.next_restart_timestamp, now)),
        );
    }
    if pool.last_error_timestamp > 0 || !pool.last_error.is_empty() {
        lines.add("Last error", &pool.last_error);
        lines.add("  Class", &pool.last_error_class);
        lines.add("  Seen", &moment::past(pool.last_error_timestamp, now));
    }
    if pool.needs_reload {
        let keys = pool.pending.join(", ");
        lines.add("Pending", &format!("the file has another value of: {keys}"));
        lines.add("  Apply", &format!("poolctl apply {}", pool.id));
    }
    lines.add("Log", &format!("journalctl POOL_ID={}", pool.id));
    for replica in &pool.replicas {
        lines.replica(replica, now);
    }
    lines.aligned()
}

/// Why it is in its phase, without the last error, which has its own line.
fn detail(pool: &PoolStatus) -> String {
    if pool.last_error.is_empty() {
        return pool.detail.clone();
    }
    let without = pool.detail.replacen(&format!(": {}", pool.last_error), "", 1);
    if without == pool.phase { String::new() } else { without }
}

/// How many leases are held; nothing is said of a pool that could not give any.
fn leases(pool: &PoolStatus) -> String {
    match (pool.active_leases, pool.lease_capacity) {
        (0, 0) if !pool.ready => String::new(),
        (held, 0) => format!("{held} held"),
        (held, capacity) => format!("{held} of {capacity} held"),
    }
}

/// How much the engines are used, as far as they say.
fn requests(pool: &PoolStatus) -> String {
    match (pool.in_flight, pool.slots_total) {
        (0, 0) => String::new(),
        (requests, 0) => format!("{requests} in flight"),
        (requests, slots) => format!("{requests} in flight, {} of {slots} slots free", pool.slots_free),
    }
}

/// Keys and values; a key that begins with a space belongs to the one above, and one without text is an empty line.
pub(crate) struct Lines {
    lines: Vec<(&'static str, String)>,
    paint: Paint,
}

impl Lines {
    pub(crate) fn new(paint: Paint) -> Lines {
        Lines { lines: Vec::new(), paint }
    }

    /// An empty line.
    pub(crate) fn gap(&mut self) {
        self.lines.push(("", String::new()));
    }

    /// A phase, and what is to be said of it.
    pub(crate) fn phase(&mut self, key: &'static str, phase: &str, rest: &str) {
        let phase = self.paint.phase(phase, &printable(phase));
        self.lines.push((key, phase + &printable(rest)));
    }

    /// Whether something is well, and what is to be said of that.
    pub(crate) fn yes(&mut self, key: &'static str, well: bool, rest: &str) {
        let word = self.paint.health(well, yes(well));
        self.lines.push((key, word + &printable(rest)));
    }

    /// What is absent has no line.
    pub(crate) fn add(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.lines.push((key, printable(value)));
        }
    }

    fn replica(&mut self, replica: &ReplicaStatus, now: u64) {
        self.add("Replica", &replica.id);
        let since = if replica.ready { replica.ready_timestamp } else { 0 };
        self.phase("  Phase", &replica.phase, &self::since(since, now));
        self.yes("  Live", replica.live, "");
        self.add("  Unit", &replica.unit);
        self.add("  Invocation", &replica.invocation_id);
        if replica.main_pid > 0 {
            self.add("  PID", &replica.main_pid.to_string());
        }
        if replica.start_timestamp > 0 {
            self.add("  Started", &moment::past(replica.start_timestamp, now));
        }
        self.add("  Endpoint", &replica.endpoint);
        if replica.active_leases > 0 {
            self.add("  Leases", &format!("{} held", replica.active_leases));
        }
        if replica.in_flight > 0 {
            self.add("  Requests", &format!("{} in flight", replica.in_flight));
        }
        let usage = replica.usage.clone().unwrap_or_default();
        self.add("  CPUs", &usage::in_force(replica.allowed_cpus.clone(), "cpuset", &usage));
        self.add("  Devices", &replica.devices.join(", "));
        for (key, text) in replica.usage.iter().flat_map(usage::rows) {
            self.add(key, &text);
        }
        self.add("  Status", &replica.status_text);
        self.add("  Last end", &replica.exit_class);
    }

    pub(crate) fn aligned(&self) -> String {
        let width = self.lines.iter().map(|(key, _)| key.len() + 1).max().unwrap_or_default();
        let line = |(key, value): &(&str, String)| match *key {
            "" => "\n".to_owned(),
            key => format!("{:width$} {value}\n", format!("{key}:")),
        };
        self.lines.iter().map(line).collect()
    }
}

fn ready(pool: &PoolStatus) -> usize {
    pool.replicas.iter().filter(|replica| replica.ready).count()
}

fn since(moment: u64, now: u64) -> String {
    match moment {
        0 => String::new(),
        _ => format!(" since {}", moment::past(moment, now)),
    }
}

fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool_managerd::client::Usage;

    const NOW: u64 = 1_764_064_815_000_000;

    fn chat() -> PoolStatus {
        PoolStatus {
            id: "chat".into(),
            phase: "ready".into(),
            state_change_timestamp: NOW - 12_000_000,
            live: true,
            ready: true,
            breaker: "half-open".into(),
            active_leases: 2,
            lease_capacity: 4,
            slots_total: 8,
            slots_free: 5,
            in_flight: 3,
            engine: "llama-cpp".into(),
            engine_version: "0.7.0".into(),
            model_id: "qwen3-8b-q4_k_m.gguf".into(),
            model_path: "/srv/models/qwen3-8b-q4_k_m.gguf".into(),
            endpoints: vec!["http://127.0.0.1:20000".into()],
            restart_count: 1,
            job: 12,
            job_operation: "reload".into(),
            job_percent: 50,
            config_path: "/etc/llamaorch/pools.d/chat.toml".into(),
            activation: "resident".into(),
            device_mask: "none".into(),
            last_error: "chat-r0 was killed\nby signal KILL".into(),
            last_error_class: "signal:KILL".into(),
            last_error_timestamp: NOW - 65_000_000,
            needs_reload: true,
            pending: vec!["args".into(), "network.listen".into()],
            replicas: vec![
                ReplicaStatus {
                    id: "chat-r0".into(),
                    unit: "llamaorch-engine-chat-r0.g2.service".into(),
                    invocation_id: "0aff".into(),
                    main_pid: 4242,
                    phase: "ready".into(),
                    live: true,
                    ready: true,
                    endpoint: "http://127.0.0.1:20000".into(),
                    status_text: "serving \u{1b}[31m".into(),
                    exit_class: "signal:KILL".into(),
                    start_timestamp: NOW - 14_000_000,
                    ready_timestamp: NOW - 12_000_000,
                    active_leases: 2,
                    in_flight: 3,
                    allowed_cpus: "0-3,8".into(),
                    usage: Some(Usage { tasks_current: Some(7), tasks_max: Some(4608), ..Usage::default() }),
                    ..ReplicaStatus::default()
                },
                ReplicaStatus { id: "chat-r1".into(), phase: "stopped".into(), ..ReplicaStatus::default() },
            ],
            ..PoolStatus::default()
        }
    }

    #[test]
    fn a_list_has_aligned_columns_and_no_empty_cell() {
        let big = PoolStatus {
            id: "big".into(),
            phase: "backoff".into(),
            engine: "vllm".into(),
            model_id: "Llama".into(),
            restart_count: 12,
            replicas: vec![ReplicaStatus::default()],
            ..PoolStatus::default()
        };
        assert_eq!(
            list(&[big, chat()], Paint::OFF),
            "\
POOL  PHASE    READY  ENGINE     MODEL                 ENDPOINTS               RESTARTS
big   backoff  0/1    vllm       Llama                 -                       12
chat  ready    1/2    llama-cpp  qwen3-8b-q4_k_m.gguf  http://127.0.0.1:20000  1
"
        );
    }

    #[test]
    fn an_external_pool_is_told_as_one() {
        let there = PoolStatus {
            id: "there".into(),
            phase: "ready".into(),
            ready: true,
            external: true,
            engine: "vllm".into(),
            version: "0.11".into(),
            last_heartbeat: NOW - 2_000_000,
            ..PoolStatus::default()
        };
        assert!(list(std::slice::from_ref(&there), Paint::OFF).contains("there  ready  yes    vllm"));
        let text = status(&there, NOW, Paint::OFF);
        assert!(text.contains("Ready:    yes\n") && text.contains("Engine:   vllm 0.11\n"), "{text}");
        assert!(text.contains("Heard of: 2025-11-25 10:00:13 UTC (2 s ago)\n"), "{text}");
    }

    #[test]
    fn without_pools_the_headings_stand_alone() {
        assert_eq!(list(&[], Paint::OFF), "POOL  PHASE  READY  ENGINE  MODEL  ENDPOINTS  RESTARTS\n");
    }

    #[test]
    fn a_status_says_what_there_is_and_what_to_do() {
        assert_eq!(
            status(&chat(), NOW, Paint::OFF),
            "\
Pool:         chat
Phase:        ready since 2025-11-25 10:00:03 UTC (12 s ago)
Job:          12 (reload, 50 %)
Ready:        yes (1 of 2 replicas)
Live:         yes
Breaker:      half-open
Leases:       2 of 4 held
Requests:     3 in flight, 5 of 8 slots free
Engine:       llama-cpp 0.7.0
Model:        qwen3-8b-q4_k_m.gguf
  Path:       /srv/models/qwen3-8b-q4_k_m.gguf
Devices:      none
Endpoints:    http://127.0.0.1:20000
Activation:   resident
File:         /etc/llamaorch/pools.d/chat.toml
Restarts:     1
Last error:   chat-r0 was killed by signal KILL
  Class:      signal:KILL
  Seen:       2025-11-25 09:59:10 UTC (1 min 5 s ago)
Pending:      the file has another value of: args, network.listen
  Apply:      poolctl apply chat
Log:          journalctl POOL_ID=chat
Replica:      chat-r0
  Phase:      ready since 2025-11-25 10:00:03 UTC (12 s ago)
  Live:       yes
  Unit:       llamaorch-engine-chat-r0.g2.service
  Invocation: 0aff
  PID:        4242
  Started:    2025-11-25 10:00:01 UTC (14 s ago)
  Endpoint:   http://127.0.0.1:20000
  Leases:     2 held
  Requests:   3 in flight
  CPUs:       0-3,8
  Tasks:      7 of 4608
  Status:     serving \u{fffd}[31m
  Last end:   signal:KILL
Replica:      chat-r1
  Phase:      stopped
  Live:       no
"
        );
    }

    #[test]
    fn the_last_error_is_told_once() {
        let refused = |phase: &str, detail: &str| PoolStatus {
            phase: phase.into(),
            detail: detail.into(),
            last_error: "no such model".into(),
            last_error_timestamp: NOW,
            ..PoolStatus::default()
        };
        let text = status(&refused("failed", "failed: no such model"), NOW, Paint::OFF);
        assert_eq!(text.matches("no such model").count(), 1, "{text}");
        assert!(!text.contains("Detail:"), "{text}");
        let text = status(&refused("backoff", "restart 2 after 1 s: no such model"), NOW, Paint::OFF);
        assert!(text.contains("Detail:     restart 2 after 1 s\n"), "{text}");
        let text = status(&refused("ready", "1 of 1 engines ready"), NOW, Paint::OFF);
        assert!(text.contains("Detail:     1 of 1 engines ready\n"), "{text}");
    }

    #[test]
    fn use_is_told_as_far_as_it_is_known() {
        let pool = PoolStatus { ready: true, ..PoolStatus::default() };
        assert_eq!((leases(&pool).as_str(), requests(&pool).as_str()), ("0 held", ""));
        assert_eq!(leases(&PoolStatus::default()), "");
        assert_eq!(requests(&PoolStatus { in_flight: 2, ..PoolStatus::default() }), "2 in flight");
        let text = status(&PoolStatus { draining: true, breaker: "closed".into(), ..pool }, NOW, Paint::OFF);
        assert!(text.contains("Draining: yes\n") && !text.contains("Breaker"), "{text}");
    }

    #[test]
    fn a_wait_says_when_it_ends() {
        let pool = PoolStatus {
            id: "chat".into(),
            phase: "backoff".into(),
            backoff_usec: 8_000_000,
            next_restart_timestamp: NOW + 5_000_000,
            ..PoolStatus::default()
        };
        let text = status(&pool, NOW, Paint::OFF);
        assert!(text.contains("Next start: 2025-11-25 10:00:20 UTC (in 5 s), after 8 s\n"), "{text}");
    }
}
