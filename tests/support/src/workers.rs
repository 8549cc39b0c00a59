//! Owns the child processes that hold on, as engines' workers do that were never told to stop.

use std::io;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::ending;

/// Starts them and prints their process ids, one a line: `worker 4711`.
///
/// # Errors
///
/// Where one cannot be started.
pub fn start(count: u32) -> io::Result<Vec<Child>> {
    let program = std::env::current_exe()?;
    let mut workers = Vec::new();
    for _ in 0..count {
        let worker = Command::new(&program).arg("--as-worker").stdin(Stdio::null()).spawn()?;
        println!("worker {}", worker.id());
        workers.push(worker);
    }
    Ok(workers)
}

/// What a worker does: nothing, for ever.
pub fn hold() -> nix::Result<()> {
    ending::block_sigterm()?;
    loop {
        thread::park();
    }
}
