//! Times and counts of one kind, and how they are told: a line `figure NAME VALUE` each, which the bench reads.

use std::time::{Duration, Instant};

use crate::Result;
use crate::wire::{Call, Wire};

/// Times of one kind.
#[derive(Debug, Default)]
pub struct Series(Vec<Duration>);

impl Series {
    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that this share of all does not exceed.
    pub fn at(&self, share: f64) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((times.len() as f64 - 1.0) * share).round() as usize;
        times.get(index).copied().unwrap_or_default()
    }

    /// Half of them take longer.
    pub fn median(&self) -> Duration {
        self.at(0.5)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Tells a figure.
pub fn figure(name: &str, value: f64) {
    println!("figure {name} {value:.3}");
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A number for arithmetic that needs no more than it has.
pub fn real(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// How long one call takes, asked and answered.
pub fn one(wire: &mut Wire, call: &Call) -> Result<Duration> {
    let begun = Instant::now();
    wire.ask(call)?;
    Ok(begun.elapsed())
}

/// Calls a second, with so many in flight. Every answer is counted; those that are errors stop it.
pub fn rate(wire: &mut Wire, call: &Call, total: usize, in_flight: usize) -> Result<f64> {
    let begun = Instant::now();
    wire.send(call, in_flight)?;
    let (mut sent, mut answered) = (in_flight, 0);
    while answered < total {
        let mut came = 0;
        loop {
            let incoming = wire.message()?;
            match incoming.kind {
                2 => came += 1,
                3 => return Err(format!("{}: {}", incoming.error, incoming.text()).into()),
                _ => {}
            }
            // What it holds is let go of at once.
            while let Some(descriptor) = wire.descriptor() {
                drop(descriptor);
            }
            if !wire.has_next() {
                break;
            }
        }
        answered += came;
        let more = came.min(total.saturating_sub(sent));
        if more > 0 {
            wire.send(call, more)?;
            sent += more;
        }
    }
    Ok(real(total) / begun.elapsed().as_secs_f64())
}

/// The middle one of some numbers.
pub fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
