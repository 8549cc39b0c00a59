//! The callers that are known, each with what the bus said of it and how many of its calls are under way.

use super::super::error::Error;
use super::Action;
use super::unit::unit_of;
use super::verdicts::Verdicts;
use pool_core::host::Caller;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, watch};
use zbus::Connection;
use zbus::fdo::DBusProxy;

/// At most so many calls of one connection wait for an answer.
const CALLS: usize = 256;
/// At most so many bytes of one call, without its header, are looked at.
const BYTES_OF_A_CALL: usize = 64 << 10;
/// At most so many bytes of one connection's calls wait for an answer.
const BYTES: usize = 256 << 10;
/// At most so many callers are remembered. One with a call under way is never forgotten before it leaves.
const CALLERS: usize = 8192;

/// All that are known, by unique name.
#[derive(Debug, Default)]
pub(super) struct Callers(HashMap<String, Arc<Peer>>);

impl Callers {
    /// Counts a call that begins, of so many bytes: all of it is kept for as long as it waits.
    pub(super) fn enter(&mut self, name: &str, bytes: usize) -> Result<Call, Error> {
        if bytes > BYTES_OF_A_CALL {
            return Err(Error::limits_exceeded(format!(
                "the call has {bytes} bytes; one of more than {BYTES_OF_A_CALL} is not taken"
            )));
        }
        let peer = match self.0.get(name) {
            Some(peer) => peer.clone(),
            None => self.meet(name)?,
        };
        if peer.calls.fetch_add(1, Ordering::Relaxed) >= CALLS {
            peer.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::limits_exceeded(format!(
                "{CALLS} calls of this connection wait for an answer; wait for one of them first"
            )));
        }
        // From here on it is counted, and no longer when it is refused.
        let call = Call { peer, bytes };
        if call.peer.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > BYTES {
            return Err(Error::limits_exceeded(format!(
                "calls of this connection with {BYTES} bytes wait for an answer; wait for one of them first"
            )));
        }
        Ok(call)
    }

    fn meet(&mut self, name: &str) -> Result<Arc<Peer>, Error> {
        if self.0.len() >= CALLERS {
            // All at once, so that a crowd costs a walk over it now and then, not for each newcomer.
            self.0.retain(|_, peer| peer.calls.load(Ordering::Relaxed) > 0);
        }
        if self.0.len() >= CALLERS {
            return Err(Error::limits_exceeded(format!(
                "{CALLERS} connections have calls under way; try again later"
            )));
        }
        let peer = Arc::new(Peer {
            name: name.to_owned(),
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            caller: OnceCell::new(),
            verdicts: Mutex::default(),
            refused: Mutex::default(),
            gone: watch::Sender::new(false),
        });
        self.0.insert(name.to_owned(), peer.clone());
        Ok(peer)
    }

    /// Forgets a caller that left the bus; whether it was known.
    pub(super) fn left(&mut self, name: &str) -> bool {
        let Some(peer) = self.0.remove(name) else { return false };
        peer.gone.send_replace(true);
        true
    }
}

/// A connection that calls.
#[derive(Debug)]
pub(super) struct Peer {
    name: String,
    calls: AtomicUsize,
    bytes: AtomicUsize,
    caller: OnceCell<Arc<Caller>>,
    verdicts: Mutex<Verdicts>,
    /// What it was refused, and the journal was told of.
    refused: Mutex<BTreeSet<Action>>,
    gone: watch::Sender<bool>,
}

impl Peer {
    /// Who it is, which the bus is asked once. The user is what counts. The process is the one that opened the
    /// connection; it and its unit are for the journal alone.
    pub(super) async fn identify(&self, connection: &Connection) -> Result<Arc<Caller>, Error> {
        // Not by `GetConnectionCredentials`: newer buses answer it with a descriptor, and none gets in here.
        let ask = async || -> zbus::Result<_> {
            let bus = DBusProxy::new(connection).await?;
            let name = zbus::names::BusName::try_from(self.name.as_str())?;
            let (uid, pid) = tokio::join!(
                bus.get_connection_unix_user(name.clone()),
                bus.get_connection_unix_process_id(name)
            );
            let (uid, pid) = (uid.map_err(zbus::Error::from)?, pid.unwrap_or(0));
            let unit = unit_of(Path::new("/proc"), pid);
            Ok(Arc::new(Caller { name: self.name.clone(), uid, pid, unit }))
        };
        let known = self.caller.get_or_try_init(async || {
            ask().await.map_err(|error| {
                Error::access_denied(format!("the bus does not say which user calls: {error}"))
            })
        });
        let caller = known.await?.clone();
        // What it asked for would wait for nobody.
        if self.has_left() { Err(Error::access_denied("the caller has left the bus")) } else { Ok(caller) }
    }

    /// Whether it left the bus.
    pub(super) fn has_left(&self) -> bool {
        *self.gone.borrow()
    }

    /// Resolves when it has left the bus.
    pub(super) async fn left(&self) {
        let mut gone = self.gone.subscribe();
        // Its sender is this very value's.
        if gone.wait_for(|gone| *gone).await.is_err() {
            tracing::debug!("a caller was forgotten while it was waited for");
        }
    }

    /// What polkit said of it.
    pub(super) fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is refused this for the first time.
    pub(super) fn is_first_refusal(&self, action: Action) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(action)
    }
}

/// A call under way; it is over when this goes.
#[derive(Debug)]
pub(in super::super) struct Call {
    peer: Arc<Peer>,
    bytes: usize,
}

impl Call {
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.peer.calls.fetch_sub(1, Ordering::Relaxed);
        self.peer.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_so_many_calls_under_way_and_others_have_theirs() {
        let mut callers = Callers::default();
        let mut calls: Vec<Call> =
            (0..CALLS).map(|_| callers.enter(":1.1", 100).expect("there is room")).collect();
        let refused = callers.enter(":1.1", 100).expect_err("there is no more room");
        assert_eq!(zbus::DBusError::name(&refused).as_str(), "org.freedesktop.DBus.Error.LimitsExceeded");
        callers.enter(":1.2", 100).expect("another one has its own room");
        calls.pop();
        callers.enter(":1.1", 100).expect("one is over");
    }

    #[test]
    fn a_crowd_is_forgotten_but_for_those_whose_calls_are_under_way() {
        let mut callers = Callers::default();
        let call = callers.enter(":1.0", 100).expect("there is room");
        for number in 1..=CALLERS {
            callers.enter(&format!(":1.{number}"), 100).expect("room is made");
        }
        assert!(callers.0.len() < CALLERS);
        let again = callers.enter(":1.0", 100).expect("there is room");
        assert!(Arc::ptr_eq(&call.peer, &again.peer), "its calls are still counted");
    }

    #[test]
    fn when_all_have_calls_under_way_the_next_one_is_refused() {
        let mut callers = Callers::default();
        let _calls: Vec<Call> =
            (0..CALLERS).map(|number| callers.enter(&format!(":1.{number}"), 100).expect("room")).collect();
        assert!(callers.enter(":2.1", 100).is_err());
        assert!(callers.left(":1.7"));
        assert!(!callers.left(":1.7"));
        assert!(callers.enter(":2.1", 100).is_ok());
    }

    #[test]
    fn a_call_is_of_so_many_bytes_and_those_of_one_connection_together_too() {
        let mut callers = Callers::default();
        let refused = callers.enter(":1.1", BYTES_OF_A_CALL + 1).expect_err("it is too long");
        assert_eq!(zbus::DBusError::name(&refused).as_str(), "org.freedesktop.DBus.Error.LimitsExceeded");
        let mut calls: Vec<Call> = (0..BYTES / BYTES_OF_A_CALL)
            .map(|_| callers.enter(":1.1", BYTES_OF_A_CALL).expect("there is room"))
            .collect();
        for _ in 0..2 {
            let refused = callers.enter(":1.1", 1).expect_err("there is no more room");
            assert_eq!(zbus::DBusError::name(&refused).as_str(), "org.freedesktop.DBus.Error.LimitsExceeded");
        }
        callers.enter(":1.2", 1).expect("another one has its own room");
        calls.pop();
        callers.enter(":1.1", BYTES_OF_A_CALL).expect("one is over, and what was refused does not count");
    }
}
