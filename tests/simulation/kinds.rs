//! Owns the table of what the daemon is asked for, and of what may be answered to each.

use crate::dice::Dice;
use crate::files::POOLS;
use pool_core::host::{Answer, LeaseWish};
use pool_core::job::JobId;
use pool_core::name::{PoolId, Usec};
use pool_core::pool::Wish;
use pool_core::{Denied, Request};
use pool_managerd::supervisor::ReloadPool;

/// A kind of request: how one is made, what may be answered, what an answer makes certain.
pub struct Kind {
    pub make: fn(&mut Dice, u64) -> Asked,
    pub may_be_told: fn(&Answer) -> bool,
    /// What a job that was opened is a wish for; it survives whatever happens to the daemon.
    pub wish: Option<Wish>,
}

/// What is asked of the loop.
#[derive(Debug)]
pub enum Asked {
    Request(Request),
    /// That the files be read.
    Files,
    ReloadPool(ReloadPool),
    /// That one of the leases which callers hold be ended.
    Release,
}

/// The stop of a pool.
pub const STOP: Kind = Kind {
    make: |dice, _| Asked::Request(Request::Stop { pool: pool(dice) }),
    may_be_told: |answer| matches!(answer, Answer::Job(_) | Answer::Denied(Denied::NoSuchPool(_))),
    wish: Some(Wish::Stop),
};

/// How often each kind is asked.
pub static KINDS: [(usize, Kind); 11] = [
    (
        6,
        Kind {
            make: |dice, _| Asked::Request(Request::Start { pool: pool(dice) }),
            may_be_told: |answer| {
                matches!(answer, Answer::Job(_) | Answer::Denied(Denied::TransitionInProgress { .. }))
                    || no_pool(answer)
            },
            wish: Some(Wish::Run),
        },
    ),
    (3, STOP),
    (
        3,
        Kind {
            make: |dice, _| {
                let timeout = Usec::from_secs(u64::try_from(dice.roll(20)).unwrap());
                Asked::Request(Request::WaitReady { pool: pool(dice), timeout })
            },
            may_be_told: |answer| {
                let Answer::Denied(denied) = answer else { return *answer == Answer::Ready };
                matches!(denied, Denied::NoSuchPool(_) | Denied::NotReady { .. } | Denied::Timeout { .. })
            },
            wish: None,
        },
    ),
    (
        3,
        Kind {
            make: |dice, _| Asked::Request(Request::WaitJob { job: job(dice) }),
            may_be_told: |answer| {
                matches!(answer, Answer::JobEnded(_) | Answer::Denied(Denied::NoSuchJob(_)))
            },
            wish: None,
        },
    ),
    (
        2,
        Kind {
            make: |_, _| Asked::Files,
            may_be_told: |answer| matches!(answer, Answer::Reloaded { .. }),
            wish: None,
        },
    ),
    (
        3,
        Kind {
            make: |dice, _| Asked::Request(Request::Drain { pool: pool(dice), deadline: deadline(dice) }),
            may_be_told: |answer| matches!(answer, Answer::Job(_)) || no_pool(answer),
            wish: Some(Wish::Stop),
        },
    ),
    (
        4,
        Kind {
            make: |dice, number| {
                // A model of its own, so that whatever runs it runs because of this.
                let model =
                    if dice.chance(25) { String::new() } else { format!("file:{}", own_model(number)) };
                let (pool, deadline, force) = (pool(dice), deadline(dice), dice.chance(40));
                Asked::ReloadPool(ReloadPool { pool, model, deadline, force })
            },
            may_be_told: |answer| {
                matches!(answer, Answer::Job(_) | Answer::Denied(Denied::TransitionInProgress { .. }))
                    || no_pool(answer)
            },
            wish: None,
        },
    ),
    (
        2,
        Kind {
            make: |dice, _| Asked::Request(Request::Reset { pool: pool(dice) }),
            may_be_told: |answer| *answer == Answer::Done || no_pool(answer),
            wish: None,
        },
    ),
    (
        2,
        Kind {
            make: |dice, _| Asked::Request(Request::CancelJob { job: job(dice) }),
            may_be_told: |answer| {
                let Answer::Denied(denied) = answer else { return *answer == Answer::Done };
                matches!(denied, Denied::NoSuchJob(_) | Denied::NotCancelable(..))
            },
            wish: None,
        },
    ),
    (
        14,
        Kind {
            make: |dice, _| {
                let wait = if dice.chance(25) { 1 + dice.roll(20) } else { 0 };
                let wait = Usec::from_secs(u64::try_from(wait).expect("a small number"));
                let wish = LeaseWish { wait, ..LeaseWish::default() };
                Asked::Request(Request::AllocateLease { pool: pool(dice), wish })
            },
            may_be_told: |answer| {
                let Answer::Denied(denied) = answer else { return matches!(answer, Answer::Lease { .. }) };
                no_pool(answer)
                    || matches!(
                        denied,
                        Denied::Draining(_)
                            | Denied::NotReady { .. }
                            | Denied::AtCapacity { .. }
                            | Denied::NoLeaseInTime { .. }
                    )
            },
            wish: None,
        },
    ),
    (
        3,
        Kind {
            make: |_, _| Asked::Release,
            may_be_told: |answer| matches!(answer, Answer::Done | Answer::Denied(Denied::NoSuchLease(_))),
            wish: None,
        },
    ),
];

/// The model that a reload of that number asks for, where it asks for one.
pub fn own_model(number: u64) -> String {
    format!("/srv/own-{number}")
}

fn no_pool(answer: &Answer) -> bool {
    matches!(answer, Answer::Denied(Denied::NoSuchPool(_) | Denied::Leaving(_)))
}

fn pool(dice: &mut Dice) -> String {
    if dice.chance(3) { "nobody".to_owned() } else { (*dice.pick(&POOLS)).to_owned() }
}

fn job(dice: &mut Dice) -> JobId {
    JobId(1 + u32::try_from(dice.roll(12)).unwrap())
}

/// That of the file, or some other.
fn deadline(dice: &mut Dice) -> Usec {
    let seconds = if dice.chance(40) { 0 } else { 1 + dice.roll(60) };
    Usec::from_secs(u64::try_from(seconds).unwrap())
}

impl Asked {
    /// The pool that it is about.
    pub fn about(&self) -> Option<PoolId> {
        match self {
            Asked::Request(
                Request::Start { pool }
                | Request::Stop { pool }
                | Request::Drain { pool, .. }
                | Request::Reload { pool, .. }
                | Request::Reset { pool }
                | Request::AllocateLease { pool, .. }
                | Request::RegisterPool { pool, .. }
                | Request::UnregisterPool { pool }
                | Request::Report { pool, .. }
                | Request::WaitReady { pool, .. },
            )
            | Asked::ReloadPool(ReloadPool { pool, .. }) => pool.parse().ok(),
            Asked::Request(
                Request::WaitJob { .. }
                | Request::CancelJob { .. }
                | Request::ReleaseLease { .. }
                | Request::RenewLease { .. }
                | Request::QuarantineDevice { .. }
                | Request::ReadmitDevice { .. },
            )
            | Asked::Files
            | Asked::Release => None,
        }
    }

    /// Whether it may have an engine stopped that serves.
    pub fn may_stop(&self) -> bool {
        matches!(self, Asked::Request(Request::Stop { .. } | Request::Drain { .. }) | Asked::ReloadPool(_))
    }
}
