//! Owns the registry as others read it. Fields may be added: a reader skips what it does not know, and takes the
//! default for what is missing. Only the id is always there.

use super::Registry;
use crate::name::{Endpoint, PoolId, Usec};
use serde::{Deserialize, Serialize};

/// One pool as others read it.
///
/// ```
/// use pool_core::registry::{PoolSnapshot, Registry};
///
/// let mut registry = Registry::default();
/// registry.set_version(&"chat".parse()?, "b6500");
/// let text = serde_json::to_string(&registry.snapshot())?;
/// assert_eq!(serde_json::from_str::<Vec<PoolSnapshot>>(&text)?, registry.snapshot());
///
/// let older: PoolSnapshot = serde_json::from_str(r#"{ "pool_id": "chat" }"#)?;
/// assert!(!older.ready && older.active_leases == 0 && older.version.is_none());
/// let newer: PoolSnapshot = serde_json::from_str(r#"{ "pool_id": "chat", "ready": true, "perf_hints": [1] }"#)?;
/// assert!(newer.ready);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// Its id.
    pub pool_id: PoolId,
    /// Whether it lives.
    #[serde(default)]
    pub live: bool,
    /// Whether it serves.
    #[serde(default)]
    pub ready: bool,
    /// Whether it is being emptied.
    #[serde(default)]
    pub draining: bool,
    /// Leases that are held.
    #[serde(default)]
    pub active_leases: u32,
    /// Which version serves.
    #[serde(default)]
    pub version: Option<String>,
    /// What went wrong last.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When it was last heard from: microseconds, realtime.
    #[serde(default)]
    pub last_heartbeat: Option<Usec>,
    /// Whether somebody else runs it.
    #[serde(default)]
    pub external: bool,
    /// The kind of an external pool's engine.
    #[serde(default)]
    pub engine: Option<String>,
    /// Where an external pool answers.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
}

impl Registry {
    /// All pools, sorted by id.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// let mut registry = Registry::default();
    /// registry.set_draining(&"code".parse()?, true);
    /// registry.set_draining(&"chat".parse()?, false);
    /// let ids: Vec<_> = registry.snapshot().into_iter().map(|pool| pool.pool_id.to_string()).collect();
    /// assert_eq!(ids, ["chat", "code"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        let snapshot = |(id, entry): (&PoolId, &super::Entry)| {
            let external = entry.external.as_ref().map(|watch| &watch.external);
            PoolSnapshot {
                pool_id: id.clone(),
                live: entry.health.live,
                ready: entry.health.ready,
                draining: entry.draining,
                active_leases: entry.leases,
                version: entry.version.clone(),
                last_error: entry.last_error.clone(),
                last_heartbeat: entry.heartbeat,
                external: external.is_some(),
                engine: external.map(|external| external.engine.clone()).filter(|engine| !engine.is_empty()),
                endpoint: external.and_then(|external| external.endpoint.clone()),
            }
        };
        self.pools.iter().map(snapshot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{External, HealthStatus, Moment, Report};
    use serde_json::{Value, json};

    fn full() -> Registry {
        let mut registry = Registry::default();
        let now = Moment { mono: Usec(1), real: Usec(42) };
        let pool = "b".parse().expect("a valid name");
        let endpoint = Some("http://[::1]:8000".parse().expect("a valid name"));
        registry
            .register(&pool, External { engine: "vllm".into(), endpoint, ..External::of(7) })
            .expect("nobody has it yet");
        registry
            .report(&pool, 7, Report::Health(HealthStatus { live: true, ready: true }), now)
            .expect("its owner reports");
        registry.report(&pool, 7, Report::Version("1".into()), now).expect("its owner reports");
        registry.report(&pool, 7, Report::LastError(Some("slow".into())), now).expect("its owner reports");
        registry.allocate_lease(&pool).expect("it gives leases");
        registry.set_draining(&pool, true);
        registry
            .report(&"c".parse().expect("a valid name"), 7, Report::LastError(None), now)
            .expect("its owner reports");
        registry.set_health(&"a".parse().expect("a valid name"), HealthStatus { live: true, ready: false });
        registry
    }

    #[test]
    fn it_says_all_that_is_known_and_is_read_back() {
        let written = serde_json::to_value(full().snapshot()).expect("JSON of ours");
        assert_eq!(
            written[1],
            json!({
                "pool_id": "b", "live": true, "ready": true, "draining": true, "active_leases": 1,
                "version": "1", "last_error": "slow", "last_heartbeat": 42,
                "external": true, "engine": "vllm", "endpoint": { "host": "::1", "port": 8000 },
            })
        );
        let (loads, own) = (&written[0], Value::Null);
        assert_eq!((&loads["live"], &loads["ready"], &loads["engine"]), (&json!(true), &json!(false), &own));
        assert_eq!(
            (&written[2]["external"], &written[2]["engine"]),
            (&json!(true), &own),
            "nobody said which"
        );
        assert_eq!(
            serde_json::from_value::<Vec<PoolSnapshot>>(written).expect("JSON of ours"),
            full().snapshot()
        );
    }

    #[test]
    fn a_reader_skips_a_field_that_it_does_not_know() {
        let mut written = serde_json::to_value(full().snapshot()).expect("JSON of ours");
        written[1]["perf_hints"] = json!({ "tokens_per_second": 40 });
        assert_eq!(
            serde_json::from_value::<Vec<PoolSnapshot>>(written).expect("JSON of ours"),
            full().snapshot()
        );
    }

    #[test]
    fn any_field_but_the_id_may_be_missing() {
        let written = serde_json::to_value(&full().snapshot()[1]).expect("JSON of ours");
        let nothing: PoolSnapshot = serde_json::from_value(json!({ "pool_id": "b" })).expect("JSON of ours");
        let nothing = serde_json::to_value(nothing).expect("JSON of ours");
        for field in written.as_object().expect("an object").keys() {
            let mut without = written.clone();
            without.as_object_mut().expect("an object").remove(field);
            let read: Result<PoolSnapshot, _> = serde_json::from_value(without.clone());
            if field == "pool_id" {
                assert!(read.is_err());
                continue;
            }
            let read = serde_json::to_value(read.expect("fields may be missing")).expect("JSON of ours");
            assert_ne!(read[field], written[field], "{field}: the example shows no difference");
            assert_eq!(read[field], nothing[field], "{field}");
            let Value::Object(rest) = &without else { panic!("an object") };
            assert!(rest.iter().all(|(key, value)| read[key] == *value), "{field}");
        }
    }
}
