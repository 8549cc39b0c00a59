//! Owns what the threads share: whether the model is loaded, whether everything hangs, and the counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by all threads.
#[derive(Debug, Default)]
pub struct State {
    loaded: AtomicBool,
    hanging: AtomicBool,
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
}
