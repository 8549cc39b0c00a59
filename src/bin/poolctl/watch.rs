//! `watch`: what happens, a line for each event.

use super::columns::printable;
use super::moment;
use super::output::{Failure, Output, complain_plainly, print_to_somebody};
use super::paint::Paint;
use pool_managerd::client::{Event, Exit, PoolStatus, Watcher};
use serde::Serialize;

/// An event, as JSON has it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    timestamp: u64,
    #[serde(flatten)]
    event: &'a Event,
    /// How the pools stand, where the daemon came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pools: Option<Vec<Standing<'a>>>,
}

#[derive(Debug, Serialize)]
struct Standing<'a> {
    pool: &'a str,
    phase: &'a str,
    live: bool,
    ready: bool,
}

/// Follows what happens to these pools, or to everything where none is named, until nobody reads any more.
pub(crate) async fn watch(out: Output, wanted: Vec<String>) -> Result<Exit, Failure> {
    let mut watcher = Watcher::connect().await?;
    let mut begun = false;
    loop {
        let event = watcher.next().await?;
        if !is_wanted(&event, &wanted) {
            continue;
        }
        let mut pools = if event == Event::DaemonCame { watcher.pools() } else { Vec::new() };
        pools.retain(|pool| wanted.is_empty() || wanted.contains(&pool.id));
        if event == Event::DaemonCame && !begun && !out.json {
            for id in wanted.iter().filter(|id| pools.iter().all(|pool| pool.id != **id)) {
                complain_plainly(&format!("poolctl: there is no pool \"{}\" yet\n", printable(id)));
            }
        }
        let now = moment::now();
        let text =
            if out.json { line(&event, &pools, now)? } else { words(&event, &pools, !begun, now, out.paint) };
        begun |= event == Event::DaemonCame;
        if !print_to_somebody(&text)? {
            return Ok(Exit::Success);
        }
    }
}

/// Those of a pool for those who want it, the daemon's for everybody, the devices' for who named no pool.
fn is_wanted(event: &Event, wanted: &[String]) -> bool {
    match event.pool() {
        Some(pool) => wanted.is_empty() || wanted.iter().any(|id| id == pool),
        None => wanted.is_empty() || matches!(event, Event::DaemonCame | Event::DaemonLeft),
    }
}

fn line(event: &Event, pools: &[PoolStatus], timestamp: u64) -> Result<String, Failure> {
    fn standing(pool: &PoolStatus) -> Standing<'_> {
        Standing { pool: &pool.id, phase: &pool.phase, live: pool.live, ready: pool.ready }
    }
    let pools = (*event == Event::DaemonCame).then(|| pools.iter().map(standing).collect());
    let text = serde_json::to_string(&Line { timestamp, event, pools }).map_err(Failure::Json)?;
    Ok(text + "\n")
}

/// The event on a line with its time; at the beginning, a line for each pool too.
fn words(event: &Event, pools: &[PoolStatus], first: bool, now: u64, paint: Paint) -> String {
    let time = moment::stamp(now);
    let mut text = format!("{time}  {}\n", sentence(event, first, paint));
    if first {
        for pool in pools {
            let phase = paint.phase(&pool.phase, &printable(&pool.phase));
            text += &format!("{time}  {}: {phase}\n", printable(&pool.id));
        }
    }
    text
}

fn sentence(event: &Event, first: bool, paint: Paint) -> String {
    match event {
        Event::DaemonCame if first => "pool-managerd is there".to_owned(),
        Event::DaemonCame => "pool-managerd is there again".to_owned(),
        Event::DaemonLeft => paint.trouble("pool-managerd is not there"),
        Event::PoolAdded { pool, phase } => {
            format!("{}: added, {}", printable(pool), paint.phase(phase, &printable(phase)))
        }
        Event::PoolRemoved { pool } => format!("{}: removed", printable(pool)),
        Event::PhaseChanged { pool, from, phase, reason } => {
            let now = paint.phase(phase, &printable(phase));
            format!("{}: {} -> {now}{}", printable(pool), printable(from), because(reason))
        }
        Event::HealthChanged { pool, live, ready, reason } => {
            let health = match (live, ready) {
                (true, true) => "live and ready",
                (true, false) => "live, not ready",
                (false, true) => "ready, not live",
                (false, false) => "neither live nor ready",
            };
            format!("{}: {}{}", printable(pool), paint.health(*ready, health), because(reason))
        }
        Event::JobStarted { job, pool, operation } => {
            format!("{}: job {job} ({}) began", printable(pool), printable(operation))
        }
        Event::JobEnded { job, pool, operation, result, error } => {
            let end = match result.as_str() {
                "done" => "is done".to_owned(),
                "" => paint.trouble("ended with its daemon"),
                other => paint.trouble(&format!("ended: {}", printable(other))),
            };
            format!("{}: job {job} ({}) {end}{}", printable(pool), printable(operation), because(error))
        }
        Event::LeaseRevoked { lease, pool, reason } => {
            let revoked = paint.trouble("was revoked");
            format!("{}: lease {} {revoked}{}", printable(pool), printable(lease), because(reason))
        }
        Event::DeviceAdded { device, health } => {
            let health = paint.health(health == "ok", &printable(health));
            format!("device {}: added, {health}", printable(device))
        }
        Event::DeviceRemoved { device } => format!("device {}: removed", printable(device)),
        Event::DeviceHealthChanged { device, health, reason } => {
            let health = paint.health(health == "ok", &printable(health));
            format!("device {}: {health}{}", printable(device), because(reason))
        }
        // The library is of the same version: there is no other kind.
        other => printable(&format!("{other:?}")),
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({})", printable(reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_764_064_815_123_456;

    fn chat() -> PoolStatus {
        let (id, phase) = ("chat".to_owned(), "ready".to_owned());
        PoolStatus { id, phase, live: true, ready: true, ..PoolStatus::default() }
    }

    #[test]
    fn each_event_is_a_line_with_its_time_and_its_reason() {
        let pool = || "chat".to_owned();
        let table = [
            (Event::DaemonLeft, "pool-managerd is not there"),
            (Event::DaemonCame, "pool-managerd is there again"),
            (Event::PoolAdded { pool: pool(), phase: "stopped".into() }, "chat: added, stopped"),
            (
                Event::PhaseChanged {
                    pool: pool(),
                    from: "ready".into(),
                    phase: "backoff".into(),
                    reason: "restart 1\nafter 1 s".into(),
                },
                "chat: ready -> backoff (restart 1 after 1 s)",
            ),
            (
                Event::HealthChanged { pool: pool(), live: true, ready: false, reason: String::new() },
                "chat: live, not ready",
            ),
            (
                Event::JobEnded {
                    job: 3,
                    pool: pool(),
                    operation: "stop".into(),
                    result: "done".into(),
                    error: String::new(),
                },
                "chat: job 3 (stop) is done",
            ),
            (
                Event::LeaseRevoked { lease: "chat-r0.1".into(), pool: pool(), reason: "it ended".into() },
                "chat: lease chat-r0.1 was revoked (it ended)",
            ),
            (
                Event::DeviceHealthChanged {
                    device: "GPU-1".into(),
                    health: "lost".into(),
                    reason: "XID 79".into(),
                },
                "device GPU-1: lost (XID 79)",
            ),
        ];
        for (event, expected) in table {
            assert_eq!(
                words(&event, &[], false, NOW, Paint::OFF),
                format!("2025-11-25 10:00:15.123 UTC  {expected}\n")
            );
        }
    }

    #[test]
    fn at_the_beginning_it_says_how_the_pools_stand() {
        assert_eq!(
            words(&Event::DaemonCame, &[chat()], true, NOW, Paint::ON),
            "2025-11-25 10:00:15.123 UTC  pool-managerd is there\n\
             2025-11-25 10:00:15.123 UTC  chat: \u{1b}[32mready\u{1b}[0m\n"
        );
    }

    #[test]
    fn json_is_an_object_on_a_line() {
        assert_eq!(
            line(&Event::DaemonCame, &[chat()], 5).expect("JSON of ours"),
            "{\"timestamp\":5,\"event\":\"daemon-came\",\"pools\":[{\"pool\":\"chat\",\"phase\":\"ready\",\"live\":true,\"ready\":true}]}\n"
        );
        assert_eq!(
            line(&Event::PoolRemoved { pool: "chat".into() }, &[], 5).expect("JSON of ours"),
            "{\"timestamp\":5,\"event\":\"pool-removed\",\"pool\":\"chat\"}\n"
        );
    }

    #[test]
    fn who_names_pools_hears_of_them_and_of_the_daemon() {
        let removed = |pool: &str| Event::PoolRemoved { pool: pool.into() };
        let device = Event::DeviceRemoved { device: "GPU-1".into() };
        let wanted = ["chat".to_owned()];
        assert!(is_wanted(&removed("chat"), &wanted) && is_wanted(&Event::DaemonLeft, &wanted));
        assert!(!is_wanted(&removed("zoo"), &wanted) && !is_wanted(&device, &wanted));
        assert!(is_wanted(&removed("zoo"), &[]) && is_wanted(&device, &[]));
    }
}
