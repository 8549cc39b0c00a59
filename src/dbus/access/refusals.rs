//! Which refusals the journal is told of: each caller's first for an action, and no more of one user than [`BURST`] at
//! once and one each [`EVERY`], so that nobody who connects again and again fills it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(10);
const BURST: u32 = 10;

/// Until when each user has used up his share, and how many lines were left out since the last one.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<u32, (Instant, u64)>);

impl Refusals {
    /// Whether one more is told of, which it then is: how many of that user were left out before it.
    pub(super) fn tell(&mut self, uid: u32, now: Instant) -> Option<u64> {
        self.0.retain(|_, (until, left_out)| *until > now || *left_out > 0);
        let (until, left_out) = self.0.entry(uid).or_insert((now, 0));
        let next = (*until).max(now) + EVERY;
        if next > now + EVERY * BURST {
            *left_out += 1;
            return None;
        }
        *until = next;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_share_of_lines_and_what_was_left_out_is_counted() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for _ in 0..BURST {
            assert_eq!(refusals.tell(1, now), Some(0));
        }
        assert_eq!(refusals.tell(1, now), None);
        assert_eq!(refusals.tell(1, now), None);
        assert_eq!(refusals.tell(2, now), Some(0), "another user has his own");
        assert_eq!(refusals.tell(1, now + EVERY), Some(2));
        assert_eq!(refusals.tell(1, now + EVERY), None);
    }
}
