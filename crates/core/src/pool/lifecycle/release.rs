//! Letting go of units that have ended, and getting their names back.

use super::observed::unit_forgotten;
use crate::host::{Effect, LogKind, Purpose, Turn};
use crate::name::{UnitName, Usec};
use crate::pool::Pool;
use crate::replica::{ActiveState, ExitClass, Hold, Phase, Replica, StartId, UnitObservation};

/// A unit that ran and is inactive has ended, and systemd is about to forget it. Where somebody else's dependency keeps
/// it loaded it never will: then its name is given up after a while.
pub(super) fn await_name(replica: &mut Replica, seen: &UnitObservation, turn: &mut Turn<'_>) {
    const WHILE: Usec = Usec::from_secs(1);
    let Some(hold) = replica.taken.get_mut(&seen.name) else { return };
    if seen.active != ActiveState::Inactive {
        hold.ran = true;
        if let Some(timer) = hold.give_up.take() {
            turn.cancel(timer);
        }
    } else if hold.ran && hold.give_up.is_none() {
        hold.give_up = Some(turn.timer(WHILE, Purpose::GiveUpName(seen.name.clone(), hold.start)));
    }
}

/// A unit that has ended is still loaded: the next one has another name.
pub(crate) fn give_up_name(
    pool: &mut Pool,
    index: usize,
    name: &UnitName,
    start: StartId,
    turn: &mut Turn<'_>,
) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if replica.taken.get(name).is_some_and(|hold| hold.start == start) {
        replica.next_generation = replica.next_generation.max(name.generation.saturating_add(1));
        unit_forgotten(pool, index, name, turn);
    }
}

/// A unit should have ended by its stop time-out; its engine may have had systemd extend that.
pub(crate) fn kill(pool: &mut Pool, index: usize, name: &UnitName, start: StartId, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let ends = replica.phase == Phase::Stopping || replica.condemned.is_some();
    if ends && replica.taken.get(name).is_some_and(|hold| hold.start == start) {
        turn.effects.push(Effect::KillUnit(name.clone()));
        turn.log(pool, Some(index), LogKind::Anomaly, format!("{name} did not end in time and is killed"));
    }
}

/// Has systemd forget a unit that has ended and was read; once, however often its end is seen.
pub(super) fn let_go(replica: &mut Replica, seen: &UnitObservation, clean: bool, turn: &mut Turn<'_>) {
    let (name, invocation) = (&seen.name, Some(seen.invocation));
    if let Some(hold) = replica.taken.get_mut(name).filter(|hold| hold.let_go != invocation) {
        hold.let_go = invocation;
        turn.effects.push(if clean {
            Effect::StopUnit(name.clone())
        } else {
            Effect::ForgetUnit(name.clone())
        });
    }
}

/// systemd could not let go of a unit: it is asked again until it can.
pub(crate) fn stop_refused(pool: &mut Pool, index: usize, name: &UnitName, error: &str, turn: &mut Turn<'_>) {
    const AGAIN: Usec = Usec::from_secs(5);
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let Some(hold) = replica.taken.get_mut(name) else { return };
    hold.let_go = None;
    if replica.stuck.is_none() {
        let timer = turn.timer(AGAIN, Purpose::ReleaseAgain(replica.id.clone()));
        replica.stuck =
            Some((timer, format!("systemd cannot stop {name}: {error}; trying again every {AGAIN}")));
    }
}

/// A job has failed. That of a start is told by its unit; a stop that could not be done leaves the unit as it was.
pub(crate) fn job_failed(pool: &mut Pool, index: usize, name: &UnitName, result: &str, turn: &mut Turn<'_>) {
    // No start ends like that.
    let frozen = result == "frozen";
    let stop = pool.replicas.get(index).is_some_and(|replica| frozen || replica.phase == Phase::Stopping);
    if stop {
        let hint = format!("its job ended as \"{result}\" (a frozen unit needs systemctl thaw)");
        stop_refused(pool, index, name, &hint, turn);
    }
}

/// Some time after a refusal: where the unit is still there, the reason is told and systemd is asked again.
pub(crate) fn still_stuck(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let Some((_, text)) = replica.stuck.take() else { return };
    let left = replica.taken.keys().any(|name| !replica.in_use(name));
    if !left {
        return;
    }
    let known = pool.last_error.as_ref().is_some_and(|known| known.text == text);
    if !known {
        pool.went_wrong(ExitClass::Unkillable, text.clone(), turn.real);
        turn.effects.push(Effect::SaveRuntime);
        turn.log(pool, Some(index), LogKind::EngineFailed, text);
    }
    release_again(pool, index, turn);
}

/// Asks systemd once more to let go of everything that is on its way out: a request may have been lost.
pub(crate) fn release_again(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get(index) else { return };
    // The checks of a new spec are on their way out only once they were read.
    let checks = pool.check_of_new_spec();
    let works = |(name, hold): &(&UnitName, &Hold)| {
        replica.in_use(name) || (checks.as_ref() == Some(*name) && hold.let_go.is_none())
    };
    for (name, _) in replica.taken.iter().filter(|held| !works(held)) {
        turn.effects.push(Effect::StopUnit(name.clone()));
        turn.effects.push(Effect::ForgetUnit(name.clone()));
    }
}
