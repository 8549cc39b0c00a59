//! polkit, as it is asked here: whether a connection may do something. It is named by its unique name on the bus, never
//! by a process, whose number may be another's by the time that polkit looks.
//!
//! polkit may be absent, hang, or wait for a person. A question that no person may be asked for has [`PATIENCE`]; one
//! that a person is asked for takes as long as he does. So that nobody's questions keep others from theirs, each user
//! has so many at a time and waits for a turn, and those that wait for a person have places of their own.

use super::Action;
use pool_core::host::Caller;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use zbus::message::{Flags, Message};
use zbus::{Connection, Variant};

pub(super) const POLKIT: &str = "org.freedesktop.PolicyKit1";
pub(super) const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
pub(super) const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";

/// How long polkit may take where no person is asked. It may have to be started.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody asks after polkit was found missing: each question would have the bus try to start it.
const PAUSE: Duration = Duration::from_secs(5);
/// Questions at a time, of one user and in all. Both kinds together stay below the 128 that dbus-daemon lets a
/// connection wait for.
const OF_A_USER: usize = 16;
const IN_ALL: usize = 56;

/// What polkit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The caller may.
    Authorized,
    /// It may once a person has shown to be who may allow it.
    Challenge,
    /// It may not.
    Refused,
    /// The person who was asked did not allow it.
    NotAllowed,
    /// polkit is there and cannot say: it doesn't know the action, for instance.
    Failed,
    /// polkit is not there.
    Missing,
    /// polkit does not answer.
    Silent,
    /// The caller left meanwhile.
    Left,
}

impl Action {
    /// Its id; the actions file has the same.
    pub(super) const fn id(self) -> &'static str {
        match self {
            Action::Manage => "org.llamaorch.PoolManager.manage",
            Action::Configure => "org.llamaorch.PoolManager.configure",
            Action::Lease => "org.llamaorch.PoolManager.lease",
            Action::Report => "org.llamaorch.PoolManager.report",
        }
    }

    /// What a person is told who is asked to allow it for one pool; of no pool in particular the actions file speaks.
    const fn message(self) -> &'static str {
        match self {
            Action::Manage => "Authentication is required to operate the LLM engines of pool '$(pool)'.",
            Action::Configure => "Authentication is required to change how pool '$(pool)' is configured.",
            Action::Lease => "Authentication is required to use the LLM engines of pool '$(pool)'.",
            Action::Report => {
                "Authentication is required to report the state of the external pool '$(pool)'."
            }
        }
    }
}

/// The way to polkit.
#[derive(Debug)]
pub(super) struct Authority {
    connection: Connection,
    known: Mutex<Known>,
    missing: watch::Sender<bool>,
    /// Raised with everything that may change what polkit says: an answer of an earlier one does not count any more.
    epoch: AtomicU64,
    plain: Places,
    with_a_person: Places,
    last_question: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    /// Who owns polkit's name; `None`: the bus has not said yet.
    owner: Option<Option<String>>,
    /// Not to be asked before.
    pause: Option<Instant>,
    /// What it said last when it could not say.
    failure: String,
}

impl Authority {
    pub(super) fn new(connection: Connection) -> Self {
        Authority {
            connection,
            known: Mutex::default(),
            missing: watch::Sender::new(false),
            epoch: AtomicU64::new(0),
            plain: Places::new(),
            with_a_person: Places::new(),
            last_question: AtomicU64::new(0),
        }
    }

    /// Whether it is missing, from now on.
    pub(super) fn missing(&self) -> watch::Receiver<bool> {
        self.missing.subscribe()
    }

    /// What answers belong to.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether that is polkit itself.
    pub(super) fn is_owner(&self, sender: &str) -> bool {
        matches!(&self.known().owner, Some(Some(owner)) if owner == sender)
    }

    /// It says that something has changed.
    pub(super) fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Its name has another owner, or none.
    pub(super) fn owned_by(&self, owner: &str) {
        let owner = (!owner.is_empty()).then(|| owner.to_owned());
        if owner.is_some() {
            self.found();
        }
        self.known().owner = Some(owner);
        self.changed();
    }

    /// Looks whether it is there, or can be started: without asking it anything, so without waiting for it.
    pub(super) async fn look(&self) -> zbus::Result<()> {
        let bus = zbus::fdo::DBusProxy::new(&self.connection).await?;
        let owner = match bus.get_name_owner(POLKIT.try_into()?).await {
            Ok(owner) => Some(owner.to_string()),
            Err(zbus::fdo::Error::NameHasNoOwner(_)) => None,
            Err(error) => return Err(zbus::Error::from(error)),
        };
        // A signal may have come meanwhile, and is newer.
        self.known().owner.get_or_insert(owner);
        self.look_for_a_start().await
    }

    /// The same where nobody owns its name: one that the next question starts is not missing before that fails.
    pub(super) async fn look_for_a_start(&self) -> zbus::Result<()> {
        let bus = zbus::fdo::DBusProxy::new(&self.connection).await?;
        let startable = bus.list_activatable_names().await?.iter().any(|name| name.as_str() == POLKIT);
        if !startable && matches!(self.known().owner, Some(None)) {
            self.missing.send_if_modified(|missing| !std::mem::replace(missing, true));
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it could not say, the last time.
    pub(super) fn failure(&self) -> String {
        self.known().failure.clone()
    }

    fn found(&self) {
        self.known().pause = None;
        self.missing.send_if_modified(|missing| std::mem::replace(missing, false));
    }

    fn not_found(&self) {
        self.known().pause = Some(Instant::now() + PAUSE);
        self.missing.send_if_modified(|missing| !std::mem::replace(missing, true));
    }

    /// Asks whether the caller may do something, to a pool if one is named. `left` resolves when the caller has left.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        action: Action,
        pool: &str,
        with_a_person: bool,
        left: impl Future<Output = ()>,
    ) -> Verdict {
        let paused = self.known().pause.is_some_and(|until| Instant::now() < until);
        if paused {
            return Verdict::Missing;
        }
        let number = self.last_question.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", super::super::NAME);
        let mut left = std::pin::pin!(left);
        let places = if with_a_person { &self.with_a_person } else { &self.plain };
        let _place = tokio::select! {
            place = places.take(caller.uid) => place,
            () = &mut left => return Verdict::Left,
        };
        let patience = async {
            if with_a_person { std::future::pending().await } else { tokio::time::sleep(PATIENCE).await }
        };
        let check = async {
            let epoch = self.epoch();
            match self.check(caller, action, pool, with_a_person, &id).await {
                // It was started anew meanwhile.
                Verdict::Missing if epoch != self.epoch() => {
                    self.check(caller, action, pool, with_a_person, &id).await
                }
                verdict => verdict,
            }
        };
        let verdict = tokio::select! {
            verdict = check => verdict,
            () = left => Verdict::Left,
            () = patience => Verdict::Silent,
        };
        match verdict {
            Verdict::Left => self.cancel(&id).await,
            Verdict::Silent => {
                self.not_found();
                self.cancel(&id).await;
            }
            Verdict::Missing => self.not_found(),
            Verdict::Authorized
            | Verdict::Challenge
            | Verdict::Refused
            | Verdict::NotAllowed
            | Verdict::Failed => self.found(),
        }
        verdict
    }

    async fn check(
        &self,
        caller: &Caller,
        action: Action,
        pool: &str,
        with_a_person: bool,
        id: &str,
    ) -> Verdict {
        let subject = ("system-bus-name", HashMap::from([("name", Variant::from(caller.name.as_str()))]));
        let mut details = HashMap::new();
        if !pool.is_empty() {
            details.insert("pool", pool);
            details.insert("polkit.message", action.message());
        }
        let question = (subject, action.id(), details, u32::from(with_a_person), id);
        let asked = self
            .connection
            .call_method(Some(POLKIT), PATH, Some(INTERFACE), "CheckAuthorization", &question)
            .await;
        let reply = match asked {
            Ok(reply) => reply,
            Err(error) => {
                let from_polkit = matches!(&error, zbus::Error::MethodError(name, _, _)
                    if name.as_str().starts_with("org.freedesktop.PolicyKit1."));
                self.known().failure = error.to_string();
                return if from_polkit { Verdict::Failed } else { Verdict::Missing };
            }
        };
        let body = reply.body();
        match body.deserialize::<((bool, bool, HashMap<&str, &str>),)>() {
            Ok(((true, _, _),)) => Verdict::Authorized,
            // Also where a person was to be asked: there was no agent to ask him.
            Ok(((false, true, _),)) => Verdict::Challenge,
            Ok(((false, false, _),)) if with_a_person => Verdict::NotAllowed,
            Ok(((false, false, _),)) => Verdict::Refused,
            Err(error) => {
                self.known().failure = format!("its answer cannot be read: {error}");
                Verdict::Failed
            }
        }
    }

    /// Takes a question back, so that no person is asked for nobody.
    async fn cancel(&self, id: &str) {
        let cancel = async {
            let message = Message::method_call(PATH, "CancelCheckAuthorization")
                .destination(POLKIT)
                .interface(INTERFACE)
                .with_flags(Flags::NO_REPLY_EXPECTED | Flags::NO_AUTO_START)
                .build(&(id,))?;
            self.connection.send(&message).await
        };
        if let Err(error) = cancel.await {
            tracing::debug!("polkit cannot be told that a question is over: {error}");
        }
    }
}

/// The questions that are under way.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

impl Places {
    fn new() -> Self {
        Places { all: Arc::new(Semaphore::new(IN_ALL)), users: Mutex::default() }
    }

    /// Waits for a turn: of the user's own questions first, so that one who has many holds few of all places.
    async fn take(&self, uid: u32) -> [Option<OwnedSemaphorePermit>; 2] {
        let own = {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.retain(|_, own| Arc::strong_count(own) > 1);
            users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(OF_A_USER))).clone()
        };
        // They are never closed.
        let own = own.acquire_owned().await.ok();
        [own, self.all.clone().acquire_owned().await.ok()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn one_user_leaves_places_to_others_and_his_own_are_given_back() {
        let places = Places::new();
        let taken: Vec<_> =
            (0..OF_A_USER).map(|_| places.take(1).now_or_never().expect("there is a place")).collect();
        assert!(places.take(1).now_or_never().is_none(), "one more than a user has");
        let others: Vec<_> = (2..).map_while(|uid| places.take(uid).now_or_never()).take(100).collect();
        assert_eq!(others.len(), IN_ALL - OF_A_USER);
        drop(taken);
        assert!(places.take(1).now_or_never().is_some());
    }

    #[test]
    fn the_actions_file_has_all_actions_and_no_other() {
        let file = include_str!("../../../dbus/org.llamaorch.PoolManager.policy");
        let parsed = roxmltree::Document::parse_with_options(
            file,
            roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
        )
        .expect("it is XML");
        let mut there: Vec<&str> = parsed
            .descendants()
            .filter(|node| node.has_tag_name("action"))
            .filter_map(|node| node.attribute("id"))
            .collect();
        let mut ours: Vec<&str> =
            [Action::Manage, Action::Configure, Action::Lease, Action::Report].map(Action::id).to_vec();
        there.sort_unstable();
        ours.sort_unstable();
        assert_eq!(there, ours);
        let rules = include_str!("../../../dbus/org.llamaorch.PoolManager.rules");
        for id in ours {
            assert!(rules.contains(&format!("\"{id}\"")), "{id}");
        }
    }
}
