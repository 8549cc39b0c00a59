//! The pure part of pool-managerd: what is wanted, what was observed, what to do, and what is published.
//!
//! Nothing here reads a clock, a file, a socket or a random number, and nothing logs: all of that arrives in an
//! [`Input`] and leaves as [`Effect`]s, so that a recorded list of inputs replays any run.
//!
//! ```text
//! Request ─> decide ─> Accepted ─┐
//!                                ├─> Input { mono, real, seed, event } ─> apply ─> State' + Effects ─> View
//! observation, timer, files ─────┘
//! ```
//!
//! | room | owns |
//! | --- | --- |
//! | [`name`] | newtypes for everything that has a name or a unit |
//! | [`config`] | a pool file's fragment, checked into a [`config::PoolSpec`] |
//! | [`engine`] | engine templates, and the command line they give |
//! | [`mod@unit`] | the transient unit of an engine or of its checks, as typed data |
//! | [`replica`] | one engine: its phase, what was seen of its unit, how it ended |
//! | [`pool`] | the life cycle of a pool over its replicas |
//! | [`host`] | all pools together: `decide`, `apply`, timers, adoption |
//! | [`job`] | long operations and who waits for them |
//! | [`lease`] | permissions to send work to an engine |
//! | [`cpu`] | the CPUs of the host, and which engine may use which |
//! | [`device`] | the devices of the host, and which are out of use |
//! | [`registry`] | what is known of each pool by its id alone, and the pools that somebody else runs |
//! | [`view`] | what is published, derived from the state and never stored in it |
//! | [`refusal`] | how `pool-helper` says that a start is refused |

#![deny(clippy::wildcard_enum_match_arm, clippy::cast_possible_truncation)]

pub mod config;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod host;
pub mod job;
pub mod lease;
pub mod name;
pub mod pool;
pub mod refusal;
pub mod registry;
pub mod replica;
pub mod unit;
pub mod view;

pub use host::{Accepted, Answer, Denied, Effect, Effects, Event, Input, Request, State, apply, decide};
