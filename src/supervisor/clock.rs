//! What an input carries besides its event.

use nix::time::{ClockId, clock_gettime};
use pool_core::name::Usec;
use pool_core::{Event, Input};
use std::hash::{BuildHasher, RandomState};

pub(super) fn input(event: Event) -> Input {
    Input {
        mono: read(ClockId::CLOCK_BOOTTIME),
        real: read(ClockId::CLOCK_REALTIME),
        // A fresh key from the kernel's randomness each time: the standard library's way to it.
        seed: RandomState::new().hash_one(0),
        event,
    }
}

/// These clocks exist on every Linux that counts, so reading them does not fail.
fn read(clock: ClockId) -> Usec {
    let time = clock_gettime(clock).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_nsec() / 1_000);
    Usec(u64::try_from(micros).unwrap_or(0))
}
