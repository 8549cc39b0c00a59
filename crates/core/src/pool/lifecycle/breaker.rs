//! Opening, trying and closing of a pool's breakers, and the lengths of readiness that matter.

use super::failure::await_storm;
use super::wishes::{begin, start_anew};
use crate::host::{Effect, LogKind, Purpose, TimerId, Turn};
use crate::name::Usec;
use crate::pool::{BreakerState, Kind, Leave, Opening, Pool, Wish};
use crate::replica::{ExitClass, Mark, Phase, Reached};

/// Opens a breaker: whatever waits for a restart waits for it now.
pub(super) fn open(pool: &mut Pool, kind: Kind, open_for: Usec, why: Opening, turn: &mut Turn<'_>) {
    pool.troubles.breaker_mut(kind).open_for = open_for;
    keep_open(pool, kind, open_for, turn);
    for replica in &mut pool.replicas {
        if let Some((_, timer)) = replica.pause() {
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
pub(crate) fn go_on(pool: &mut Pool, turn: &mut Turn<'_>) {
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
            Leave::Refused => {}
            // One whose start was asked for while a breaker was in the way is started, not started again.
            Leave::Given | Leave::After(_) if replica.last_exit.is_none() => start_anew(pool, index, turn),
            Leave::Given => restart(pool, index, turn),
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

/// An engine that was being tried and is there no more, as after a restart of the daemon, keeps no other waiting.
pub(super) fn release_lost_trial(pool: &mut Pool, turn: &mut Turn<'_>) {
    let tried = |phase: &Phase| !matches!(phase, Phase::Stopped | Phase::Failed | Phase::Tripped);
    let lost = |index: &u16| {
        !pool.replicas.iter().any(|replica| replica.id.index == *index && tried(&replica.phase))
    };
    let lost: Vec<u16> = pool.troubles.trials().into_iter().filter(lost).collect();
    for index in &lost {
        for (kind, until) in pool.troubles.trial_undecided(*index, turn.mono) {
            keep_open(pool, kind, until.since(turn.mono), turn);
        }
    }
    if !lost.is_empty() {
        turn.effects.push(Effect::SaveRuntime);
        go_on(pool, turn);
    }
}

/// An attempt that somebody permitted, and that nothing was made of, is taken back.
pub(super) fn no_attempt(pool: &mut Pool, turn: &mut Turn<'_>) {
    for (kind, until) in pool.troubles.permits(turn.mono) {
        keep_open(pool, kind, until.since(turn.mono), turn);
    }
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

/// Keeps a timer for the next length of readiness that matters, for as long as an engine serves. The lengths may change
/// meanwhile.
pub(super) fn watch_readiness(pool: &mut Pool, turn: &mut Turn<'_>) {
    let marks = marks(pool);
    for replica in &mut pool.replicas {
        let next = match replica.phase {
            Phase::Ready { since } => {
                let next = marks.iter().find(|(_, mark)| !replica.reached.marks.contains(mark));
                next.map(|(after, _)| since.plus(*after))
            }
            Phase::Stopped
            | Phase::WaitingForName
            | Phase::Staging
            | Phase::Starting
            | Phase::Ending
            | Phase::Stopping
            | Phase::Backoff { .. }
            | Phase::Tripped
            | Phase::Failed => {
                if replica.reached != Reached::default() {
                    replica.reached = Reached::default();
                    turn.effects.push(Effect::SaveRuntime);
                }
                None
            }
        };
        if let Some((timer, _)) = replica.steady.filter(|(_, at)| Some(*at) != next) {
            turn.cancel(timer);
            replica.steady = None;
        }
        if let (None, Some(at)) = (replica.steady, next) {
            let timer = turn.timer(at.since(turn.mono), Purpose::Steady(replica.id.clone()));
            replica.steady = Some((timer, at));
        }
    }
}

/// An engine has served for as long as the next mark says; that was dealt with before anything else.
pub(crate) fn steady(pool: &mut Pool, index: usize, id: TimerId) {
    if let Some(replica) = pool.replicas.get_mut(index)
        && replica.steady.is_some_and(|(timer, _)| timer == id)
    {
        replica.steady = None;
    }
}

/// Before every event: what engines have served long enough for by now has come true before it, whether or not the timers
/// that say so have rung.
pub(crate) fn catch_up(pool: &mut Pool, turn: &mut Turn<'_>) {
    // A trial that has succeeded lets others start: what any readiness ends has ended by then.
    for rows in [false, true] {
        for index in 0..pool.replicas.len() {
            has_served(pool, index, rows, turn);
        }
    }
}

/// Every mark that an engine which serves has reached by now, and that was not known yet, counts: the ends of rows, or
/// all others.
fn has_served(pool: &mut Pool, index: usize, rows: bool, turn: &mut Turn<'_>) {
    let Some(Phase::Ready { since }) = pool.replicas.get(index).map(|replica| replica.phase.clone()) else {
        return;
    };
    let served = turn.mono.since(since);
    let reached = marks(pool).into_iter().filter(|(after, _)| *after <= served);
    for (_, mark) in reached.filter(|(_, mark)| (*mark == Mark::Row) == rows) {
        let Some(replica) = pool.replicas.get_mut(index) else { return };
        if !replica.reached.marks.insert(mark) {
            continue;
        }
        replica.reached.by = replica.unit.invocation;
        match mark {
            Mark::Row => row_ends(pool, index, turn),
            Mark::Backoff => replica.failures = 0,
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
