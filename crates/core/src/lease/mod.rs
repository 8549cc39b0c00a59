//! Owns leases: permission for a consumer to send work to one engine. A lease belongs to one replica for as long as
//! that serves; its id names the replica, so that a lease whose holder lives is taken up after a restart of the daemon
//! by its name alone, and its terms with it.

mod terms;

pub use terms::{Given, Terms};

use crate::host::TimerId;
use crate::name::{NameError, ReplicaId, Usec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A lease's id, written `<pool>-r<N>.<16 hexadecimal digits>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseId {
    /// The engine that it is for.
    pub replica: ReplicaId,
    /// What tells it from others of that engine.
    pub number: u64,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.replica, self.number)
    }
}

impl FromStr for LeaseId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (replica, number) = text.rsplit_once('.')?;
            let number = u64::from_str_radix(number, 16).ok()?;
            let id = LeaseId { replica: replica.parse().ok()?, number };
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| NameError::new("lease id", text, "<pool>-r<N>.<16 hexadecimal digits>"))
    }
}

impl TryFrom<String> for LeaseId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<LeaseId> for String {
    fn from(id: LeaseId) -> String {
        id.to_string()
    }
}

/// How a lease ended that its engine did not end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseEnd {
    /// Its holder ended it, or the last copy of its descriptor was closed.
    Closed,
    /// Its time limit is over.
    Expired,
    /// Its descriptor could not be made.
    NotOpened(String),
}

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// On what it was given.
    pub terms: Terms,
    /// The connection that took it, by its unique name; "": taken before the daemon started.
    #[serde(default)]
    pub caller: String,
    /// What ends it at its time limit; none: it has none.
    pub timer: Option<TimerId>,
}

/// Every lease that is held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    held: BTreeMap<LeaseId, Held>,
    users: BTreeMap<u32, usize>,
}

impl Leases {
    /// Takes up a lease; false where it is held already.
    pub fn insert(&mut self, id: LeaseId, held: Held) -> bool {
        let uid = held.terms.uid;
        let news = !self.held.contains_key(&id);
        if news {
            self.held.insert(id, held);
            *self.users.entry(uid).or_default() += 1;
        }
        news
    }

    /// Ends a lease; `None` where nobody holds it.
    pub fn remove(&mut self, id: &LeaseId) -> Option<Held> {
        let held = self.held.remove(id)?;
        if let Some(number) = self.users.get_mut(&held.terms.uid) {
            *number = number.saturating_sub(1);
            if *number == 0 {
                self.users.remove(&held.terms.uid);
            }
        }
        Some(held)
    }

    /// A lease that is held.
    #[must_use]
    pub fn get(&self, id: &LeaseId) -> Option<&Held> {
        self.held.get(id)
    }

    /// Puts the end of a lease off, or brings it nearer.
    pub fn renew(&mut self, id: &LeaseId, until: Option<Usec>, timer: Option<TimerId>) {
        if let Some(held) = self.held.get_mut(id) {
            held.terms.until = until;
            held.timer = timer;
        }
    }

    /// Whether it is held.
    #[must_use]
    pub fn contains(&self, id: &LeaseId) -> bool {
        self.held.contains_key(id)
    }

    /// How many a user holds.
    #[must_use]
    pub fn of_user(&self, uid: u32) -> usize {
        self.users.get(&uid).copied().unwrap_or(0)
    }

    /// Those of one replica.
    pub fn of<'a>(&'a self, replica: &ReplicaId) -> impl Iterator<Item = (&'a LeaseId, &'a Held)> {
        let first = LeaseId { replica: replica.clone(), number: 0 };
        let last = LeaseId { replica: replica.clone(), number: u64::MAX };
        self.held.range(first..=last)
    }

    /// How many are held in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(replica: &str, number: u64) -> LeaseId {
        LeaseId { replica: replica.parse().expect("a valid name"), number }
    }

    fn held(uid: u32) -> Held {
        Held { terms: Terms { uid, ..Terms::default() }, caller: ":1.7".into(), timer: None }
    }

    #[test]
    fn an_id_is_read_back_and_only_in_its_one_spelling() {
        for pool in ["chat", "a.b-r1", "r0"] {
            let id = id(&format!("{pool}-r3"), 0x1f);
            assert_eq!(id.to_string().parse::<LeaseId>().expect("it is read back"), id);
            assert_eq!(String::from(id.clone()), format!("{pool}-r3.000000000000001f"));
        }
        for text in ["", "chat-r0", "chat-r0.1f", "chat.000000000000001f", "chat-r0.000000000000001F", "../x"]
        {
            assert!(text.parse::<LeaseId>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_leases_of_a_replica_are_those_of_no_other() {
        let mut leases = Leases::default();
        assert!(leases.is_empty());
        for lease in [id("a-r0", 0), id("a-r0", u64::MAX), id("a-r1", 5), id("b-r0", 7)] {
            assert!(leases.insert(lease.clone(), held(7)));
            assert!(!leases.insert(lease, held(8)), "twice");
        }
        let replica = "a-r0".parse().expect("a valid name");
        assert_eq!(leases.of(&replica).count(), 2);
        assert!(leases.contains(&id("a-r1", 5)) && !leases.contains(&id("a-r1", 6)));
        assert_eq!(leases.remove(&id("a-r0", 0)), Some(held(7)));
        assert_eq!(leases.remove(&id("a-r0", 0)), None);
        assert_eq!(leases.of(&replica).count(), 1);
        assert_eq!((leases.len(), leases.is_empty()), (3, false));
        assert_eq!((leases.of_user(7), leases.of_user(8)), (3, 0));
    }
}
