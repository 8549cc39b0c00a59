//! Giving a pool another spec, drain-first: the new one is checked beside the old, the old is emptied and ends, the new
//! starts; if it fails, the old one starts again. Strictly in that order.

use super::breaker;
use super::devices::could_have;
use super::drain::{self, may_rest};
use super::wishes::{address, begin, down_by_failure, launch_checked, start, start_again, stop_replica};
use crate::config::{OnChange, Revision};
use crate::cpu::Share;
use crate::host::{Effect, LogKind, Turn};
use crate::job::JobResult;
use crate::name::{UnitKind, UnitName, Usec};
use crate::pool::{DrainFor, Pool, Reload, ReloadStage, Wish};
use crate::refusal::Refusal;
use crate::replica::{ActiveState, ExitClass, Phase, Replica, UnitObservation};
use crate::unit::{Launch, stage_unit};

/// What a reload is asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) to: Revision,
    pub(crate) deadline: Usec,
    pub(crate) force: bool,
}

/// Begins. Where nothing runs that could be kept, the spec is replaced and, if the pool should run, started.
pub(crate) fn ask(pool: &mut Pool, wanted: Wanted, turn: &mut Turn<'_>) {
    // What an earlier reload put in place has not proved itself: it ends, and what ran before it is what is kept.
    let proven = pool.reload.as_ref().filter(|_| pool.candidate_runs()).map(|reload| reload.from.clone());
    let candidate = proven.is_some();
    forget(pool, turn);
    if pool.drain.is_some() {
        // Until this one's turn comes, the pool serves as before.
        drain::call_off(pool, turn);
    }
    let Wanted { to, deadline, force } = wanted;
    let runs = |replica: &&Replica| {
        matches!(replica.phase, Phase::Staging | Phase::Starting | Phase::Ready { .. } | Phase::Ending)
    };
    let what_runs = |replica: &Replica| replica.revision.clone().unwrap_or_else(|| pool.revision.clone());
    let from = proven.or_else(|| pool.replicas.iter().find(runs).map(what_runs));
    turn.effects.push(Effect::SaveRuntime);
    let Some(from) = from else {
        let stopped = pool.wish == Wish::Stop
            || pool.replicas.iter().all(|replica| match replica.phase {
                Phase::Stopping => true,
                // Else it is to start as soon as nothing is in the way.
                Phase::Stopped => replica.rests(),
                Phase::WaitingForName
                | Phase::Staging
                | Phase::Starting
                | Phase::Ready { .. }
                | Phase::Ending
                | Phase::Backoff { .. }
                | Phase::Tripped
                | Phase::Failed => false,
            });
        pool.revision = to;
        // Also what is about to start again starts with it.
        pool.replicas.iter_mut().for_each(|replica| replica.revision = None);
        turn.log(pool, None, LogKind::PoolReloaded, "its spec was replaced; nothing of it ran".to_owned());
        if stopped {
            end(pool, JobResult::Done, String::new(), turn);
        } else {
            start(pool, turn);
            if let Some((_, operation)) = &mut pool.job {
                *operation = crate::job::Operation::Start;
            }
        }
        return;
    };
    let text = format!("reloading from {} to {}, drain first", from.spec.model_id(), to.spec.model_id());
    turn.log(pool, None, LogKind::PoolReloading, text);
    pool.reload = Some(Reload {
        from,
        to,
        wanted: pool.revision.digest.clone(),
        deadline,
        force,
        version: String::new(),
        stage: ReloadStage::Checking { asked: false },
    });
    for index in 0..pool.replicas.len() {
        if candidate && pool.replicas.get(index).is_some_and(|replica| !may_rest(&replica.phase)) {
            stop_replica(pool, index, turn);
        }
    }
}

/// Ends a reload without anything further.
pub(super) fn forget(pool: &mut Pool, turn: &mut Turn<'_>) {
    end_check(pool, turn);
    pool.reload = None;
}

fn end_check(pool: &mut Pool, turn: &mut Turn<'_>) {
    if let Some(name) = pool.check_of_new_spec() {
        turn.effects.push(Effect::StopUnit(name));
    }
}

/// It is called off: what ran before serves again.
pub(crate) fn call_off(pool: &mut Pool, turn: &mut Turn<'_>) {
    let Some(reload) = &mut pool.reload else { return };
    match &mut reload.stage {
        ReloadStage::Checking { .. } | ReloadStage::Draining => {
            let text = "it was cancelled; the old engine goes on".to_owned();
            give_up(pool, JobResult::Canceled, ExitClass::Stopped, text, turn);
        }
        ReloadStage::Replacing { .. } => {
            reload.stage = ReloadStage::RollingBack {
                started: false,
                canceled: true,
                class: ExitClass::Stopped,
                text: "it was cancelled; the old engine was started again".to_owned(),
            };
        }
        ReloadStage::RollingBack { canceled, .. } => *canceled = true,
    }
    turn.effects.push(Effect::SaveRuntime);
}

/// Nothing was replaced yet, and nothing will be. Where an earlier reload had replaced the old engine, it starts again.
pub(super) fn give_up(
    pool: &mut Pool,
    result: JobResult,
    class: ExitClass,
    text: String,
    turn: &mut Turn<'_>,
) {
    let Some(reload) = &pool.reload else { return };
    let wanted = reload.wanted.clone();
    let runs_old = |replica: &Replica| {
        replica.revision.as_ref().is_some_and(|revision| revision.digest == reload.from.digest)
    };
    if !pool.replicas.iter().any(runs_old) {
        end_check(pool, turn);
        drain::forget(pool, turn);
        let canceled = result == JobResult::Canceled;
        set_stage(pool, ReloadStage::RollingBack { started: false, canceled, class, text }, turn);
        return;
    }
    forget(pool, turn);
    drain::call_off(pool, turn);
    breaker::go_on(pool, turn);
    turn.log(pool, None, LogKind::ReloadFailed, text.clone());
    end(pool, result, text, turn);
    newer_file(pool, &wanted, turn);
}

/// A file that changed while its pool was reloaded waits for nobody where it applies by itself.
fn newer_file(pool: &mut Pool, wanted: &str, turn: &mut Turn<'_>) {
    let spec = &pool.revision.spec;
    if pool.revision.digest != wanted && spec.on_change == OnChange::DrainFirst && !pool.pending().is_empty()
    {
        let deadline = spec.drain.deadline;
        let wanted = Wanted { to: pool.revision.clone(), deadline, force: false };
        ask(pool, wanted, turn);
    }
}

fn end(pool: &mut Pool, result: JobResult, text: String, turn: &mut Turn<'_>) {
    turn.effects.push(Effect::SaveRuntime);
    if let Some((job, crate::job::Operation::Reload)) = pool.job {
        pool.job = None;
        turn.end_job(job, result, text);
    }
}

/// The next steps, as far as they are due.
pub(super) fn step(pool: &mut Pool, turn: &mut Turn<'_>) {
    loop {
        let before = pool.reload.as_ref().map(|reload| reload.stage.clone());
        one_step(pool, turn);
        if before.is_none() || before == pool.reload.as_ref().map(|reload| reload.stage.clone()) {
            return;
        }
    }
}

fn one_step(pool: &mut Pool, turn: &mut Turn<'_>) {
    let Some(reload) = &pool.reload else { return };
    match reload.stage.clone() {
        ReloadStage::Checking { asked: false } => check(pool, turn),
        ReloadStage::Checking { asked: true } | ReloadStage::Draining => {}
        ReloadStage::Replacing { started: false } => {
            let to = reload.to.clone();
            if emptied(pool, &to, turn) {
                put_in_place(pool, &to, turn);
                set_stage(pool, ReloadStage::Replacing { started: true }, turn);
                let version = pool.reload.as_ref().map_or(String::new(), |reload| reload.version.clone());
                for index in idle(pool) {
                    launch_checked(pool, index, &version, turn);
                }
                // Where the engines run it already, nothing happens that would have this looked at.
                replaced(pool, turn);
            }
        }
        ReloadStage::Replacing { started: true } => replaced(pool, turn),
        ReloadStage::RollingBack { started: false, canceled, class, text } => {
            let from = reload.from.clone();
            if emptied(pool, &from, turn) {
                put_in_place(pool, &from, turn);
                let (class_too, text_too) = (class.clone(), text.clone());
                let stage =
                    ReloadStage::RollingBack { started: true, canceled, class: class_too, text: text_too };
                set_stage(pool, stage, turn);
                for index in idle(pool) {
                    begin(pool, index, turn);
                }
                rolled_back(pool, canceled, class, text, turn);
            }
        }
        ReloadStage::RollingBack { started: true, canceled, class, text } => {
            rolled_back(pool, canceled, class, text, turn);
        }
    }
}

fn set_stage(pool: &mut Pool, stage: ReloadStage, turn: &mut Turn<'_>) {
    if let Some(reload) = &mut pool.reload {
        reload.stage = stage;
    }
    turn.effects.push(Effect::SaveRuntime);
}

/// Checks the new spec beside the engine that serves. Its address is that engine's, so it is not asked for.
fn check(pool: &mut Pool, turn: &mut Turn<'_>) {
    // Its address is not looked at, so any will do where the first engine has none.
    let known = pool.replicas.iter().find_map(|replica| replica.endpoint.clone());
    let (Some(reload), Some(replica)) = (&mut pool.reload, pool.replicas.first_mut()) else { return };
    // A name that was given up is somebody else's: nothing could be told of two units of one name.
    let generation = replica.generation.max(replica.next_generation);
    let name = UnitName { generation, ..replica.unit_name(UnitKind::Stage) };
    let checks = |name: &UnitName| name.kind == UnitKind::Stage;
    if replica.taken.keys().any(checks) || replica.phase == Phase::Staging {
        // The checks of the last start are not forgotten yet.
        return;
    }
    if let Err(text) = turn.promises.could_replace(&reload.to.spec, turn.host.memory) {
        refused(pool, ExitClass::NotAdmitted, text, turn);
        return;
    }
    // What is checked with the devices of the first engine holds for the others', if all can have theirs.
    let devices = match could_have(&reload.to.spec, turn) {
        Ok(parts) => parts.into_iter().next().unwrap_or_default(),
        Err(text) => {
            refused(pool, ExitClass::NotAdmitted, text, turn);
            return;
        }
    };
    let listen = &reload.to.spec.listen;
    let Some(endpoint) = known.or_else(|| address(replica, listen, turn)) else {
        let text = "no automatic port is free; widen network.auto_ports in pool-managerd.toml".to_owned();
        refused(pool, ExitClass::Refused(Refusal::PortInUse), text, turn);
        return;
    };
    let launch = Launch {
        spec: &reload.to.spec,
        spec_digest: &reload.to.digest,
        endpoint: &endpoint,
        engine_version: "",
        share: &Share { cpus: turn.cpus.allowed(&replica.id), ..Share::default() },
        devices: &devices,
        host: turn.host,
        model_folders: &turn.settings.model_folders,
    };
    turn.effects.push(Effect::StartUnit(stage_unit(&name, &launch, false)));
    replica.taken.insert(name, turn.hold(false));
    reload.stage = ReloadStage::Checking { asked: true };
    turn.effects.push(Effect::SaveRuntime);
}

/// What the checks of the new spec came to.
pub(super) fn checked(pool: &mut Pool, seen: &UnitObservation, turn: &mut Turn<'_>) {
    let Some(reload) = &mut pool.reload else { return };
    if seen.active == ActiveState::Active {
        let version = seen.status_text.strip_prefix("staged, engine version ").unwrap_or_default();
        reload.version = version.to_owned();
        reload.stage = ReloadStage::Draining;
        let deadline = reload.deadline;
        drain::begin(pool, DrainFor::Reload, deadline, turn);
    } else {
        let (class, text) = ExitClass::of(seen);
        refused(pool, class, text, turn);
    }
}

/// The checks of the new spec failed, or could not be made.
pub(super) fn refused(pool: &mut Pool, class: ExitClass, text: String, turn: &mut Turn<'_>) {
    let text = format!("the new model was refused, the old engine goes on: {text}");
    pool.went_wrong(class.clone(), text.clone(), turn.real);
    give_up(pool, JobResult::Failed, class, text, turn);
}

/// Whether an engine runs that spec, or is on its way to.
fn runs(replica: &Replica, spec: &Revision) -> bool {
    replica.revision.as_ref().is_some_and(|revision| revision.digest == spec.digest)
        && (replica.phase == Phase::Staging || replica.engine_runs())
}

/// Has everything end that does not run `keep`; whether nothing of it is left.
fn emptied(pool: &mut Pool, keep: &Revision, turn: &mut Turn<'_>) -> bool {
    for index in 0..pool.replicas.len() {
        let Some(replica) = pool.replicas.get(index) else { continue };
        if !runs(replica, keep) && !may_rest(&replica.phase) && replica.phase != Phase::Stopping {
            stop_replica(pool, index, turn);
        }
    }
    let left = |replica: &Replica| {
        let gone = may_rest(&replica.phase) && replica.taken.is_empty();
        !runs(replica, keep) && !gone
    };
    !pool.replicas.iter().any(left)
}

/// Gives its spec to every engine that does not run.
fn put_in_place(pool: &mut Pool, spec: &Revision, turn: &mut Turn<'_>) {
    for replica in pool.replicas.iter_mut().filter(|replica| may_rest(&replica.phase)) {
        replica.phase = Phase::Stopped;
    }
    for gone in pool.resize(spec.spec.replicas) {
        turn.release(&gone);
    }
    for replica in &mut pool.replicas {
        if replica.phase == Phase::Stopped {
            replica.last_exit = None;
            replica.failures = 0;
            replica.ports_tried = 0;
            replica.as_before = false;
            replica.revision = Some(spec.clone());
        }
    }
}

fn idle(pool: &Pool) -> Vec<usize> {
    let replicas = pool.replicas.iter().enumerate();
    replicas.filter(|(_, replica)| replica.phase == Phase::Stopped).map(|(index, _)| index).collect()
}

/// The new engines were started: whether they serve, or one has failed.
fn replaced(pool: &mut Pool, turn: &mut Turn<'_>) {
    if pool.replicas.iter().all(Replica::ready) {
        let Some(reload) = pool.reload.take() else { return };
        if pool.revision.digest == reload.wanted {
            pool.revision = reload.to.clone();
        }
        turn.log(pool, None, LogKind::PoolReloaded, "the new engine serves".to_owned());
        end(pool, JobResult::Done, String::new(), turn);
        newer_file(pool, &reload.wanted, turn);
        return;
    }
    let over = |phase: &Phase| may_rest(phase) || matches!(phase, Phase::Backoff { .. });
    if !pool.replicas.iter().any(|replica| over(&replica.phase)) {
        return;
    }
    let error = pool.last_error.clone();
    let (class, text) =
        error.map_or((ExitClass::Stopped, "it ended".to_owned()), |error| (error.class, error.text));
    let text = format!("the new model failed: {text}");
    turn.log(pool, None, LogKind::ReloadFailed, format!("{text}; the old one is started again"));
    set_stage(pool, ReloadStage::RollingBack { started: false, canceled: false, class, text }, turn);
}

/// The old engines were started again: whether they serve, or that failed too.
fn rolled_back(pool: &mut Pool, canceled: bool, class: ExitClass, text: String, turn: &mut Turn<'_>) {
    let result = if canceled { JobResult::Canceled } else { JobResult::Failed };
    let Some(wanted) = pool.reload.as_ref().map(|reload| reload.wanted.clone()) else { return };
    if pool.replicas.iter().all(Replica::ready) {
        pool.reload = None;
        if let Some((job, _)) = pool.job {
            turn.job_details(job, |details| details.rolled_back = true);
        }
        // Whatever else went wrong meanwhile, this is what the operator asks about.
        if !canceled {
            pool.went_wrong(class, format!("{text}; the old one serves again"), turn.real);
        }
        turn.log(pool, None, LogKind::PoolReloaded, "the old engine serves again".to_owned());
        end(pool, result, text, turn);
        start_again(pool, turn);
        newer_file(pool, &wanted, turn);
        return;
    }
    let over = |phase: &Phase| may_rest(phase) || matches!(phase, Phase::Backoff { .. });
    if pool.replicas.iter().all(|replica| replica.ready() || over(&replica.phase)) {
        pool.reload = None;
        let again = pool.last_error.as_ref().map_or(String::new(), |error| error.text.clone());
        end(pool, result, format!("{text}; and the old one failed too: {again}"), turn);
        if pool.revision.digest != wanted && down_by_failure(pool) {
            let text = "both models failed; the file has changed since, and is tried".to_owned();
            turn.log(pool, None, LogKind::ReloadFailed, text);
            start(pool, turn);
            return;
        }
        breaker::go_on(pool, turn);
        start_again(pool, turn);
    }
}

impl Pool {
    /// The unit in which a new spec is checked beside the engines that serve.
    pub(super) fn check_of_new_spec(&self) -> Option<UnitName> {
        self.reload.as_ref().filter(|reload| reload.stage == ReloadStage::Checking { asked: true })?;
        let replica = self.replicas.first()?;
        // Nothing else is checked while it is.
        replica.taken.keys().find(|name| name.kind == UnitKind::Stage).cloned()
    }
}
