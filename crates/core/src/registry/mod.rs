//! Owns what is known of each pool by its id alone: health, last error, heartbeat, version, leases. Pools that somebody
//! else runs live here as a whole ([`External`]); of the daemon's own, this is what others may ask.
//!
//! - The first setter for an unknown pool creates it with defaults; a getter creates nothing and says `None`.
//! - The count of leases is never negative, and one pool's says nothing about another's.
//! - A refusal changes nothing.
//!
//! ```
//! use pool_core::name::{PoolId, Usec};
//! use pool_core::registry::{HealthStatus, Registry};
//!
//! let chat: PoolId = "chat".parse()?;
//! let mut registry = Registry::default();
//! assert_eq!(registry.get_health(&chat), None);
//!
//! registry.set_heartbeat(&chat, Usec::from_secs(1_758_240_000));
//! assert_eq!(registry.get_health(&chat), Some(HealthStatus { live: false, ready: false }));
//! assert_eq!(registry.get_active_leases(&chat), Some(0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod external;
mod snapshot;

pub use external::{DEFAULT_HEARTBEAT_TIMEOUT, External, ExternalRefused, Moment, Report};
pub use snapshot::PoolSnapshot;

use crate::name::{PoolId, Usec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether a pool lives, and whether it serves.
///
/// Neither holds of a pool that nothing was said of yet.
///
/// ```
/// use pool_core::registry::HealthStatus;
///
/// assert_eq!(HealthStatus::default(), HealthStatus { live: false, ready: false });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthStatus {
    /// At least one main process is not known to hang.
    pub live: bool,
    /// Its model is staged, its engine was prepared and the health check passed.
    pub ready: bool,
}

/// Why the count of a pool's leases stays as it is.
///
/// ```
/// use pool_core::registry::{LeaseRefused, Registry};
///
/// let nobody = "nobody".parse()?;
/// let refused = Registry::default().allocate_lease(&nobody).unwrap_err();
/// assert_eq!(refused, LeaseRefused::UnknownPool(nobody));
/// assert!(refused.to_string().contains("poolctl list"), "a refusal says what to do");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefused {
    /// Nobody knows the pool.
    #[error("there is no pool \"{0}\"; see what there is with: poolctl list")]
    UnknownPool(PoolId),
    /// The pool is being emptied.
    #[error("pool {0} is draining and gives no leases; wait until it is ready again, or ask another pool")]
    Draining(PoolId),
    /// There is nothing to release.
    #[error(
        "pool {0} has no lease to release; it was released before, or ended with its holder or its engine"
    )]
    NoneHeld(PoolId),
}

/// What is known of one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    health: HealthStatus,
    last_error: Option<String>,
    heartbeat: Option<Usec>,
    version: Option<String>,
    draining: bool,
    leases: u32,
    external: Option<external::Watch>,
}

/// All pools by their ids.
///
/// Setters make unknown pools known; everything else leaves them unknown.
///
/// ```
/// use pool_core::registry::Registry;
///
/// let (chat, code) = ("chat".parse()?, "code".parse()?);
/// let mut registry = Registry::default();
/// registry.set_version(&chat, "b6500");
/// assert!(registry.knows(&chat));
///
/// assert!(registry.allocate_lease(&code).is_err());
/// assert!(registry.release_lease(&code).is_err());
/// assert_eq!(registry.get_version(&code), None);
/// assert!(!registry.knows(&code));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    pools: BTreeMap<PoolId, Entry>,
}

impl Registry {
    fn entry(&mut self, pool: &PoolId) -> &mut Entry {
        self.pools.entry(pool.clone()).or_default()
    }

    /// Whether anything was ever said of the pool.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// assert!(!registry.knows(&chat));
    /// registry.set_last_error(&chat, None);
    /// assert!(registry.knows(&chat));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn knows(&self, pool: &PoolId) -> bool {
        self.pools.contains_key(pool)
    }

    /// Says whether the pool lives and serves. An unknown pool is created.
    ///
    /// ```
    /// # use pool_core::registry::{HealthStatus, Registry};
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_health(&chat, HealthStatus { live: true, ready: false });
    /// assert_eq!(registry.get_health(&chat), Some(HealthStatus { live: true, ready: false }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_health(&mut self, pool: &PoolId, health: HealthStatus) {
        self.entry(pool).health = health;
    }

    /// The health that was last set; `None` for an unknown pool.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// assert_eq!(Registry::default().get_health(&"chat".parse()?), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_health(&self, pool: &PoolId) -> Option<HealthStatus> {
        self.pools.get(pool).map(|entry| entry.health)
    }

    /// Records what went wrong last; `None` forgets it. An unknown pool is created, and an error makes no pool ready
    /// and takes readiness from none.
    ///
    /// ```
    /// # use pool_core::registry::{HealthStatus, Registry};
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_last_error(&chat, Some("digest-mismatch: the model is not the one that was asked for"));
    /// assert_eq!(registry.get_health(&chat), Some(HealthStatus::default()), "readiness remains false");
    ///
    /// registry.set_last_error(&chat, None);
    /// assert_eq!(registry.get_last_error(&chat), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_last_error(&mut self, pool: &PoolId, error: Option<&str>) {
        self.entry(pool).last_error = error.map(str::to_owned);
    }

    /// What went wrong last; `None` where nothing did, and for an unknown pool.
    ///
    /// ```
    /// # use pool_core::registry::{HealthStatus, Registry};
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_last_error(&chat, Some("signal:SEGV"));
    /// registry.set_health(&chat, HealthStatus { live: true, ready: true });
    /// assert_eq!(registry.get_last_error(&chat), Some("signal:SEGV"), "it stays until it is replaced or forgotten");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_last_error(&self, pool: &PoolId) -> Option<&str> {
        self.pools.get(pool)?.last_error.as_deref()
    }

    /// Says when the pool was last heard from, realtime. An unknown pool is created.
    ///
    /// It sets what is published. The timeout of an external pool is measured from its owner's reports
    /// ([`Registry::report`]), in a clock that nobody can set.
    ///
    /// ```
    /// # use pool_core::{name::Usec, registry::Registry};
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_heartbeat(&chat, Usec::from_secs(1_758_240_000));
    /// assert_eq!(registry.get_heartbeat(&chat), Some(Usec::from_secs(1_758_240_000)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_heartbeat(&mut self, pool: &PoolId, at: Usec) {
        self.entry(pool).heartbeat = Some(at);
    }

    /// When the pool was last heard from, realtime; `None` where it never was, and for an unknown pool.
    ///
    /// ```
    /// # use pool_core::registry::{HealthStatus, Registry};
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_health(&chat, HealthStatus::default());
    /// assert_eq!(registry.get_heartbeat(&chat), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_heartbeat(&self, pool: &PoolId) -> Option<Usec> {
        self.pools.get(pool)?.heartbeat
    }

    /// Says which version serves. An unknown pool is created.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_version(&chat, "b6500");
    /// registry.set_version(&chat, "b6501");
    /// assert_eq!(registry.get_version(&chat), Some("b6501"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_version(&mut self, pool: &PoolId, version: impl Into<String>) {
        self.entry(pool).version = Some(version.into());
    }

    /// Which version serves; `None` where nobody said so, and for an unknown pool.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// assert_eq!(Registry::default().get_version(&"chat".parse()?), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_version(&self, pool: &PoolId) -> Option<&str> {
        self.pools.get(pool)?.version.as_deref()
    }

    /// Says whether the pool is being emptied. An unknown pool is created. Leases that are held stay held.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_draining(&chat, false);
    /// registry.allocate_lease(&chat)?;
    /// registry.set_draining(&chat, true);
    /// assert_eq!(registry.get_active_leases(&chat), Some(1));
    /// assert_eq!(registry.release_lease(&chat), Ok(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_draining(&mut self, pool: &PoolId, draining: bool) {
        self.entry(pool).draining = draining;
    }

    /// Whether the pool is being emptied; `None` for an unknown pool.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// assert_eq!(registry.get_draining(&chat), None);
    /// registry.set_draining(&chat, true);
    /// assert_eq!(registry.get_draining(&chat), Some(true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_draining(&self, pool: &PoolId) -> Option<bool> {
        self.pools.get(pool).map(|entry| entry.draining)
    }

    /// Counts one lease more and says how many there are now.
    ///
    /// It only counts: that an engine is ready and has room is for the one to see who picks the engine.
    ///
    /// ```
    /// # use pool_core::registry::{LeaseRefused, Registry};
    /// # let (chat, code) = ("chat".parse()?, "code".parse()?);
    /// let mut registry = Registry::default();
    /// registry.set_draining(&chat, false);
    /// registry.set_draining(&code, false);
    /// assert_eq!(registry.allocate_lease(&chat), Ok(1));
    /// assert_eq!(registry.allocate_lease(&chat), Ok(2));
    /// assert_eq!(registry.get_active_leases(&code), Some(0), "pools are counted apart");
    ///
    /// registry.set_draining(&chat, true);
    /// assert_eq!(registry.allocate_lease(&chat), Err(LeaseRefused::Draining(chat.clone())));
    /// assert_eq!(registry.get_active_leases(&chat), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseRefused::UnknownPool`], which stays unknown, and [`LeaseRefused::Draining`].
    pub fn allocate_lease(&mut self, pool: &PoolId) -> Result<u32, LeaseRefused> {
        let entry = self.pools.get_mut(pool).ok_or_else(|| LeaseRefused::UnknownPool(pool.clone()))?;
        if entry.draining {
            return Err(LeaseRefused::Draining(pool.clone()));
        }
        entry.leases = entry.leases.saturating_add(1);
        Ok(entry.leases)
    }

    /// Counts one lease less and says how many there are now: never less than none.
    ///
    /// ```
    /// # use pool_core::registry::{LeaseRefused, Registry};
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_draining(&chat, false);
    /// registry.allocate_lease(&chat)?;
    /// assert_eq!(registry.release_lease(&chat), Ok(0));
    /// assert_eq!(registry.release_lease(&chat), Err(LeaseRefused::NoneHeld(chat.clone())));
    /// assert_eq!(registry.get_active_leases(&chat), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseRefused::UnknownPool`] and [`LeaseRefused::NoneHeld`].
    pub fn release_lease(&mut self, pool: &PoolId) -> Result<u32, LeaseRefused> {
        let entry = self.pools.get_mut(pool).ok_or_else(|| LeaseRefused::UnknownPool(pool.clone()))?;
        entry.leases = entry.leases.checked_sub(1).ok_or_else(|| LeaseRefused::NoneHeld(pool.clone()))?;
        Ok(entry.leases)
    }

    /// How many leases are held; `None` for an unknown pool.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// assert_eq!(registry.get_active_leases(&chat), None);
    /// registry.set_version(&chat, "b6500");
    /// assert_eq!(registry.get_active_leases(&chat), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_active_leases(&self, pool: &PoolId) -> Option<u32> {
        self.pools.get(pool).map(|entry| entry.leases)
    }

    /// Forgets a pool with all that was said of it, its leases included, and says whether there was one.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_version(&chat, "b6500");
    /// assert!(registry.remove(&chat));
    /// assert!(!registry.remove(&chat));
    /// assert_eq!(registry.get_active_leases(&chat), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&mut self, pool: &PoolId) -> bool {
        self.pools.remove(pool).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PoolId {
        text.parse().expect("a valid name")
    }

    #[test]
    fn every_setter_creates_an_unknown_pool_with_defaults_for_all_else() {
        let setters: [fn(&mut Registry, &PoolId); 5] = [
            |registry, pool| registry.set_health(pool, HealthStatus::default()),
            |registry, pool| registry.set_last_error(pool, None),
            |registry, pool| registry.set_heartbeat(pool, Usec(7)),
            |registry, pool| registry.set_version(pool, "1"),
            |registry, pool| registry.set_draining(pool, false),
        ];
        for (index, set) in setters.into_iter().enumerate() {
            let mut registry = Registry::default();
            set(&mut registry, &id("a"));
            assert_eq!(registry.get_health(&id("a")), Some(HealthStatus::default()), "{index}");
            assert_eq!(registry.get_last_error(&id("a")), None, "{index}");
            assert_eq!(registry.get_heartbeat(&id("a")), (index == 2).then_some(Usec(7)));
            assert_eq!(registry.get_version(&id("a")), (index == 3).then_some("1"));
            assert_eq!(registry.get_draining(&id("a")), Some(false), "{index}");
            assert_eq!(registry.get_active_leases(&id("a")), Some(0), "{index}");
            assert_eq!(registry.get_external(&id("a")), None, "{index}");
            assert!(!registry.knows(&id("b")), "{index}");
        }
    }

    #[test]
    fn nothing_but_a_setter_makes_a_pool_known() {
        let mut registry = Registry::default();
        let refused = LeaseRefused::UnknownPool(id("a"));
        assert_eq!(registry.allocate_lease(&id("a")), Err(refused.clone()));
        assert_eq!(registry.release_lease(&id("a")), Err(refused));
        assert!(!registry.remove(&id("a")));
        assert_eq!(registry, Registry::default());
    }

    #[test]
    fn a_refused_lease_changes_nothing() {
        let mut registry = Registry::default();
        registry.set_version(&id("a"), "1");
        registry.allocate_lease(&id("a")).expect("it gives leases");
        registry.set_draining(&id("a"), true);
        let before = registry.clone();
        assert_eq!(registry.allocate_lease(&id("a")), Err(LeaseRefused::Draining(id("a"))));
        assert_eq!(registry, before);
        registry.set_draining(&id("a"), false);
        assert_eq!(registry.release_lease(&id("a")), Ok(0));
        let before = registry.clone();
        assert_eq!(registry.release_lease(&id("a")), Err(LeaseRefused::NoneHeld(id("a"))));
        assert_eq!(registry, before);
        assert_eq!(registry.allocate_lease(&id("a")), Ok(1), "a release too many is not owed");
    }

    #[test]
    fn a_pool_that_comes_back_remembers_nothing() {
        let mut registry = Registry::default();
        registry.set_last_error(&id("a"), Some("signal:KILL"));
        registry.set_draining(&id("a"), true);
        assert!(registry.remove(&id("a")));
        registry.set_version(&id("a"), "2");
        assert_eq!(registry.get_last_error(&id("a")), None);
        assert_eq!(registry.allocate_lease(&id("a")), Ok(1));
    }
}
