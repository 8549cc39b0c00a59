//! How much of the host's memory is promised to which engine, so that all of it is never promised twice. An engine is
//! promised its pool's `memory_max`, from the moment it is about to be started until nothing of it is left; between two
//! restarts it keeps that. One without a limit is promised nothing.

use crate::config::{Bytes, PoolSpec};
use crate::name::{PoolId, ReplicaId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// So many who hold something are named.
const NAMED: usize = 8;

/// What is promised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    held: BTreeMap<ReplicaId, Bytes>,
}

impl Promises {
    /// Promises an engine what its pool asks for, instead of what it had.
    ///
    /// # Errors
    /// That is more than is left of a host with so much memory; who holds how much. It has nothing then.
    pub fn ask(&mut self, replica: &ReplicaId, spec: &PoolSpec, memory: u64) -> Result<(), String> {
        self.release(replica);
        self.fits(spec, 1, memory, |_| true)?;
        self.keep(replica, spec, memory);
        Ok(())
    }

    /// Whether a pool's engines could all run by another spec, instead of what they have.
    ///
    /// # Errors
    /// That is more than is left; who holds how much.
    pub fn could_replace(&self, spec: &PoolSpec, memory: u64) -> Result<(), String> {
        self.fits(spec, spec.replicas, memory, |replica| replica.pool != spec.id)
    }

    fn fits(
        &self,
        spec: &PoolSpec,
        engines: u16,
        memory: u64,
        counts: impl Fn(&ReplicaId) -> bool,
    ) -> Result<(), String> {
        let Some(each) = promised(spec, memory).filter(|_| memory != 0) else { return Ok(()) };
        let mut others: Vec<(&ReplicaId, Bytes)> = self
            .held
            .iter()
            .filter(|(replica, _)| counts(replica))
            .map(|(replica, held)| (replica, *held))
            .collect();
        let taken = others.iter().fold(0_u64, |sum, (_, held)| sum.saturating_add(held.0));
        let left = memory.saturating_sub(taken);
        let wanted = each.0.saturating_mul(engines.into());
        if wanted <= left {
            return Ok(());
        }
        let what = if engines == 1 { format!("{each}") } else { format!("{engines} times {each}") };
        let of = Bytes(memory);
        if others.is_empty() {
            return Err(format!("its memory_max is {what}, and the host has {of}"));
        }
        others.sort_by_key(|(replica, held)| (std::cmp::Reverse(*held), *replica));
        let named = others.iter().take(NAMED).map(|(replica, held)| format!("{replica} holds {held}"));
        let mut named: Vec<String> = named.collect();
        if others.len() > NAMED {
            named.push(format!("{} more", others.len() - NAMED));
        }
        let left = Bytes(left);
        Err(format!(
            "its memory_max is {what}, and of the host's {of} only {left} are not promised: {}",
            named.join(", ")
        ))
    }

    /// An engine that runs has what its pool asks for, whatever is left.
    pub fn keep(&mut self, replica: &ReplicaId, spec: &PoolSpec, memory: u64) {
        match promised(spec, memory) {
            Some(bytes) => drop(self.held.insert(replica.clone(), bytes)),
            None => self.release(replica),
        }
    }

    /// Nothing of an engine is left.
    pub fn release(&mut self, replica: &ReplicaId) {
        self.held.remove(replica);
    }

    /// Of a pool's engines there are only these.
    pub(super) fn retain(&mut self, pool: &PoolId, is_there: impl Fn(&ReplicaId) -> bool) {
        self.held.retain(|replica, _| replica.pool != *pool || is_there(replica));
    }
}

/// What an engine of a pool is promised.
fn promised(spec: &PoolSpec, memory: u64) -> Option<Bytes> {
    spec.resources.memory_max.and_then(|size| size.of(memory))
}
