//! The public API for Rust programs: [`Client`] for what most of them want, [`proxy`] for every member of the bus.
//!
//! Owns nothing of the daemon's: what it knows, it asked for. Nothing is cached, so a client may outlive any number
//! of daemons; a call that one of them leaves unanswered is [`Error::DaemonAway`]. Dropping a call's future gives up
//! the answer, not what was asked for.
//!
//! ```no_run
//! # async fn example() -> Result<(), pool_managerd::client::Error> {
//! let client = pool_managerd::client::Client::connect().await?;
//! client.start("chat").await?.wait().await?;
//! println!("{:?}", client.pool("chat").await?.endpoints);
//! # Ok(())
//! # }
//! ```

mod device;
mod error;
mod event;
mod explanation;
mod external;
mod job;
mod lease;
mod mirror;
pub mod proxy;
mod statistics;
mod status;
mod usage;
mod watcher;

pub use device::DeviceStatus;
pub use error::{Error, Exit};
pub use event::Event;
pub use explanation::{Explanation, Reason};
pub use external::External;
pub use job::{Job, JobDetails};
pub use lease::{Lease, Leasing};
pub use mirror::Mirror;
pub use statistics::{Statistics, Value};
pub use status::{PoolStatus, ReplicaStatus};
pub use usage::{UnitLine, Usage};
pub use watcher::Watcher;

use proxy::{ManagerProxy, PoolProxy, ReplicaProxy};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;
use zbus::fdo::ObjectManagerProxy;
use zbus::proxy::{Builder, CacheProperties, Defaults};
use zbus::{Connection, ObjectPath, OwnedObjectPath, Proxy, Variant};

const SERVICE: &str = "org.llamaorch.PoolManager";
const ROOT: &str = "/org/llamaorch/PoolManager";

/// A client of the daemon. Cheap to clone; calls may run at the same time.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
}

/// What a reload of the configuration did: ids of pools, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// They are new.
    pub added: Vec<String>,
    /// Their settings differ from before.
    pub changed: Vec<String>,
    /// Their files are gone.
    pub removed: Vec<String>,
}

/// How a pool is to be given other settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloading {
    /// Its model from now on, as a pool file names it; `None`: the one that it has.
    pub model: Option<String>,
    /// How long the drain of its old engines may take; `None`: what its file says.
    pub deadline: Option<Duration>,
    /// At the deadline stop what is left instead of giving up, and take the place of a reload under way.
    pub force: bool,
}

/// What is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigurationError {
    /// Its path.
    pub file: String,
    /// The error, with its place in the file.
    pub error: String,
}

impl Client {
    /// Connects to the system bus, at `DBUS_SYSTEM_BUS_ADDRESS` where that is set. The daemon is not asked yet.
    ///
    /// # Errors
    /// The bus cannot be reached.
    pub async fn connect() -> Result<Client, Error> {
        Connection::system().await.map(Client::over).map_err(Error::Bus)
    }

    /// A client over a connection that is there.
    #[must_use]
    pub fn over(connection: Connection) -> Client {
        Client { connection }
    }

    /// How all pools stand, sorted by id. One call, so that they belong to one moment.
    ///
    /// # Errors
    /// The daemon cannot be asked.
    pub async fn list(&self) -> Result<Vec<PoolStatus>, Error> {
        let objects: ObjectManagerProxy<'_> = self.proxy(ROOT).await?;
        Ok(status::pools(objects.get_managed_objects().await?))
    }

    /// How a pool stands. One call.
    ///
    /// # Errors
    /// There is no such pool, or the daemon cannot be asked.
    pub async fn pool(&self, id: &str) -> Result<PoolStatus, Error> {
        let found = self.list().await?.into_iter().find(|pool| pool.id == id);
        found.ok_or_else(|| {
            Error::NoSuchPool(format!("no pool \"{id}\"; poolctl list shows those that are there"))
        })
    }

    /// Starts a pool. The job is done once the pool is ready.
    ///
    /// # Errors
    /// It was refused, or the daemon cannot be asked.
    pub async fn start(&self, id: &str) -> Result<Job, Error> {
        let path = self.manager().await?.start_pool(id, HashMap::new()).await?;
        self.job(path).await
    }

    /// Stops a pool, until it is started again. The job is done once no engine of it runs.
    ///
    /// # Errors
    /// It was refused, or the daemon cannot be asked.
    pub async fn stop(&self, id: &str) -> Result<Job, Error> {
        let path = self.manager().await?.stop_pool(id, HashMap::new()).await?;
        self.job(path).await
    }

    /// Empties a pool and stops it, until it is started again: its leases and requests may take `deadline`, or what
    /// its file says. The job is done once no engine of it runs.
    ///
    /// # Errors
    /// It was refused, or the daemon cannot be asked.
    pub async fn drain(&self, id: &str, deadline: Option<Duration>) -> Result<Job, Error> {
        let path = self.manager().await?.drain_pool(id, usec(deadline), HashMap::new()).await?;
        self.job(path).await
    }

    /// Gives a pool another model, or the settings that its file has now. The job is done once its new engines are
    /// ready; where none ran, at once.
    ///
    /// # Errors
    /// It was refused, or the daemon cannot be asked.
    pub async fn reload_pool(&self, id: &str, how: &Reloading) -> Result<Job, Error> {
        let model = how.model.as_deref().unwrap_or_default();
        let mut options: HashMap<&str, Variant<'_>> = HashMap::from([("force", how.force.into())]);
        if how.deadline.is_some() {
            options.insert("deadline_usec", usec(how.deadline).into());
        }
        let path = self.manager().await?.reload_pool(id, model, options).await?;
        self.job(path).await
    }

    /// Forgets a pool's failures and closes its breaker.
    ///
    /// # Errors
    /// It was refused, or the daemon cannot be asked.
    pub async fn reset(&self, id: &str) -> Result<(), Error> {
        Ok(self.manager().await?.reset_pool(id).await?)
    }

    /// Why a pool is as it is.
    ///
    /// # Errors
    /// There is no such pool, or the daemon cannot be asked.
    pub async fn explain(&self, id: &str) -> Result<Explanation, Error> {
        Ok(Explanation::of(id, self.manager().await?.explain(id).await?))
    }

    /// Waits until a pool is ready, for as long as it takes where no time is given.
    ///
    /// # Errors
    /// The pool is stopped or failed, the time is over, or the daemon cannot be asked.
    pub async fn wait_ready(&self, id: &str, timeout: Option<Duration>) -> Result<(), Error> {
        Ok(self.manager().await?.wait_ready(id, usec(timeout)).await?)
    }

    /// Has all configuration files read again.
    ///
    /// # Errors
    /// It was refused, or the daemon cannot be asked. What is wrong with files is no error here: see
    /// [`configuration_errors`](Client::configuration_errors).
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        let (added, changed, removed) = self.manager().await?.reload_configuration().await?;
        Ok(Reloaded { added, changed, removed })
    }

    /// What is wrong with configuration files now, sorted by path.
    ///
    /// # Errors
    /// The daemon cannot be asked.
    pub async fn configuration_errors(&self) -> Result<Vec<ConfigurationError>, Error> {
        let errors = self.manager().await?.configuration_errors().await?;
        Ok(errors.into_iter().map(|(file, error)| ConfigurationError { file, error }).collect())
    }

    /// A job by its object, which may be gone.
    ///
    /// # Errors
    /// None that is expected: nobody is asked.
    pub async fn job(&self, path: OwnedObjectPath) -> Result<Job, Error> {
        Ok(Job::new(self.proxy(path).await?))
    }

    /// A job by its number or by the path of its object, as an operator writes it.
    ///
    /// # Errors
    /// It is neither, there is no such job, or the daemon cannot be asked.
    pub async fn find_job(&self, text: &str) -> Result<Job, Error> {
        if let Ok(path) = OwnedObjectPath::try_from(text) {
            return self.job(path).await;
        }
        let number: u32 = text.parse().map_err(|_| {
            Error::InvalidArgs(format!("\"{text}\" is neither a job's number nor its object"))
        })?;
        let objects: ObjectManagerProxy<'_> = self.proxy(ROOT).await?;
        match status::job(objects.get_managed_objects().await?, number) {
            Some(path) => self.job(path).await,
            None => Err(Error::NoSuchJob(format!("no job {number}; jobs are kept for 60 s after their end"))),
        }
    }

    /// The manager, member by member.
    ///
    /// # Errors
    /// None that is expected: nobody is asked.
    pub async fn manager(&self) -> Result<ManagerProxy<'static>, Error> {
        self.proxy(ROOT).await
    }

    /// A pool by its object, member by member.
    ///
    /// # Errors
    /// None that is expected: nobody is asked.
    pub async fn pool_at(&self, path: OwnedObjectPath) -> Result<PoolProxy<'static>, Error> {
        self.proxy(path).await
    }

    /// A replica by its object, member by member.
    ///
    /// # Errors
    /// None that is expected: nobody is asked.
    pub async fn replica_at(&self, path: OwnedObjectPath) -> Result<ReplicaProxy<'static>, Error> {
        self.proxy(path).await
    }

    async fn proxy<P, T>(&self, path: P) -> Result<T, Error>
    where
        P: TryInto<ObjectPath<'static>, Error: Into<zbus::Error>>,
        T: From<Proxy<'static>> + Defaults,
    {
        let builder = Builder::new(&self.connection).destination(SERVICE).path(path);
        Ok(builder.cache_properties(CacheProperties::No).build().await?)
    }
}

/// A time as the bus takes it: 0 is none given there, so no time at all is the shortest that there is.
fn usec(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_at_all_is_not_none_given() {
        assert_eq!(usec(None), 0);
        assert_eq!(usec(Some(Duration::ZERO)), 1);
        assert_eq!(usec(Some(Duration::from_millis(2))), 2_000);
        assert_eq!(usec(Some(Duration::MAX)), u64::MAX);
    }
}
