//! What a newly read configuration means for pools that run: what is new starts, what is gone ends, what is broken or
//! changed runs on as it is.

use super::turn::Clock;
use super::{Answer, Effect, Effects, LogKind, LogLine, RequestId, State, Turn, adoption};
use crate::config::{Activation, Configuration, OnChange};
use crate::device::DeviceWish;
use crate::job::{JobResult, Operation};
use crate::name::PoolId;
use crate::pool::{Pool, Wish, lifecycle};
use crate::replica::{ExitClass, Replica};

pub(super) fn read_again(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    configuration: Configuration,
    requests: &[RequestId],
) {
    let Configuration { settings, pools, broken, errors, incomplete, inventory } = configuration;
    log_errors(&errors, effects);
    let known = state.devices.inventory();
    let other_devices = inventory.is_some_and(|found| {
        let differs = found != known;
        super::devices_found(state, found);
        differs
    });
    state.settings = settings;
    state.errors = errors;
    for (id, error) in &broken {
        if let Some(pool) = state.pools.get_mut(id) {
            state.touched.insert(id.clone());
            pool.file_error = Some(error.error.clone());
        }
    }
    let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let gone: Vec<PoolId> = state
        .pools
        .iter()
        .filter(|(id, pool)| {
            !incomplete && !pool.leaving && !pools.contains_key(id) && !broken.contains_key(id)
        })
        .map(|(id, _)| id.clone())
        .collect();
    for id in gone {
        state.with_pool(clock, effects, &id, leave);
        removed.push(id);
    }
    for (id, revision) in pools {
        match state.pools.get_mut(&id) {
            None => {
                state.insert_pool(clock, effects, id.clone(), Pool::new(revision, clock.real));
                adoption::claim(state, clock, effects, &id, None);
                start_resident(state, clock, effects, &id, lifecycle::resume);
                added.push(id);
            }
            Some(pool) => {
                state.touched.insert(id.clone());
                let back = std::mem::take(&mut pool.leaving);
                pool.file_error = None;
                let differs = pool.file_digest != revision.digest;
                pool.file_digest.clone_from(&revision.digest);
                // Also where the digest is the same: a file that was moved is the same pool. What a reload put in the
                // place of what the file still says stays.
                if differs || pool.revision.digest == revision.digest {
                    pool.revision = revision;
                }
                let apply = differs && applies_by_itself(pool);
                if back && pool.drain.is_some() {
                    come_back(state, clock, effects, &id);
                } else if ((differs || (other_devices && kept_back(pool)))
                    && lifecycle::down_by_failure(pool))
                    || back
                {
                    start_resident(state, clock, effects, &id, lifecycle::start);
                } else if apply {
                    reload(state, clock, effects, &id);
                } else if differs {
                    state.with_pool(clock, effects, &id, lifecycle::start_more);
                }
                if back {
                    added.push(id);
                } else if differs {
                    changed.push(id);
                }
            }
        }
    }
    let with_devices = state.pools.iter().filter(|(_, pool)| pool.parts().next().is_some());
    for id in with_devices.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
        // A node that was missing may be back: nobody tells the daemon but who asks for this.
        state.with_pool(clock, effects, &id, |pool, turn| {
            pool.replicas.iter().for_each(|replica| lifecycle::devices::open_nodes_again(replica, turn));
        });
    }
    if !incomplete {
        let pools = state.pools.keys().cloned().collect::<std::collections::BTreeSet<_>>();
        adoption::end_orphans(state, effects, |id| pools.contains(id) || broken.contains_key(id));
    }
    let message = format!(
        "configuration read; pools: {}, added: {}, changed: {}, removed: {}, files with errors: {}",
        state.pools.len(),
        added.len(),
        changed.len(),
        removed.len(),
        state.files_with_errors()
    );
    effects.push(Effect::Log(LogLine::plain(LogKind::ConfigurationLoaded, message)));
    effects.push(Effect::SaveRuntime);
    for request in requests {
        let answer =
            Answer::Reloaded { added: added.clone(), changed: changed.clone(), removed: removed.clone() };
        effects.push(Effect::Reply(*request, answer));
    }
}

pub(super) fn log_errors(errors: &[crate::config::FileError], effects: &mut Effects) {
    for error in errors {
        let mut line =
            LogLine::plain(LogKind::ConfigurationError, format!("{}: {}", error.file, error.error));
        line.fields.push(("config_path", error.file.clone()));
        line.fields.push(("last_error", error.error.clone()));
        effects.push(Effect::Log(line));
    }
}

/// Whether an engine of it was not admitted that wants devices: others may be there by now.
fn kept_back(pool: &Pool) -> bool {
    let refused = |replica: &Replica| replica.last_exit == Some(ExitClass::NotAdmitted);
    pool.revision.spec.devices.wish != DeviceWish::None && pool.replicas.iter().any(refused)
}

/// Its file is gone: it is drained, and goes once nothing of it is left. What it was about besides gives way.
fn leave(pool: &mut Pool, turn: &mut Turn<'_>) {
    pool.leaving = true;
    if let Some((job, Operation::Start | Operation::Reload)) = pool.job {
        pool.job = None;
        turn.end_job(job, JobResult::Superseded, "the pool's file was removed".to_owned());
    }
    let deadline = pool.revision.spec.drain.deadline;
    lifecycle::drain::ask(pool, deadline, turn);
}

/// Its file is back while it drains: it serves on, unless an operator wanted it drained.
fn come_back(state: &mut State, clock: Clock, effects: &mut Effects, id: &PoolId) {
    if !state.stopped.contains(id) {
        state.with_pool(clock, effects, id, lifecycle::drain::call_off);
    }
}

/// Starts a pool that should run by itself, unless an operator stopped it.
pub(super) fn start_resident(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    id: &PoolId,
    start: fn(&mut Pool, &mut Turn<'_>),
) {
    if state.stopped.contains(id) {
        return;
    }
    state.with_pool(clock, effects, id, |pool, turn| {
        if pool.revision.spec.activation == Activation::Resident || pool.wish == Wish::Run {
            start(pool, turn);
        }
    });
}

/// Whether a changed file is put into force at once, by a reload.
fn applies_by_itself(pool: &Pool) -> bool {
    pool.revision.spec.on_change == OnChange::DrainFirst
        && pool.wish == Wish::Run
        && pool.drain.is_none()
        && pool.reload.is_none()
        && !pool.pending().is_empty()
}

fn reload(state: &mut State, clock: Clock, effects: &mut Effects, id: &PoolId) {
    super::asked::begin_job(state, clock, effects, id, Operation::Reload);
    state.with_pool(clock, effects, id, |pool, turn| {
        let (to, deadline) = (pool.revision.clone(), pool.revision.spec.drain.deadline);
        lifecycle::reload::ask(pool, lifecycle::reload::Wanted { to, deadline, force: false }, turn);
    });
}
