//! The life cycle of a pool: `staging → starting → ready`, and every way out of it. Nothing here can fail; what should
//! not have been seen is logged as an anomaly and changes nothing.
//!
//! | file | owns |
//! | --- | --- |
//! | `wishes` | what somebody wants: start, stop, and when that has come true |
//! | `observed` | what systemd says of units, adoption included |
//! | `failure` | how an engine ended, and what follows |

mod failure;
mod observed;
mod wishes;

pub(crate) use failure::restart_due;
pub(crate) use observed::{
    StartProblem, adopt, give_up_name, job_failed, kill, release_again, still_stuck, stop_refused,
    unit_forgotten, unit_refused, unit_seen, unit_taken,
};
pub(crate) use wishes::{resume, settle, start, stop};
