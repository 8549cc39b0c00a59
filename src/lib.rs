//! `pool-managerd` owns every LLM engine process on a GPU server: an operator writes a small file per pool, the daemon
//! starts its engines as sandboxed transient systemd units, knows from systemd when each is ready, and publishes all
//! of it on the system bus.
//!
//! ```text
//!  systemd signals ─┐                                              ┌─> systemd: start, change, stop, kill, forget
//!  probers' reports ┤                                              │   timers, saved state, journal
//!  D-Bus requests ──┼─> Event ─> supervisor loop ── core::apply ───┤   leases' descriptors
//!  timers, files ───┤            (owns State)      State' + Effects└─> replies
//!  leases' ends ────┘                 │
//!                                     └─> View ─> publisher ─> D-Bus properties and signals
//! ```
//!
//! | room | owns | may use |
//! | --- | --- | --- |
//! | [`pool_core`] | every decision; no IO | serde, thiserror |
//! | [`ports`] | what the loop needs of the world, as traits | core |
//! | [`supervisor`] | the loop, timers, the order of effects | core, `ports`, `config`, `store`, `leases`, `recording`, `telemetry`, `notify` |
//! | [`systemd`] | units and what systemd says of them | core, `ports` |
//! | [`config`] | reading configuration folders | core |
//! | [`store`] | what is saved | core |
//! | [`leases`] | the descriptors of leases | core |
//! | [`host`] | what is read of the host at start | core |
//! | [`report`] | numbers from probers | core, `ports` |
//! | [`processors`] | which CPUs this host has | core, `ports` |
//! | [`gpu`] | what the kernel knows of devices | core, `ports` |
//! | [`recording`] | the last inputs of the loop | core |
//! | [`dbus`] | the served objects, the publisher, who may do what, the sockets to the bus | core, `supervisor`'s handle, `notify`, `telemetry` |
//! | [`telemetry`] | lines for the journal | core |
//! | [`notify`] | what systemd is told of the daemon | nothing |
//! | [`client`] | typed proxies of the public API | nothing |
//! | `bin/poolctl` | the command line | `client`, and `config` for `check` |
//! | `main` | wiring | everything |
//!
//! `tests/architecture.rs` holds the source against this table.
//!
//! Words: a *pool* is one served model with one configuration; a *replica* is one running engine of a pool; an *engine*
//! is an LLM server program; a *template* says how to run a kind of engine; a *job* is a long operation that somebody
//! asked for.

pub mod client;
pub mod config;
pub mod dbus;
pub mod gpu;
pub mod host;
pub mod leases;
pub mod notify;
pub mod ports;
pub mod processors;
pub mod recording;
pub mod report;
pub mod store;
pub mod supervisor;
pub mod systemd;
pub mod telemetry;
