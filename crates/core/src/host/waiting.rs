//! Callers that wait for something to come true. Requests are numbered as they come, so the order of this map is the
//! order in which they came.

use super::{Answer, Denied, Effect, Effects, RequestId, State, TimerId};
use crate::job::JobId;
use crate::name::PoolId;
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
pub(super) fn timed_out(state: &State, effects: &mut Effects, request: RequestId, waits: Waits) {
    match waits {
        Waits::Ready(pool) => {
            let why = state.pools.get(&pool).map_or(String::new(), Pool::detail);
            effects.push(Effect::Reply(request, Answer::Denied(Denied::Timeout { pool, why })));
        }
        // It has no time limit.
        Waits::Job(_) => {}
    }
}
