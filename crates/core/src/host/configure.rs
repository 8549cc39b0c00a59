//! What a newly read configuration means for pools that run: what is new starts, what is gone ends, what is broken or
//! changed runs on as it is.

use super::turn::Clock;
use super::{Answer, Effect, Effects, LogKind, LogLine, RequestId, State, Turn, adoption};
use crate::config::{Activation, Configuration};
use crate::name::PoolId;
use crate::pool::{Pool, Wish, lifecycle};
use crate::replica::Phase;

pub(super) fn read_again(
    state: &mut State,
    clock: Clock,
    effects: &mut Effects,
    configuration: Configuration,
    requests: &[RequestId],
) {
    let Configuration { settings, pools, broken, errors, incomplete } = configuration;
    log_errors(&errors, effects);
    state.settings = settings;
    state.errors = errors;
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
        if state.stopped.remove(&id) {
            effects.push(Effect::SaveWishes);
        }
        state.with_pool(clock, effects, &id, |pool, turn| {
            pool.leaving = true;
            lifecycle::stop(pool, turn);
        });
        removed.push(id);
    }
    for (id, revision) in pools {
        match state.pools.get_mut(&id) {
            None => {
                state.insert_pool(id.clone(), Pool::new(revision, clock.real));
                adoption::claim(state, clock, effects, &id);
                start_resident(state, clock, effects, &id, lifecycle::resume);
                added.push(id);
            }
            Some(pool) => {
                state.touched.insert(id.clone());
                let back = std::mem::take(&mut pool.leaving);
                let differs = pool.revision.digest != revision.digest;
                // Also where the digest is the same: a file that was moved is the same pool.
                pool.revision = revision;
                if (differs && at_rest_by_failure(pool)) || back {
                    start_resident(state, clock, effects, &id, lifecycle::start);
                }
                if back {
                    added.push(id);
                } else if differs {
                    changed.push(id);
                }
            }
        }
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

/// Whether a changed file may be what mends the pool.
fn at_rest_by_failure(pool: &Pool) -> bool {
    pool.wish == Wish::Run
        && pool.replicas.iter().all(|replica| matches!(replica.phase, Phase::Failed | Phase::Backoff { .. }))
}
