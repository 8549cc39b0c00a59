//! What systemd says of a replica's units.

use super::failure::{ended, fail, next_port, stopped_from_outside};
use super::wishes::{begin, launch};
use crate::host::{Effect, LogKind, Purpose, Turn, UnitFacts};
use crate::name::{UnitKind, UnitName, Usec};
use crate::pool::{LastError, Pool, Wish};
use crate::refusal::Refusal;
use crate::replica::{ActiveState, ExitClass, Phase, Replica, Seen, UnitObservation};

/// Where systemd's answer to a start says so: the unit's name is still taken.
pub(crate) enum StartProblem {
    NameTaken,
    Other(String),
}

/// Takes in what was seen of a unit.
pub(crate) fn unit_seen(pool: &mut Pool, index: usize, seen: UnitObservation, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if !replica.taken.contains_key(&seen.name) {
        return;
    }
    match seen.name.kind {
        UnitKind::Stage => stage_seen(pool, index, &seen, turn),
        UnitKind::Engine => engine_seen(pool, index, seen, turn),
    }
}

/// Has systemd forget a unit that has ended and was read; once, however often its end is seen.
pub(super) fn let_go(replica: &mut Replica, name: &UnitName, clean: bool, turn: &mut Turn<'_>) {
    if let Some(hold) = replica.taken.get_mut(name).filter(|hold| !hold.let_go) {
        hold.let_go = true;
        turn.effects.push(if clean {
            Effect::StopUnit(name.clone())
        } else {
            Effect::ForgetUnit(name.clone())
        });
    }
}

fn stage_seen(pool: &mut Pool, index: usize, seen: &UnitObservation, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let ended = match seen.active {
        ActiveState::Active if seen.exited => true,
        ActiveState::Failed => false,
        ActiveState::Active
        | ActiveState::Inactive
        | ActiveState::Activating
        | ActiveState::Deactivating
        | ActiveState::Other => return,
    };
    let_go(replica, &seen.name, ended, turn);
    if replica.phase != Phase::Staging {
        return;
    }
    if ended {
        let version = seen.status_text.strip_prefix("staged, engine version ").unwrap_or_default();
        replica.engine_version = version.to_owned();
        launch(pool, index, turn);
        return;
    }
    let (class, text) = match ExitClass::of(seen) {
        (class @ ExitClass::Refused(_), text) => (class, text),
        (ExitClass::Preflight, text) => (ExitClass::Preflight, text),
        (_, text) => {
            (ExitClass::StageFailed, format!("the checks failed: {text}; see journalctl -u {}", seen.name))
        }
    };
    if class == ExitClass::Refused(Refusal::PortInUse) && next_port(replica, turn) {
        begin(pool, index, turn);
        return;
    }
    fail(pool, index, turn, class, text);
}

fn engine_seen(pool: &mut Pool, index: usize, seen: UnitObservation, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let known = replica.unit.invocation;
    let anew = !known.is_none() && !seen.invocation.is_none() && known != seen.invocation;
    if anew && matches!(replica.phase, Phase::Starting | Phase::Ready { .. } | Phase::Ending) {
        // Signals of one unit come in order, so this invocation is the newer one: somebody restarted the unit.
        replica.phase = Phase::Starting;
        if let Some(hold) = replica.taken.get_mut(&seen.name) {
            hold.let_go = false;
        }
        turn.log(
            pool,
            Some(index),
            LogKind::EngineStarting,
            format!("{} was restarted from outside", seen.name),
        );
    }
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if anew
        && matches!(
            replica.phase,
            Phase::Stopping | Phase::Backoff { .. } | Phase::WaitingForName | Phase::Failed | Phase::Stopped
        )
    {
        // It was on its way out, and its name is in the way.
        turn.effects.push(Effect::StopUnit(seen.name.clone()));
    }
    replica.unit.invocation = seen.invocation;
    replica.unit.main_pid = seen.main_pid;
    replica.unit.started = seen.started;
    replica.unit.status_text.clone_from(&seen.status_text);
    match seen.active {
        ActiveState::Active if seen.exited => ended(pool, index, &seen, turn),
        ActiveState::Active => became_ready(pool, index, turn),
        ActiveState::Deactivating => {
            if matches!(replica.phase, Phase::Starting | Phase::Ready { .. }) {
                replica.phase = match pool.wish {
                    Wish::Run => Phase::Ending,
                    Wish::Stop => Phase::Stopping,
                };
            }
        }
        ActiveState::Failed => ended(pool, index, &seen, turn),
        ActiveState::Inactive | ActiveState::Activating | ActiveState::Other => {}
    }
}

fn became_ready(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if replica.phase != Phase::Starting {
        return;
    }
    replica.phase = Phase::Ready { since: turn.mono };
    replica.unit.became_ready = turn.real;
    replica.ports_tried = 0;
    let took = turn.real.since(replica.unit.started);
    turn.log(pool, Some(index), LogKind::EngineReady, format!("ready after {took}"));
}

/// systemd has forgotten a unit: its name is free, and nothing of it is left.
pub(crate) fn unit_forgotten(pool: &mut Pool, index: usize, kind: UnitKind, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let name = replica.unit_name(kind);
    if replica.taken.remove(&name).is_none() {
        return;
    }
    let free = replica.taken.is_empty();
    match (&replica.phase, kind) {
        (Phase::Stopping, _) if free => {
            replica.phase = Phase::Stopped;
            replica.unit = Seen::default();
            let again = pool.wish == Wish::Run;
            turn.log(pool, Some(index), LogKind::EngineStopped, "stopped".to_owned());
            if again {
                if let Some(replica) = pool.replicas.get_mut(index) {
                    replica.revision = None;
                }
                begin(pool, index, turn);
            }
        }
        (Phase::WaitingForName, _) if free => begin(pool, index, turn),
        // The checks' unit is stopped by us only after it was read, so it was ended by somebody else.
        (Phase::Staging, UnitKind::Stage)
        | (Phase::Starting | Phase::Ready { .. } | Phase::Ending, UnitKind::Engine) => {
            let text = format!("{name} was stopped from outside");
            stopped_from_outside(pool, index, turn, &text);
        }
        (
            Phase::Stopped
            | Phase::WaitingForName
            | Phase::Staging
            | Phase::Starting
            | Phase::Ready { .. }
            | Phase::Ending
            | Phase::Stopping
            | Phase::Backoff { .. }
            | Phase::Failed,
            _,
        ) => {}
    }
}

/// systemd has taken a unit: from now on it can be missing.
pub(crate) fn unit_taken(pool: &mut Pool, index: usize, name: &UnitName) {
    if let Some(hold) = pool.replicas.get_mut(index).and_then(|replica| replica.taken.get_mut(name)) {
        hold.confirmed = true;
    }
}

/// systemd cannot end a unit: it is asked again until it can.
pub(crate) fn stop_refused(pool: &mut Pool, index: usize, name: &UnitName, error: &str, turn: &mut Turn<'_>) {
    const AGAIN: Usec = Usec::from_secs(5);
    let Some(replica) = pool.replicas.get_mut(index).filter(|replica| replica.taken.contains_key(name))
    else {
        return;
    };
    turn.timer(AGAIN, Purpose::StopAgain(replica.id.clone()));
    let text = format!("systemd cannot stop {name}: {error}; trying again every {AGAIN}");
    let known = pool.last_error.as_ref().is_some_and(|known| known.text == text);
    pool.last_error = Some(LastError { class: ExitClass::Unkillable, text: text.clone(), at: turn.real });
    if !known {
        turn.log(pool, Some(index), LogKind::EngineFailed, text);
    }
}

/// A job has failed. That of a start is told by its unit; a stop that could not be done leaves the unit as it was.
pub(crate) fn job_failed(pool: &mut Pool, index: usize, name: &UnitName, result: &str, turn: &mut Turn<'_>) {
    let stopping = pool.replicas.get(index).is_some_and(|replica| replica.phase == Phase::Stopping);
    if stopping {
        let hint = format!("its job ended as \"{result}\" (a frozen unit needs systemctl thaw)");
        stop_refused(pool, index, name, &hint, turn);
    }
}

/// systemd is asked again to end what is on its way out.
pub(crate) fn stop_again(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    if let Some(replica) = pool.replicas.get_mut(index).filter(|replica| replica.phase == Phase::Stopping) {
        turn.effects.extend(replica.taken.keys().cloned().map(Effect::StopUnit));
    }
}

/// systemd would not take a unit.
pub(crate) fn unit_refused(
    pool: &mut Pool,
    index: usize,
    kind: UnitKind,
    problem: StartProblem,
    turn: &mut Turn<'_>,
) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let name = replica.unit_name(kind);
    match problem {
        // It stays in `taken`: a resynchronization tells when it is gone.
        StartProblem::NameTaken => {
            turn.effects.push(Effect::StopUnit(name.clone()));
            turn.effects.push(Effect::ForgetUnit(name.clone()));
        }
        StartProblem::Other(_) => {
            replica.taken.remove(&name);
        }
    }
    let text = match problem {
        StartProblem::NameTaken => format!("a unit named {name} was there already; it is being removed"),
        StartProblem::Other(error) => format!("systemd did not take {name}: {error}"),
    };
    match replica.phase {
        Phase::Staging | Phase::Starting => fail(pool, index, turn, ExitClass::Preflight, text),
        Phase::Stopping if replica.taken.is_empty() => replica.phase = Phase::Stopped,
        Phase::Stopped
        | Phase::WaitingForName
        | Phase::Ready { .. }
        | Phase::Ending
        | Phase::Stopping
        | Phase::Backoff { .. }
        | Phase::Failed => turn.log(pool, Some(index), LogKind::Anomaly, text),
    }
}

/// Takes up a unit that an earlier run of the daemon started.
pub(crate) fn adopt(pool: &mut Pool, index: usize, facts: &UnitFacts, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let seen = &facts.seen;
    replica.taken.insert(seen.name.clone(), turn.hold(true));
    if seen.name.kind == UnitKind::Stage {
        // Half a check is not worth keeping: it takes milliseconds to run it again.
        turn.effects.push(Effect::StopUnit(seen.name.clone()));
        turn.effects.push(Effect::ForgetUnit(seen.name.clone()));
        return;
    }
    replica.generation = seen.name.generation;
    replica.endpoint.clone_from(&facts.endpoint);
    replica.engine_version.clone_from(&facts.engine_version);
    if let Some(endpoint) = &facts.endpoint {
        turn.ports.keep(&replica.id, endpoint.port);
    }
    replica.phase = Phase::Starting;
    if seen.active == ActiveState::Active && !seen.exited {
        let ready_for = turn.real.since(facts.became_active);
        replica.phase = Phase::Ready { since: Usec(turn.mono.0.saturating_sub(ready_for.0)) };
        replica.unit.became_ready = facts.became_active;
    }
    unit_seen(pool, index, seen.clone(), turn);
    turn.log(
        pool,
        Some(index),
        LogKind::EngineAdopted,
        "adopted from an earlier run of the daemon".to_owned(),
    );
}
