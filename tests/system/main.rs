//! The built package, installed on a real systemd, with real engines. One module for each behaviour.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod access;
mod adoption;
mod bus;
mod configuration;
mod cpus;
mod crash;
mod daemon;
mod devices;
mod draining;
mod examples;
mod explaining;
mod failures;
mod hang;
mod host;
mod journal;
mod llama;
#[path = "../bus/methods.rs"]
mod methods;
mod properties;
mod reach;
mod readiness;
mod record;
mod refusal;
mod reloading;
mod resources;
mod sandbox;
mod serving;
mod users;
