//! polkit, as it is asked here: whether a connection may do something. It is named by its unique name on the bus, never
//! by a process, whose number may be another's by the time that polkit looks.
//!
//! polkit may be absent, hang, or wait for a person. A question that no person may be asked for has [`PATIENCE`]; one
//! that a person is asked for has [`PATIENCE_WITH_A_PERSON`]. So that nobody's questions keep others from theirs, each
//! user has so many at a time and waits for a turn, and those that wait for a person have places of their own.
//!
//! That polkit is missing is believed of the bus alone: what polkit says of a question may be of the caller's making.

use super::Action;
use super::places::Places;
use pool_core::host::Caller;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use zbus::message::{Flags, Message};
use zbus::{Connection, Variant};

pub(super) const POLKIT: &str = "org.freedesktop.PolicyKit1";
pub(super) const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
pub(super) const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";

/// How long polkit may take where no person is asked. It may have to be started.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a person may take, the wait for a turn included. He may have gone home, or his agent may be one that never
/// answers.
pub(super) const PATIENCE_WITH_A_PERSON: Duration = Duration::from_secs(5 * 60);
/// How long nobody asks after polkit was found missing: each question would have the bus try to start it.
const PAUSE: Duration = Duration::from_secs(5);
/// Questions at a time, of one user. Those that wait for a person keep their places for long.
const OF_A_USER: usize = 16;
const WITH_A_PERSON_OF_A_USER: usize = 4;
/// Questions at a time, in all. Both kinds together stay below the 128 that dbus-daemon lets a connection wait for.
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
    /// The person who was asked did not answer.
    Unanswered,
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
            plain: Places::new(OF_A_USER, IN_ALL),
            with_a_person: Places::new(WITH_A_PERSON_OF_A_USER, IN_ALL),
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

    fn is_paused(&self) -> bool {
        self.known().pause.is_some_and(|until| Instant::now() < until)
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
        if self.is_paused() {
            return Verdict::Missing;
        }
        let number = self.last_question.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", super::super::NAME);
        let mut left = std::pin::pin!(left);
        let places = if with_a_person { &self.with_a_person } else { &self.plain };
        let mut overdue = std::pin::pin!(async {
            if with_a_person {
                tokio::time::sleep(PATIENCE_WITH_A_PERSON).await;
            } else {
                std::future::pending().await
            }
        });
        let _place = tokio::select! {
            biased;
            () = &mut left => return Verdict::Left,
            () = &mut overdue => return Verdict::Unanswered,
            place = places.take(caller.uid) => place,
        };
        // Those before this one may have waited in vain.
        if self.is_paused() {
            return Verdict::Missing;
        }
        let patience = async {
            if with_a_person {
                overdue.await;
                Verdict::Unanswered
            } else {
                tokio::time::sleep(PATIENCE).await;
                Verdict::Silent
            }
        };
        let check = async {
            let epoch = self.epoch();
            match self.check(caller, action, pool, with_a_person, &id).await {
                // It was started anew meanwhile.
                Verdict::Missing | Verdict::Failed if epoch != self.epoch() => {
                    self.check(caller, action, pool, with_a_person, &id).await
                }
                verdict => verdict,
            }
        };
        // Who has left is looked for first: what polkit says then, it says of that.
        let verdict = tokio::select! {
            biased;
            () = left => Verdict::Left,
            verdict = check => verdict,
            verdict = patience => verdict,
        };
        match verdict {
            Verdict::Left | Verdict::Unanswered => self.cancel(&id).await,
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
                let verdict = self.without_an_answer(caller).await;
                if verdict != Verdict::Left {
                    self.known().failure = error.to_string();
                }
                return verdict;
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

    /// What it means that an error came back. Its name does not say who wrote it: that of a caller who is no longer there
    /// is also that of a service which nobody owns.
    async fn without_an_answer(&self, caller: &Caller) -> Verdict {
        let is_there = async |name: &str| -> zbus::Result<bool> {
            let bus = zbus::fdo::DBusProxy::new(&self.connection).await?;
            bus.name_has_owner(name.try_into()?).await.map_err(zbus::Error::from)
        };
        if matches!(is_there(&caller.name).await, Ok(false)) {
            return Verdict::Left;
        }
        if matches!(is_there(POLKIT).await, Ok(false)) { Verdict::Missing } else { Verdict::Failed }
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::os::unix::net::UnixStream;
    use zbus::connection::{Builder, Connection};

    /// A connection to somebody who reads everything and answers nothing.
    async fn silent() -> (Connection, Connection) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let server = Builder::unix_stream(theirs).server(zbus::Guid::generate()).p2p().build();
        let (ours, theirs) = tokio::join!(Builder::unix_stream(ours).p2p().build(), server);
        (ours.expect("a connection"), theirs.expect("a connection"))
    }

    /// What comes of so many questions of one user at once, and after what time.
    async fn ask(number: usize, with_a_person: bool) -> Vec<(Verdict, Duration)> {
        let (connection, _polkit) = silent().await;
        let authority = Authority::new(connection);
        let caller = Caller { name: ":1.1".to_owned(), uid: 1, pid: 0, unit: String::new() };
        // From here on time passes when nothing else happens.
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        let asked = (0..number).map(async |_| {
            let left = std::future::pending();
            let verdict = authority.ask(&caller, Action::Manage, "a", with_a_person, left).await;
            (verdict, begun.elapsed())
        });
        join_all(asked).await
    }

    fn is_about(took: Duration, expected: Duration) -> bool {
        took >= expected && took < expected + Duration::from_secs(1)
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_while_polkit_hangs_does_not_wait_anew() {
        let answers = ask(3 * OF_A_USER, false).await;
        for (verdict, took) in &answers {
            assert!(is_about(*took, PATIENCE), "{verdict:?} after {took:?}");
        }
        let silent = answers.iter().filter(|(verdict, _)| *verdict == Verdict::Silent).count();
        assert_eq!(silent, OF_A_USER, "{answers:?}");
    }

    #[tokio::test]
    async fn a_person_has_his_time_the_wait_for_a_turn_included_and_polkit_is_not_blamed() {
        for (verdict, took) in ask(3 * WITH_A_PERSON_OF_A_USER, true).await {
            assert_eq!(verdict, Verdict::Unanswered);
            assert!(is_about(took, PATIENCE_WITH_A_PERSON), "{took:?}");
        }
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
