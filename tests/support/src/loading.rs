//! Owns loading: the time that it takes, what can be seen of it from outside, and the stamp at its end.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::options::Options;

/// Where systemd listens, whatever an engine's environment says.
const NOTIFY_SOCKET: &str = "/run/systemd/notify";

/// Reads the model, as far as anyone can tell from outside.
///
/// # Errors
///
/// Where it cannot be read.
pub fn read_model(model: &Path) -> io::Result<()> {
    if model.is_dir() {
        for entry in fs::read_dir(model)? {
            entry?;
        }
        return Ok(());
    }
    io::copy(&mut File::open(model)?, &mut io::sink()).map(drop)
}

/// Sends the text to systemd, by the socket that everyone knows and by the one that the environment names.
pub fn forge(text: &str) {
    let named = std::env::var_os("NOTIFY_SOCKET");
    for path in [Some(NOTIFY_SOCKET.into()), named].into_iter().flatten() {
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(text.as_bytes(), &path));
        match sent {
            Ok(_) => println!("forged {text:?} to {}", path.display()),
            Err(error) => println!("could not forge {text:?} to {}: {error}", path.display()),
        }
    }
}

/// Takes the time, asleep or at work.
pub fn pass(time: Duration, at_work: bool) {
    let started = Instant::now();
    if !at_work {
        thread::sleep(time);
    }
    while started.elapsed() < time {
        std::hint::black_box((0..1_000u64).fold(0, |sum: u64, number| sum.wrapping_mul(31) ^ number));
    }
}

/// Writes the moment to the stamp file, if there is one. Readiness may be told only after it.
///
/// # Errors
///
/// Where the file cannot be written or the clock not be read.
pub fn stamp(options: &Options) -> io::Result<()> {
    let Some(path) = &options.stamp else { return Ok(()) };
    // Written elsewhere and renamed: who sees the file sees all of it.
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    fs::write(&partial, format!("{}\n", now.as_nanos()))?;
    fs::rename(partial, path)
}
