//! Which replica has which automatic port. A replica keeps its port over restarts, so that clients find it again.

use crate::name::ReplicaId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// The automatic ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    by_port: BTreeMap<u16, ReplicaId>,
    by_replica: BTreeMap<ReplicaId, u16>,
    /// Ports that a replica found in somebody else's hands; cleared when it gets one that works or goes.
    avoided: BTreeMap<ReplicaId, BTreeSet<u16>>,
}

impl Ports {
    /// The replica's port, or the lowest free one of the range; `None` where all are taken.
    pub fn assign(&mut self, replica: &ReplicaId, range: &RangeInclusive<u16>) -> Option<u16> {
        if let Some(port) = self.by_replica.get(replica) {
            return Some(*port);
        }
        let avoided = self.avoided.get(replica);
        let free =
            |port: &u16| !self.by_port.contains_key(port) && !avoided.is_some_and(|set| set.contains(port));
        let port = range.clone().find(free)?;
        self.keep(replica, port);
        Some(port)
    }

    /// Records the port that a running engine has. Whoever was given it has it no more.
    pub fn keep(&mut self, replica: &ReplicaId, port: u16) {
        self.give_back(replica);
        if let Some(former) = self.by_port.insert(port, replica.clone()) {
            self.by_replica.remove(&former);
        }
        self.by_replica.insert(replica.clone(), port);
    }

    /// The replica's port is somebody else's: it gets another one next time.
    pub fn avoid(&mut self, replica: &ReplicaId) {
        if let Some(port) = self.give_back(replica) {
            self.avoided.entry(replica.clone()).or_default().insert(port);
        }
    }

    /// The replica serves on its port: what others held before it found that may be free by now.
    pub fn works(&mut self, replica: &ReplicaId) {
        self.avoided.remove(replica);
    }

    /// The replica is gone.
    pub fn release(&mut self, replica: &ReplicaId) {
        self.give_back(replica);
        self.avoided.remove(replica);
    }

    fn give_back(&mut self, replica: &ReplicaId) -> Option<u16> {
        let port = self.by_replica.remove(replica)?;
        self.by_port.remove(&port);
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(index: u16) -> ReplicaId {
        ReplicaId { pool: "a".parse().unwrap(), index }
    }

    #[test]
    fn a_replica_keeps_its_port_and_no_two_share_one() {
        let mut ports = Ports::default();
        assert_eq!(ports.assign(&replica(0), &(1..=2)), Some(1));
        assert_eq!(ports.assign(&replica(1), &(1..=2)), Some(2));
        assert_eq!(ports.assign(&replica(0), &(1..=2)), Some(1));
        assert_eq!(ports.assign(&replica(2), &(1..=2)), None);
        ports.release(&replica(0));
        assert_eq!(ports.assign(&replica(2), &(1..=2)), Some(1));
    }

    #[test]
    fn an_engine_that_runs_has_its_port_whoever_was_given_it() {
        let mut ports = Ports::default();
        assert_eq!(ports.assign(&replica(0), &(1..=2)), Some(1));
        ports.keep(&replica(1), 1);
        assert_eq!(ports.assign(&replica(0), &(1..=2)), Some(2));
        assert_eq!(ports.assign(&replica(1), &(1..=2)), Some(1));
        ports.release(&replica(0));
        assert_eq!(ports.assign(&replica(1), &(1..=2)), Some(1));
    }

    #[test]
    fn what_was_avoided_may_be_used_again_once_a_port_works() {
        let mut ports = Ports::default();
        for port in [1, 2] {
            assert_eq!(ports.assign(&replica(0), &(1..=2)), Some(port));
            ports.avoid(&replica(0));
        }
        assert_eq!(ports.assign(&replica(0), &(1..=2)), None);
        ports.works(&replica(0));
        assert_eq!(ports.assign(&replica(0), &(1..=2)), Some(1));
    }

    #[test]
    fn a_port_in_foreign_hands_is_left_alone() {
        let mut ports = Ports::default();
        assert_eq!(ports.assign(&replica(0), &(1..=3)), Some(1));
        ports.avoid(&replica(0));
        assert_eq!(ports.assign(&replica(0), &(1..=3)), Some(2));
        assert_eq!(ports.assign(&replica(1), &(1..=3)), Some(1));
    }
}
