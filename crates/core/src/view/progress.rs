//! How far a job is.

use crate::job::{Job, JobState, Operation};
use crate::pool::Pool;
use serde::Serialize;

/// A share of a whole, in thousandths, so that two views can be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Share(u16);

impl Share {
    const WHOLE: Share = Share(1_000);

    fn of(part: usize, whole: usize) -> Share {
        let thousandths = part.saturating_mul(1_000).checked_div(whole).unwrap_or(1_000);
        Share(u16::try_from(thousandths.min(1_000)).unwrap_or(1_000))
    }

    /// From 0 to 1, as it is published.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}

/// How many engines of the pool are where the job wants them. A job that has ended is whole, however it ended: nothing
/// more comes of it.
pub(super) fn of(job: &Job, pool: Option<&Pool>) -> Share {
    let (JobState::Running, Some(pool)) = (&job.state, pool) else { return Share::WHOLE };
    // Until its new engines start, none is where it should be.
    let replaced = pool.reload.as_ref().is_some_and(|reload| reload.in_place().is_some());
    let there = pool.replicas.iter().filter(|replica| match job.operation {
        Operation::Start => replica.ready(),
        Operation::Stop | Operation::Drain => replica.at_rest(),
        Operation::Reload => replica.ready() && replaced,
    });
    Share::of(there.count(), pool.replicas.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(Share::of(0, 3).fraction(), 0.0);
        assert_eq!(Share::of(1, 4).fraction(), 0.25);
        assert_eq!(Share::of(3, 3), Share::WHOLE);
        assert_eq!(Share::of(9, 3), Share::WHOLE);
        assert_eq!(Share::of(0, 0), Share::WHOLE, "nothing is left to do");
    }
}
