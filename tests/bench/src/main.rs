//! `bus-bench`: what `cargo xtask bench bus` runs in its container. It measures the daemon on the system bus from outside,
//! beside what others serve there, and prints a line `figure NAME VALUE` for each number.
//!
//! | module | owns |
//! | --- | --- |
//! | [`bare`] | the bare service that the daemon is compared with |
//! | [`sink`] | the service that a flood costs least |
//! | [`measure`] | what is measured |
//! | [`flood`] | callers that mean no good |
//!
//! The library has the connection that it measures with.

mod bare;
mod flood;
mod measure;
mod sink;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use pool_bus_bench::{Result, series, wire};

/// The daemon's name, and that of the manager's interface.
const DAEMON: &str = "org.llamaorch.PoolManager";
/// Where its objects are.
const ROOT: &str = "/org/llamaorch/PoolManager";

/// Measures pool-managerd on the system bus.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Serve a copy of the daemon's objects with a bare zbus service.
    Bare,
    /// Read a flood and do nothing.
    Sink,
    /// Properties and methods, one at a time and 64 in flight.
    Look { pool: String },
    /// All objects in one answer; the number of pools is for the figures' names.
    Objects { pools: usize },
    /// Leases taken and dropped; who takes them is for the figures' names.
    Leases { pool: String, who: String },
    /// An engine killed, so many times.
    Crash { pool: String, times: usize },
    /// How long others wait, for so many seconds; what goes on meanwhile is for the figures' names.
    Patience { pool: String, during: String, seconds: u64 },
    /// So many leases held while the daemon is killed.
    Adoption { pool: String, count: usize },
    /// The same for the service that does nothing with a flood.
    SinkPatience { seconds: u64 },
    /// Calls in flight whose answers nobody reads, for so many seconds.
    FloodCalls { pool: String, seconds: u64 },
    /// The same at the service that does nothing with them.
    FloodSink { seconds: u64 },
    /// All objects in a loop, for so many seconds.
    FloodObjects { seconds: u64 },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Bare => bare::serve(),
        Task::Sink => sink::serve(),
        Task::Look { pool } => measure::look(&pool),
        Task::Objects { pools } => measure::objects(pools),
        Task::Leases { pool, who } => measure::leases(&pool, &who),
        Task::Crash { pool, times } => measure::crash(&pool, times),
        Task::Patience { pool, during, seconds } => {
            measure::patience(&pool, &during, Duration::from_secs(seconds))
        }
        Task::Adoption { pool, count } => measure::adoption(&pool, count),
        Task::SinkPatience { seconds } => measure::sink_patience(Duration::from_secs(seconds)),
        Task::FloodCalls { pool, seconds } => flood::calls(&pool, Duration::from_secs(seconds)),
        Task::FloodSink { seconds } => flood::sink(Duration::from_secs(seconds)),
        Task::FloodObjects { seconds } => flood::objects(Duration::from_secs(seconds)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bus-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
