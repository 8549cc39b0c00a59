//! What somebody wants of a pool, and when that has come true.

use super::failure::fail;
use crate::config::Port;
use crate::host::{Effect, LogKind, Purpose, Turn};
use crate::job::{JobResult, Operation};
use crate::name::{Endpoint, UnitKind, Usec};
use crate::pool::{Pool, Wish};
use crate::refusal::Refusal;
use crate::replica::{ExitClass, Phase, Replica, Seen};
use crate::unit::{Launch, engine_unit, stage_unit};

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
        replica.last_exit = None;
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
            Phase::Stopped => continue,
            Phase::Stopping => {
                // Asked again, systemd may be able to by now.
                turn.effects.extend(replica.taken.keys().cloned().map(Effect::StopUnit));
                continue;
            }
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
            Phase::Starting | Phase::Ready { .. } | Phase::Ending { .. } => UnitKind::Engine,
        };
        let name = replica.unit_name(kind);
        replica.phase = Phase::Stopping;
        if let Some(hold) = replica.taken.get_mut(&name) {
            hold.kill = Some(turn.timer(KILL_AFTER, Purpose::Kill(name.clone(), hold.start)));
        }
        turn.effects.push(Effect::StopUnit(name));
        turn.log(pool, Some(index), LogKind::EngineStopping, "stopping".to_owned());
    }
}

/// The last replica has stopped, and by now the pool should run: as many start as its file says.
pub(super) fn start_again(pool: &mut Pool, turn: &mut Turn<'_>) {
    let stopping = pool.replicas.iter().any(|replica| replica.phase == Phase::Stopping);
    if pool.wish == Wish::Run && !stopping {
        run(pool, turn, |replica| replica.phase == Phase::Stopped);
    }
}

/// Longer than every unit's stop time-out, which an engine can have systemd extend.
pub(super) const KILL_AFTER: Usec = Usec::from_secs(35);

/// Starts one replica with its checks, as soon as its units' names are free.
pub(super) fn begin(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if !replica.taken.is_empty() {
        replica.phase = Phase::WaitingForName;
        return;
    }
    replica.generation = replica.generation.max(replica.next_generation);
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

/// Starts the engine itself, its checks having passed.
pub(super) fn launch(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if replica.taken.keys().any(|name| !replica.in_use(name)) {
        // Another engine of it has turned up meanwhile, and has to go first.
        replica.phase = Phase::WaitingForName;
        return;
    }
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
