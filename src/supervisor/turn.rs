//! A turn of the loop: what it takes in, and how it ends.

use super::handle::Told;
use super::{Call, Ended, Publication, Returned, Supervisor};
use crate::notify;
use crate::ports::{Clock, Files, Observation, Probers, Systemd};
use crate::telemetry;
use pool_core::host::{Answer, TimerId};
use pool_core::lease::{LeaseEnd, LeaseId};
use pool_core::name::UnitName;
use pool_core::replica::Report;
use pool_core::{Denied, Effect, Event};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

/// At most so many events in a turn, so that a flood still lets the view out.
const EVENTS_A_TURN: usize = 256;

/// The publisher has so long to take news up before they are saved. It may itself wait for the bus.
pub(super) const PATIENCE: Duration = Duration::from_millis(2);

/// What the loop can be waken by.
pub(super) enum Came {
    Seen(Observation),
    Back(Returned),
    Fired(TimerId),
    Ended(LeaseId),
    Called(Call),
    Reported(UnitName, Report),
    /// It is time to show that the loop lives.
    Beat,
}

/// What came of a turn by now.
#[derive(Default)]
pub(super) struct Turn {
    /// Something was taken in.
    pub(super) changed: bool,
    /// The publisher shall tell systemd that the daemon lives.
    pub(super) alive: bool,
    /// Answers, which leave with the view.
    pub(super) replies: Vec<(oneshot::Sender<Told>, Told)>,
    /// What the next run of the daemon needs is not saved yet.
    pub(super) unsaved: bool,
    /// What systemd is asked to do, in order.
    pub(super) units: Vec<Effect>,
}

impl<S: Systemd, C: Clock, F: Files, P: Probers> Supervisor<S, C, F, P> {
    /// Takes in what woke the loop. What else is there already is taken in with it, in the same order of importance, and
    /// published at once: so many callers cost hardly more than one, and what is seen of a unit in one go is told in one
    /// go.
    pub(super) fn take_in_all(&mut self, first: Came, turn: &mut Turn) -> Result<(), Ended> {
        self.take_in(first, turn)?;
        for _ in 1..EVENTS_A_TURN {
            let Some(next) = self.waiting() else { break };
            self.take_in(next, turn)?;
        }
        Ok(())
    }

    /// What is there already, but for reports.
    fn waiting(&mut self) -> Option<Came> {
        // One that is gone is noticed where it is waited for.
        if let Ok(seen) = self.observations.try_recv() {
            return Some(Came::Seen(seen));
        }
        if let Ok(returned) = self.returned.1.try_recv() {
            return Some(Came::Back(returned));
        }
        if let Some(timer) = self.timers.has_fired() {
            return Some(Came::Fired(timer));
        }
        if let Some(lease) = self.outside.leases.has_ended() {
            return Some(Came::Ended(lease));
        }
        self.calls.try_recv().ok().map(Came::Called)
    }

    /// Takes one thing in, with all that follows from it: the next one, a caller's question for instance, is judged by
    /// what has come of it.
    fn take_in(&mut self, came: Came, turn: &mut Turn) -> Result<(), Ended> {
        let mut events = Vec::new();
        match came {
            Came::Seen(seen) => self.observed(seen, &mut events)?,
            Came::Back(returned) => self.came_back(returned, &mut events),
            Came::Fired(timer) => events.push(Event::TimerFired(timer)),
            Came::Ended(lease) => events.push(Event::LeaseEnded { lease, how: LeaseEnd::Closed }),
            Came::Called(call) => self.called(call, &mut events),
            Came::Reported(unit, report) => events.push(Event::Reported { unit, report }),
            Came::Beat => {
                turn.alive = true;
                // The kernel tells of a CPU that comes or goes by network messages alone, which the daemon has not.
                let topology = self.outside.processors.read();
                if topology != *self.state.cpus.topology() {
                    events.push(Event::CpusFound(topology));
                }
            }
        }
        turn.changed |= !self.denied.is_empty();
        turn.replies.append(&mut self.denied);
        self.follow_ups.extend(events);
        while let Some(event) = self.follow_ups.pop_front() {
            turn.changed = true;
            let effects = self.apply(event);
            self.carry_out(effects, turn);
        }
        Ok(())
    }

    /// Ends a turn. News leave first, because somebody waits for them: the next run finds them out again by itself, if
    /// this one dies before it has saved them. An answer is given once what it says is saved, and systemd is asked for
    /// nothing that the next run would not know the reason of.
    pub(super) async fn end(&mut self, mut turn: Turn) -> Result<(), Ended> {
        let publication = self.publication(&mut turn);
        let later = if publication.replies.is_empty() {
            match self.publications.try_send(publication) {
                Ok(()) => {
                    if turn.unsaved {
                        self.taken().await;
                    }
                    None
                }
                Err(TrySendError::Full(publication)) => Some(publication),
                Err(TrySendError::Closed(_)) => return Err(Ended::PublisherGone),
            }
        } else {
            Some(publication)
        };
        self.save(&mut turn);
        for effect in turn.units {
            self.lanes.carry_out(effect, &self.returned.0);
        }
        if let Some(publication) = later {
            self.publications.send(publication).await.map_err(|_| Ended::PublisherGone)?;
        }
        // Who waits for news waits for neither the journal nor systemctl.
        for line in self.lines.drain(..) {
            telemetry::write(&line);
        }
        let status = self.status();
        if status != self.said && !self.said.is_empty() {
            notify::status(&status);
        }
        self.said = status;
        Ok(())
    }

    /// Waits until the publisher has taken what it was sent: saving would keep a processor busy that it may need.
    async fn taken(&self) {
        let all = self.publications.reserve_many(self.publications.max_capacity());
        drop(tokio::time::timeout(PATIENCE, all).await);
    }

    fn publication(&mut self, turn: &mut Turn) -> Publication {
        let touched = self.state.take_touched();
        self.view.update(&self.state, &touched);
        let view = Arc::new(self.view.clone());
        let mut revoked = std::mem::take(&mut self.revoked);
        let mut replies = std::mem::take(&mut turn.replies);
        not_given(&mut replies, &mut revoked);
        Publication { view, revoked, replies, alive: turn.alive }
    }

    /// Saves what the next run needs, once a turn however much of it has changed.
    pub(super) fn save(&mut self, turn: &mut Turn) {
        if !std::mem::take(&mut turn.unsaved) {
            return;
        }
        if let Err(error) = self.outside.store.save_runtime(&self.state.saved()) {
            tracing::error!("{}; what is decided now may not survive a restart", telemetry::chain(&error));
        }
    }

    pub(super) fn status(&self) -> String {
        let pools = self.state.pools.len();
        let ready = self.state.pools.values().filter(|pool| pool.ready()).count();
        let errors = match self.state.files_with_errors() {
            0 => String::new(),
            1 => ", 1 file with errors".to_owned(),
            broken => format!(", {broken} files with errors"),
        };
        format!("{ready} of {pools} pools ready{errors}")
    }
}

/// A lease that was given and revoked in one turn was none: who asked for it is told so, and nobody else has heard of it.
pub(super) fn not_given(replies: &mut [(oneshot::Sender<Told>, Told)], revoked: &mut Vec<(LeaseId, String)>) {
    if revoked.is_empty() {
        return;
    }
    for (_, told) in replies {
        let Answer::Lease { lease, .. } = &told.answer else { continue };
        if let Some(at) = revoked.iter().position(|(id, _)| id == lease) {
            let (lease, why) = revoked.remove(at);
            *told = Answer::Denied(Denied::NotReady { pool: lease.replica.pool, why }).into();
        }
    }
}
