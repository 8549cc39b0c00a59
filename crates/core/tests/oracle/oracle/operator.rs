//! What operators ask for: start, stop, reset.

use super::{Breaker, Doing, Oracle, Passage, Told};

impl Oracle {
    pub(super) fn operator_starts(&mut self) -> Told {
        self.run = true;
        let closed = self.breakers.iter().all(|breaker| breaker.open.is_none());
        let trial = !self.permits();
        for replica in &mut self.replicas {
            match replica.doing {
                Doing::Waits { .. } if !closed => replica.permitted = !trial,
                Doing::Down { .. } | Doing::Waits { .. } => {
                    replica.doing = Doing::Waits { from: self.now, to: self.now, asked: true };
                }
                Doing::Leaves { .. } => replica.doing = Doing::Leaves { asked: true },
                Doing::Runs { .. } | Doing::Ending => {}
            }
        }
        Told::default()
    }

    /// An attempt is permitted, unless one is being made.
    pub(super) fn permits(&mut self) -> bool {
        let trial = self.breakers.iter().any(|breaker| breaker.open.is_some_and(|open| open.trial.is_some()));
        for open in self.breakers.iter_mut().filter_map(|breaker| breaker.open.as_mut()) {
            open.permit = !trial;
        }
        !trial
    }

    pub(super) fn operator_stops(&mut self) -> Told {
        self.run = false;
        self.passage = Passage::None;
        for open in self.breakers.iter_mut().filter_map(|breaker| breaker.open.as_mut()) {
            open.permit = false;
            open.trial = None;
        }
        for replica in &mut self.replicas {
            replica.comes_back = false;
            replica.doing = match replica.doing {
                Doing::Runs { .. } | Doing::Leaves { .. } | Doing::Ending => Doing::Ending,
                Doing::Down { .. } | Doing::Waits { .. } => Doing::Down { failed: false },
            };
        }
        Told::default()
    }

    pub(super) fn operator_resets(&mut self) -> Told {
        self.breakers = [Breaker::default(); 2];
        self.restart_count = 0;
        self.restarts.clear();
        self.ooms.clear();
        for replica in &mut self.replicas {
            replica.failures = 0;
            match replica.doing {
                Doing::Down { failed: true } if self.passage != Passage::None => {}
                Doing::Down { failed: true } | Doing::Waits { .. } => {
                    replica.doing = Doing::Waits { from: self.now, to: self.now, asked: true };
                }
                Doing::Down { failed: false } | Doing::Runs { .. } | Doing::Leaves { .. } | Doing::Ending => {
                }
            }
        }
        Told::default()
    }
}
