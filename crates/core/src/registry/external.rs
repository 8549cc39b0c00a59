//! Owns pools that somebody else runs. Their health is what their owner reports, and nothing once the owner falls
//! silent. Whoever registers a pool, or reports on an unknown one first, owns it; nobody else may report on it.
//!
//! Silence is measured in the clock that runs while the host sleeps and that nobody can set; realtime is only
//! published.

use super::{Entry, HealthStatus, Registry};
use crate::name::{Endpoint, PoolId, Usec};
use serde::{Deserialize, Serialize};

/// So long an owner may be silent where it did not say otherwise.
///
/// ```
/// use pool_core::{name::Usec, registry::DEFAULT_HEARTBEAT_TIMEOUT};
///
/// assert_eq!(DEFAULT_HEARTBEAT_TIMEOUT, Usec::from_secs(30));
/// ```
pub const DEFAULT_HEARTBEAT_TIMEOUT: Usec = Usec::from_secs(30);

/// One moment in both clocks.
///
/// ```
/// use pool_core::{name::Usec, registry::*};
///
/// let chat = "chat".parse()?;
/// let mut registry = Registry::default();
/// let lives = Report::Health(HealthStatus { live: true, ready: false });
/// // Somebody sets the host's clock back to 1970 after a minute.
/// let set_back = Moment { mono: Usec::from_secs(60), real: Usec(0) };
/// registry.report(&chat, 1000, lives, set_back)?;
/// assert_eq!(registry.get_heartbeat(&chat), Some(Usec(0)), "realtime is what is published");
/// assert_eq!(registry.next_expiry(), Some(Usec::from_secs(90)), "and nothing else");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// By the clock that intervals are measured with (CLOCK_BOOTTIME).
    pub mono: Usec,
    /// Realtime, which is published.
    pub real: Usec,
}

/// A pool that somebody else runs.
///
/// ```
/// use pool_core::registry::{DEFAULT_HEARTBEAT_TIMEOUT, External};
///
/// let external = External::of(1000);
/// assert_eq!(external.heartbeat_timeout, DEFAULT_HEARTBEAT_TIMEOUT);
/// assert_eq!(external.endpoint, None, "nobody said where it answers");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// The kind of its engine; "" where nobody said.
    pub engine: String,
    /// Where it answers; a lease cannot be had without.
    pub endpoint: Option<Endpoint>,
    /// The only one who may report on it.
    pub owner_uid: u32,
    /// So long its owner may be silent.
    pub heartbeat_timeout: Usec,
}

impl External {
    /// One of which no more is known than its owner.
    ///
    /// ```
    /// use pool_core::registry::External;
    ///
    /// let external = External { engine: "vllm".into(), ..External::of(1000) };
    /// assert_eq!(external.owner_uid, 1000);
    /// ```
    #[must_use]
    pub const fn of(owner_uid: u32) -> Self {
        External {
            engine: String::new(),
            endpoint: None,
            owner_uid,
            heartbeat_timeout: DEFAULT_HEARTBEAT_TIMEOUT,
        }
    }
}

/// What an owner says of its pool.
///
/// ```
/// # use pool_core::{name::Usec, registry::*};
/// # let chat = "chat".parse()?;
/// # let now = Moment { mono: Usec::from_secs(60), real: Usec::from_secs(1_758_240_000) };
/// let mut registry = Registry::default();
/// registry.report(&chat, 1000, Report::Version("0.11".into()), now)?;
/// registry.report(&chat, 1000, Report::LastError(Some("out of slots".into())), now)?;
/// assert_eq!(registry.get_version(&chat), Some("0.11"));
/// assert_eq!(registry.get_last_error(&chat), Some("out of slots"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Whether it lives and serves.
    Health(HealthStatus),
    /// When it was last seen alive, realtime.
    Heartbeat(Usec),
    /// Its version.
    Version(String),
    /// What went wrong last; `None` forgets it.
    LastError(Option<String>),
}

/// Why an external pool stays as it is.
///
/// ```
/// use pool_core::registry::ExternalRefused;
///
/// let refused = ExternalRefused::NotOwner { pool: "chat".parse()?, owner_uid: 1000 };
/// assert!(refused.to_string().contains("uid 1000"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExternalRefused {
    /// Nobody knows the pool.
    #[error("there is no pool \"{0}\"; see what there is with: poolctl list")]
    UnknownPool(PoolId),
    /// The id is taken.
    #[error(
        "there is a pool {0} already; choose another id, or unregister that pool first if it is external"
    )]
    AlreadyExists(PoolId),
    /// The pool is one of the daemon's own, which knows better.
    #[error("pool {0} is run by this daemon and nobody reports on it; choose another id for a pool of yours")]
    NotExternal(PoolId),
    /// Somebody else registered the pool.
    #[error(
        "pool {pool} belongs to uid {owner_uid}, and nobody else may report on it; report as that user, or choose another id"
    )]
    NotOwner {
        /// The pool.
        pool: PoolId,
        /// Whose it is.
        owner_uid: u32,
    },
}

/// An external pool, and since when its owner is silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) external: External,
    /// By the clock of intervals; 0 before the first report.
    heard: Usec,
}

impl Watch {
    const fn due(&self) -> Usec {
        self.heard.plus(self.external.heartbeat_timeout)
    }
}

impl Entry {
    /// The watch over its health: only an external pool's runs out, and only where there is any.
    fn watched(&self) -> Option<&Watch> {
        self.external.as_ref().filter(|_| self.health != HealthStatus::default())
    }
}

impl Registry {
    /// Registers a pool that somebody else runs. It is neither live nor ready until its owner says so.
    ///
    /// A pool that is only known by its owner's reports takes over what that owner registers.
    ///
    /// ```
    /// # use pool_core::registry::*;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// let external = External { engine: "vllm".into(), endpoint: Some("http://127.0.0.1:8000".parse()?), ..External::of(1000) };
    /// registry.register(&chat, external.clone())?;
    /// assert_eq!(registry.get_external(&chat), Some(&external));
    /// assert_eq!(registry.get_health(&chat), Some(HealthStatus::default()));
    ///
    /// let again = registry.register(&chat, external);
    /// assert_eq!(again, Err(ExternalRefused::AlreadyExists(chat)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ExternalRefused::AlreadyExists`], whoever has the id.
    pub fn register(&mut self, pool: &PoolId, external: External) -> Result<(), ExternalRefused> {
        self.may_register(pool, external.owner_uid)?;
        let heard = self.pools.get(pool).and_then(|entry| entry.external.as_ref()).map(|watch| watch.heard);
        self.entry(pool).external = Some(Watch { external, heard: heard.unwrap_or_default() });
        Ok(())
    }

    /// Whether a user may register a pool; see [`Registry::register`].
    ///
    /// ```
    /// # use pool_core::registry::*;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// assert_eq!(registry.may_register(&chat, 1000), Ok(()));
    /// registry.register(&chat, External { engine: "vllm".into(), ..External::of(1000) })?;
    /// assert_eq!(registry.may_register(&chat, 1000), Err(ExternalRefused::AlreadyExists(chat)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ExternalRefused::AlreadyExists`], whoever has the id.
    pub fn may_register(&self, pool: &PoolId, uid: u32) -> Result<(), ExternalRefused> {
        match self.pools.get(pool) {
            None => Ok(()),
            Some(Entry { external: Some(watch), .. }) if watch.external == External::of(uid) => Ok(()),
            Some(_) => Err(ExternalRefused::AlreadyExists(pool.clone())),
        }
    }

    /// Whether a user may say something of a pool; see [`Registry::report`].
    ///
    /// ```
    /// # use pool_core::registry::*;
    /// # let (chat, own) = ("chat".parse()?, "own".parse()?);
    /// let mut registry = Registry::default();
    /// assert_eq!(registry.may_report(&chat, 1000), Ok(()), "the first one makes it known");
    /// registry.set_version(&own, "b6500");
    /// assert_eq!(registry.may_report(&own, 1000), Err(ExternalRefused::NotExternal(own)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ExternalRefused::NotExternal`] and [`ExternalRefused::NotOwner`].
    pub fn may_report(&self, pool: &PoolId, uid: u32) -> Result<(), ExternalRefused> {
        match self.pools.get(pool) {
            None => Ok(()),
            Some(Entry { external: None, .. }) => Err(ExternalRefused::NotExternal(pool.clone())),
            Some(Entry { external: Some(Watch { external: External { owner_uid, .. }, .. }), .. }) => {
                if *owner_uid == uid {
                    Ok(())
                } else {
                    Err(ExternalRefused::NotOwner { pool: pool.clone(), owner_uid: *owner_uid })
                }
            }
        }
    }

    /// All external pools, sorted by id.
    ///
    /// ```
    /// # use pool_core::registry::*;
    /// let mut registry = Registry::default();
    /// registry.set_version(&"own".parse()?, "b6500");
    /// registry.register(&"chat".parse()?, External::of(1000))?;
    /// let ids: Vec<_> = registry.externals().map(|(id, _)| id.to_string()).collect();
    /// assert_eq!(ids, ["chat"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn externals(&self) -> impl Iterator<Item = (&PoolId, &External)> {
        self.pools.iter().filter_map(|(id, entry)| Some((id, &entry.external.as_ref()?.external)))
    }

    /// Forgets an external pool with its leases.
    ///
    /// ```
    /// # use pool_core::registry::*;
    /// # let (chat, own) = ("chat".parse()?, "own".parse()?);
    /// let mut registry = Registry::default();
    /// registry.register(&chat, External::of(1000))?;
    /// registry.unregister(&chat)?;
    /// assert!(!registry.knows(&chat));
    ///
    /// registry.set_version(&own, "b6500");
    /// assert_eq!(registry.unregister(&own), Err(ExternalRefused::NotExternal(own)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ExternalRefused::UnknownPool`] and [`ExternalRefused::NotExternal`].
    pub fn unregister(&mut self, pool: &PoolId) -> Result<(), ExternalRefused> {
        match self.pools.get(pool) {
            None => Err(ExternalRefused::UnknownPool(pool.clone())),
            Some(Entry { external: None, .. }) => Err(ExternalRefused::NotExternal(pool.clone())),
            Some(Entry { external: Some(_), .. }) => {
                self.pools.remove(pool);
                Ok(())
            }
        }
    }

    /// A file has that id by now: it is no external pool any more, and nothing that was said of that holds.
    ///
    /// ```
    /// # use pool_core::registry::*;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.register(&chat, External::of(1000))?;
    /// registry.set_version(&chat, "2");
    /// registry.take_over(&chat);
    /// assert_eq!((registry.get_external(&chat), registry.get_version(&chat)), (None, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_over(&mut self, pool: &PoolId) {
        let external = |entry: &&mut Entry| entry.external.is_some();
        if let Some(entry) = self.pools.get_mut(pool).filter(external) {
            *entry = Entry::default();
        }
    }

    /// What was registered; `None` for an unknown pool and for one of the daemon's own.
    ///
    /// ```
    /// # use pool_core::registry::Registry;
    /// # let chat = "chat".parse()?;
    /// let mut registry = Registry::default();
    /// registry.set_version(&chat, "b6500");
    /// assert_eq!(registry.get_external(&chat), None, "a plain setter makes no external pool");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_external(&self, pool: &PoolId) -> Option<&External> {
        self.pools.get(pool)?.external.as_ref().map(|watch| &watch.external)
    }

    /// Takes in what `uid` says of a pool; the first report on an unknown pool creates it, as that uid's.
    ///
    /// Every report is a sign of life, as of now. A heartbeat is one as of the time that it names: one from the future
    /// counts as of now, and one that is older than the last sign of life changes nothing.
    ///
    /// ```
    /// # use pool_core::{name::Usec, registry::*};
    /// # let chat = "chat".parse()?;
    /// # let now = Moment { mono: Usec::from_secs(60), real: Usec::from_secs(1_758_240_000) };
    /// let mut registry = Registry::default();
    /// registry.report(&chat, 1000, Report::Health(HealthStatus { live: true, ready: true }), now)?;
    /// assert_eq!(registry.get_external(&chat), Some(&External::of(1000)));
    /// assert_eq!(registry.get_heartbeat(&chat), Some(now.real));
    ///
    /// let stranger = registry.report(&chat, 1001, Report::Version("2".into()), now);
    /// assert_eq!(stranger, Err(ExternalRefused::NotOwner { pool: chat.clone(), owner_uid: 1000 }));
    /// assert_eq!(registry.get_version(&chat), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ExternalRefused::NotExternal`] and [`ExternalRefused::NotOwner`].
    pub fn report(
        &mut self,
        pool: &PoolId,
        uid: u32,
        report: Report,
        now: Moment,
    ) -> Result<(), ExternalRefused> {
        self.may_report(pool, uid)?;
        if !self.knows(pool) {
            self.register(pool, External::of(uid))?;
        }
        let entry = self.entry(pool);
        let Some(watch) = entry.external.as_mut() else {
            return Err(ExternalRefused::NotExternal(pool.clone()));
        };
        let alive = match report {
            Report::Heartbeat(at) => at.min(now.real),
            Report::Health(_) | Report::Version(_) | Report::LastError(_) => now.real,
        };
        // Its age is the same in both clocks.
        let heard = Usec(now.mono.0.saturating_sub(now.real.since(alive).0));
        if heard >= watch.heard {
            watch.heard = heard;
            entry.heartbeat = Some(alive);
        }
        match report {
            Report::Heartbeat(_) => {}
            Report::Health(health) => entry.health = health,
            Report::Version(version) => entry.version = Some(version),
            Report::LastError(error) => entry.last_error = error,
        }
        Ok(())
    }

    /// Takes health from the external pools whose owners have been silent for too long, and names those pools, sorted.
    /// Each is named once: it has no health to lose until its owner says so again.
    ///
    /// ```
    /// # use pool_core::{name::Usec, registry::*};
    /// # let chat = "chat".parse()?;
    /// # let at = |secs| Moment { mono: Usec::from_secs(secs), real: Usec::from_secs(1_758_240_000 + secs) };
    /// let mut registry = Registry::default();
    /// let serves = Report::Health(HealthStatus { live: true, ready: true });
    /// registry.report(&chat, 1000, serves.clone(), at(0))?;
    /// assert_eq!(registry.expire(Usec::from_secs(29)), []);
    /// assert_eq!(registry.expire(Usec::from_secs(30)), [chat.clone()]);
    /// assert_eq!(registry.get_health(&chat), Some(HealthStatus { live: false, ready: false }));
    /// assert!(registry.get_last_error(&chat).is_some_and(|error| error.contains("30 s")));
    /// assert_eq!(registry.expire(Usec::from_secs(31)), []);
    ///
    /// registry.report(&chat, 1000, Report::Heartbeat(at(32).real), at(32))?;
    /// assert_eq!(registry.get_health(&chat), Some(HealthStatus::default()), "only the owner says that it serves");
    /// registry.report(&chat, 1000, serves, at(33))?;
    /// assert_eq!(registry.next_expiry(), Some(Usec::from_secs(63)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expire(&mut self, mono: Usec) -> Vec<PoolId> {
        let mut silent = Vec::new();
        for (id, entry) in &mut self.pools {
            let Some(watch) = entry.watched().filter(|watch| watch.due() <= mono) else { continue };
            let External { owner_uid, heartbeat_timeout, .. } = watch.external;
            entry.last_error = Some(format!(
                "uid {owner_uid}, who runs it, has been silent for {heartbeat_timeout}; it is ready again once that user reports its health"
            ));
            entry.health = HealthStatus::default();
            silent.push(id.clone());
        }
        silent
    }

    /// When [`Registry::expire`] has something to do next, by the clock of intervals; `None` where nothing can expire.
    ///
    /// ```
    /// # use pool_core::{name::Usec, registry::*};
    /// # let (chat, code) = ("chat".parse()?, "code".parse()?);
    /// # let now = Moment { mono: Usec::from_secs(60), real: Usec::from_secs(1_758_240_000) };
    /// let mut registry = Registry::default();
    /// registry.register(&code, External { heartbeat_timeout: Usec::from_secs(5), ..External::of(1000) })?;
    /// assert_eq!(registry.next_expiry(), None, "nobody said that it serves");
    ///
    /// let lives = Report::Health(HealthStatus { live: true, ready: false });
    /// registry.report(&chat, 1000, lives.clone(), now)?;
    /// registry.report(&code, 1000, lives, now)?;
    /// assert_eq!(registry.next_expiry(), Some(Usec::from_secs(65)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn next_expiry(&self) -> Option<Usec> {
        self.pools.values().filter_map(Entry::watched).map(Watch::due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVES: HealthStatus = HealthStatus { live: true, ready: true };

    fn id(text: &str) -> PoolId {
        text.parse().expect("a valid name")
    }

    fn at(secs: u64) -> Moment {
        Moment { mono: Usec::from_secs(secs), real: Usec::from_secs(1_000_000 + secs) }
    }

    fn serving(timeout: u64) -> Registry {
        let mut registry = Registry::default();
        let external = External { heartbeat_timeout: Usec::from_secs(timeout), ..External::of(7) };
        registry.register(&id("a"), external).expect("nobody has it yet");
        registry.report(&id("a"), 7, Report::Health(SERVES), at(100)).expect("its owner reports");
        registry
    }

    #[test]
    fn a_pool_lasts_just_as_long_as_its_timeout() {
        let mut registry = serving(10);
        assert_eq!(registry.next_expiry(), Some(at(110).mono));
        assert!(registry.expire(Usec(at(110).mono.0 - 1)).is_empty());
        assert_eq!(registry.expire(at(110).mono), [id("a")]);
        assert_eq!(registry.next_expiry(), None);
    }

    #[test]
    fn a_heartbeat_puts_the_end_off_and_never_brings_it_nearer() {
        let mut registry = serving(10);
        registry.report(&id("a"), 7, Report::Heartbeat(at(104).real), at(105)).expect("its owner reports");
        assert_eq!(registry.next_expiry(), Some(at(114).mono));
        registry.report(&id("a"), 7, Report::Heartbeat(at(102).real), at(106)).expect("its owner reports");
        assert_eq!(registry.next_expiry(), Some(at(114).mono));
        assert_eq!(registry.get_heartbeat(&id("a")), Some(at(104).real));
    }

    #[test]
    fn a_heartbeat_from_the_future_counts_as_of_now() {
        let mut registry = serving(10);
        registry.report(&id("a"), 7, Report::Heartbeat(Usec(u64::MAX)), at(105)).expect("its owner reports");
        assert_eq!(registry.next_expiry(), Some(at(115).mono));
        assert_eq!(registry.get_heartbeat(&id("a")), Some(at(105).real));
    }

    #[test]
    fn a_set_clock_expires_nothing_and_keeps_nothing_alive() {
        for real in [0, 5, 9_000_000] {
            let mut registry = serving(10);
            let now = Moment { mono: at(105).mono, real: Usec::from_secs(real) };
            registry.report(&id("a"), 7, Report::Heartbeat(now.real), now).expect("its owner reports");
            assert_eq!(registry.next_expiry(), Some(at(115).mono));
            assert_eq!(registry.get_heartbeat(&id("a")), Some(now.real));
        }
    }

    #[test]
    fn every_report_is_a_sign_of_life() {
        for report in [Report::Health(SERVES), Report::Version("1".into()), Report::LastError(None)] {
            let mut registry = serving(10);
            registry.report(&id("a"), 7, report, at(105)).expect("its owner reports");
            assert_eq!(registry.next_expiry(), Some(at(115).mono));
            assert_eq!(registry.get_heartbeat(&id("a")), Some(at(105).real));
        }
    }

    #[test]
    fn what_cannot_be_reported_changes_nothing() {
        let mut registry = serving(10);
        registry.set_version(&id("own"), "1");
        let before = registry.clone();
        for report in [
            Report::Health(HealthStatus::default()),
            Report::Heartbeat(at(105).real),
            Report::Version("2".into()),
            Report::LastError(Some("mine".into())),
        ] {
            let stranger = registry.report(&id("a"), 8, report.clone(), at(105));
            assert_eq!(stranger, Err(ExternalRefused::NotOwner { pool: id("a"), owner_uid: 7 }));
            let own = registry.report(&id("own"), 7, report, at(105));
            assert_eq!(own, Err(ExternalRefused::NotExternal(id("own"))));
        }
        assert_eq!(registry, before);
    }

    #[test]
    fn a_first_report_with_an_old_heartbeat_is_an_old_sign_of_life() {
        let mut registry = Registry::default();
        registry.report(&id("a"), 7, Report::Heartbeat(at(90).real), at(100)).expect("its owner reports");
        assert_eq!(registry.get_heartbeat(&id("a")), Some(at(90).real));
    }

    #[test]
    fn only_the_first_reporter_may_register_what_its_reports_made() {
        let full = |uid| External { engine: "vllm".into(), ..External::of(uid) };
        let mut registry = Registry::default();
        registry.report(&id("a"), 7, Report::Health(SERVES), at(100)).expect("its owner reports");
        let taken = Err(ExternalRefused::AlreadyExists(id("a")));
        assert_eq!(registry.register(&id("a"), full(8)), taken);
        assert_eq!(registry.register(&id("a"), full(7)), Ok(()));
        assert_eq!(registry.get_health(&id("a")), Some(SERVES), "what it reported still holds");
        assert_eq!(registry.register(&id("a"), full(7)), taken, "once");
    }

    #[test]
    fn the_daemon_s_own_pools_never_expire() {
        let mut registry = Registry::default();
        registry.set_health(&id("own"), SERVES);
        registry.set_heartbeat(&id("own"), Usec(1));
        assert_eq!(registry.next_expiry(), None);
        assert!(registry.expire(Usec(u64::MAX)).is_empty());
        assert_eq!(registry.get_health(&id("own")), Some(SERVES));
        let external = External::of(7);
        assert_eq!(registry.register(&id("own"), external), Err(ExternalRefused::AlreadyExists(id("own"))));
    }

    #[test]
    fn a_silent_owner_takes_no_leases_with_it() {
        let mut registry = serving(10);
        registry.allocate_lease(&id("a")).expect("it gives leases");
        assert_eq!(registry.expire(at(200).mono), [id("a")]);
        assert_eq!(registry.get_active_leases(&id("a")), Some(1), "its holders still talk to it");
        registry.unregister(&id("a")).expect("it is there");
        assert_eq!(registry.get_active_leases(&id("a")), None);
        assert_eq!(registry.unregister(&id("a")), Err(ExternalRefused::UnknownPool(id("a"))));
    }
}
