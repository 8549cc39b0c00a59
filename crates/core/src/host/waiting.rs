//! Callers that wait for something to come true. Requests are numbered as they come, so the order of this map is the
//! order in which they came.

use super::leasing::{Offer, not_ready, offer};
use super::{Answer, Denied, Effect, Effects, LeaseWish, Purpose, RequestId, State, TimerId};
use crate::job::JobId;
use crate::name::{PoolId, Usec};
use crate::pool::Pool;
use serde::{Deserialize, Serialize};

/// Somebody who waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The caller's unique name on the bus.
    pub caller: String,
    /// Its user.
    pub uid: u32,
    /// For what.
    pub waits: Waits,
    /// The timer that ends the waiting; none: no limit.
    pub timer: Option<TimerId>,
}

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waits {
    /// A pool's readiness.
    Ready(PoolId),
    /// A job's end.
    Job(JobId),
    /// A lease of a pool.
    Lease(PoolId, LeaseWish),
}

/// A caller left the bus: nobody hears the answers to what it waits for.
pub(super) fn caller_left(state: &mut State, effects: &mut Effects, name: &str) {
    let timers = &mut state.timers;
    state.waiters.retain(|request, waiter| {
        let gone = waiter.caller == name;
        if gone {
            effects.push(Effect::ForgetCaller(*request));
            if let Some(timer) = waiter.timer {
                timers.cancel(timer, effects);
            }
        }
        !gone
    });
}

/// Somebody's time is over.
pub(super) fn timed_out(state: &State, effects: &mut Effects, request: RequestId, waiter: Waiter) {
    let denied = match waiter.waits {
        Waits::Ready(pool) => {
            let external = || not_ready(state, &pool).to_owned();
            let why = state.pools.get(&pool).map_or_else(external, Pool::detail);
            Denied::Timeout { pool, why }
        }
        Waits::Lease(pool, _) => match offer(state, waiter.uid, &pool) {
            Offer::Now => Denied::NoLeaseInTime { pool, why: String::new() },
            Offer::Later(why) | Offer::Never(why) => Denied::NoLeaseInTime { pool, why: why.to_string() },
        },
        // It has no time limit.
        Waits::Job(_) => return,
    };
    effects.push(Effect::Reply(request, Answer::Denied(denied)));
}

impl State {
    /// The timer of a wait; none where it is without limit.
    pub(super) fn wait_timer(
        &mut self,
        request: RequestId,
        time: Usec,
        effects: &mut Effects,
    ) -> Option<TimerId> {
        let limited = time != Usec(0) && time != Usec(u64::MAX);
        limited.then(|| self.timers.set(time, Purpose::EndWait(request), effects))
    }
}
