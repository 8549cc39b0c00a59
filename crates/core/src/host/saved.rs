//! What survives a restart of the daemon but not a reboot, and how a pool goes on from it where it stood. Monotonic times
//! in it are of this boot; who keeps it sees to that.

use super::{Purpose, SavedExternal, State, Turn, external};
use crate::config::Revision;
use crate::device::Inventory;
use crate::name::{InvocationId, PoolId};
use crate::pool::{
    BreakerState, Drain, Kind, LastError, Pool, Reload, ReloadStage, Troubles, Wish, lifecycle,
};
use crate::replica::{ExitClass, Pause, Phase, Reached, Replica, Report};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What survives a restart of the daemon, but not a reboot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// By pool.
    pub pools: BTreeMap<PoolId, SavedPool>,
    /// Pools that somebody else runs.
    pub externals: BTreeMap<PoolId, SavedExternal>,
    /// The devices that there were, for the next run may find their file broken.
    pub inventory: Option<Inventory>,
}

/// What survives of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPool {
    /// What it was to run, so that it can be run on while its file is broken.
    pub revision: Revision,
    /// Digest of what its file said.
    #[serde(default)]
    pub file_digest: String,
    /// What its replicas run, by number, where that is something else.
    #[serde(default)]
    pub specs: BTreeMap<u16, Revision>,
    /// Whether it should run.
    pub run: bool,
    /// Whether its file was gone and its engines on their way out.
    #[serde(default)]
    pub leaving: bool,
    /// Restarts after failures.
    #[serde(default)]
    pub restart_count: u32,
    /// The last thing that went wrong.
    #[serde(default)]
    pub last_error: Option<LastError>,
    /// What went wrong lately.
    #[serde(default)]
    pub history: Vec<LastError>,
    /// What its failures add up to.
    #[serde(default)]
    pub troubles: Troubles,
    /// How it was being emptied.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// How it was being given another spec.
    #[serde(default)]
    pub reload: Option<Reload>,
    /// Failures in a row of its replicas, by number.
    #[serde(default)]
    pub failures: BTreeMap<u16, u32>,
    /// What its engines have been ready long enough for, by number.
    #[serde(default)]
    pub reached: BTreeMap<u16, Reached>,
    /// The runs of the engines that serve, by number: leases are of a run.
    #[serde(default)]
    pub serving: BTreeMap<u16, InvocationId>,
    /// The slots of those, by number, as far as they are known: so many leases they have at most.
    #[serde(default)]
    pub slots: BTreeMap<u16, u32>,
    /// Replicas that wait for a restart.
    #[serde(default)]
    pub waiting: BTreeMap<u16, Pause>,
    /// Replicas that were asked to stop.
    #[serde(default)]
    pub stopping: BTreeSet<u16>,
    /// Replicas that wait for a breaker.
    #[serde(default)]
    pub tripped: BTreeSet<u16>,
    /// Replicas whose start had begun, but not their engines.
    #[serde(default)]
    pub begun: BTreeSet<u16>,
    /// Replicas of which nothing ran and nothing waited.
    #[serde(default)]
    pub down: BTreeSet<u16>,
    /// How those ended that are down or wait, but for what failed for good: that is tried again by the next daemon.
    #[serde(default, alias = "resting")]
    pub ended: BTreeMap<u16, ExitClass>,
    /// Engines that the daemon itself was ending, and why.
    #[serde(default)]
    pub condemned: BTreeMap<u16, (ExitClass, String)>,
    /// Engines that were ending by themselves, and whose start was asked for meanwhile.
    #[serde(default)]
    pub start_anew: BTreeSet<u16>,
}

impl State {
    /// What to save with [`Effect::SaveRuntime`](super::Effect::SaveRuntime).
    #[must_use]
    pub fn saved(&self) -> Saved {
        let pools = self.pools.iter();
        Saved {
            pools: pools.map(|(id, pool)| (id.clone(), saved_pool(pool))).collect(),
            externals: external::saved(self).collect(),
            inventory: Some(self.devices.inventory()).filter(|inventory| *inventory != Inventory::default()),
        }
    }
}

fn saved_pool(pool: &Pool) -> SavedPool {
    let replicas = || pool.replicas.iter().map(|replica| (replica.id.index, replica));
    let specs = replicas().filter_map(|(index, replica)| {
        let revision = replica.revision.clone()?;
        (revision.digest != pool.revision.digest).then_some((index, revision))
    });
    SavedPool {
        revision: pool.revision.clone(),
        file_digest: pool.file_digest.clone(),
        specs: specs.collect(),
        run: pool.wish == Wish::Run,
        leaving: pool.leaving,
        restart_count: pool.restart_count,
        last_error: pool.last_error.clone(),
        history: pool.history.clone(),
        troubles: pool.troubles.clone(),
        drain: pool.drain.clone(),
        reload: pool.reload.clone(),
        failures: replicas()
            .filter(|(_, replica)| replica.failures > 0)
            .map(|(index, replica)| (index, replica.failures))
            .collect(),
        reached: replicas()
            .filter(|(_, replica)| replica.reached != Reached::default())
            .map(|(index, replica)| (index, replica.reached.clone()))
            .collect(),
        serving: replicas()
            .filter(|(_, replica)| replica.ready())
            .map(|(index, replica)| (index, replica.unit.invocation))
            .collect(),
        slots: replicas()
            .filter(|(_, replica)| replica.ready())
            .filter_map(|(index, replica)| Some((index, replica.report.as_ref()?.slots?)))
            .collect(),
        waiting: replicas().filter_map(|(index, replica)| Some((index, replica.pause()?.0))).collect(),
        stopping: which(pool, |replica| replica.phase == Phase::Stopping),
        tripped: which(pool, |replica| replica.phase == Phase::Tripped),
        begun: which(pool, |replica| matches!(replica.phase, Phase::WaitingForName | Phase::Staging)),
        down: which(pool, |replica| matches!(replica.phase, Phase::Stopped | Phase::Failed)),
        ended: replicas().filter_map(|(index, replica)| Some((index, ended(replica)?))).collect(),
        condemned: replicas()
            .filter_map(|(index, replica)| Some((index, replica.condemned.clone()?)))
            .collect(),
        start_anew: which(pool, |replica| replica.start_anew),
    }
}

fn which(pool: &Pool, holds: fn(&Replica) -> bool) -> BTreeSet<u16> {
    pool.replicas.iter().filter(|replica| holds(replica)).map(|replica| replica.id.index).collect()
}

/// How a replica ended that rests although its pool should run, or waits; a refused one is tried again by the next daemon.
fn ended(replica: &Replica) -> Option<ExitClass> {
    let kept = replica.phase == Phase::Stopped || replica.waits();
    replica.last_exit.clone().filter(|_| kept)
}

impl SavedPool {
    /// Gives a pool its past, before it is given its units: how those ended is judged by it.
    pub(super) fn restore(&self, pool: &mut Pool, turn: &mut Turn<'_>) {
        pool.restart_count = self.restart_count;
        pool.last_error.clone_from(&self.last_error);
        pool.history.clone_from(&self.history);
        // A reload put something else in the place of what the file still says.
        if self.file_digest == pool.file_digest {
            pool.revision = self.revision.clone();
        }
        // A reload may have put more of them in place than the file says, or fewer.
        pool.reload.clone_from(&self.reload);
        pool.resize(pool.in_force().spec.replicas);
        for replica in &mut pool.replicas {
            let index = replica.id.index;
            replica.last_exit = self.ended.get(&index).cloned();
            replica.condemned = self.condemned.get(&index).cloned();
            replica.start_anew = self.start_anew.contains(&index);
            if self.stopping.contains(&index) {
                replica.phase = Phase::Stopping;
            }
            replica.reached = self.reached.get(&index).cloned().unwrap_or_default();
            replica.failures = self.failures.get(&index).copied().unwrap_or(0);
            replica.revision = Some(self.specs.get(&index).unwrap_or(&self.revision).clone());
        }
        // A pool that is started by hand and was running goes on, also where its engine died meanwhile.
        if self.run {
            pool.wish = Wish::Run;
        }
        pool.troubles = self.troubles.clone();
        for kind in [Kind::Ordinary, Kind::Gpu] {
            let id = pool.id().clone();
            if let BreakerState::Open { timer, until, .. } = &mut pool.troubles.breaker_mut(kind).state {
                *timer = turn.timer(until.since(turn.mono), Purpose::Trial(id));
            }
        }
        pool.drain.clone_from(&self.drain);
        lifecycle::drain::resume(pool, turn);
    }

    /// Whether nothing of a replica ran any more, and how its engine had ended was dealt with.
    pub(super) fn was_over(&self, index: u16) -> bool {
        let sets = [&self.begun, &self.down, &self.tripped];
        sets.iter().any(|set| set.contains(&index)) || self.waiting.contains_key(&index)
    }

    /// Goes on where the pool stood, now that it has its units.
    pub(super) fn go_on(&self, pool: &mut Pool, turn: &mut Turn<'_>) {
        // Nobody else starts again what was lost meanwhile of what the file does not say.
        let rolling_back = pool
            .reload
            .as_ref()
            .is_some_and(|reload| matches!(reload.stage, ReloadStage::RollingBack { started: true, .. }));
        let mut begun = Vec::new();
        for (place, replica) in pool.replicas.iter_mut().enumerate() {
            let index = replica.id.index;
            if replica.phase == Phase::Stopping && replica.taken.is_empty() {
                replica.phase = Phase::Stopped;
            }
            if replica.ready() && self.serving.get(&index) == Some(&replica.unit.invocation) {
                let slots = self.slots.get(&index).copied();
                replica.report = slots.map(|slots| Report::of_slots(replica.unit.invocation, slots));
            }
            if pool.wish != Wish::Run || replica.phase != Phase::Stopped {
                continue;
            }
            if let Some(pause) = self.waiting.get(&index) {
                let left = pause.due.since(turn.mono);
                let timer = turn.timer(left, Purpose::Restart(replica.id.clone()));
                replica.phase =
                    Phase::Backoff { timer, pause: Pause { until: turn.real.plus(left), ..*pause } };
            } else if self.tripped.contains(&index) {
                replica.phase = Phase::Tripped;
            } else if self.begun.contains(&index) || (rolling_back && !self.down.contains(&index)) {
                begun.push(place);
            }
        }
        for place in begun {
            lifecycle::begin(pool, place, turn);
        }
        let failed = pool.replicas.iter().any(|replica| replica.phase == Phase::Failed);
        if let Some(reload) = &mut pool.reload {
            match &mut reload.stage {
                ReloadStage::Checking { asked } => *asked = false,
                ReloadStage::Draining => {}
                // What was not started yet, or was lost meanwhile, is started by its next step.
                ReloadStage::Replacing { started } => *started = failed,
                // What had begun goes on like any other start.
                ReloadStage::RollingBack { .. } => {}
            }
        }
        lifecycle::drain::stop_what_turned_up(pool, turn);
        lifecycle::go_on(pool, turn);
    }
}
