//! Owns who may do what. Every method that is not a plain read passes through [`Access`], which knows the caller, counts
//! what it waits for, and says yes or no before anything of the call is looked at.
//!
//! A caller is a connection to the bus: its unique name, taken from the message's header, which the bus writes. User,
//! process and unit are asked of the bus once for each connection and forgotten when it goes. What the bus says of
//! connections is believed from the bus alone.
//!
//! Everything here runs on the one thread that serves the bus. Between an admission and the question to the loop there
//! is no point at which another task runs, so that a caller that left is never asked for: either its call comes first
//! and is dropped when the loop hears that it left, or it isn't admitted.

mod authority;
mod callers;
mod places;
mod refusals;
mod unit;
mod verdicts;
mod watch;

use super::error::Error;
use crate::supervisor::Handle;
use crate::telemetry;
use authority::{Authority, PATIENCE_WITH_A_PERSON, Verdict};
pub(super) use callers::Call;
use callers::Callers;
use places::Places;
use pool_core::host::Caller;
use pool_core::name::PoolId;
use refusals::Refusals;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch::Receiver;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};

/// Calls that wait for a person to answer, of one user and in all. Those of more wait for nothing.
const FOR_A_PERSON: usize = 16;
const FOR_A_PERSON_IN_ALL: usize = 1024;

/// What a method does, as far as it matters who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// Operate pools, jobs and devices.
    Manage,
    /// Change what is configured: read files anew, register external pools.
    Configure,
    /// Take, renew and give back leases.
    Lease,
    /// Say how an external pool is.
    Report,
}

/// Who may do what. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    /// The user that the daemon runs as.
    own_uid: u32,
    authority: Authority,
    callers: Mutex<Callers>,
    /// Calls that wait for a person.
    for_a_person: Places,
    refusals: Mutex<Refusals>,
}

/// A caller whose call was let pass. The call counts as waiting for its answer for as long as this is kept.
#[derive(Debug)]
pub(super) struct Admitted {
    caller: Arc<Caller>,
    call: Call,
}

impl Deref for Admitted {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Access {
    /// Follows who comes and goes on the bus from now on; the loop is told who left.
    ///
    /// # Errors
    /// The bus refused something.
    pub(super) async fn start(connection: &Connection, handle: Handle) -> zbus::Result<Access> {
        let own_name = connection.unique_name().ok_or(zbus::Error::InvalidReply)?;
        let bus = DBusProxy::new(connection).await?;
        let own_uid = bus.get_connection_unix_user(own_name.into()).await.map_err(zbus::Error::from)?;
        let access = Access::over(connection, own_uid);
        watch::start(&access, handle).await?;
        access.0.authority.look().await?;
        Ok(access)
    }

    /// Over a connection of a daemon that runs as that user; nothing is followed yet.
    pub(super) fn over(connection: &Connection, own_uid: u32) -> Access {
        Access(Arc::new(Inner {
            connection: connection.clone(),
            own_uid,
            authority: Authority::new(connection.clone()),
            callers: Mutex::default(),
            for_a_person: Places::new(FOR_A_PERSON, FOR_A_PERSON_IN_ALL),
            refusals: Mutex::default(),
        }))
    }

    /// Whether there is no polkit, from now on.
    pub(super) fn polkit_missing(&self) -> Receiver<bool> {
        self.0.authority.missing()
    }

    /// Lets a call pass that does `action` to the pool `about`, "" where it is about none.
    ///
    /// # Errors
    /// The caller may not, or has too much under way.
    pub(super) async fn admit(
        &self,
        header: &Header<'_>,
        action: Action,
        about: &str,
    ) -> Result<Admitted, Error> {
        let admitted = self.identify(header).await?;
        if self.is_root(&admitted) {
            return Ok(admitted);
        }
        // What is no pool's id says nothing to anybody who decides, and may be as long as a message.
        let pool = if about.parse::<PoolId>().is_ok() { about } else { "" };
        let may_ask_a_person = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let mut verdict = self.verdict(&admitted, (action, pool, false)).await;
        if verdict == Verdict::Challenge && may_ask_a_person {
            let _place = self.0.for_a_person.try_take(admitted.uid).ok_or_else(|| {
                Error::limits_exceeded(format!(
                    "too many calls wait for a person to authenticate: of one user {FOR_A_PERSON} may, in all \
                     {FOR_A_PERSON_IN_ALL}; answer one of them first"
                ))
            })?;
            verdict = self.verdict(&admitted, (action, pool, true)).await;
        }
        if verdict == Verdict::Authorized && !admitted.call.peer().has_left() {
            return Ok(admitted);
        }
        Err(self.refuse(&admitted, (action, pool, may_ask_a_person), verdict))
    }

    /// Lets a call pass that only root's may.
    ///
    /// # Errors
    /// The caller is somebody else, or has too much under way.
    pub(super) async fn admit_root(&self, header: &Header<'_>) -> Result<Admitted, Error> {
        let admitted = self.identify(header).await?;
        if self.is_root(&admitted) {
            Ok(admitted)
        } else {
            Err(Error::access_denied("root alone may do this"))
        }
    }

    /// Counts a call for as long as what comes back is kept.
    fn count(&self, header: &Header<'_>) -> Result<Call, Error> {
        let sender = header.sender().ok_or_else(|| Error::access_denied("the call names no caller"))?;
        let bytes = usize::try_from(header.primary().body_len()).unwrap_or(usize::MAX);
        self.callers().enter(sender.as_str(), bytes)
    }

    /// Lets a call pass that only reads, but waits for something or takes its time.
    ///
    /// # Errors
    /// The caller has left, or has too much under way.
    pub(super) async fn identify(&self, header: &Header<'_>) -> Result<Admitted, Error> {
        let call = self.count(header)?;
        let caller = call.peer().identify(&self.0.connection).await?;
        Ok(Admitted { caller, call })
    }

    /// Root, or whom the daemon itself is: nobody can do less to it by asking it.
    pub(super) fn is_root(&self, caller: &Caller) -> bool {
        caller.uid == 0 || caller.uid == self.0.own_uid
    }

    /// What polkit says, which is asked once for all who want to know the same.
    async fn verdict(&self, admitted: &Admitted, what: (Action, &str, bool)) -> Verdict {
        let (action, pool, with_a_person) = what;
        let (peer, authority) = (admitted.call.peer(), &self.0.authority);
        let question = peer.verdicts().question(what, authority.epoch(), Instant::now());
        if let Some(verdict) = question.verdict.get() {
            return *verdict;
        }
        let ask = async || {
            let verdict = authority.ask(admitted, action, pool, with_a_person, peer.left()).await;
            peer.verdicts().answered(what, &question, verdict);
            verdict
        };
        *question.verdict.get_or_init(ask).await
    }

    /// Tells the journal, not too often, and what to tell the caller.
    fn refuse(
        &self,
        admitted: &Admitted,
        (action, pool, asked_a_person): (Action, &str, bool),
        verdict: Verdict,
    ) -> Error {
        let id = action.id();
        let text = match verdict {
            Verdict::Authorized | Verdict::Left => {
                return Error::access_denied("the caller has left the bus");
            }
            Verdict::Challenge if asked_a_person => format!(
                "polkit wants to ask a person about {id}, and no authentication agent runs to ask one"
            ),
            Verdict::Challenge => {
                format!("polkit wants to ask a person about {id}, which this call does not allow")
            }
            Verdict::Refused => format!("polkit does not allow {id}"),
            Verdict::NotAllowed => format!("{id} was not allowed: nobody authenticated for it"),
            Verdict::Unanswered => format!(
                "{id} was not allowed: nobody authenticated for it within {} s",
                PATIENCE_WITH_A_PERSON.as_secs()
            ),
            Verdict::Failed => format!(
                "polkit cannot say whether {id} is allowed, so root alone may: {}",
                self.0.authority.failure()
            ),
            Verdict::Missing => format!(
                "there is no polkit to say whether {id} is allowed, so root alone may: install and start polkit \
                 (systemctl start polkit.service), or ask as root; {}",
                self.0.authority.failure()
            ),
            Verdict::Silent => format!(
                "polkit does not answer whether {id} is allowed, so root alone may: see systemctl status \
                 polkit.service, or ask as root"
            ),
        };
        if admitted.call.peer().is_first_refusal(action) {
            let mut refusals = self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(left_out) = refusals.tell(admitted.uid, Instant::now()) {
                telemetry::refused(admitted, id, pool, &text, left_out);
            }
        }
        if verdict == Verdict::Challenge {
            Error::interactive_authorization_required(text)
        } else {
            Error::access_denied(text)
        }
    }

    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.0.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
