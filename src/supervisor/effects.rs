//! Carrying effects out. What takes time does so beside the loop: calls to systemd, in order for each replica, and timers.

#![allow(clippy::disallowed_methods, reason = "effects run beside the loop")]

use super::handle::Told;
use super::turn::Turn;
use super::{Returned, Supervisor};
use crate::ports::{Clock, Files, Probers, Systemd, SystemdError};
use crate::store::Wishes;
use crate::telemetry::chain;
use pool_core::host::{Answer, TimerId};
use pool_core::lease::LeaseEnd;
use pool_core::name::ReplicaId;
use pool_core::{Denied, Effect, Effects, Event};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(super) async fn send(returned: &mpsc::Sender<Returned>, what: Returned) {
    if returned.send(what).await.is_err() {
        tracing::debug!("the loop has ended; what came back is dropped");
    }
}

/// One line of calls for each replica.
pub(super) struct Lanes<S> {
    systemd: S,
    last: HashMap<ReplicaId, JoinHandle<()>>,
}

impl<S: Systemd> Lanes<S> {
    pub(super) fn new(systemd: S) -> Self {
        Lanes { systemd, last: HashMap::new() }
    }

    pub(super) fn carry_out(&mut self, effect: Effect, returned: &mpsc::Sender<Returned>) {
        self.last.retain(|_, task| !task.is_finished());
        let replica = match &effect {
            Effect::StartUnit(unit) => unit.name.replica.clone(),
            Effect::StopUnit(name)
            | Effect::KillUnit(name)
            | Effect::ForgetUnit(name)
            | Effect::ChangeUnit(name, _) => name.replica.clone(),
            _ => return,
        };
        let before = self.last.remove(&replica);
        let (systemd, returned) = (self.systemd.clone(), returned.clone());
        let task = tokio::spawn(async move {
            if let Some(before) = before
                && let Err(error) = before.await
            {
                tracing::error!("a call to systemd was cut off: {error}");
            }
            for event in carry_out(&systemd, effect).await {
                send(&returned, Returned::Event(Box::new(event))).await;
            }
        });
        self.last.insert(replica, task);
    }
}

/// The call, and what came of it to the core.
async fn carry_out(systemd: &impl Systemd, effect: Effect) -> Vec<Event> {
    match effect {
        Effect::StartUnit(unit) => match systemd.start(&unit).await {
            Ok(left_out) => {
                let names: BTreeSet<String> = left_out.into_iter().map(str::to_owned).collect();
                let left_out = (!names.is_empty()).then_some(Event::PropertiesLeftOut(names));
                left_out.into_iter().chain([Event::UnitTaken(unit.name)]).collect()
            }
            Err(error) => {
                let name_taken = matches!(error, SystemdError::NameTaken);
                vec![Event::UnitRefused { name: unit.name, name_taken, error: chain(&error) }]
            }
        },
        Effect::ChangeUnit(name, property) => {
            match systemd.change(&name, &property).await {
                Ok(()) | Err(SystemdError::NoSuchUnit) => {}
                Err(error) => {
                    tracing::error!("{} of {name} cannot be changed: {}", property.name(), chain(&error));
                }
            }
            Vec::new()
        }
        // That a unit is gone is told by its own signal, which stands in order with those of the next of its name.
        Effect::StopUnit(name) => match systemd.stop(&name).await {
            Ok(()) | Err(SystemdError::NoSuchUnit) => Vec::new(),
            Err(error) => vec![Event::StopRefused { name, error: chain(&error) }],
        },
        Effect::KillUnit(name) => match systemd.kill(&name).await {
            Ok(()) | Err(SystemdError::NoSuchUnit) => Vec::new(),
            Err(error) => vec![Event::StopRefused { name, error: chain(&error) }],
        },
        Effect::ForgetUnit(name) => match systemd.forget(&name).await {
            Ok(()) | Err(SystemdError::NoSuchUnit) => Vec::new(),
            Err(error) => vec![Event::StopRefused { name, error: chain(&error) }],
        },
        _ => Vec::new(),
    }
}

/// Timers that run.
pub(super) struct TimerTasks {
    running: HashMap<TimerId, JoinHandle<()>>,
    fired: (mpsc::UnboundedSender<TimerId>, mpsc::UnboundedReceiver<TimerId>),
}

impl Default for TimerTasks {
    fn default() -> Self {
        // No more entries than timers that the core set: it bounds them.
        TimerTasks { running: HashMap::new(), fired: mpsc::unbounded_channel() }
    }
}

impl TimerTasks {
    pub(super) fn set(&mut self, id: TimerId, after: Duration) {
        let fired = self.fired.0.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if fired.send(id).is_err() {
                tracing::debug!("the loop has ended before a timer did");
            }
        });
        self.running.insert(id, task);
    }

    pub(super) fn cancel(&mut self, id: TimerId) {
        if let Some(task) = self.running.remove(&id) {
            task.abort();
        }
    }

    pub(super) async fn fired(&mut self) -> Option<TimerId> {
        let id = self.fired.1.recv().await?;
        self.running.remove(&id);
        Some(id)
    }

    /// One that has fired already.
    pub(super) fn has_fired(&mut self) -> Option<TimerId> {
        let id = self.fired.1.try_recv().ok()?;
        self.running.remove(&id);
        Some(id)
    }
}

impl<S: Systemd, C: Clock, F: Files, P: Probers> Supervisor<S, C, F, P> {
    /// Carries effects out, but for what is done at the turn's end.
    pub(super) fn carry_out(&mut self, effects: Effects, turn: &mut Turn) {
        // What is asked for is saved before anything follows from it.
        if effects.contains(&Effect::SaveWishes) {
            let error = {
                let stopped = self.state.stopped.clone();
                let quarantined = self.state.devices.quarantined().clone();
                self.outside.store.save_wishes(&Wishes { stopped, quarantined }).err()
            };
            let error = error.map(|error| chain(&error));
            if error.is_some() || self.state.unsaved.is_some() {
                self.follow_ups.push_back(Event::WishesSaved { error });
            }
        }
        for effect in effects {
            match effect {
                Effect::StartUnit(_)
                | Effect::ChangeUnit(..)
                | Effect::StopUnit(_)
                | Effect::KillUnit(_)
                | Effect::ForgetUnit(_) => {
                    turn.units.push(effect);
                }
                Effect::SetTimer(id, after) => self.timers.set(id, Duration::from_micros(after.0)),
                Effect::CancelTimer(id) => self.timers.cancel(id),
                Effect::SaveRuntime => turn.unsaved = true,
                Effect::SaveWishes => {}
                Effect::OpenLease(given) => match self.outside.leases.open(&given) {
                    Ok(descriptor) => self.descriptor = Some(descriptor),
                    Err(error) => {
                        let how = LeaseEnd::NotOpened(chain(&error));
                        self.follow_ups.push_back(Event::LeaseEnded { lease: given.id, how });
                    }
                },
                Effect::RenewLease(given) => {
                    if let Err(error) = self.outside.leases.renew(&given) {
                        tracing::warn!("{}; its old time limit holds after a restart", chain(&error));
                    }
                }
                Effect::CloseLease(id) => self.outside.leases.close(&id),
                Effect::LeaseRevoked { lease, reason } => self.revoked.push((lease, reason)),
                Effect::Reply(request, answer) => {
                    if let Some(caller) = self.callers.remove(&request) {
                        turn.replies.push((caller, self.told(answer)));
                    }
                }
                Effect::ForgetCaller(request) => drop(self.callers.remove(&request)),
                Effect::Log(line) => self.lines.push(line),
            }
        }
    }

    /// An answer with the descriptor that belongs to it; without it, a lease is none.
    fn told(&mut self, answer: Answer) -> Told {
        match (answer, self.descriptor.take()) {
            (Answer::Lease { lease, .. }, None) => {
                let why = format!("that of lease {lease}; see journalctl -u pool-managerd");
                Answer::Denied(Denied::LeaseNotOpened(why)).into()
            }
            (answer @ Answer::Lease { .. }, descriptor) => Told { answer, descriptor },
            (answer, _) => answer.into(),
        }
    }
}
