//! What systemd says of a replica's units.

use super::failure::{ended, fail, next_port, stopped_from_outside};
use super::release::{await_name, let_go};
use super::wishes::{KILL_AFTER, begin, launch, start_again, stop_replica};
use super::{breaker, lease, reload};
use crate::host::{Effect, LogKind, Purpose, Turn, UnitFacts};
use crate::name::{Endpoint, InvocationId, UnitKind, UnitName, Usec};
use crate::pool::{Pool, Wish};
use crate::refusal::Refusal;
use crate::replica::{ActiveState, ExitClass, Hold, Phase, Reached, Replica, Report, Seen, UnitObservation};

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
    await_name(replica, &seen, turn);
    let known = [Some(replica.unit_name(seen.name.kind)), pool.check_of_new_spec()];
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if !known.contains(&Some(seen.name.clone())) {
        // Of an earlier generation: all that matters is that it goes.
        if seen.active == ActiveState::Failed || seen.exited {
            let_go(replica, &seen, seen.exited, turn);
        }
        return;
    }
    match seen.name.kind {
        UnitKind::Stage => stage_seen(pool, index, &seen, turn),
        UnitKind::Engine => {
            let before = serving(pool, index);
            engine_seen(pool, index, seen, turn);
            if before != serving(pool, index) {
                turn.effects.push(Effect::SaveRuntime);
            }
            heard(pool, turn);
        }
    }
}

/// What systemd or a prober says of an engine is a sign of life of its pool; what anybody asks for is none.
fn heard(pool: &Pool, turn: &mut Turn<'_>) {
    if pool.live() {
        turn.registry.set_heartbeat(pool.id(), turn.real);
    }
}

/// The run of an engine that serves.
fn serving(pool: &Pool, index: usize) -> Option<InvocationId> {
    pool.replicas.get(index).filter(|replica| replica.ready()).map(|replica| replica.unit.invocation)
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
    let_go(replica, seen, ended, turn);
    if pool.checks_new_spec(&seen.name) {
        reload::checked(pool, seen, turn);
        return;
    }
    let Some(replica) = pool.replicas.get_mut(index).filter(|replica| replica.phase == Phase::Staging) else {
        return;
    };
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
        replica.report = None;
        if replica.condemned.is_none() && std::mem::take(&mut replica.start_anew) {
            // That is the start which somebody asked for while it was ending.
            turn.effects.push(Effect::SaveRuntime);
        }
        turn.log(
            pool,
            Some(index),
            LogKind::EngineStarting,
            format!("{} was restarted from outside", seen.name),
        );
        // It may serve already: leases and lengths of readiness were the old one's all the same.
        lease::revoke_what_ended(pool, turn);
        breaker::watch_readiness(pool, turn);
    }
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let over = match replica.phase {
        Phase::Stopping => anew,
        // Of one that was stopped from outside nothing is known any more, but that it had ended and was let go of.
        Phase::Backoff { .. } | Phase::Tripped | Phase::WaitingForName | Phase::Failed | Phase::Stopped => {
            let up = seen.active == ActiveState::Activating
                || (seen.active == ActiveState::Active && !seen.exited);
            let let_go = replica.taken.get(&seen.name).and_then(|hold| hold.let_go);
            anew || (up && let_go.is_some_and(|invocation| invocation != seen.invocation))
        }
        Phase::Staging | Phase::Starting | Phase::Ready { .. } | Phase::Ending => false,
    };
    if over {
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
            if !replica.engine_runs() {
                return;
            }
            replica.phase = match pool.wish {
                Wish::Run => Phase::Ending,
                Wish::Stop => Phase::Stopping,
            };
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
    turn.ports.works(&replica.id);
    let took = turn.real.since(replica.unit.started);
    turn.log(pool, Some(index), LogKind::EngineReady, format!("ready after {took}"));
}

/// An engine that the daemon itself ends is gone before its end was read: the reason is known all the same.
fn condemned(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.unit = Seen::default();
    if let Some((class, text)) = replica.condemned.take() {
        fail(pool, index, turn, class, text);
    }
}

/// A prober says how the engine beside it stands.
pub(crate) fn reported(pool: &mut Pool, index: usize, name: &UnitName, report: Report, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if replica.engine_runs()
        && *name == replica.unit_name(UnitKind::Engine)
        && report.invocation == replica.unit.invocation
    {
        if let Some(version) = report.version.as_ref().filter(|version| !version.is_empty()) {
            replica.engine_version.clone_from(version);
        }
        let slots = replica.report.as_ref().and_then(|known| known.slots);
        if slots != report.slots {
            turn.effects.push(Effect::SaveRuntime);
        }
        replica.report = Some(report);
        heard(pool, turn);
    }
}

impl Pool {
    /// Whether a new spec is being checked in that unit, beside the engines that serve.
    fn checks_new_spec(&self, name: &UnitName) -> bool {
        self.check_of_new_spec().as_ref() == Some(name)
    }
}

/// systemd has forgotten a unit: its name is free, and nothing of it is left.
pub(crate) fn unit_forgotten(pool: &mut Pool, index: usize, name: &UnitName, turn: &mut Turn<'_>) {
    let checks_new_spec = pool.checks_new_spec(name);
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    // Whoever asks systemd for a unit that is not there has it make one and forget it at once, also right before ours: it
    // is ours from when systemd took it.
    let ours = |hold: &Hold| hold.confirmed || hold.ran || hold.let_go.is_some();
    if !replica.taken.get(name).is_some_and(ours) {
        return;
    }
    let Some(hold) = replica.taken.remove(name) else { return };
    for timer in [hold.kill, hold.give_up].into_iter().flatten() {
        turn.cancel(timer);
    }
    let in_use = replica.in_use(name);
    if checks_new_spec && !in_use && hold.let_go.is_none() {
        let text = format!("{name} was stopped from outside");
        reload::refused(pool, ExitClass::StageFailed, text, turn);
    }
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if replica.taken.is_empty() {
        if let Some((timer, _)) = replica.stuck.take() {
            turn.cancel(timer);
        }
        match replica.phase {
            Phase::Stopping => {
                replica.phase = Phase::Stopped;
                replica.unit = Seen::default();
                turn.log(pool, Some(index), LogKind::EngineStopped, "stopped".to_owned());
                turn.effects.push(Effect::SaveRuntime);
                start_again(pool, turn);
                return;
            }
            Phase::WaitingForName => {
                begin(pool, index, turn);
                return;
            }
            Phase::Stopped
            | Phase::Staging
            | Phase::Starting
            | Phase::Ready { .. }
            | Phase::Ending
            | Phase::Backoff { .. }
            | Phase::Tripped
            | Phase::Failed => {}
        }
    }
    if in_use && pool.replicas.get(index).is_some_and(|replica| replica.condemned.is_some()) {
        condemned(pool, index, turn);
    } else if in_use {
        // Units of ours are let go of only after they were read, so somebody else ended it.
        stopped_from_outside(pool, index, turn, &format!("{name} was stopped from outside"));
    }
}

/// systemd has taken a unit: from now on it can be missing.
pub(crate) fn unit_taken(pool: &mut Pool, index: usize, name: &UnitName) {
    if let Some(hold) = pool.replicas.get_mut(index).and_then(|replica| replica.taken.get_mut(name)) {
        hold.confirmed = true;
    }
}

/// systemd would not take a unit.
pub(crate) fn unit_refused(
    pool: &mut Pool,
    index: usize,
    name: &UnitName,
    problem: StartProblem,
    turn: &mut Turn<'_>,
) {
    let checks_new_spec = pool.checks_new_spec(name);
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let text = match problem {
        // It stays in `taken`, and its end is told by its own signals; a name that is kept loaded is given up.
        StartProblem::NameTaken => {
            if let Some(hold) = replica.taken.get_mut(name) {
                // There is such a unit, so it can be missing; and one that was seen to run is waited for.
                hold.confirmed = true;
                if !hold.ran && hold.give_up.is_none() {
                    hold.give_up =
                        Some(turn.timer(KILL_AFTER, Purpose::GiveUpName(name.clone(), hold.start)));
                }
            }
            turn.effects.push(Effect::StopUnit(name.clone()));
            turn.effects.push(Effect::ForgetUnit(name.clone()));
            format!("a unit named {name} was there already; it is being removed")
        }
        StartProblem::Other(error) => {
            let hold = replica.taken.remove(name);
            for timer in hold.into_iter().flat_map(|hold| [hold.kill, hold.give_up]).flatten() {
                turn.cancel(timer);
            }
            format!("systemd did not take {name}: {error}")
        }
    };
    if checks_new_spec {
        reload::refused(pool, ExitClass::Preflight, text, turn);
        let waits = |replica: &Replica| replica.phase == Phase::WaitingForName && replica.taken.is_empty();
        if pool.replicas.get(index).is_some_and(waits) {
            // The name was all that it waited for.
            begin(pool, index, turn);
        }
        return;
    }
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    match replica.phase {
        Phase::Staging | Phase::Starting if replica.in_use(name) => {
            fail(pool, index, turn, ExitClass::Preflight, text);
        }
        Phase::Stopping if replica.taken.is_empty() => {
            replica.phase = Phase::Stopped;
            turn.effects.push(Effect::SaveRuntime);
            start_again(pool, turn);
        }
        // The answer can be late: somebody else's unit of that name has passed for ours, and the engine follows it.
        Phase::Stopped
        | Phase::WaitingForName
        | Phase::Staging
        | Phase::Starting
        | Phase::Ready { .. }
        | Phase::Ending
        | Phase::Stopping
        | Phase::Backoff { .. }
        | Phase::Tripped
        | Phase::Failed => turn.log(pool, Some(index), LogKind::Anomaly, text),
    }
}

/// Takes up a unit that an earlier run of the daemon started.
pub(crate) fn adopt(pool: &mut Pool, index: usize, facts: &UnitFacts, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let seen = &facts.seen;
    replica.taken.insert(seen.name.clone(), turn.hold(true));
    // How it ends is nothing to wonder at.
    let stopping = replica.phase == Phase::Stopping || pool.wish == Wish::Stop;
    if seen.name.kind == UnitKind::Stage {
        // Half a check is not worth keeping: it takes milliseconds to run it again.
        turn.effects.push(Effect::StopUnit(seen.name.clone()));
        turn.effects.push(Effect::ForgetUnit(seen.name.clone()));
        return;
    }
    replica.generation = seen.name.generation;
    replica.endpoint.clone_from(&facts.endpoint);
    replica.engine_version.clone_from(&facts.engine_version);
    if let Some(port) = facts.endpoint.as_ref().and_then(Endpoint::port) {
        turn.ports.keep(&replica.id, port);
    }
    // Of several units of it this is the one that counts.
    let spec = &replica.revision.as_ref().unwrap_or(&pool.revision).spec;
    replica.devices.clone_from(&facts.devices);
    let near = turn.devices.near(&facts.devices, turn.cpus.topology());
    turn.cpus.keep(&replica.id, &facts.own_cpus, &spec.cpus, &near, facts.allowed_cpus.clone());
    replica.phase = if stopping { Phase::Stopping } else { Phase::Starting };
    if replica.condemned.is_some() && !stopping {
        replica.phase = Phase::Ending;
        turn.effects.push(Effect::StopUnit(seen.name.clone()));
    } else if seen.active == ActiveState::Active && !seen.exited && !stopping {
        let ready_for = turn.real.since(facts.became_active);
        if replica.reached.by != seen.invocation {
            // It is another engine than the one that had served so long.
            replica.reached = Reached::default();
        }
        replica.phase = Phase::Ready { since: Usec(turn.mono.0.saturating_sub(ready_for.0)) };
        replica.unit.became_ready = facts.became_active;
    }
    // systemd may have read its units again while the daemon was away.
    super::devices::open_nodes_again(replica, turn);
    unit_seen(pool, index, seen.clone(), turn);
    if stopping {
        stop_replica(pool, index, turn);
    }
    turn.log(
        pool,
        Some(index),
        LogKind::EngineAdopted,
        "adopted from an earlier run of the daemon".to_owned(),
    );
}
