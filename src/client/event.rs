//! What happens, in types, and how it is read off two states of an object.

use super::mirror::Mirror;
use super::status::{DEVICE, JOB, POOL};
use serde::Serialize;
use zbus::{OwnedObjectPath, OwnedVariant};

/// Something that happened. Serialized, this is what `poolctl watch --json` prints; kinds and fields are added, never
/// taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The daemon is there, and all of its objects are known: at the beginning, and after each [`DaemonLeft`](Event::DaemonLeft).
    /// What changed while it was away is told next.
    DaemonCame,
    /// The daemon is not there, or no longer. What is known stays until it comes again.
    DaemonLeft,
    /// There is a new pool.
    PoolAdded {
        /// Its id.
        pool: String,
        /// Its phase.
        phase: String,
    },
    /// A pool is gone.
    PoolRemoved {
        /// Its id.
        pool: String,
    },
    /// A pool is in another phase.
    PhaseChanged {
        /// The pool's id.
        pool: String,
        /// The phase before.
        from: String,
        /// The phase now.
        phase: String,
        /// Why, in words.
        reason: String,
    },
    /// A pool became live or ready, or no longer is.
    HealthChanged {
        /// The pool's id.
        pool: String,
        /// At least one engine runs and is not known to hang.
        live: bool,
        /// At least one engine answers requests, and the pool is not draining.
        ready: bool,
        /// Why, in words.
        reason: String,
    },
    /// Somebody asked for something that takes its time.
    JobStarted {
        /// The job's number.
        job: u32,
        /// The pool's id.
        pool: String,
        /// What was asked for: "start", "stop", "drain" or "reload".
        operation: String,
    },
    /// A job has ended.
    JobEnded {
        /// The job's number.
        job: u32,
        /// The pool's id.
        pool: String,
        /// What was asked for.
        operation: String,
        /// "done", "failed", "canceled", "timeout", "superseded", or a later version's word. Empty: the daemon that worked
        /// on it is gone.
        result: String,
        /// Why it did not end as "done", in words.
        error: String,
    },
    /// A lease is over that its holder did not end.
    LeaseRevoked {
        /// Its id.
        lease: String,
        /// The pool's id.
        pool: String,
        /// Why, in words.
        reason: String,
    },
    /// There is a new device.
    DeviceAdded {
        /// Its UUID.
        device: String,
        /// Its health.
        health: String,
    },
    /// A device is gone.
    DeviceRemoved {
        /// Its UUID.
        device: String,
    },
    /// A device's health has changed.
    DeviceHealthChanged {
        /// Its UUID.
        device: String,
        /// "ok", "degraded", "quarantined", "wedged", "lost", or a later version's word.
        health: String,
        /// Why, in words.
        reason: String,
    },
}

impl Event {
    /// The pool that it is about; `None`: it is about none.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        match self {
            Event::PoolAdded { pool, .. }
            | Event::PoolRemoved { pool }
            | Event::PhaseChanged { pool, .. }
            | Event::HealthChanged { pool, .. }
            | Event::JobStarted { pool, .. }
            | Event::JobEnded { pool, .. }
            | Event::LeaseRevoked { pool, .. } => Some(pool),
            Event::DaemonCame
            | Event::DaemonLeft
            | Event::DeviceAdded { .. }
            | Event::DeviceRemoved { .. }
            | Event::DeviceHealthChanged { .. } => None,
        }
    }
}

/// What events are about, of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Facts {
    Pool { id: String, phase: String, live: bool, ready: bool, detail: String },
    Job { id: u32, pool: String, operation: String, over: bool, result: String, error: String },
    Device { uuid: String, health: String, reason: String },
}

impl Facts {
    /// `None`: there is no such object, or it is none that events are about.
    pub(super) fn of(mirror: &Mirror, path: &str) -> Option<Facts> {
        if mirror.has(path, POOL) {
            let value = |name| mirror.property(path, POOL, name);
            return Some(Facts::Pool {
                id: read(value("Id")),
                phase: read(value("Phase")),
                live: read(value("Live")),
                ready: read(value("Ready")),
                detail: read(value("Detail")),
            });
        }
        if mirror.has(path, JOB) {
            let value = |name| mirror.property(path, JOB, name);
            let pool: OwnedObjectPath = read(value("Pool"));
            let id: String = read(mirror.property(pool.as_str(), POOL, "Id"));
            let state: String = read(value("State"));
            return Some(Facts::Job {
                id: read(value("Id")),
                pool: if id.is_empty() { pool.as_str().to_owned() } else { id },
                operation: read(value("Operation")),
                over: state == "done",
                result: read(value("Result")),
                error: read(value("Error")),
            });
        }
        if mirror.has(path, DEVICE) {
            let value = |name| mirror.property(path, DEVICE, name);
            return Some(Facts::Device {
                uuid: read(value("Uuid")),
                health: read(value("Health")),
                reason: read(value("HealthReason")),
            });
        }
        None
    }

    /// What happened to an object between two moments. Nothing did where they are equal, however often it was told.
    pub(super) fn happened(before: Option<Facts>, after: Option<Facts>) -> Vec<Event> {
        match (before, after) {
            (None, None) => Vec::new(),
            (None, Some(after)) => after.came(),
            (Some(before), None) => before.went(),
            (Some(before), Some(after)) => before.became(after),
        }
    }

    fn came(self) -> Vec<Event> {
        match self {
            Facts::Pool { id: pool, phase, live, ready, detail: reason } => {
                let mut events = vec![Event::PoolAdded { pool: pool.clone(), phase }];
                if live || ready {
                    events.push(Event::HealthChanged { pool, live, ready, reason });
                }
                events
            }
            Facts::Job { id: job, pool, operation, over, result, error } => {
                let mut events =
                    vec![Event::JobStarted { job, pool: pool.clone(), operation: operation.clone() }];
                if over {
                    events.push(Event::JobEnded { job, pool, operation, result, error });
                }
                events
            }
            Facts::Device { uuid: device, health, .. } => vec![Event::DeviceAdded { device, health }],
        }
    }

    fn went(self) -> Vec<Event> {
        match self {
            Facts::Pool { id: pool, .. } => vec![Event::PoolRemoved { pool }],
            Facts::Job { over: true, .. } => Vec::new(),
            Facts::Job { id: job, pool, operation, result, error, .. } => {
                vec![Event::JobEnded { job, pool, operation, result, error }]
            }
            Facts::Device { uuid: device, .. } => vec![Event::DeviceRemoved { device }],
        }
    }

    fn became(self, after: Facts) -> Vec<Event> {
        let mut events = Vec::new();
        match (self, after) {
            (
                Facts::Pool { phase: from, live: was_live, ready: was_ready, .. },
                Facts::Pool { id: pool, phase, live, ready, detail: reason },
            ) => {
                if from != phase {
                    let (pool, reason) = (pool.clone(), reason.clone());
                    events.push(Event::PhaseChanged { pool, from, phase, reason });
                }
                if (was_live, was_ready) != (live, ready) {
                    events.push(Event::HealthChanged { pool, live, ready, reason });
                }
            }
            (
                Facts::Job { over: false, pool: known, .. },
                Facts::Job { id: job, pool, operation, over: true, result, error },
            ) => {
                // Its pool may be gone by now; what it was called stays.
                let pool = if known.starts_with('/') { pool } else { known };
                events.push(Event::JobEnded { job, pool, operation, result, error });
            }
            (Facts::Job { .. }, Facts::Job { .. }) => {}
            (Facts::Device { health: before, .. }, Facts::Device { uuid: device, health, reason }) => {
                if before != health {
                    events.push(Event::DeviceHealthChanged { device, health, reason });
                }
            }
            (before, after) => {
                events.extend(before.went());
                events.extend(after.came());
            }
        }
        events
    }
}

/// A job of a daemon that is gone ended with it, whatever has its number now.
pub(super) fn happened_over_a_restart(before: Option<Facts>, after: Option<Facts>) -> Vec<Event> {
    match (before, after) {
        (before @ Some(Facts::Job { .. }), after) => {
            let mut events = Facts::happened(before, None);
            events.extend(Facts::happened(None, after));
            events
        }
        (before, after) => Facts::happened(before, after),
    }
}

fn read<T: TryFrom<OwnedVariant> + Default>(value: Option<&OwnedVariant>) -> T {
    value.cloned().and_then(|value| T::try_from(value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(phase: &str, live: bool, ready: bool) -> Option<Facts> {
        let (id, phase, detail) = ("a".to_owned(), phase.to_owned(), "so it is".to_owned());
        Some(Facts::Pool { id, phase, live, ready, detail })
    }

    fn job(id: u32, over: bool) -> Option<Facts> {
        let result = if over { "done" } else { "" }.to_owned();
        let (pool, operation) = ("a".to_owned(), "stop".to_owned());
        Some(Facts::Job { id, pool, operation, over, result, error: String::new() })
    }

    fn kinds(events: &[Event]) -> Vec<String> {
        let kind = |event| serde_json::to_value(event).expect("JSON of ours")["event"].clone();
        events.iter().map(|event| kind(event).as_str().expect("a word").to_owned()).collect()
    }

    #[test]
    fn each_difference_is_an_event_and_what_is_told_twice_is_none() {
        let table: [(Option<Facts>, Option<Facts>, &[&str]); 13] = [
            (None, pool("stopped", false, false), &["pool-added"]),
            (None, pool("ready", true, true), &["pool-added", "health-changed"]),
            (pool("ready", true, true), pool("ready", true, true), &[]),
            (pool("starting", true, false), pool("ready", true, true), &["phase-changed", "health-changed"]),
            (pool("starting", false, false), pool("starting", true, false), &["health-changed"]),
            (pool("backoff", false, false), pool("starting", false, false), &["phase-changed"]),
            (pool("ready", true, true), None, &["pool-removed"]),
            (None, job(1, false), &["job-started"]),
            (None, job(1, true), &["job-started", "job-ended"]),
            (job(1, false), job(1, true), &["job-ended"]),
            (job(1, true), job(1, true), &[]),
            (job(1, true), None, &[]),
            (job(1, false), None, &["job-ended"]),
        ];
        for (before, after, expected) in table {
            let told = format!("{before:?} {after:?}");
            assert_eq!(kinds(&Facts::happened(before, after)), expected, "{told}");
        }
    }

    #[test]
    fn devices_come_change_and_go() {
        let device = |health: &str| {
            let (uuid, reason) = ("GPU-1".to_owned(), "XID 79".to_owned());
            Some(Facts::Device { uuid, health: health.to_owned(), reason })
        };
        assert_eq!(kinds(&Facts::happened(None, device("ok"))), ["device-added"]);
        assert_eq!(kinds(&Facts::happened(device("ok"), None)), ["device-removed"]);
        assert_eq!(
            Facts::happened(device("ok"), device("lost")),
            [Event::DeviceHealthChanged {
                device: "GPU-1".into(),
                health: "lost".into(),
                reason: "XID 79".into()
            }]
        );
    }

    #[test]
    fn over_a_restart_a_job_with_the_same_number_is_another_one() {
        let events = happened_over_a_restart(job(1, false), job(1, false));
        assert_eq!(kinds(&events), ["job-ended", "job-started"]);
        assert_eq!(happened_over_a_restart(job(1, true), None), []);
        let became = happened_over_a_restart(pool("ready", true, true), pool("starting", true, false));
        assert_eq!(kinds(&became), ["phase-changed", "health-changed"]);
    }

    #[test]
    fn a_job_whose_pool_is_gone_keeps_its_name() {
        let after = Facts::Job {
            id: 1,
            pool: "/org/p".into(),
            operation: "stop".into(),
            over: true,
            result: "superseded".into(),
            error: String::new(),
        };
        let events = Facts::happened(job(1, false), Some(after));
        assert_eq!(events.first().and_then(Event::pool), Some("a"), "{events:?}");
    }
}
