//! What an operator's longer undertakings do to the rules: while a pool is emptied or its engines are replaced, failures
//! count nothing and nothing starts by itself.

use super::{Doing, Oracle, Passage, Replica, Told};

impl Replica {
    pub(super) fn new() -> Self {
        Replica {
            doing: Doing::Down { failed: false },
            failures: 0,
            reached: [false; 3],
            permitted: false,
            comes_back: false,
        }
    }
}

impl Oracle {
    pub(super) fn leaves(&mut self, index: usize) -> Result<Told, String> {
        match self.replicas[index].doing {
            Doing::Runs { .. } => self.replicas[index].doing = Doing::Leaves { asked: false },
            doing => return Err(format!("replica {index} cannot leave: {doing:?}")),
        }
        Ok(Told::default())
    }

    pub(super) fn drains(&mut self) -> Told {
        self.passage = Passage::Drain;
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            replica.comes_back |= !matches!(replica.doing, Doing::Down { .. });
            // What has failed stays as it is.
            if !matches!(replica.doing, Doing::Runs { ready: Some(_) } | Doing::Down { .. }) {
                self.ends(index);
            }
        }
        Told::default()
    }

    pub(super) fn drain_called_off(&mut self) -> Told {
        self.passage = Passage::None;
        for replica in &mut self.replicas {
            if std::mem::take(&mut replica.comes_back) && matches!(replica.doing, Doing::Down { .. }) {
                replica.doing = Doing::Waits { from: self.now, to: self.now, asked: true };
            }
        }
        Told::default()
    }

    pub(super) fn replaces(&mut self) -> Told {
        self.passage = Passage::Replacement;
        for replica in &mut self.replicas {
            replica.comes_back = false;
        }
        Told::default()
    }

    pub(super) fn taken_down(&mut self, index: usize) -> Result<Told, String> {
        if self.passage != Passage::Replacement {
            return Err(format!("replica {index} is taken down although nothing is being replaced"));
        }
        self.ends(index);
        // If a drain takes the replacement's place and is called off, it should run.
        self.replicas[index].comes_back = true;
        Ok(Told::default())
    }

    pub(super) fn replacement_ends(&mut self) -> Told {
        if self.passage == Passage::Replacement {
            self.passage = Passage::None;
        }
        Told::default()
    }

    pub(super) fn daemon_restarted(&mut self) -> Told {
        let failed = |replica: &&mut Replica| replica.doing == Doing::Down { failed: true };
        for replica in self.replicas.iter_mut().filter(failed).filter(|_| self.run) {
            match self.passage {
                Passage::None => {
                    replica.doing = Doing::Waits { from: self.now, to: self.now, asked: true };
                }
                // Once the drain is called off.
                Passage::Drain => {
                    replica.doing = Doing::Down { failed: false };
                    replica.comes_back = true;
                }
                Passage::Replacement => {}
            }
        }
        Told::default()
    }

    /// It is made to end, and an attempt that it was is over; one that was permitted early is over with it.
    fn ends(&mut self, index: usize) {
        self.no_trial(index);
        let doing = &mut self.replicas[index].doing;
        *doing = match doing {
            Doing::Runs { .. } | Doing::Leaves { .. } | Doing::Ending => Doing::Ending,
            Doing::Down { .. } | Doing::Waits { .. } => Doing::Down { failed: false },
        };
    }
}
