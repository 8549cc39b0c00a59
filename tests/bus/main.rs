//! The compiled daemon on a private bus, beside a systemd that does what the test says.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod access;
mod bench;
mod broker;
mod compatibility;
mod contract;
mod devices;
mod external;
mod flood;
mod folding;
mod json;
mod leases;
mod logging;
mod many_leases;
mod methods;
mod monitor;
mod operations;
mod order;
mod polkit;
mod poolctl;
mod properties;
mod reference;
mod systemd;
mod trust;
mod usage;
mod waiting;
mod watching;
