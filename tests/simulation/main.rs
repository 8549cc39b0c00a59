//! The real supervisor on paused time, beside a systemd that loses, repeats and delays signals, refuses, hangs and
//! crashes, and a daemon that dies between any two effects. A script is its seed.
//!
//! | file | owns |
//! | --- | --- |
//! | `script` | what happens in which order, and what must hold at the end |
//! | `systemd`, `unit`, `bus` | the true set of units, what each does by itself, what lies between |
//! | `daemon`, `grave` | a run of the real supervisor, and its death |
//! | `callers`, `kinds` | who asks for what and holds what, and what may be answered |
//! | `files` | what the configuration says |
//! | `checks`, `always` | what holds once nothing happens any more, and what of it at any time |
//!
//! `SEED=n` plays one script and tells it; `SCRIPTS=n` says how many are played, `FIRST=n` from which seed on.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the world beside the daemon has tasks of its own")]

mod always;
mod bus;
mod callers;
mod checks;
mod daemon;
mod dice;
mod files;
mod grave;
mod kinds;
mod script;
mod systemd;
mod unit;

use script::{Failure, Tally, play};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: expected a number, got \"{text}\"")))
}

#[test]
fn whatever_goes_wrong_daemon_and_systemd_agree_once_it_is_over() {
    if let Some(seed) = number("SEED") {
        let (result, trace) = play(seed);
        println!("{}", trace.join("\n"));
        return result.map(drop).unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.what));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number("FIRST").unwrap_or(since.as_secs() * 10_000);
    let scripts = number("SCRIPTS").unwrap_or(1_000);
    println!("seeds {first} to {}", first + scripts - 1);
    let (next, failed, sum) = (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(Tally::default()));
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + scripts {
                        return;
                    }
                    match play(seed).0 {
                        Ok(tally) => sum.lock().unwrap().add(tally),
                        Err(failure) => failed.lock().unwrap().push((seed, failure)),
                    }
                }
            });
        }
    });
    report(failed.into_inner().unwrap());
    let sum = sum.into_inner().unwrap();
    println!("{sum:?}");
    let done = sum.served > 0 && sum.jobs > 0 && sum.leases > 0 && sum.held > 0;
    assert!(sum.runs > 2 * scripts && done, "scripts do not do what they are for");
}

fn report(mut failed: Vec<(u64, Failure)>) {
    failed.sort_by_key(|(seed, failure)| (failure.trace.len(), *seed));
    for (seed, failure) in &failed {
        println!("SEED={seed} ({} lines): {}", failure.trace.len(), failure.what);
    }
    if let Some((seed, failure)) = failed.first() {
        let from = failure.trace.len().saturating_sub(150);
        println!("the last lines of the shortest:\n{}", failure.trace[from..].join("\n"));
        panic!("{} scripts failed, the shortest is SEED={seed}: {}", failed.len(), failure.what);
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 1..=20 {
        let (first, second) = (play(seed).1, play(seed).1);
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(
            differs,
            None,
            "seed {seed}: {:?} {:?}",
            differs.map(|at| &first[at]),
            differs.map(|at| &second[at])
        );
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
