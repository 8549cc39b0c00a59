//! The life cycle of a pool: `staging → starting → ready`, and every way out of it. Nothing here can fail; what should
//! not have been seen is logged as an anomaly and changes nothing.

use super::{LastError, Pool, Wish};
use crate::config::{Port, RestartPolicy};
use crate::host::{Effect, LogKind, Purpose, Turn};
use crate::job::{JobResult, Operation};
use crate::name::{Endpoint, UnitKind, UnitName, Usec};
use crate::refusal::Refusal;
use crate::replica::{self, ActiveState, ExitClass, Phase, Replica, Seen, UnitObservation};
use crate::unit::{Launch, engine_unit, stage_unit};

/// Where systemd's answer to a start says so: the unit's name is still taken.
pub(crate) enum StartProblem {
    NameTaken,
    Other(String),
}

/// Wants the pool to run, from now on: also what failed or waits is started at once.
pub(crate) fn start(pool: &mut Pool, turn: &mut Turn<'_>) {
    run(pool, turn, |replica| {
        matches!(replica.phase, Phase::Stopped | Phase::Failed | Phase::Backoff { .. })
    });
}

/// Wants the pool to run, from now on: what never ran is started, what failed, waits or ended as meant is left alone.
pub(crate) fn resume(pool: &mut Pool, turn: &mut Turn<'_>) {
    run(pool, turn, |replica| replica.phase == Phase::Stopped && replica.last_exit.is_none());
}

fn run(pool: &mut Pool, turn: &mut Turn<'_>, due: fn(&Replica) -> bool) {
    pool.wish = Wish::Run;
    if pool.replicas.iter().all(|replica| matches!(replica.phase, Phase::Stopped | Phase::Failed)) {
        for gone in pool.resize() {
            turn.ports.release(&gone);
        }
    }
    let wanted = pool.replicas.len().min(usize::from(pool.revision.spec.replicas));
    for index in 0..wanted {
        let Some(replica) = pool.replicas.get_mut(index).filter(|replica| due(replica)) else { continue };
        if let Phase::Backoff { timer, .. } = replica.phase {
            turn.cancel(timer);
        }
        replica.failures = 0;
        replica.ports_tried = 0;
        replica.revision = None;
        begin(pool, index, turn);
    }
}

/// Wants the pool not to run, from now on.
pub(crate) fn stop(pool: &mut Pool, turn: &mut Turn<'_>) {
    pool.wish = Wish::Stop;
    for index in 0..pool.replicas.len() {
        let Some(replica) = pool.replicas.get_mut(index) else { continue };
        let kind = match &replica.phase {
            Phase::Stopped | Phase::Stopping => continue,
            Phase::Failed | Phase::WaitingForName => {
                replica.phase = Phase::Stopped;
                continue;
            }
            Phase::Backoff { timer, .. } => {
                turn.cancel(*timer);
                replica.phase = Phase::Stopped;
                continue;
            }
            Phase::Staging => UnitKind::Stage,
            Phase::Starting | Phase::Ready { .. } | Phase::Ending => UnitKind::Engine,
        };
        replica.phase = Phase::Stopping;
        turn.effects.push(Effect::StopUnit(replica.unit_name(kind)));
        turn.log(pool, Some(index), LogKind::EngineStopping, "stopping".to_owned());
    }
}

/// Starts one replica with its checks, as soon as its units' names are free.
fn begin(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if !replica.taken.is_empty() {
        replica.phase = Phase::WaitingForName;
        return;
    }
    let revision = replica.revision.get_or_insert_with(|| pool.revision.clone()).clone();
    let listen = &revision.spec.listen;
    let endpoint = match listen.port {
        Port::Fixed(port) => Some(port.saturating_add(replica.id.index)),
        Port::Auto => turn.ports.assign(&replica.id, &turn.settings.auto_ports),
    }
    .map(|port| Endpoint { host: listen.host.clone(), port });
    let Some(endpoint) = endpoint else {
        let range = &turn.settings.auto_ports;
        let text = format!(
            "every port from {} to {} is in use; widen network.auto_ports in pool-managerd.toml",
            range.start(),
            range.end()
        );
        fail(pool, index, turn, ExitClass::Refused(Refusal::PortInUse), text);
        return;
    };
    replica.endpoint = Some(endpoint.clone());
    replica.engine_version = String::new();
    replica.unit = Seen::default();
    replica.phase = Phase::Staging;
    let name = replica.unit_name(UnitKind::Stage);
    replica.taken.insert(name.clone(), turn.hold(false));
    let launch = Launch {
        spec: &revision.spec,
        spec_digest: &revision.digest,
        endpoint: &endpoint,
        engine_version: "",
    };
    turn.effects.push(Effect::StartUnit(stage_unit(&name, &launch)));
    turn.effects.push(Effect::SaveRuntime);
    turn.log(pool, Some(index), LogKind::PoolStaging, format!("checking before the start on {endpoint}"));
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
fn let_go(replica: &mut Replica, name: &UnitName, clean: bool, turn: &mut Turn<'_>) {
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

/// Whether another automatic port is worth a try; the one in use is left alone from now on.
fn next_port(replica: &mut Replica, turn: &mut Turn<'_>) -> bool {
    const TRIES: u16 = 20;
    let auto = replica.revision.as_ref().is_some_and(|revision| revision.spec.listen.port == Port::Auto);
    if !auto || replica.ports_tried >= TRIES {
        return false;
    }
    replica.ports_tried += 1;
    turn.ports.avoid(&replica.id);
    true
}

/// Starts the engine itself, its checks having passed.
fn launch(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let name = replica.unit_name(UnitKind::Engine);
    let (Some(revision), Some(endpoint)) = (&replica.revision, &replica.endpoint) else { return };
    let launch = Launch {
        spec: &revision.spec,
        spec_digest: &revision.digest,
        endpoint,
        engine_version: &replica.engine_version,
    };
    turn.effects.push(Effect::StartUnit(engine_unit(&name, &launch)));
    replica.taken.insert(name, turn.hold(false));
    replica.phase = Phase::Starting;
    turn.log(pool, Some(index), LogKind::EngineStarting, "starting".to_owned());
}

fn engine_seen(pool: &mut Pool, index: usize, seen: UnitObservation, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let known = replica.unit.invocation;
    if !known.is_none() && !seen.invocation.is_none() && known != seen.invocation {
        turn.log(
            pool,
            Some(index),
            LogKind::Anomaly,
            format!("{} was seen in an invocation that is not ours; ignored", seen.name),
        );
        return;
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

/// An engine has ended and systemd says how.
fn ended(pool: &mut Pool, index: usize, seen: &UnitObservation, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let clean = seen.active == ActiveState::Active;
    let_go(replica, &seen.name, clean, turn);
    let since = match replica.phase {
        Phase::Ready { since } => Some(since),
        Phase::Starting | Phase::Ending => None,
        Phase::Stopping => {
            replica.unit.main_pid = 0;
            if !clean {
                let (_, text) = ExitClass::of(seen);
                turn.log(
                    pool,
                    Some(index),
                    LogKind::EngineStopped,
                    format!("it did not end by itself when stopped: {text}"),
                );
            }
            return;
        }
        Phase::Stopped | Phase::WaitingForName | Phase::Staging | Phase::Backoff { .. } | Phase::Failed => {
            return;
        }
    };
    if since.is_some_and(|since| turn.mono.since(since) >= replica::RESET_AFTER) {
        replica.failures = 0;
    }
    replica.unit.main_pid = 0;
    let policy = replica.revision.as_ref().unwrap_or(&pool.revision).spec.restart;
    if clean && policy != RestartPolicy::Always {
        replica.phase = Phase::Stopped;
        replica.last_exit = Some(ExitClass::Exit(0));
        turn.log(
            pool,
            Some(index),
            LogKind::EngineStopped,
            "it exited with status 0, which counts as meant; not restarted".to_owned(),
        );
        return;
    }
    let (class, text) = ExitClass::of(seen);
    if class == ExitClass::Refused(Refusal::PortInUse) && next_port(replica, turn) {
        begin(pool, index, turn);
        return;
    }
    fail(pool, index, turn, class, text);
}

/// Records a failure and decides what follows it.
fn fail(pool: &mut Pool, index: usize, turn: &mut Turn<'_>, class: ExitClass, text: String) {
    pool.last_error = Some(LastError { class: class.clone(), text: text.clone(), at: turn.real });
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.last_exit = Some(class.clone());
    let policy = replica.revision.as_ref().unwrap_or(&pool.revision).spec.restart;
    let restart = pool.wish == Wish::Run && policy != RestartPolicy::Never && class.worth_a_restart();
    if !restart {
        replica.phase = Phase::Failed;
        let kind = match class {
            ExitClass::Refused(_) | ExitClass::Preflight | ExitClass::StageFailed => LogKind::EngineRefused,
            ExitClass::Exit(_)
            | ExitClass::Signal(_)
            | ExitClass::OomHost
            | ExitClass::Watchdog
            | ExitClass::StartTimeout
            | ExitClass::Stopped
            | ExitClass::Unkillable => LogKind::EngineFailed,
        };
        turn.log(pool, Some(index), kind, format!("not started again: {text}"));
        turn.effects.push(Effect::SaveRuntime);
        return;
    }
    replica.failures = replica.failures.saturating_add(1);
    let delay = replica::delay(replica.failures, turn.roll());
    let timer = turn.timer(delay, Purpose::Restart(replica.id.clone()));
    replica.phase = Phase::Backoff { timer, delay, until: turn.real.plus(delay) };
    pool.restart_count = pool.restart_count.saturating_add(1);
    turn.log(pool, Some(index), LogKind::EngineFailed, text);
    turn.log(pool, Some(index), LogKind::EngineRestarting, format!("restarting after {delay}"));
    turn.effects.push(Effect::SaveRuntime);
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
            replica.phase = Phase::Stopped;
            replica.unit = Seen::default();
            replica.last_exit = Some(ExitClass::Stopped);
            let text = format!(
                "{name} was stopped from outside; not restarted. Start it with: poolctl start {}",
                pool.id()
            );
            pool.last_error =
                Some(LastError { class: ExitClass::Stopped, text: text.clone(), at: turn.real });
            turn.log(pool, Some(index), LogKind::EngineStopped, text);
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

/// A restart is due.
pub(crate) fn restart_due(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if matches!(replica.phase, Phase::Backoff { .. }) {
        replica.ports_tried = 0;
        begin(pool, index, turn);
    }
}

/// Ends what has come true or can no longer come true: the pool's job.
pub(crate) fn settle(pool: &mut Pool, turn: &mut Turn<'_>) {
    let phase = pool.phase();
    if phase != pool.last_phase {
        pool.last_phase = phase;
        pool.changed = turn.real;
    }
    let Some((id, operation)) = pool.job else { return };
    let error = || pool.last_error.as_ref().map_or_else(|| pool.detail(), |error| error.text.clone());
    let over = match operation {
        Operation::Start if pool.ready() => Some((JobResult::Done, String::new())),
        Operation::Start => pool
            .replicas
            .iter()
            .all(|replica| matches!(replica.phase, Phase::Stopped | Phase::Failed | Phase::Backoff { .. }))
            .then(|| (JobResult::Failed, error())),
        Operation::Stop => pool.at_rest().then(|| (JobResult::Done, String::new())),
    };
    if let Some((result, error)) = over {
        pool.job = None;
        turn.end_job(id, result, error);
    }
}

/// Takes up a unit that an earlier run of the daemon started.
pub(crate) fn adopt(pool: &mut Pool, index: usize, facts: &crate::host::UnitFacts, turn: &mut Turn<'_>) {
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
