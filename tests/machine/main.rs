//! The built package on a kernel of its own, with all cgroup controllers: what a container cannot prove. One module for
//! each behaviour; all share one machine, and run side by side where they do not need all of it.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod attempts;
mod cpus;
mod exposure;
mod forging;
mod host;
mod limits;
mod machine;
mod meeting;
mod prober;
mod sockets;
