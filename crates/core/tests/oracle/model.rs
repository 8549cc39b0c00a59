//! The core held against the oracle over many random stories.
//!
//! `CASES` says how many, `SEED` which one first. A story that fails prints its seed, what happened in it, and the command
//! that tells it alone; its seed then goes into [`REGRESSIONS`]. `TRAIL` says how much of what happened is printed.

use super::driver::Story;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Seeds of stories that found something once, and what. They run first, always.
const REGRESSIONS: [(u64, &str); 0] = [];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// What a story comes to; the core must not panic either.
fn outcome(seed: u64, trail: bool) -> (Result<(), String>, Vec<String>) {
    catch_unwind(AssertUnwindSafe(|| Story::tell(seed, trail))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        (Err(format!("a panic: {}", text.unwrap_or_default())), Vec::new())
    })
}

fn fail(seed: u64, why: &str) -> ! {
    let (_, trail) = outcome(seed, true);
    let last = trail.len().saturating_sub(number("TRAIL", 40) as usize);
    panic!(
        "seed {seed}: {why}\n{}\n\nTo tell it alone: CASES=1 SEED={seed} cargo test -p pool-core --test oracle model",
        trail[last..].join("\n")
    );
}

#[test]
fn the_core_is_where_the_oracle_is_whatever_happens() {
    let (cases, first) = (number("CASES", 10_000), number("SEED", 1));
    if cases > 1 {
        for (seed, found) in REGRESSIONS {
            if let (Err(why), _) = outcome(seed, false) {
                fail(seed, &format!("{why}\n(this seed once found: {found})"));
            }
        }
    }
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let wrong = AtomicU64::new(u64::MAX);
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + cases {
                break;
            }
            if outcome(seed, false).0.is_err() {
                failed.store(true, Ordering::Relaxed);
                wrong.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner();
    if wrong != u64::MAX {
        let why = outcome(wrong, false).0.err().unwrap_or_default();
        fail(wrong, &why);
    }
}
