//! The host's clocks and randomness.

use crate::ports::Clock;
use nix::time::{ClockId, clock_gettime};
use pool_core::name::Usec;
use std::hash::{BuildHasher, RandomState};

/// The kernel's clocks and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn mono(&mut self) -> Usec {
        read(ClockId::CLOCK_BOOTTIME)
    }

    fn real(&mut self) -> Usec {
        read(ClockId::CLOCK_REALTIME)
    }

    /// A fresh key from the kernel's randomness each time: the standard library's way to it.
    fn seed(&mut self) -> u64 {
        RandomState::new().hash_one(0)
    }
}

/// These clocks exist on every Linux that counts, so reading them does not fail.
fn read(clock: ClockId) -> Usec {
    let time = clock_gettime(clock).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_nsec() / 1_000);
    Usec(u64::try_from(micros).unwrap_or(0))
}
