//! Owns the child processes that hold on, as engines' workers do that were never told to stop.

use std::io;
use std::process::{Command, Stdio};
use std::thread;

use crate::ending;

/// Starts them and prints their process ids, one a line: `worker 4711`.
///
/// # Errors
///
/// Where one cannot be started.
pub fn start(count: u32) -> io::Result<()> {
    let program = std::env::current_exe()?;
    for _ in 0..count {
        let worker = Command::new(&program).arg("--as-worker").stdin(Stdio::null()).spawn()?;
        println!("worker {}", worker.id());
    }
    Ok(())
}

/// What a worker does: nothing, for ever.
pub fn hold() -> nix::Result<()> {
    ending::block_sigterm()?;
    loop {
        thread::park();
    }
}
