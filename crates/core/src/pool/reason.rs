//! Why a pool is not ready, waits, or was refused something: typed, with a text and a remedy, the same on the bus, in the
//! journal and in `poolctl explain`.

use super::transition::{DrainFor, ReloadStage};
use super::troubles::{BreakerState, Kind};
use super::{LastError, Pool, Wish};
use crate::config::Activation;
use crate::name::{PoolId, ReplicaId, Usec};
use crate::replica::{ExitClass, Phase, Replica};

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Which kind.
    pub cause: Cause,
    /// The engine that it is about; `None`: the pool as a whole.
    pub replica: Option<ReplicaId>,
    /// Since when it holds or when it happened, realtime; 0: unknown.
    pub since: Usec,
    /// When it ends by itself, realtime; 0: it does not, or nobody knows when.
    pub until: Usec,
}

/// What a reason is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// An operator stopped or drained it.
    Stopped,
    /// It starts by hand, and nobody did.
    NotStarted,
    /// Its file is gone.
    Leaving,
    /// It is being emptied.
    Draining {
        /// What comes after.
        purpose: DrainFor,
        /// Leases that are held.
        leases: u32,
        /// Requests that its engines work on, as far as they say.
        in_flight: u32,
    },
    /// It is being given another spec.
    Reloading(ReloadStage),
    /// A unit's name is not free yet.
    WaitsForName(String),
    /// Its checks run.
    Staging,
    /// Its engine loads; what it says of that.
    Loading(String),
    /// Its engine ends.
    Ending,
    /// It failed and waits for its next start.
    WaitsForRestart {
        /// For how long in all.
        delay: Usec,
        /// Whether because there were too many restarts.
        storm: bool,
    },
    /// A breaker is open.
    BreakerOpen {
        /// Which.
        kind: Kind,
        /// Failures in a row.
        in_row: u32,
    },
    /// One engine is tried before the others.
    OnTrial {
        /// Which one, where there is one.
        with: Option<u16>,
    },
    /// It failed and is not started again by itself.
    Failed(ExitClass, String),
    /// Its engine exited with status 0.
    EndedAsMeant,
    /// Somebody stopped its unit.
    StoppedOutside,
    /// systemd cannot end its unit.
    Stuck(String),
    /// Its file has errors; it runs on by what it said before.
    FileBroken(String),
    /// Changes of its file wait for a reload.
    Pending(Vec<&'static str>),
    /// What was asked for could not be saved.
    NotSaved(String),
    /// A failure of the past.
    Earlier(ExitClass, String),
}

impl Cause {
    /// One word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Cause::Stopped => "stopped",
            Cause::NotStarted => "not-started",
            Cause::Leaving => "leaving",
            Cause::Draining { .. } => "draining",
            Cause::Reloading(_) => "reloading",
            Cause::WaitsForName(_) => "waits-for-name",
            Cause::Staging => "staging",
            Cause::Loading(_) => "loading",
            Cause::Ending => "ending",
            Cause::WaitsForRestart { storm: false, .. } => "waits-for-restart",
            Cause::WaitsForRestart { storm: true, .. } => "restart-storm",
            Cause::BreakerOpen { kind: Kind::Ordinary, .. } => "breaker-open",
            Cause::BreakerOpen { kind: Kind::Gpu, .. } => "gpu-breaker-open",
            Cause::OnTrial { .. } => "on-trial",
            Cause::Failed(..) => "failed",
            Cause::EndedAsMeant => "ended-as-meant",
            Cause::StoppedOutside => "stopped-outside",
            Cause::Stuck(_) => "unkillable",
            Cause::FileBroken(_) => "file-broken",
            Cause::Pending(_) => "pending-changes",
            Cause::NotSaved(_) => "not-saved",
            Cause::Earlier(..) => "earlier-failure",
        }
    }

    /// The class of the failure that it is about.
    #[must_use]
    pub const fn class(&self) -> Option<&ExitClass> {
        if let Cause::Failed(class, _) | Cause::Earlier(class, _) = self { Some(class) } else { None }
    }

    /// What is the matter.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Cause::Stopped => "an operator stopped it".to_owned(),
            Cause::NotStarted => {
                "it starts by hand (activation = \"manual\"), and nobody started it".to_owned()
            }
            Cause::Leaving => "its file was removed, and its engines are ending".to_owned(),
            Cause::Draining { purpose, leases, in_flight } => {
                let then = match purpose {
                    DrainFor::Stop => "before it stops",
                    DrainFor::Restart => "before it stops and starts again",
                    DrainFor::Reload => "before it is reloaded",
                };
                format!("it drains {then}: {leases} leases held, {in_flight} requests in flight")
            }
            Cause::Reloading(stage) => format!("it is being reloaded: {}", stage.as_str()),
            Cause::WaitsForName(units) => {
                format!("systemd has not forgotten {units} yet, so its name is taken")
            }
            Cause::Staging => "program, model and address are being checked as the engine's user".to_owned(),
            Cause::Loading(status) if status.is_empty() => "its engine is starting".to_owned(),
            Cause::Loading(status) => format!("its engine is starting: {status}"),
            Cause::Ending => "its engine is ending".to_owned(),
            Cause::WaitsForRestart { delay, storm: false } => {
                format!("its engine failed and is started again after a pause of {delay}")
            }
            Cause::WaitsForRestart { storm: true, .. } => {
                "its engine failed, and too many restarts lie close together: the next one waits".to_owned()
            }
            Cause::BreakerOpen { kind, in_row } => {
                let what = match kind {
                    Kind::Ordinary => "failures",
                    Kind::Gpu => "GPU errors",
                };
                format!("its breaker is open after {in_row} {what} in a row: nothing is started by itself")
            }
            Cause::OnTrial { with: Some(index) } => {
                format!("its breaker is half open: engine {index} is tried before the others")
            }
            Cause::OnTrial { with: None } => "its breaker is half open: the next start is a trial".to_owned(),
            Cause::Failed(class, text) => format!("{class}: {text}"),
            Cause::EndedAsMeant => "its engine exited with status 0, which counts as meant".to_owned(),
            Cause::StoppedOutside => "somebody stopped its unit with systemctl".to_owned(),
            Cause::Stuck(text) => text.clone(),
            Cause::FileBroken(error) => {
                format!("its file has an error, so it goes by what it said before: {error}")
            }
            Cause::Pending(keys) => format!("changes of its file wait: {}", keys.join(", ")),
            Cause::NotSaved(error) => {
                format!("what was asked for could not be saved and would be lost in a reboot: {error}")
            }
            Cause::Earlier(class, text) => format!("{class}: {text}"),
        }
    }

    /// What to do; "" where waiting is all.
    #[must_use]
    pub fn remedy(&self, id: &PoolId) -> String {
        match self {
            Cause::Stopped | Cause::NotStarted | Cause::EndedAsMeant | Cause::StoppedOutside => {
                format!("poolctl start {id}")
            }
            Cause::Leaving => "put the file back and run: poolctl reload".to_owned(),
            Cause::Draining { leases: 0, in_flight: 0, .. } => String::new(),
            Cause::Draining { purpose: DrainFor::Stop | DrainFor::Restart, .. } => {
                format!("wait, or do not wait for them: poolctl stop {id}")
            }
            Cause::Draining { purpose: DrainFor::Reload, .. } => {
                "wait, or reload with --force to stop them at the deadline".to_owned()
            }
            Cause::WaitsForName(units) => format!("if it lasts, see what keeps it: systemctl status {units}"),
            Cause::WaitsForRestart { .. } => format!("to try at once: poolctl start {id}"),
            Cause::BreakerOpen { .. } => format!(
                "mend the cause (journalctl POOL_ID={id}), then: poolctl reset {id}; for one attempt: poolctl start {id}"
            ),
            Cause::Failed(class, _) | Cause::Earlier(class, _) => class.remedy(id),
            Cause::Stuck(_) => "see what holds its processes: a frozen unit needs systemctl thaw".to_owned(),
            Cause::FileBroken(_) => "mend it, then: poolctl reload".to_owned(),
            Cause::Pending(_) => format!("poolctl apply {id}"),
            Cause::NotSaved(_) => {
                "make room below /var/lib/llamaorch; it is tried again by itself".to_owned()
            }
            Cause::Loading(_) => format!("to see what it prints: journalctl POOL_ID={id}"),
            Cause::Reloading(_) | Cause::Staging | Cause::Ending | Cause::OnTrial { .. } => String::new(),
        }
    }
}

impl Pool {
    /// Why it is as it is, newest first; empty for one that serves and has no trouble behind it.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = self.own_reasons();
        for (index, replica) in self.replicas.iter().enumerate() {
            reasons.extend(self.replica_reasons(index, replica));
        }
        let newest = self.last_error.as_ref().map(|error| error.at);
        let told = |at: Usec| {
            Some(at) == newest && reasons.iter().any(|reason| matches!(reason.cause, Cause::Failed(..)))
        };
        let earlier: Vec<Reason> = self.history.iter().filter(|error| !told(error.at)).map(earlier).collect();
        reasons.extend(earlier);
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.since));
        reasons
    }

    fn own_reasons(&self) -> Vec<Reason> {
        let mut causes = Vec::new();
        let now = |cause| Reason { cause, replica: None, since: self.changed, until: Usec(0) };
        if self.leaving {
            causes.push(now(Cause::Leaving));
        } else if self.wish == Wish::Stop {
            let by_hand = self.revision.spec.activation == Activation::Manual && !self.by_operator;
            causes.push(now(if by_hand { Cause::NotStarted } else { Cause::Stopped }));
        }
        if let Some(drain) = &self.drain {
            let cause = Cause::Draining {
                purpose: drain.purpose,
                leases: self.active_leases(),
                in_flight: self.in_flight(),
            };
            causes.push(Reason { until: drain.deadline_real, ..now(cause) });
        }
        if let Some(reload) = &self.reload {
            causes.push(now(Cause::Reloading(reload.stage.clone())));
        }
        for kind in [Kind::Ordinary, Kind::Gpu] {
            let breaker = self.troubles.breaker(kind);
            match breaker.state {
                BreakerState::Closed => {}
                BreakerState::Open { until_real, .. } => {
                    let cause = Cause::BreakerOpen { kind, in_row: breaker.in_row };
                    causes.push(Reason { until: until_real, ..now(cause) });
                }
                BreakerState::HalfOpen { trial, .. } => causes.push(now(Cause::OnTrial { with: trial })),
            }
        }
        if let Some(error) = &self.file_error {
            causes.push(now(Cause::FileBroken(error.clone())));
        }
        let pending = self.pending();
        if !pending.is_empty() && self.reload.is_none() {
            causes.push(now(Cause::Pending(pending)));
        }
        causes
    }

    fn replica_reasons(&self, index: usize, replica: &Replica) -> Vec<Reason> {
        let now =
            |cause| Reason { cause, replica: Some(replica.id.clone()), since: self.changed, until: Usec(0) };
        let wanted = self.wish == Wish::Run && index < usize::from(self.revision.spec.replicas);
        let mut reasons = Vec::new();
        match &replica.phase {
            Phase::Ready { .. } | Phase::Tripped => {}
            Phase::Stopped if !wanted => {}
            Phase::Stopped => match replica.last_exit {
                Some(ExitClass::Exit(0)) => reasons.push(now(Cause::EndedAsMeant)),
                Some(ExitClass::Stopped) => reasons.push(now(Cause::StoppedOutside)),
                Some(_) | None => {}
            },
            Phase::WaitingForName => {
                let units: Vec<String> = replica.taken.keys().map(ToString::to_string).collect();
                reasons.push(now(Cause::WaitsForName(units.join(" "))));
            }
            Phase::Staging => reasons.push(now(Cause::Staging)),
            Phase::Starting => reasons.push(now(Cause::Loading(replica.unit.status_text.clone()))),
            Phase::Ending | Phase::Stopping => reasons.push(now(Cause::Ending)),
            Phase::Backoff { pause, .. } => {
                let cause = Cause::WaitsForRestart { delay: pause.delay, storm: pause.storm };
                reasons.push(Reason { until: pause.until, ..now(cause) });
            }
            Phase::Failed => {
                let error =
                    self.last_error.as_ref().filter(|error| Some(&error.class) == replica.last_exit.as_ref());
                if let Some(LastError { class, text, at }) = error {
                    reasons.push(Reason { since: *at, ..now(Cause::Failed(class.clone(), text.clone())) });
                } else if let Some(class) = &replica.last_exit {
                    reasons.push(now(Cause::Failed(class.clone(), "it was not started again".to_owned())));
                }
            }
        }
        if let Some((_, text)) = &replica.stuck {
            reasons.push(now(Cause::Stuck(text.clone())));
        }
        reasons
    }
}

fn earlier(error: &LastError) -> Reason {
    Reason {
        cause: Cause::Earlier(error.class.clone(), error.text.clone()),
        replica: None,
        since: error.at,
        until: Usec(0),
    }
}
