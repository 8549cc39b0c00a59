//! Places for what takes its time: so many in all, and fewer of them for each user, so that nobody holds all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is under way.
#[derive(Debug)]
pub(super) struct Places {
    of_a_user: usize,
    all: Arc<Semaphore>,
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// A place; it is given back when this goes.
#[derive(Debug)]
pub(super) struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(of_a_user: usize, in_all: usize) -> Self {
        Places { of_a_user, all: Arc::new(Semaphore::new(in_all)), users: Mutex::default() }
    }

    /// Those of one user.
    fn of(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, own| Arc::strong_count(own) > 1);
        users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(self.of_a_user))).clone()
    }

    /// Waits for a turn: of the user's own places first, so that one who wants many holds few of all.
    pub(super) async fn take(&self, uid: u32) -> Place {
        // They are never closed.
        let _own = self.of(uid).acquire_owned().await.ok();
        Place { _own, _of_all: self.all.clone().acquire_owned().await.ok() }
    }

    /// A place, if there is one now.
    pub(super) fn try_take(&self, uid: u32) -> Option<Place> {
        let own = self.of(uid).try_acquire_owned().ok()?;
        let of_all = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _own: Some(own), _of_all: Some(of_all) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const OF_A_USER: usize = 16;
    const IN_ALL: usize = 56;

    #[test]
    fn one_user_leaves_places_to_others_and_his_own_are_given_back() {
        let places = Places::new(OF_A_USER, IN_ALL);
        let taken: Vec<_> =
            (0..OF_A_USER).map(|_| places.take(1).now_or_never().expect("there is a place")).collect();
        assert!(places.take(1).now_or_never().is_none(), "one more than a user has");
        let others: Vec<_> = (2..).map_while(|uid| places.take(uid).now_or_never()).take(100).collect();
        assert_eq!(others.len(), IN_ALL - OF_A_USER);
        drop(taken);
        assert!(places.take(1).now_or_never().is_some());
    }

    #[test]
    fn who_does_not_wait_has_no_more_places_than_who_does() {
        let places = Places::new(2, 3);
        let taken = [places.try_take(1).expect("a place"), places.try_take(1).expect("a place")];
        assert!(places.try_take(1).is_none(), "one more than a user has");
        let _other = places.try_take(2).expect("a place");
        assert!(places.try_take(3).is_none(), "one more than there are");
        drop(taken);
        assert!(places.try_take(1).is_some());
    }
}
