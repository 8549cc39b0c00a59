//! What failures of a pool add up to, over its replicas: rows, breakers, storms. It decides nothing about engines; it
//! says whether one may be started by itself, and why not.

use crate::config::{BreakerNumbers, Restart};
use crate::host::TimerId;
use crate::name::Usec;
use serde::{Deserialize, Serialize};

/// The failures of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Troubles {
    /// Of failures that are no GPU errors.
    pub ordinary: Breaker,
    /// Of GPU errors.
    pub gpu: Breaker,
    /// When engines were started again by themselves, monotonic, oldest first.
    restarts: Vec<Usec>,
    /// When engines ran out of memory, monotonic, oldest first.
    ooms: Vec<Usec>,
}

/// Which breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// That of failures that are no GPU errors.
    Ordinary,
    /// That of GPU errors.
    Gpu,
}

/// Keeps a pool that fails again and again from being started for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Failures in a row.
    pub in_row: u32,
    /// For how long it was opened last; 0: it is closed.
    pub open_for: Usec,
    /// Where it stands.
    pub state: BreakerState,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BreakerState {
    /// Engines are started as ever.
    #[default]
    Closed,
    /// Nothing is started by itself.
    Open {
        /// The timer that ends this.
        timer: TimerId,
        /// When, monotonic.
        until: Usec,
        /// When, realtime.
        until_real: Usec,
    },
    /// One engine may be tried.
    HalfOpen {
        /// The number of the replica that is tried; `None`: none yet.
        trial: Option<u16>,
        /// When it would have been open until, monotonic: somebody may have permitted an attempt before that.
        until: Usec,
    },
}

/// What a failure comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A restart after a delay.
    Again,
    /// The breaker opens.
    Opens {
        /// Which.
        kind: Kind,
        /// For how long.
        open_for: Usec,
        /// Why.
        why: Opening,
    },
    /// A breaker that is open or on trial stays as it is.
    Held,
}

/// Why a breaker opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// So many failures in a row.
    Row(u32),
    /// The trial failed.
    Trial,
    /// So many restarts within so long.
    Storm(u32, Usec),
    /// Out of memory so many times within so long.
    OomStorm(u32, Usec),
}

/// Whether an engine may be started by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It may.
    Given,
    /// A breaker is open or on trial with another engine.
    Refused,
    /// Too many restarts: it may after this time.
    After(Usec),
}

impl Troubles {
    /// A breaker.
    #[must_use]
    pub fn breaker(&self, kind: Kind) -> &Breaker {
        match kind {
            Kind::Ordinary => &self.ordinary,
            Kind::Gpu => &self.gpu,
        }
    }

    pub(crate) fn breaker_mut(&mut self, kind: Kind) -> &mut Breaker {
        match kind {
            Kind::Ordinary => &mut self.ordinary,
            Kind::Gpu => &mut self.gpu,
        }
    }

    fn both(&mut self) -> [&mut Breaker; 2] {
        [&mut self.ordinary, &mut self.gpu]
    }

    /// Whether both are closed.
    #[must_use]
    pub fn all_closed(&self) -> bool {
        self.ordinary.state == BreakerState::Closed && self.gpu.state == BreakerState::Closed
    }

    /// Whether one is open.
    #[must_use]
    pub fn any_open(&self) -> bool {
        [&self.ordinary, &self.gpu].iter().any(|breaker| matches!(breaker.state, BreakerState::Open { .. }))
    }

    /// Takes in a failure of a replica, and says what it comes to. An opening is carried out by the caller, who has
    /// the timers.
    pub(crate) fn failed(
        &mut self,
        index: u16,
        kind: Kind,
        oom: bool,
        now: Usec,
        numbers: &Restart,
    ) -> Verdict {
        let storm = &numbers.storm;
        if oom {
            self.ooms.retain(|at| now.since(*at) < storm.oom_window);
            self.ooms.push(now);
        }
        let ooms = count(self.ooms.len());
        let restarts = count(self.restarts.iter().filter(|at| now.since(**at) < storm.trip_window).count());
        let breaker = self.breaker_mut(kind);
        breaker.in_row = breaker.in_row.saturating_add(1);
        let row = breaker.in_row;
        let open_for = breaker.next_length(&numbers.breaker);
        match breaker.state.clone() {
            BreakerState::HalfOpen { trial, .. } if trial == Some(index) => {
                return Verdict::Opens { kind, open_for, why: Opening::Trial };
            }
            // Nobody is tried yet: its next start is the trial.
            BreakerState::HalfOpen { trial: None, .. } if self.admits(index) => return Verdict::Again,
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => return Verdict::Held,
            BreakerState::Closed => {}
        }
        if oom && ooms >= storm.oom_after {
            Verdict::Opens { kind, open_for, why: Opening::OomStorm(ooms, storm.oom_window) }
        } else if row >= numbers.breaker.failures {
            Verdict::Opens { kind, open_for, why: Opening::Row(row) }
        } else if restarts >= storm.trip_after {
            Verdict::Opens { kind, open_for, why: Opening::Storm(restarts, storm.trip_window) }
        } else if self.admits(index) {
            Verdict::Again
        } else {
            Verdict::Held
        }
    }

    /// Whether no breaker stands in the way of that replica.
    fn admits(&self, index: u16) -> bool {
        [&self.ordinary, &self.gpu].iter().all(|breaker| match breaker.state {
            BreakerState::Closed => true,
            BreakerState::Open { .. } => false,
            BreakerState::HalfOpen { trial, .. } => trial.is_none_or(|trial| trial == index),
        })
    }

    /// Whether a replica may be started by itself now.
    pub(crate) fn leave(&self, index: u16, now: Usec, numbers: &Restart) -> Leave {
        if !self.admits(index) {
            return Leave::Refused;
        }
        let storm = &numbers.storm;
        let young = self.restarts.iter().filter(|at| now.since(**at) < storm.window);
        let beyond =
            young.clone().count().saturating_sub(usize::try_from(storm.wait_after).unwrap_or(usize::MAX) - 1);
        match beyond.checked_sub(1).and_then(|last| young.clone().nth(last)) {
            Some(oldest) => Leave::After(storm.window.since(now.since(*oldest))),
            None => Leave::Given,
        }
    }

    /// Records a start by itself; says how many the window holds where that is to be warned of.
    pub(crate) fn restarted(&mut self, now: Usec, numbers: &Restart) -> Option<u32> {
        let storm = &numbers.storm;
        let longest = storm.window.max(storm.trip_window);
        self.restarts.retain(|at| now.since(*at) < longest);
        self.restarts.push(now);
        let young = count(self.restarts.iter().filter(|at| now.since(**at) < storm.window).count());
        (young == storm.warn_after.saturating_add(1)).then_some(young)
    }

    /// A replica is the one that is tried, where a breaker is half open.
    pub(crate) fn try_with(&mut self, index: u16) {
        for breaker in self.both() {
            if let BreakerState::HalfOpen { trial, .. } = &mut breaker.state {
                trial.get_or_insert(index);
            }
        }
    }

    /// Whether a replica is being tried.
    #[must_use]
    pub fn tries(&self, index: u16) -> bool {
        [&self.ordinary, &self.gpu].iter().any(|breaker| breaker.tries(index))
    }

    /// The replicas that are being tried.
    pub(crate) fn trials(&self) -> Vec<u16> {
        let trial = |breaker: &&Breaker| match breaker.state {
            BreakerState::HalfOpen { trial, .. } => trial,
            BreakerState::Closed | BreakerState::Open { .. } => None,
        };
        [&self.ordinary, &self.gpu].iter().filter_map(trial).collect()
    }

    /// Whether some replica is being tried.
    #[must_use]
    pub fn any_trial(&self) -> bool {
        [&self.ordinary, &self.gpu]
            .iter()
            .any(|breaker| matches!(breaker.state, BreakerState::HalfOpen { trial: Some(_), .. }))
    }

    /// The breakers that a replica is tried for, and for how long each opens if that fails.
    pub(crate) fn on_trial(&self, index: u16, numbers: &Restart) -> Vec<(Kind, Usec)> {
        [Kind::Ordinary, Kind::Gpu]
            .into_iter()
            .filter(|kind| self.breaker(*kind).tries(index))
            .map(|kind| (kind, self.breaker(kind).next_length(&numbers.breaker)))
            .collect()
    }

    /// A trial is over without having come to anything. Says which breakers are to be open again, until when: those of
    /// which somebody permitted an attempt before their time was over.
    pub(crate) fn trial_undecided(&mut self, index: u16, now: Usec) -> Vec<(Kind, Usec)> {
        let mut open = Vec::new();
        for kind in [Kind::Ordinary, Kind::Gpu] {
            let breaker = self.breaker_mut(kind);
            if let BreakerState::HalfOpen { trial, until } = &mut breaker.state
                && *trial == Some(index)
            {
                *trial = None;
                if now < *until {
                    open.push((kind, *until));
                }
            }
        }
        open
    }

    /// The breakers of which somebody permitted an attempt before their time was over, and which are waiting for one:
    /// until when they would have been open.
    pub(crate) fn permits(&self, now: Usec) -> Vec<(Kind, Usec)> {
        let permitted = |kind| match self.breaker(kind).state {
            BreakerState::HalfOpen { trial: None, until } if now < until => Some((kind, until)),
            BreakerState::HalfOpen { .. } | BreakerState::Open { .. } | BreakerState::Closed => None,
        };
        [Kind::Ordinary, Kind::Gpu].into_iter().filter_map(permitted).collect()
    }

    /// A replica has been ready for long enough to end a row: says which breakers closed by it.
    pub(crate) fn stable(&mut self, index: u16) -> Vec<Kind> {
        let mut closed = Vec::new();
        for kind in [Kind::Ordinary, Kind::Gpu] {
            let breaker = self.breaker_mut(kind);
            if breaker.state == BreakerState::Closed {
                breaker.in_row = 0;
            }
            if breaker.tries(index) {
                *breaker = Breaker::default();
                closed.push(kind);
            }
        }
        closed
    }

    /// Somebody permits one attempt: what is open is half open. The timers that no longer matter are handed back.
    pub(crate) fn permit(&mut self) -> Vec<TimerId> {
        let mut timers = Vec::new();
        for breaker in self.both() {
            if let BreakerState::Open { timer, until, .. } = breaker.state {
                timers.push(timer);
                breaker.state = BreakerState::HalfOpen { trial: None, until };
            }
        }
        timers
    }

    /// Everything is forgotten; hands back the timers that no longer matter.
    pub(crate) fn reset(&mut self) -> Vec<TimerId> {
        let timers = self.permit();
        *self = Troubles::default();
        timers
    }
}

impl Breaker {
    /// Whether that replica is the one that is tried.
    fn tries(&self, index: u16) -> bool {
        matches!(self.state, BreakerState::HalfOpen { trial: Some(trial), .. } if trial == index)
    }

    /// For how long it opens next.
    fn next_length(&self, numbers: &BreakerNumbers) -> Usec {
        if self.open_for == Usec(0) {
            numbers.open_for
        } else {
            Usec(self.open_for.0.saturating_mul(2)).min(numbers.max_open_for)
        }
    }
}

impl BreakerState {
    /// As it is published.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen { .. } => "half-open",
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
