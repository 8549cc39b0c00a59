//! Owns what the threads share: whether the model is loaded, what goes wrong since, the counters, and the workers.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Where the engine listens.
#[derive(Debug, Clone)]
pub enum Listening {
    /// On an address.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

/// Shared by all threads.
#[derive(Debug, Default)]
pub struct State {
    loaded: AtomicBool,
    hanging: AtomicBool,
    stalled: AtomicBool,
    closed: AtomicBool,
    health: AtomicU16,
    slow_ms: AtomicU64,
    listening: Mutex<Option<Listening>>,
    workers: Mutex<Vec<Child>>,
    /// Requests at work.
    pub processing: AtomicU64,
    /// Tokens made so far.
    pub predicted: AtomicU64,
}

impl State {
    /// Whether /health answers 200.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::SeqCst)
    }

    /// From now on /health answers 200.
    pub fn set_loaded(&self) {
        self.loaded.store(true, Ordering::SeqCst);
    }

    /// Whether no request is answered.
    pub fn is_hanging(&self) -> bool {
        self.hanging.load(Ordering::SeqCst)
    }

    /// From now on no request is answered.
    pub fn hang(&self) {
        self.hanging.store(true, Ordering::SeqCst);
    }

    /// What /health answers once loaded instead of 200, if anything.
    pub fn health(&self) -> Option<u16> {
        Some(self.health.load(Ordering::SeqCst)).filter(|&status| status != 0)
    }

    /// From now on /health answers this.
    pub fn set_health(&self, status: u16) {
        self.health.store(status, Ordering::SeqCst);
    }

    /// How late /health and /metrics are answered.
    pub fn slow(&self) -> Duration {
        Duration::from_millis(self.slow_ms.load(Ordering::SeqCst))
    }

    /// From now on they are answered so late; the delay from before.
    pub fn set_slow(&self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.slow_ms.swap(milliseconds, Ordering::SeqCst))
    }

    /// From now on no completion gets on.
    pub fn stall(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    /// Whether no completion gets on.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }

    /// Its child processes.
    pub fn set_workers(&self, workers: Vec<Child>) {
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
    }

    /// Whether one of its child processes has ended.
    pub fn has_lost_a_worker(&self) -> bool {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter_mut().any(|worker| !matches!(worker.try_wait(), Ok(None)))
    }

    /// It listens there.
    pub fn set_listening(&self, address: Listening) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Whether no connection is accepted any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Stops listening; what is connected goes on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let address = self.listening.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The thread that accepts sees it with the next connection.
        match address {
            Some(Listening::Tcp(address)) => drop(TcpStream::connect(address)),
            Some(Listening::Unix(path)) => drop(UnixStream::connect(path)),
            None => {}
        }
    }
}
