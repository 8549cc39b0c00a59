//! Owns how often the health endpoint is asked while an engine loads.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(200);

/// The pause before the next question: a twentieth of the time so far, so that readiness is late by a few percent of the
/// load at most, and a long load costs five questions a second.
pub(crate) fn pause(elapsed: Duration) -> Duration {
    (elapsed / 20).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_load_between_its_bounds() {
        for (elapsed, expected) in
            [(0, 5.0), (100, 5.0), (150, 7.5), (1_000, 50.0), (4_000, 200.0), (60_000, 200.0)]
        {
            let pause = pause(Duration::from_millis(elapsed));
            assert_eq!(pause.as_secs_f64() * 1e3, expected, "after {elapsed} ms");
        }
    }
}
