//! External pools: somebody else runs their engines and reports of them.

use super::error::Error;
use super::{Client, usec};
use std::collections::HashMap;
use std::time::Duration;
use zbus::{OwnedObjectPath, Variant};

/// What is said of an external pool when it is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct External {
    /// What kind of engine it is; "": unknown.
    pub engine: String,
    /// Where it answers; "": nowhere that is known, and no lease can be had.
    pub endpoint: String,
    /// After this time without a report it counts as neither live nor ready; `None`: 30 s.
    pub heartbeat_timeout: Option<Duration>,
}

impl Client {
    /// Has the daemon take up a pool that somebody else runs; gives its object. The caller's user owns it, and alone may
    /// report of it.
    ///
    /// # Errors
    /// There is a pool with this id, something said of it is not valid, or the daemon cannot be asked.
    pub async fn register_pool(&self, id: &str, pool: &External) -> Result<OwnedObjectPath, Error> {
        let mut options: HashMap<&str, Variant<'_>> = HashMap::new();
        if !pool.engine.is_empty() {
            options.insert("engine", pool.engine.as_str().into());
        }
        if !pool.endpoint.is_empty() {
            options.insert("endpoint", pool.endpoint.as_str().into());
        }
        if pool.heartbeat_timeout.is_some() {
            options.insert("heartbeat_timeout_usec", usec(pool.heartbeat_timeout).into());
        }
        Ok(self.manager().await?.register_pool(id, options).await?)
    }

    /// Has the daemon forget an external pool.
    ///
    /// # Errors
    /// There is no such pool, it is the daemon's own, or the daemon cannot be asked.
    pub async fn unregister_pool(&self, id: &str) -> Result<(), Error> {
        Ok(self.manager().await?.unregister_pool(id).await?)
    }

    /// Reports an external pool's health. The first report of an unknown pool registers it.
    ///
    /// # Errors
    /// The pool is the daemon's own, or the daemon cannot be asked.
    pub async fn report_health(&self, id: &str, live: bool, ready: bool) -> Result<(), Error> {
        Ok(self.manager().await?.set_health(id, live, ready).await?)
    }

    /// Reports when an external pool was last known to work, in microseconds since the epoch; 0: now.
    ///
    /// # Errors
    /// As of [`report_health`](Client::report_health).
    pub async fn report_heartbeat(&self, id: &str, timestamp: u64) -> Result<(), Error> {
        Ok(self.manager().await?.set_heartbeat(id, timestamp).await?)
    }

    /// Reports the version of what an external pool runs.
    ///
    /// # Errors
    /// As of [`report_health`](Client::report_health).
    pub async fn report_version(&self, id: &str, version: &str) -> Result<(), Error> {
        Ok(self.manager().await?.set_version(id, version).await?)
    }

    /// Reports the last error of an external pool.
    ///
    /// # Errors
    /// As of [`report_health`](Client::report_health).
    pub async fn report_last_error(&self, id: &str, error: &str) -> Result<(), Error> {
        Ok(self.manager().await?.set_last_error(id, error).await?)
    }
}
