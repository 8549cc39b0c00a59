//! Opening, trying and closing of a pool's breakers, and the lengths of readiness that matter.

use super::failure::await_storm;
use super::wishes::begin;
use crate::host::{Effect, LogKind, Purpose, TimerId, Turn};
use crate::name::Usec;
use crate::pool::{BreakerState, Kind, Leave, Opening, Pool, Wish};
use crate::replica::{ExitClass, Phase};

/// Opens a breaker: whatever waits for a restart waits for it now.
pub(super) fn open(pool: &mut Pool, kind: Kind, open_for: Usec, why: Opening, turn: &mut Turn<'_>) {
    pool.troubles.breaker_mut(kind).open_for = open_for;
    keep_open(pool, kind, open_for, turn);
    for replica in &mut pool.replicas {
        if let Phase::Backoff { timer, .. } = replica.phase {
            turn.cancel(timer);
            replica.phase = Phase::Tripped;
        }
    }
    let what = match kind {
        Kind::Ordinary => "failures",
        Kind::Gpu => "GPU errors",
    };
    let text = match why {
        Opening::Row(row) => format!("{row} {what} in a row"),
        Opening::Trial => "the trial failed".to_owned(),
        Opening::Storm(restarts, window) => format!("{restarts} restarts within {window}"),
        Opening::OomStorm(times, window) => format!("out of memory {times} times within {window}"),
    };
    if let Opening::OomStorm(..) = why {
        let last = pool.last_error.as_ref().map_or(String::new(), |error| format!("; last: {}", error.text));
        pool.went_wrong(ExitClass::OomStorm, format!("{text}{last}"), turn.real);
    }
    turn.log(
        pool,
        None,
        LogKind::BreakerOpened,
        format!("{text}: nothing is started by itself for {open_for}, then once for trial"),
    );
    turn.effects.push(Effect::SaveRuntime);
}

/// A breaker is open for that long from now.
fn keep_open(pool: &mut Pool, kind: Kind, open_for: Usec, turn: &mut Turn<'_>) {
    let timer = turn.timer(open_for, Purpose::Trial(pool.id().clone()));
    pool.troubles.breaker_mut(kind).state =
        BreakerState::Open { timer, until: turn.mono.plus(open_for), until_real: turn.real.plus(open_for) };
}

/// An open breaker's time is over.
pub(crate) fn trial_due(pool: &mut Pool, id: TimerId, turn: &mut Turn<'_>) {
    for kind in [Kind::Ordinary, Kind::Gpu] {
        let breaker = pool.troubles.breaker_mut(kind);
        if let BreakerState::Open { timer, until, .. } = breaker.state
            && timer == id
        {
            breaker.state = BreakerState::HalfOpen { trial: None, until };
            turn.effects.push(Effect::SaveRuntime);
        }
    }
    go_on(pool, turn);
}

/// Starts what waits for the breakers and may be started by now: one where they are half open, else all.
pub(super) fn go_on(pool: &mut Pool, turn: &mut Turn<'_>) {
    if pool.wish != Wish::Run || pool.drain.is_some() || pool.candidate_runs() {
        return;
    }
    let numbers = pool.revision.spec.restart;
    for index in 0..pool.replicas.len() {
        let Some(replica) = pool.replicas.get(index) else { continue };
        if replica.phase != Phase::Tripped {
            continue;
        }
        match pool.troubles.leave(replica.id.index, turn.mono, &numbers) {
            Leave::Given => restart(pool, index, turn),
            Leave::Refused => {}
            Leave::After(delay) => await_storm(pool, index, delay, turn),
        }
    }
}

/// Starts an engine again by itself: the one that is tried, where a breaker is half open.
pub(super) fn restart(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let numbers = pool.revision.spec.restart;
    let Some(replica) = pool.replicas.get(index) else { return };
    pool.troubles.try_with(replica.id.index);
    pool.restart_count = pool.restart_count.saturating_add(1);
    if let Some(many) = pool.troubles.restarted(turn.mono, &numbers) {
        let text = format!("{many} restarts within {}", numbers.storm.window);
        turn.log(pool, Some(index), LogKind::RestartStorm, text);
    }
    begin(pool, index, turn);
}

/// After a restart of the daemon: an engine that was being tried and is gone is tried no more.
pub(crate) fn try_another(pool: &mut Pool, turn: &mut Turn<'_>) {
    for index in 0..pool.replicas.len() {
        let Some(replica) = pool.replicas.get(index) else { continue };
        let number = replica.id.index;
        let runs = matches!(
            replica.phase,
            Phase::Staging
                | Phase::Starting
                | Phase::Ready { .. }
                | Phase::Ending { .. }
                | Phase::Backoff { .. }
        );
        if !runs && pool.troubles.tries(number) {
            undecided(pool, index, turn);
        }
    }
    go_on(pool, turn);
}

/// A trial has come to nothing: another engine may be tried, in its time.
pub(super) fn undecided(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get(index) else { return };
    for (kind, until) in pool.troubles.trial_undecided(replica.id.index, turn.mono) {
        keep_open(pool, kind, until.since(turn.mono), turn);
    }
    go_on(pool, turn);
}

/// The lengths of readiness that matter, each with what it ends, shortest first.
fn marks(pool: &Pool) -> [(Usec, Mark); 3] {
    let numbers = &pool.revision.spec.restart;
    let mut marks = [
        (numbers.breaker.close_after, Mark::Row),
        (numbers.reset_after, Mark::Backoff),
        (numbers.count_reset_after, Mark::Count),
    ];
    marks.sort_by_key(|(after, _)| *after);
    marks
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Row,
    Backoff,
    Count,
}

/// The next of them that an engine reaches, which has reached `steady_for`. One that was passed before it became a mark,
/// as a newer file can make it, counts where the engine is still being tried.
fn next_mark(marks: &[(Usec, Mark)], steady_for: Usec, tried: bool) -> Option<(Usec, Mark)> {
    let passed = marks.iter().find(|(after, mark)| tried && *mark == Mark::Row && *after <= steady_for);
    passed.or_else(|| marks.iter().find(|(after, _)| *after > steady_for)).copied()
}

/// Keeps a timer for the next length of readiness that matters, for as long as an engine serves.
pub(super) fn watch_readiness(pool: &mut Pool, turn: &mut Turn<'_>) {
    let marks = marks(pool);
    for replica in &mut pool.replicas {
        let since = match replica.phase {
            Phase::Ready { since } => since,
            // How it ended may still be judged by how long it served.
            Phase::Ending { .. } => {
                if let Some(timer) = replica.steady.take() {
                    turn.cancel(timer);
                }
                continue;
            }
            Phase::Stopped
            | Phase::WaitingForName
            | Phase::Staging
            | Phase::Starting
            | Phase::Stopping
            | Phase::Backoff { .. }
            | Phase::Tripped
            | Phase::Failed => {
                if let Some(timer) = replica.steady.take() {
                    turn.cancel(timer);
                }
                if std::mem::take(&mut replica.steady_for) != Usec(0) {
                    turn.effects.push(Effect::SaveRuntime);
                }
                continue;
            }
        };
        let tried = pool.troubles.tries(replica.id.index);
        if let (None, Some((after, _))) = (replica.steady, next_mark(&marks, replica.steady_for, tried)) {
            let left = since.plus(after).since(turn.mono);
            replica.steady = Some(turn.timer(left, Purpose::Steady(replica.id.clone())));
        }
    }
}

/// An engine has served for as long as the next mark says.
pub(crate) fn steady(pool: &mut Pool, index: usize, id: TimerId, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if replica.steady != Some(id) {
        return;
    }
    replica.steady = None;
    let (from, number) = (replica.steady_for, replica.id.index);
    match next_mark(&marks(pool), from, pool.troubles.tries(number)) {
        Some((passed, _)) if passed <= from => {
            row_ends(pool, index, turn);
            turn.effects.push(Effect::SaveRuntime);
        }
        Some((reached, _)) => reach(pool, index, reached, turn),
        None => {}
    }
}

/// An engine served for so long: every mark up to there that was not reached yet is.
pub(super) fn reach(pool: &mut Pool, index: usize, served: Usec, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let from = replica.steady_for;
    for (after, mark) in marks(pool).into_iter().filter(|(after, _)| *after > from && *after <= served) {
        if let Some(replica) = pool.replicas.get_mut(index) {
            replica.steady_for = after;
        }
        match mark {
            Mark::Row => row_ends(pool, index, turn),
            Mark::Backoff => {
                if let Some(replica) = pool.replicas.get_mut(index) {
                    replica.failures = 0;
                }
            }
            Mark::Count => pool.restart_count = 0,
        }
        turn.effects.push(Effect::SaveRuntime);
    }
}

fn row_ends(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get(index) else { return };
    let closed = pool.troubles.stable(replica.id.index);
    if !closed.is_empty() {
        let after = pool.revision.spec.restart.breaker.close_after;
        let text = format!("the trial has served for {after}: the breaker is closed");
        turn.log(pool, Some(index), LogKind::BreakerClosed, text);
        go_on(pool, turn);
    }
}
