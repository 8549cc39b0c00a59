//! Pools that somebody else runs: who may say what of them, when they fall silent, and what survives of them. What is
//! known of each is the registry's.

use super::turn::{Clock, Turn};
use super::{
    Answer, Caller, Denied, Effect, Effects, LogKind, LogLine, Purpose, RequestId, State, TimerId, leasing,
};
use crate::lease::{Given, LeaseId};
use crate::name::{PoolId, ReplicaId, Usec};
use crate::registry::{External, ExternalRefused, HealthStatus, Moment, Registry, Report};
use serde::{Deserialize, Serialize};

/// At most so many external pools are known at once.
const MOST: usize = 1_024;
/// At most so many of one user; root has no such limit.
const MOST_OF_A_USER: usize = 256;

/// Since when something holds of an external pool, realtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Its phase, and with that its health.
    #[serde(alias = "health")]
    pub phase: Usec,
    /// Its last error.
    pub error: Usec,
    /// When its owner was last heard, as it survives a restart: somewhat older than what is published, since not every
    /// heartbeat is worth a write.
    #[serde(default)]
    pub heard: Usec,
}

/// A heartbeat is saved where the saved one is so much older.
const SAVE_HEARTBEAT: Usec = Usec::from_secs(10);

/// The word for how an external pool stands.
pub(crate) fn phase(health: HealthStatus, error: &str) -> &'static str {
    match (health.ready, health.live) {
        (true, _) => "ready",
        (false, true) => "starting",
        (false, false) if error.is_empty() => "stopped",
        (false, false) => "failed",
    }
}

/// What survives of an external pool over a restart of the daemon. Its owner gets its whole time again to say
/// something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedExternal {
    /// What was registered.
    pub external: External,
    /// What its owner said last.
    #[serde(default)]
    pub health: HealthStatus,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// What went wrong last.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Since when.
    #[serde(default)]
    pub since: Since,
}

/// The timer that looks for silent owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// The timer.
    timer: TimerId,
    /// When it rings, by the clock of intervals.
    due: Usec,
}

/// Whether a caller may register a pool.
pub(super) fn may_register(state: &State, caller: &Caller, id: &PoolId) -> Result<(), Denied> {
    state.registry.may_register(id, caller.uid)?;
    if state.registry.knows(id) { Ok(()) } else { may_add(state, caller.uid) }
}

/// Whether a caller may say something of a pool; the first who does makes it known.
pub(super) fn may_report(state: &State, caller: &Caller, id: &PoolId) -> Result<(), Denied> {
    state.registry.may_report(id, caller.uid)?;
    if state.registry.knows(id) { Ok(()) } else { may_add(state, caller.uid) }
}

fn may_add(state: &State, uid: u32) -> Result<(), Denied> {
    let (mut all, mut own) = (0_usize, 0_usize);
    for (_, external) in state.registry.externals() {
        all += 1;
        own += usize::from(external.owner_uid == uid);
    }
    if all >= MOST {
        return Err(Denied::TooManyExternals(MOST));
    }
    if uid != 0 && own >= MOST_OF_A_USER {
        return Err(Denied::too_many("external pools", uid, MOST_OF_A_USER));
    }
    Ok(())
}

/// Whether a caller may take a pool off the list: its owner and root may.
pub(super) fn may_unregister(state: &State, caller: &Caller, id: &PoolId) -> Result<(), Denied> {
    match state.registry.get_external(id) {
        Some(external) if external.owner_uid == caller.uid || caller.uid == 0 => Ok(()),
        Some(external) => {
            Err(ExternalRefused::NotOwner { pool: id.clone(), owner_uid: external.owner_uid }.into())
        }
        None if state.registry.knows(id) => Err(ExternalRefused::NotExternal(id.clone()).into()),
        None => Err(Denied::NoSuchPool(id.to_string())),
    }
}

pub(super) fn register(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    (id, external): (PoolId, External),
) {
    let news = !state.registry.knows(&id);
    let answer = match state.registry.register(&id, external) {
        Ok(()) => {
            if news {
                state.since.insert(id.clone(), Since { phase: clock.real, ..Since::default() });
            }
            state.touched.insert(id);
            effects.push(Effect::SaveRuntime);
            arm(state, clock, effects);
            Answer::Done
        }
        Err(refused) => Answer::Denied(refused.into()),
    };
    effects.push(Effect::Reply(request, answer));
}

pub(super) fn unregister(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    id: &PoolId,
) {
    let answer = if state.registry.get_external(id).is_some() {
        forget(state, clock, effects, id, "the pool was unregistered");
        effects.push(Effect::SaveRuntime);
        Answer::Done
    } else {
        Answer::Denied(Denied::NoSuchPool(id.to_string()))
    };
    effects.push(Effect::Reply(request, answer));
}

/// Forgets an external pool with its leases; nothing where there is none of that id.
pub(super) fn forget(state: &mut State, clock: Clock, effects: &mut Effects, id: &PoolId, reason: &str) {
    if state.registry.get_external(id).is_none() {
        return;
    }
    let replica = ReplicaId { pool: id.clone(), index: 0 };
    let leases: Vec<LeaseId> = state.leases.of(&replica).map(|(lease, _)| lease.clone()).collect();
    for lease in leases {
        state.with_external(clock, effects, id, |_, turn| leasing::end_external(turn, &lease));
        effects.push(Effect::CloseLease(lease.clone()));
        effects.push(Effect::LeaseRevoked { lease, reason: reason.to_owned() });
    }
    state.registry.remove(id);
    state.since.remove(id);
    state.touched.insert(id.clone());
}

pub(super) fn report(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    request: RequestId,
    caller: &Caller,
    (id, report): (PoolId, Report),
) {
    let known = state.registry.knows(&id);
    let before = (state.registry.get_health(&id), state.registry.get_last_error(&id).map(str::to_owned));
    let version = state.registry.get_version(&id).map(str::to_owned);
    let phase_of = |registry: &Registry| {
        let error = registry.get_last_error(&id).unwrap_or_default();
        phase(registry.get_health(&id).unwrap_or_default(), error)
    };
    let phase_before = phase_of(&state.registry);
    let now = Moment { mono: clock.mono, real: clock.real };
    let answer = match state.registry.report(&id, caller.uid, report, now) {
        Ok(()) => {
            let health = state.registry.get_health(&id);
            let since = state.since.entry(id.clone()).or_default();
            if phase_before != phase_of(&state.registry) || !known {
                since.phase = clock.real;
            }
            let other_error = before.1.as_deref() != state.registry.get_last_error(&id);
            if other_error {
                since.error = clock.real;
            }
            if before.0.unwrap_or_default() != health.unwrap_or_default() {
                let HealthStatus { live, ready } = health.unwrap_or_default();
                let text = format!("pool {id}: uid {} says: live {live}, ready {ready}", caller.uid);
                effects.push(Effect::Log(line(LogKind::ExternalHealth, &id, text)));
            }
            let other_version = version.as_deref() != state.registry.get_version(&id);
            let heard = state.registry.get_heartbeat(&id).unwrap_or_default();
            let heartbeat = heard < since.heard || heard.since(since.heard) >= SAVE_HEARTBEAT;
            if before.0 != health || other_error || other_version || heartbeat || !known {
                since.heard = heard;
                effects.push(Effect::SaveRuntime);
            }
            state.touched.insert(id);
            arm(state, clock, effects);
            Answer::Done
        }
        Err(refused) => Answer::Denied(refused.into()),
    };
    effects.push(Effect::Reply(request, answer));
}

/// Takes health from those whose owners are silent.
pub(super) fn expire(state: &mut State, clock: Clock, effects: &mut Effects) {
    state.expiry = None;
    let silent = state.registry.expire(clock.mono);
    for id in silent {
        let error = state.registry.get_last_error(&id).unwrap_or_default();
        let text = format!("pool {id}: {error}");
        let heard = state.registry.get_heartbeat(&id).unwrap_or_default();
        state.since.insert(id.clone(), Since { phase: clock.real, error: clock.real, heard });
        effects.push(Effect::Log(line(LogKind::ExternalSilent, &id, text)));
        effects.push(Effect::SaveRuntime);
        state.touched.insert(id);
    }
    arm(state, clock, effects);
}

/// Sees to it that somebody looks when the next owner has been silent for too long. A timer that rings too early does no
/// harm: heartbeats need not set it anew.
fn arm(state: &mut State, clock: Clock, effects: &mut Effects) {
    let Some(next) = state.registry.next_expiry() else { return };
    match state.expiry {
        Some(expiry) if expiry.due <= next => return,
        Some(expiry) => state.timers.cancel(expiry.timer, effects),
        None => {}
    }
    let timer = state.timers.set(next.since(clock.mono), Purpose::ExpireExternals, effects);
    state.expiry = Some(Expiry { timer, due: next });
}

fn line(kind: LogKind, id: &PoolId, text: String) -> LogLine {
    let mut line = LogLine::plain(kind, text);
    line.fields.push(("pool_id", id.to_string()));
    line
}

/// What survives of all.
pub(super) fn saved(state: &State) -> impl Iterator<Item = (PoolId, SavedExternal)> {
    state.registry.externals().map(|(id, external)| {
        let saved = SavedExternal {
            external: external.clone(),
            health: state.registry.get_health(id).unwrap_or_default(),
            version: state.registry.get_version(id).map(str::to_owned),
            last_error: state.registry.get_last_error(id).map(str::to_owned),
            since: state.since.get(id).copied().unwrap_or_default(),
        };
        (id.clone(), saved)
    })
}

/// Goes on with one of an earlier run, unless a file has its id by now.
pub(super) fn restore(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    id: PoolId,
    saved: SavedExternal,
) {
    if state.registry.knows(&id) {
        return;
    }
    let uid = saved.external.owner_uid;
    let now = Moment { mono: clock.mono, real: clock.real };
    let said = [
        Some(Report::Health(saved.health)),
        saved.version.map(Report::Version),
        Some(Report::LastError(saved.last_error)),
    ];
    let mut kept = state.registry.register(&id, saved.external).is_ok();
    for report in said.into_iter().flatten() {
        kept &= state.registry.report(&id, uid, report, now).is_ok();
    }
    if kept {
        // Its time runs from now on, but nobody heard it now.
        state.registry.set_heartbeat(&id, saved.since.heard);
        state.since.insert(id.clone(), saved.since);
        state.touched.insert(id);
    }
    arm(state, clock, effects);
}

/// Takes up a lease of an external pool that is held since before the daemon started; false where there is no such pool.
pub(super) fn adopt(state: &mut State, clock: Clock, effects: &mut Effects, given: &Given) -> bool {
    let pool = &given.id.replica.pool;
    let adopted = state.with_external(clock, effects, pool, |_, turn: &mut Turn<'_>| {
        turn.hold_lease(given.clone(), String::new()).then_some(())?;
        turn.registry.allocate_lease(pool).ok()
    });
    adopted.is_some()
}
