//! The life cycle of a pool: `staging → starting → ready`, and every way out of it. Nothing here can fail; what should
//! not have been seen is logged as an anomaly and changes nothing.
//!
//! | file | owns |
//! | --- | --- |
//! | `wishes` | what somebody wants: start, stop, reset, and when that has come true |
//! | `observed` | what systemd and probers say, adoption included |
//! | `release` | letting go of units that have ended, and getting their names back |
//! | `failure` | how an engine ended, and what follows |
//! | `breaker` | breakers, and the lengths of readiness that matter |
//! | `devices` | which devices an engine gets |
//! | `drain` | emptying a pool |
//! | `reload` | giving it another spec |
//! | `lease` | giving and ending leases |

mod breaker;
pub(crate) mod devices;
pub(crate) mod drain;
mod failure;
pub(crate) mod lease;
mod observed;
mod release;
pub(crate) mod reload;
mod wishes;

pub(crate) use breaker::{catch_up, go_on, steady, trial_due};
pub(crate) use failure::{condemn, restart_due};
pub(crate) use observed::{
    StartProblem, adopt, reported, unit_forgotten, unit_refused, unit_seen, unit_taken,
};
pub(crate) use release::{give_up_name, job_failed, kill, release_again, still_stuck, stop_refused};
pub(crate) use wishes::{begin, down_by_failure, reset, resume, settle, start, start_more, stop};
