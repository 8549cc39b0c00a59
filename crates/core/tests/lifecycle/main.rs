//! The life cycle of pools, told as stories, and held against random ones.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
mod adopting;
mod breaker;
mod cases;
mod cpus;
mod devices;
mod drain;
mod ending;
mod explain;
mod external;
mod found;
mod lease;
mod memory;
mod moments;
mod outside;
mod random;
mod reload;
mod removal;
mod seldom;
mod stages;
mod starting;
mod storm;
mod survival;
mod terms;
mod trial;
mod units;
mod world;
