//! What tests run beside the daemon, each a program of its own. The conformance engine: an HTTP server that stands in for an LLM engine and misbehaves on request.
//!
//! ```text
//! options ──> engine::run ──> loading (a thread) ──> State::loaded
//!                 │               └──> Ending
//!                 ├──> server (a thread a connection) ──> endpoints ──> State, Ending
//!                 └──> waits for an Ending: exit status, or a signal that it sends to itself
//! ```
//!
//! The hostile engine is the same with one more endpoint, behind which is [`attack`]. [`agent`] runs commands in a virtual
//! machine.
//!
//! Everything is blocking and from std. It depends on nothing of the daemon: what it proves about an engine's unit must
//! not come from the code that made the unit.

pub mod agent;
pub mod attack;
pub mod ending;
pub mod endpoints;
pub mod engine;
pub mod http;
pub mod loading;
pub mod options;
pub mod state;
pub mod workers;
