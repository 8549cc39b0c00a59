//! Emptying a pool: no new leases, not ready, its engines work on; and what comes after.

use super::wishes::{stop, stop_replica};
use crate::host::{Effect, LogKind, Purpose, TimerId, Turn};
use crate::name::Usec;
use crate::pool::{Drain, DrainFor, Pool, ReloadStage, Wish};
use crate::replica::{ExitClass, Phase, Replica};

/// Somebody wants the pool emptied and stopped.
pub(crate) fn ask(pool: &mut Pool, deadline: Usec, turn: &mut Turn<'_>) {
    if pool.wish == Wish::Stop {
        // It ends already.
        return;
    }
    if pool.drain.as_ref().is_some_and(|drain| drain.purpose != DrainFor::Reload) {
        hasten(pool, deadline, turn);
        return;
    }
    forget(pool, turn);
    super::reload::forget(pool, turn);
    begin(pool, DrainFor::Stop, deadline, turn);
}

/// Begins to empty the pool. Where nothing of it serves, there is nothing to wait for.
pub(super) fn begin(pool: &mut Pool, purpose: DrainFor, deadline: Usec, turn: &mut Turn<'_>) {
    let serves = pool.replicas.iter().any(Replica::ready);
    if !serves && purpose == DrainFor::Stop {
        stop(pool, turn);
        return;
    }
    let settle = pool.revision.spec.drain.settle.min(deadline);
    let settling = turn.timer(settle, Purpose::Drain(pool.id().clone()));
    let running = turn.timer(deadline, Purpose::Drain(pool.id().clone()));
    pool.drain = Some(Drain {
        purpose,
        deadline: turn.mono.plus(deadline),
        deadline_real: turn.real.plus(deadline),
        settling: Some(settling),
        running: Some(running),
    });
    stop_the_rest(pool, turn, |phase| *phase == Phase::Failed);
    let text = format!(
        "draining, for {deadline} at most: {} leases held, {} requests in flight",
        pool.active_leases(),
        pool.in_flight()
    );
    turn.log(pool, None, LogKind::PoolDraining, text);
    turn.effects.push(Effect::SaveRuntime);
}

/// What does not serve ends at once, but for what is `left` as it is: what failed for good.
fn stop_the_rest(pool: &mut Pool, turn: &mut Turn<'_>, left: fn(&Phase) -> bool) {
    for index in 0..pool.replicas.len() {
        let rests = |replica: &Replica| replica.ready() || left(&replica.phase);
        if pool.drain.is_some() && pool.replicas.get(index).is_some_and(|replica| !rests(replica)) {
            stop_replica(pool, index, turn);
        }
    }
}

/// After a restart of the daemon: what turned up and does not serve ends. How one ends that ended by itself is still to be
/// told.
pub(crate) fn stop_what_turned_up(pool: &mut Pool, turn: &mut Turn<'_>) {
    stop_the_rest(pool, turn, |phase| matches!(phase, Phase::Failed | Phase::Ending));
}

/// Takes a drain up that an earlier run of the daemon began.
pub(crate) fn resume(pool: &mut Pool, turn: &mut Turn<'_>) {
    let id = pool.id().clone();
    if let Some(drain) = &mut pool.drain {
        // What its engines work on is not known before their probers have said it again.
        let settle = pool.revision.spec.drain.settle.min(drain.deadline.since(turn.mono));
        drain.settling = Some(turn.timer(settle, Purpose::Drain(id.clone())));
        if drain.running.is_some() {
            let left = drain.deadline.since(turn.mono);
            drain.running = Some(turn.timer(left, Purpose::Drain(id)));
        }
    }
}

/// Asked again for a drain: the earlier deadline wins.
fn hasten(pool: &mut Pool, deadline: Usec, turn: &mut Turn<'_>) {
    let id = pool.id().clone();
    let Some(drain) = &mut pool.drain else { return };
    drain.purpose = DrainFor::Stop;
    turn.effects.push(Effect::SaveRuntime);
    let Some(timer) = drain.running.filter(|_| turn.mono.plus(deadline) < drain.deadline) else { return };
    turn.cancel(timer);
    drain.deadline = turn.mono.plus(deadline);
    drain.deadline_real = turn.real.plus(deadline);
    drain.running = Some(turn.timer(deadline, Purpose::Drain(id)));
}

/// Ends a drain without what was to come after it.
pub(super) fn forget(pool: &mut Pool, turn: &mut Turn<'_>) {
    if let Some(drain) = pool.drain.take() {
        for timer in [drain.settling, drain.running].into_iter().flatten() {
            turn.cancel(timer);
        }
    }
}

/// A drain is called off: the pool serves as before, and what was stopped for it or failed meanwhile starts again.
pub(crate) fn call_off(pool: &mut Pool, turn: &mut Turn<'_>) {
    let drained = pool.drain.is_some();
    forget(pool, turn);
    for replica in pool.replicas.iter_mut().filter(|_| drained) {
        if replica.phase == Phase::Failed && replica.as_before {
            replica.phase = Phase::Stopped;
            replica.last_exit = None;
        }
        replica.as_before = matches!(replica.phase, Phase::Stopped | Phase::Stopping);
    }
    super::wishes::start_again(pool, turn);
    turn.effects.push(Effect::SaveRuntime);
}

/// One of its timers has run out.
pub(crate) fn timer(pool: &mut Pool, id: TimerId, turn: &mut Turn<'_>) {
    let Some(drain) = &mut pool.drain else { return };
    turn.effects.push(Effect::SaveRuntime);
    if drain.settling == Some(id) {
        drain.settling = None;
    }
    if drain.running == Some(id) {
        drain.running = None;
    }
}

/// Whether it is over, and what follows.
pub(super) fn step(pool: &mut Pool, turn: &mut Turn<'_>) {
    let Some(drain) = &pool.drain else { return };
    let serves = pool.replicas.iter().any(Replica::ready);
    let empty = pool.active_leases() == 0 && pool.in_flight() == 0;
    // A deadline may be shorter than the time to settle.
    let settled = drain.settling.is_none() || drain.running.is_none();
    if !serves || (empty && settled) {
        finish(pool, turn);
    } else if drain.running.is_none() {
        over(pool, turn);
    }
}

/// The deadline has passed, and there is something left.
fn over(pool: &mut Pool, turn: &mut Turn<'_>) {
    let left = format!("{} leases held, {} requests in flight", pool.active_leases(), pool.in_flight());
    let abort = pool.reload.as_ref().is_some_and(|reload| !reload.force);
    let reloads = pool.drain.as_ref().is_some_and(|drain| drain.purpose == DrainFor::Reload);
    if reloads && abort {
        let text = format!("the reload was given up at its deadline: {left}; the old engine goes on");
        pool.went_wrong(ExitClass::Stopped, text.clone(), turn.real);
        super::reload::give_up(pool, crate::job::JobResult::Timeout, ExitClass::Stopped, text, turn);
        return;
    }
    let text = format!("the drain's deadline passed with {left}: stopped by force");
    pool.went_wrong(ExitClass::Stopped, text.clone(), turn.real);
    turn.log(pool, None, LogKind::DrainForced, text);
    if let Some((job, _)) = pool.job {
        turn.job_details(job, |details| details.force_stopped = true);
    }
    finish(pool, turn);
}

fn finish(pool: &mut Pool, turn: &mut Turn<'_>) {
    let Some(purpose) = pool.drain.as_ref().map(|drain| drain.purpose) else { return };
    if let Some((job, _)) = pool.job {
        let leases = pool.active_leases();
        turn.job_details(job, |details| details.leases_left = leases);
    }
    forget(pool, turn);
    match purpose {
        DrainFor::Stop => stop(pool, turn),
        DrainFor::Restart => {
            stop(pool, turn);
            // Somebody asked for all of them; those that still end start once they have.
            pool.replicas.iter_mut().for_each(|replica| replica.last_exit = None);
            super::wishes::start(pool, turn);
        }
        DrainFor::Reload => {
            if let Some(reload) = &mut pool.reload {
                reload.stage = ReloadStage::Replacing { started: false };
            }
            // Every one of them, also where the new spec is the old one.
            for index in 0..pool.replicas.len() {
                if pool.replicas.get(index).is_some_and(|replica| !may_rest(&replica.phase)) {
                    stop_replica(pool, index, turn);
                }
            }
        }
    }
    turn.effects.push(Effect::SaveRuntime);
}

/// Whether an engine may end because of what the pool is on its way through.
pub(super) fn may_rest(phase: &Phase) -> bool {
    matches!(phase, Phase::Stopped | Phase::Failed | Phase::Tripped)
}
