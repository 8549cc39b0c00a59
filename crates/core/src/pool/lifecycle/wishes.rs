//! What somebody wants of a pool, and when that has come true.

use super::devices::admit;
use super::failure::fail;
use super::{breaker, drain, lease, reload};
use crate::config::{Listen, Port};
use crate::device::Part;
use crate::host::{Effect, LogKind, Purpose, Turn};
use crate::job::{JobResult, Operation};
use crate::name::{Endpoint, UnitKind, Usec};
use crate::pool::{DrainFor, Leave, Pool, Reload, Wish};
use crate::refusal::Refusal;
use crate::replica::{ExitClass, Phase, Replica, Seen};
use crate::unit::{Launch, engine_unit, socket, stage_unit};

/// Wants the pool to run, from now on: also what failed or waits is started at once. An open breaker permits one attempt.
pub(crate) fn start(pool: &mut Pool, turn: &mut Turn<'_>) {
    pool.by_operator = false;
    for replica in &mut pool.replicas {
        replica.as_before = false;
        if replica.phase == Phase::Ending && pool.drain.is_none() {
            replica.start_anew = true;
        }
    }
    if let Some(drain) = &mut pool.drain {
        // What is being emptied ends first.
        if drain.purpose == DrainFor::Stop {
            drain.purpose = DrainFor::Restart;
            turn.effects.push(Effect::SaveRuntime);
        }
        return;
    }
    permit(pool, turn);
    // What the attempt is permitted for is started; one too many would wait for a breaker that nothing closes.
    retire(pool, turn);
    run(pool, turn, Replica::idle);
}

/// Breakers that are open permit one attempt, unless one is being made.
fn permit(pool: &mut Pool, turn: &mut Turn<'_>) {
    if !pool.troubles.any_trial() {
        for timer in pool.troubles.permit() {
            turn.cancel(timer);
        }
    }
}

/// Wants the pool to run, from now on: what never ran is started, what failed, waits or ended as meant is left alone.
pub(crate) fn resume(pool: &mut Pool, turn: &mut Turn<'_>) {
    if pool.drain.is_none() && pool.reload.is_none() {
        run(pool, turn, |replica| replica.phase == Phase::Stopped && replica.last_exit.is_none());
    }
}

/// Whether nothing of a pool runs that should, because all of it has failed: a changed file may be what mends it.
pub(crate) fn down_by_failure(pool: &Pool) -> bool {
    let down = |replica: &Replica| replica.phase == Phase::Failed || replica.waits();
    pool.wish == Wish::Run && !pool.candidate_runs() && pool.replicas.iter().all(down)
}

/// Its file has changed. What waits for a unit's name will be started by the new one, and where nothing runs by an older
/// one, so are those that only the new one has.
pub(crate) fn start_more(pool: &mut Pool, turn: &mut Turn<'_>) {
    let waits = |replica: &Replica| replica.phase == Phase::WaitingForName && replica.revision.is_none();
    if pool.wish == Wish::Run && pool.replicas.iter().any(waits) {
        complete(pool, turn);
    }
}

/// Where nothing runs by an older file, as many start as the file has.
fn complete(pool: &mut Pool, turn: &mut Turn<'_>) {
    if pool.pending().is_empty() {
        for gone in pool.resize(pool.revision.spec.replicas) {
            turn.release(&gone);
        }
        resume(pool, turn);
    }
}

/// Forgets the pool's failures, and starts what should run.
pub(crate) fn reset(pool: &mut Pool, turn: &mut Turn<'_>) {
    for timer in pool.troubles.reset() {
        turn.cancel(timer);
    }
    pool.restart_count = 0;
    pool.last_error = None;
    pool.history.clear();
    for replica in &mut pool.replicas {
        replica.failures = 0;
    }
    turn.log(pool, None, LogKind::PoolReset, "its failures are forgotten".to_owned());
    turn.effects.push(Effect::SaveRuntime);
    if pool.wish == Wish::Run && pool.drain.is_none() && !pool.candidate_runs() {
        retire(pool, turn);
        run(pool, turn, |replica| replica.phase == Phase::Failed || replica.waits());
        complete(pool, turn);
    }
}

/// Engines that the pool has one too many of wait for nothing any more.
fn retire(pool: &mut Pool, turn: &mut Turn<'_>) {
    let replicas = usize::from(pool.in_force().spec.replicas);
    for replica in pool.replicas.iter_mut().skip(replicas) {
        if let Some((_, timer)) = replica.pause() {
            turn.cancel(timer);
        }
        if replica.phase == Phase::Failed || replica.waits() {
            replica.phase = Phase::Stopped;
        }
    }
}

fn run(pool: &mut Pool, turn: &mut Turn<'_>, due: fn(&Replica) -> bool) {
    pool.wish = Wish::Run;
    turn.effects.push(Effect::SaveRuntime);
    if pool.replicas.iter().all(Replica::idle) {
        retire(pool, turn);
        for gone in pool.resize(pool.in_force().spec.replicas) {
            turn.release(&gone);
        }
    }
    let numbers = pool.revision.spec.restart;
    let in_place = pool.reload.as_ref().and_then(Reload::in_place).cloned();
    let wanted = pool.replicas.len().min(usize::from(pool.in_force().spec.replicas));
    for index in 0..wanted {
        let Some(replica) = pool.replicas.get_mut(index) else { continue };
        if !due(replica) {
            continue;
        }
        if let Some((_, timer)) = replica.pause() {
            turn.cancel(timer);
        }
        if !std::mem::take(&mut replica.as_before) {
            replica.revision.clone_from(&in_place);
        }
        let refused = pool.troubles.leave(replica.id.index, turn.mono, &numbers) == Leave::Refused;
        if refused && replica.waits() {
            // It waits as before, now for the breaker alone.
            replica.phase = Phase::Tripped;
            continue;
        }
        start_anew(pool, index, turn);
    }
}

/// Starts an engine whose start was asked for while it was ending, with what the pool is to run by now. That is the one
/// attempt which a breaker permits.
pub(super) fn start_asked(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    permit(pool, turn);
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if let Some((_, timer)) = replica.pause() {
        turn.cancel(timer);
    }
    replica.revision = None;
    start_anew(pool, index, turn);
}

/// Starts an engine because somebody asked for it; where a breaker is in the way, as soon as that lets it.
pub(super) fn start_anew(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let numbers = pool.revision.spec.restart;
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.last_exit = None;
    replica.start_anew = false;
    turn.effects.push(Effect::SaveRuntime);
    if pool.troubles.leave(replica.id.index, turn.mono, &numbers) == Leave::Refused {
        replica.phase = Phase::Tripped;
        return;
    }
    pool.troubles.try_with(replica.id.index);
    // Whatever was before, the next failure is its first.
    replica.failures = 0;
    replica.ports_tried = 0;
    begin(pool, index, turn);
}

/// Wants the pool not to run, from now on, and waits for nothing.
pub(crate) fn stop(pool: &mut Pool, turn: &mut Turn<'_>) {
    pool.wish = Wish::Stop;
    drain::forget(pool, turn);
    reload::forget(pool, turn);
    for index in 0..pool.replicas.len() {
        stop_replica(pool, index, turn);
    }
    breaker::no_attempt(pool, turn);
    turn.effects.push(Effect::SaveRuntime);
}

/// Has one engine end, whatever it is at.
pub(super) fn stop_replica(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    ask_to_end(pool, index, turn);
    breaker::undecided(pool, index, turn);
}

fn ask_to_end(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.start_anew = false;
    replica.as_before = false;
    if !matches!(replica.phase, Phase::Stopped | Phase::Failed) {
        // How an earlier engine ended is not why this one is down.
        replica.last_exit = None;
    }
    let kind = match &replica.phase {
        Phase::Stopped => return,
        Phase::Stopping => {
            // Asked again, systemd may be able to by now. One that is stopped since before the daemon started is killed
            // in time too.
            for (name, hold) in &mut replica.taken {
                if hold.kill.is_none() && hold.let_go.is_none() {
                    hold.kill = Some(turn.timer(KILL_AFTER, Purpose::Kill(name.clone(), hold.start)));
                }
                turn.effects.push(Effect::StopUnit(name.clone()));
            }
            return;
        }
        Phase::Failed | Phase::WaitingForName | Phase::Tripped => {
            replica.phase = Phase::Stopped;
            return;
        }
        Phase::Backoff { timer, .. } => {
            turn.cancel(*timer);
            replica.phase = Phase::Stopped;
            return;
        }
        Phase::Staging => UnitKind::Stage,
        Phase::Starting | Phase::Ready { .. } | Phase::Ending => UnitKind::Engine,
    };
    let name = replica.unit_name(kind);
    replica.phase = Phase::Stopping;
    replica.condemned = None;
    if let Some(hold) = replica.taken.get_mut(&name).filter(|hold| hold.kill.is_none()) {
        hold.kill = Some(turn.timer(KILL_AFTER, Purpose::Kill(name.clone(), hold.start)));
    }
    turn.effects.push(Effect::StopUnit(name));
    turn.effects.push(Effect::SaveRuntime);
    turn.log(pool, Some(index), LogKind::EngineStopping, "stopping".to_owned());
}

/// The last replica has stopped, and by now the pool should run: as many start as its file says, but for those that had
/// ended in a way after which nothing starts them by itself.
pub(super) fn start_again(pool: &mut Pool, turn: &mut Turn<'_>) {
    let stopping = pool.replicas.iter().any(|replica| replica.phase == Phase::Stopping);
    let on_its_way = pool.drain.is_some() || pool.reload.is_some();
    if pool.wish == Wish::Run && !stopping && !on_its_way {
        run(pool, turn, |replica| replica.phase == Phase::Stopped && !replica.rests());
    }
}

/// Longer than every unit's stop time-out, which an engine can have systemd extend.
pub(super) const KILL_AFTER: Usec = Usec::from_secs(35);

/// Starts one replica with its checks, as soon as its units' names are free.
pub(crate) fn begin(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if !replica.taken.is_empty() {
        replica.phase = Phase::WaitingForName;
        turn.effects.push(Effect::SaveRuntime);
        return;
    }
    replica.generation = replica.generation.max(replica.next_generation);
    let revision = replica.revision.get_or_insert_with(|| pool.revision.clone()).clone();
    if let Err(text) = admit(replica, &revision.spec, turn) {
        fail(pool, index, turn, ExitClass::NotAdmitted, text);
        return;
    }
    let Some(endpoint) = address(replica, &revision.spec.listen, turn) else {
        no_address(pool, index, turn);
        return;
    };
    let near = turn.devices.near(&replica.devices, turn.cpus.topology());
    let share = match turn.cpus.give(&replica.id, &revision.spec.cpus, &near) {
        Ok(share) => share,
        Err(text) => {
            fail(pool, index, turn, ExitClass::Refused(Refusal::Preflight), text);
            return;
        }
    };
    replica.endpoint = Some(endpoint.clone());
    replica.engine_version = String::new();
    replica.unit = Seen::default();
    replica.report = None;
    replica.phase = Phase::Staging;
    let name = replica.unit_name(UnitKind::Stage);
    replica.taken.insert(name.clone(), turn.hold(false));
    let launch = Launch {
        spec: &revision.spec,
        spec_digest: &revision.digest,
        endpoint: &endpoint,
        engine_version: "",
        share: &share,
        devices: &replica.devices,
        host: turn.host,
        model_folders: &turn.settings.model_folders,
    };
    turn.effects.push(Effect::StartUnit(stage_unit(&name, &launch, true)));
    turn.effects.push(Effect::SaveRuntime);
    turn.log(pool, Some(index), LogKind::PoolStaging, format!("checking before the start on {endpoint}"));
}

/// Where a replica listens: its fixed port, or an automatic one, which it keeps; or its own socket.
pub(super) fn address(replica: &Replica, listen: &Listen, turn: &mut Turn<'_>) -> Option<Endpoint> {
    let (host, port) = match listen {
        Listen::Tcp { host, port } => (host, *port),
        Listen::Unix => return Some(Endpoint::Unix { path: socket(&replica.id) }),
    };
    let port = match port {
        Port::Fixed(port) => port.saturating_add(replica.id.index),
        Port::Auto => turn.ports.assign(&replica.id, &turn.settings.auto_ports)?,
    };
    Some(Endpoint::Tcp { host: host.clone(), port })
}

fn no_address(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let range = &turn.settings.auto_ports;
    let text = format!(
        "every port from {} to {} is in use; widen network.auto_ports in pool-managerd.toml",
        range.start(),
        range.end()
    );
    fail(pool, index, turn, ExitClass::Refused(Refusal::PortInUse), text);
}

/// Starts an engine whose spec was checked already, so that nothing is lost between an old engine's end and this start.
pub(super) fn launch_checked(pool: &mut Pool, index: usize, version: &str, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.generation = replica.generation.max(replica.next_generation);
    let Some(revision) = replica.revision.clone() else { return };
    if let Err(text) = admit(replica, &revision.spec, turn) {
        fail(pool, index, turn, ExitClass::NotAdmitted, text);
        return;
    }
    let Some(endpoint) = address(replica, &revision.spec.listen, turn) else {
        no_address(pool, index, turn);
        return;
    };
    let near = turn.devices.near(&replica.devices, turn.cpus.topology());
    if let Err(text) = turn.cpus.give(&replica.id, &revision.spec.cpus, &near) {
        fail(pool, index, turn, ExitClass::Refused(Refusal::Preflight), text);
        return;
    }
    replica.endpoint = Some(endpoint);
    version.clone_into(&mut replica.engine_version);
    replica.unit = Seen::default();
    replica.report = None;
    launch(pool, index, turn);
}

/// Starts the engine itself, its checks having passed.
pub(super) fn launch(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if replica.taken.keys().any(|name| !replica.in_use(name)) {
        // Another engine of it has turned up meanwhile, and has to go first.
        replica.phase = Phase::WaitingForName;
        turn.effects.push(Effect::SaveRuntime);
        return;
    }
    let name = replica.unit_name(UnitKind::Engine);
    let (Some(revision), Some(endpoint)) = (&replica.revision, &replica.endpoint) else { return };
    let share = turn.cpus.share(&replica.id);
    let launch = Launch {
        spec: &revision.spec,
        spec_digest: &revision.digest,
        endpoint,
        engine_version: &replica.engine_version,
        share: &share,
        devices: &replica.devices,
        host: turn.host,
        model_folders: &turn.settings.model_folders,
    };
    turn.effects.push(Effect::StartUnit(engine_unit(&name, &launch)));
    replica.taken.insert(name, turn.hold(false));
    replica.phase = Phase::Starting;
    turn.effects.push(Effect::SaveRuntime);
    turn.log(pool, Some(index), LogKind::EngineStarting, "starting".to_owned());
}

/// After every event: what a pool is on its way through takes its next step, and its job ends where that has come true
/// or can no longer come true.
pub(crate) fn settle(pool: &mut Pool, turn: &mut Turn<'_>) {
    lease::revoke_what_ended(pool, turn);
    drain::step(pool, turn);
    reload::step(pool, turn);
    lease::revoke_what_ended(pool, turn);
    breaker::release_lost_trial(pool, turn);
    breaker::watch_readiness(pool, turn);
    for replica in
        pool.replicas.iter_mut().filter(|replica| matches!(replica.phase, Phase::Stopped | Phase::Failed))
    {
        turn.cpus.give_back(&replica.id);
        replica.devices = Part::default();
    }
    let phase = pool.phase();
    if phase != pool.last_phase {
        pool.last_phase = phase;
        pool.changed = turn.real;
    }
    let Some((id, operation)) = pool.job else { return };
    let error = || pool.last_error.as_ref().map_or_else(|| pool.detail(), |error| error.text.clone());
    let over = match operation {
        Operation::Start if pool.ready() => Some((JobResult::Done, String::new())),
        Operation::Start => pool.replicas.iter().all(Replica::idle).then(|| (JobResult::Failed, error())),
        Operation::Stop | Operation::Drain => {
            (pool.at_rest() && pool.drain.is_none()).then(|| (JobResult::Done, String::new()))
        }
        // Its own steps end it.
        Operation::Reload => None,
    };
    if let Some((result, error)) = over {
        pool.job = None;
        turn.end_job(id, result, error);
    }
}
