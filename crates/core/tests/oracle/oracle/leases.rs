//! Who gets a lease: a list of those that are held, and nothing more.

use std::collections::{BTreeMap, BTreeSet};

/// Who holds what of one pool: a list of leases, each with its replica.
#[derive(Debug, Clone)]
pub struct Leases {
    /// How many each replica takes at most.
    pub capacity: Vec<usize>,
    pub draining: bool,
    ready: Vec<bool>,
    held: Vec<(u64, usize)>,
    /// When those end that have a time limit.
    ends: BTreeMap<u64, u64>,
}

impl Leases {
    pub fn new(capacity: usize, replicas: usize) -> Self {
        Leases {
            capacity: vec![capacity; replicas],
            draining: false,
            ready: vec![false; replicas],
            held: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    /// A replica serves from now on, or does not for the moment; what is held of it stays held.
    pub fn ready(&mut self, replica: usize, ready: bool) {
        self.ready[replica] = ready;
    }

    /// All that are held.
    pub fn held(&self) -> impl Iterator<Item = u64> + '_ {
        self.held.iter().map(|(lease, _)| *lease)
    }

    pub fn of_pool(&self) -> usize {
        self.held.len()
    }

    pub fn of_replica(&self, replica: usize) -> usize {
        self.held.iter().filter(|(_, of)| *of == replica).count()
    }

    /// Gives a lease, and says of which replica.
    ///
    /// # Errors
    /// `draining`, `not-ready` or `at-capacity`, in this order.
    pub fn allocate(&mut self, lease: u64) -> Result<usize, &'static str> {
        if self.draining {
            return Err("draining");
        }
        let ready: Vec<usize> = (0..self.ready.len()).filter(|index| self.ready[*index]).collect();
        if ready.is_empty() {
            return Err("not-ready");
        }
        let room = ready.into_iter().filter(|index| self.of_replica(*index) < self.capacity[*index]);
        let chosen = room.min_by_key(|index| (self.of_replica(*index), *index)).ok_or("at-capacity")?;
        self.held.push((lease, chosen));
        Ok(chosen)
    }

    /// A lease ends, and this is how many the pool has left.
    ///
    /// # Errors
    /// `no-such-lease`
    pub fn release(&mut self, lease: u64) -> Result<usize, &'static str> {
        let at = self.held.iter().position(|(id, _)| *id == lease).ok_or("no-such-lease")?;
        self.held.remove(at);
        Ok(self.held.len())
    }

    /// A lease ends at that time from now on; `None`: at none.
    pub fn limit(&mut self, lease: u64, end: Option<u64>) {
        match end {
            Some(end) => drop(self.ends.insert(lease, end)),
            None => drop(self.ends.remove(&lease)),
        }
    }

    /// Those that are over by now and of which nobody says any more that they are held.
    pub fn expire(&mut self, now: u64, known: &BTreeSet<u64>) {
        let ends = &self.ends;
        let over = |lease: &u64| ends.get(lease).is_some_and(|end| *end <= now) && !known.contains(lease);
        self.held.retain(|(lease, _)| !over(lease));
    }

    /// Those that should be over by now.
    pub fn overdue(&self, now: u64) -> Vec<u64> {
        self.held().filter(|lease| self.ends.get(lease).is_some_and(|end| *end <= now)).collect()
    }

    /// An engine ends, and with it these leases.
    pub fn engine_ended(&mut self, replica: usize) -> Vec<u64> {
        self.ready[replica] = false;
        let (gone, held) = self.held.iter().copied().partition(|(_, of)| *of == replica);
        self.held = held;
        let gone: Vec<(u64, usize)> = gone;
        gone.into_iter().map(|(lease, _)| lease).collect()
    }
}
