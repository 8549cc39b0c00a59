//! How an engine ended, and what follows: nothing, another port, a restart after a delay, or a wait for somebody.

use super::observed::let_go;
use super::wishes::begin;
use crate::config::{Port, RestartPolicy};
use crate::host::{Effect, LogKind, Purpose, Turn};
use crate::pool::{LastError, Pool, Wish};
use crate::refusal::Refusal;
use crate::replica::{self, ActiveState, ExitClass, Phase, Replica, Seen, UnitObservation};

/// Whether another automatic port is worth a try; the one in use is left alone from now on.
pub(super) fn next_port(replica: &mut Replica, turn: &mut Turn<'_>) -> bool {
    const TRIES: u16 = 20;
    let auto = replica.revision.as_ref().is_some_and(|revision| revision.spec.listen.port == Port::Auto);
    if !auto || replica.ports_tried >= TRIES {
        return false;
    }
    replica.ports_tried += 1;
    turn.ports.avoid(&replica.id);
    true
}

/// An engine has ended and systemd says how.
pub(super) fn ended(pool: &mut Pool, index: usize, seen: &UnitObservation, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let exited = seen.active == ActiveState::Active;
    let_go(replica, seen, exited, turn);
    // Before it was ready, systemd counts an exit with status 0 as a failure to say READY=1.
    let clean = exited || (seen.result == "protocol" && ExitClass::of(seen).0 == ExitClass::Exit(0));
    let since = match replica.phase {
        Phase::Ready { since } => Some(since),
        Phase::Ending { served_since } => served_since,
        Phase::Starting => None,
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
        turn.effects.push(Effect::SaveRuntime);
        turn.log(
            pool,
            Some(index),
            LogKind::EngineStopped,
            "it exited with status 0, which counts as meant; not restarted".to_owned(),
        );
        return;
    }
    let (class, text) = ExitClass::of(seen);
    if class == ExitClass::Stopped {
        stopped_from_outside(pool, index, turn, &text);
        return;
    }
    if class == ExitClass::Refused(Refusal::PortInUse) && next_port(replica, turn) {
        begin(pool, index, turn);
        return;
    }
    fail(pool, index, turn, class, text);
}

/// An engine has ended because somebody stopped its unit, who had a reason: it stays down until somebody starts it.
pub(super) fn stopped_from_outside(pool: &mut Pool, index: usize, turn: &mut Turn<'_>, what: &str) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.phase = Phase::Stopped;
    replica.unit = Seen::default();
    replica.last_exit = Some(ExitClass::Stopped);
    let text = format!("{what}; not restarted. Start it with: poolctl start {}", pool.id());
    pool.last_error = Some(LastError { class: ExitClass::Stopped, text: text.clone(), at: turn.real });
    turn.log(pool, Some(index), LogKind::EngineStopped, text);
    turn.effects.push(Effect::SaveRuntime);
}

/// Records a failure and decides what follows it.
pub(super) fn fail(pool: &mut Pool, index: usize, turn: &mut Turn<'_>, class: ExitClass, text: String) {
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

/// A restart is due.
pub(crate) fn restart_due(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if matches!(replica.phase, Phase::Backoff { .. }) {
        replica.ports_tried = 0;
        begin(pool, index, turn);
    }
}
