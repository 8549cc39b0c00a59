//! Owns what lies between systemd and the daemon: signals on their way, which may be late and repeated, and answers.
//!
//! As on D-Bus, what is said of one unit arrives in the order in which it was said, and an answer after what was said
//! of its unit before. Units among each other are not in order. Signals that are lost are followed by `ReadAnew`, as
//! the real client makes it of systemd's `Reloading`.

use crate::dice::Dice;
use pool_core::host::UnitFacts;
use pool_core::name::UnitName;
use pool_managerd::ports::{Observation, SystemdError};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Where the outcome of a call goes.
pub type Answer = oneshot::Sender<Result<(), SystemdError>>;
/// Where the units go.
pub type UnitsAnswer = oneshot::Sender<Result<Vec<UnitFacts>, SystemdError>>;

/// Something on its way to the daemon.
#[derive(Debug)]
pub enum Parcel {
    Said(Observation),
    Answer(Answer, Result<(), SystemdError>),
    Units(UnitsAnswer, Result<Vec<UnitFacts>, SystemdError>),
}

/// The way to one run of the daemon at a time.
#[derive(Debug, Default)]
pub struct Bus {
    /// Which run listens, and where.
    pub listener: Option<(u64, mpsc::Sender<Observation>)>,
    /// Signals are lost at present.
    pub deaf: bool,
    /// When the last thing of each unit arrives: nothing of it may be faster.
    last: BTreeMap<UnitName, Instant>,
    /// Nothing may arrive before that.
    floor: Option<Instant>,
}

impl Bus {
    /// A new run listens; what is on its way to an earlier one never arrives.
    pub fn connect(&mut self, run: u64, observations: mpsc::Sender<Observation>) {
        *self = Bus { listener: Some((run, observations)), ..Bus::default() };
    }

    /// When something of a unit arrives that was sent now.
    pub fn arrival(&mut self, name: &UnitName, now: Instant, dice: &mut Dice) -> Instant {
        let earliest = [self.last.get(name).copied(), self.floor].into_iter().flatten().max();
        let at = earliest.into_iter().chain([now + dice.delay()]).max().unwrap_or(now);
        self.last.insert(name.clone(), at);
        at
    }

    /// When something arrives that stays behind everything sent so far; with `barrier` also before everything later.
    pub fn arrival_behind_all(&mut self, now: Instant, dice: &mut Dice, barrier: bool) -> Instant {
        let at = self.last.values().copied().chain(self.floor).chain([now + dice.millis(0, 3)]).max();
        let at = at.unwrap_or(now);
        if barrier {
            self.floor = Some(at);
        }
        at
    }

    /// Hands over what has arrived. Full means that the listener would have to wait.
    pub fn deliver(&mut self, to: u64, parcel: Parcel) -> Result<(), String> {
        let Some((_, listener)) = self.listener.as_ref().filter(|(run, _)| *run == to) else { return Ok(()) };
        match parcel {
            Parcel::Said(observation) => match listener.try_send(observation) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    Err("the daemon is over 1,000 signals behind".into())
                }
            },
            // Who asked may have died meanwhile.
            Parcel::Answer(answer, outcome) => {
                drop(answer.send(outcome));
                Ok(())
            }
            Parcel::Units(answer, units) => {
                drop(answer.send(units));
                Ok(())
            }
        }
    }
}
