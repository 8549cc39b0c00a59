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

mod callers;
mod unit;
mod watch;

use super::error::Error;
use crate::supervisor::Handle;
use callers::{Call, Callers};
use pool_core::host::Caller;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zbus::Connection;
use zbus::message::Header;

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
    #[allow(dead_code, reason = "the methods of external pools ask for it")]
    Report,
}

/// Who may do what. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    callers: Mutex<Callers>,
}

/// A caller whose call was let pass. The call counts as waiting for its answer for as long as this is kept.
#[derive(Debug)]
pub(super) struct Admitted {
    caller: Arc<Caller>,
    _call: Call,
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
    /// The bus refused the match rule.
    pub(super) async fn start(connection: &Connection, handle: Handle) -> zbus::Result<Access> {
        let access = Access(Arc::new(Inner {
            connection: connection.clone(),
            callers: Mutex::new(Callers::default()),
        }));
        watch::start(&access, handle).await?;
        Ok(access)
    }

    /// Lets a call pass that does `action` to the pool `about`, "" where it is about none.
    ///
    /// # Errors
    /// The caller may not, or has too many calls under way.
    pub(super) async fn admit(
        &self,
        header: &Header<'_>,
        _action: Action,
        _about: &str,
    ) -> Result<Admitted, Error> {
        self.identify(header).await
    }

    /// Lets a call pass that only reads, but waits for something.
    ///
    /// # Errors
    /// The caller has left, or has too many calls under way.
    pub(super) async fn identify(&self, header: &Header<'_>) -> Result<Admitted, Error> {
        let sender = header.sender().ok_or_else(|| Error::access_denied("the call names no caller"))?;
        let call = self.callers().enter(sender.as_str())?;
        let caller = call.peer().identify(&self.0.connection).await?;
        Ok(Admitted { caller, _call: call })
    }

    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.0.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
