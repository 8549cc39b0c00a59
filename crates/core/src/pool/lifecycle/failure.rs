//! How an engine ended, and what follows: nothing, another port, a restart after a delay, a wait for the breaker, or a
//! wait for somebody.

use super::breaker::{self, open};
use super::release::let_go;
use super::wishes::{KILL_AFTER, begin, start_asked};
use crate::config::{Bytes, Listen, Port, RestartPolicy};
use crate::host::{Effect, LogKind, Purpose, Turn};
use crate::name::Usec;
use crate::pool::{Kind, Leave, Opening, Pool, ReloadStage, Verdict, Wish};
use crate::refusal::Refusal;
use crate::replica::{self, ActiveState, ExitClass, Pause, Phase, Replica, Seen, UnitObservation};

/// Whether another automatic port is worth a try; the one in use is left alone from now on.
pub(super) fn next_port(replica: &mut Replica, turn: &mut Turn<'_>) -> bool {
    const TRIES: u16 = 20;
    let listen = replica.revision.as_ref().map(|revision| &revision.spec.listen);
    let auto = matches!(listen, Some(Listen::Tcp { port: Port::Auto, .. }));
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
    match replica.phase {
        Phase::Starting | Phase::Ready { .. } | Phase::Ending => {}
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
        Phase::Stopped
        | Phase::WaitingForName
        | Phase::Staging
        | Phase::Backoff { .. }
        | Phase::Tripped
        | Phase::Failed => {
            return;
        }
    }
    let numbers = pool.revision.spec.restart;
    replica.unit.main_pid = 0;
    let condemned = replica.condemned.take();
    if let Some((class, text)) = condemned {
        fail(pool, index, turn, class, text);
        return;
    }
    let candidate = pool.candidate_runs();
    if clean && numbers.policy != RestartPolicy::Always && !candidate {
        as_meant(pool, index, turn);
        return;
    }
    let (class, text) = ExitClass::of(seen);
    if class == ExitClass::Stopped {
        stopped_from_outside(pool, index, turn, &text);
        return;
    }
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let text = if class == ExitClass::OomHost { text + &memory_had(replica, seen, turn) } else { text };
    if class == ExitClass::Refused(Refusal::PortInUse) && next_port(replica, turn) {
        begin(pool, index, turn);
        return;
    }
    fail(pool, index, turn, class, text);
}

/// How much memory an engine has had that ran out of it, and how much it might have: by systemd, else by what its prober
/// said last.
fn memory_had(replica: &Replica, seen: &UnitObservation, turn: &Turn<'_>) -> String {
    let reported = replica.report.as_ref().filter(|report| report.invocation == seen.invocation);
    let limit = replica.revision.as_ref().and_then(|revision| revision.spec.resources.memory_max);
    let limit = limit.and_then(|limit| limit.of(turn.host.memory));
    // What grows fast has grown since its prober looked.
    let peak = match (seen.memory_peak, reported.and_then(|report| report.memory_peak)) {
        (Some(peak), _) => format!("it had {} at its peak", Bytes(peak)),
        (None, Some(least)) => format!("it had at least {} at its peak", Bytes(least)),
        (None, None) => "how much it had is not known".to_owned(),
    };
    let limit = limit.map_or("resources.memory_max is not set".to_owned(), |limit| {
        format!("resources.memory_max is {limit}")
    });
    format!("; {peak}, {limit}")
}

/// An engine has exited with status 0, unasked: it is taken as meant.
fn as_meant(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let asked = asked_for(pool, index);
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.phase = Phase::Stopped;
    replica.last_exit = Some(ExitClass::Exit(0));
    turn.effects.push(Effect::SaveRuntime);
    breaker::undecided(pool, index, turn);
    if asked {
        let text = "it exited with status 0 after somebody had asked for its start: started again";
        turn.log(pool, Some(index), LogKind::EngineStopped, text.to_owned());
        start_asked(pool, index, turn);
        return;
    }
    let text = "it exited with status 0, which counts as meant; not restarted";
    turn.log(pool, Some(index), LogKind::EngineStopped, text.to_owned());
}

/// An engine has ended because somebody stopped its unit, who had a reason: it stays down until somebody starts it.
pub(super) fn stopped_from_outside(pool: &mut Pool, index: usize, turn: &mut Turn<'_>, what: &str) {
    let asked = asked_for(pool, index);
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.phase = Phase::Stopped;
    replica.unit = Seen::default();
    replica.condemned = None;
    replica.last_exit = Some(ExitClass::Stopped);
    if asked {
        let text = format!("{what}; started again, as somebody has asked for since");
        turn.log(pool, Some(index), LogKind::EngineStopped, text);
        breaker::undecided(pool, index, turn);
        start_asked(pool, index, turn);
        return;
    }
    let text = format!("{what}; not restarted. Start it with: poolctl start {}", pool.id());
    pool.went_wrong(ExitClass::Stopped, text.clone(), turn.real);
    turn.log(pool, Some(index), LogKind::EngineStopped, text);
    breaker::undecided(pool, index, turn);
    turn.effects.push(Effect::SaveRuntime);
}

/// Whether nothing that the pool is on its way through keeps its engines from being started.
fn starts_by_itself(pool: &Pool) -> bool {
    pool.wish == Wish::Run && pool.drain.is_none() && !pool.candidate_runs()
}

/// Whether somebody has asked for the start of an engine since its end began; that holds once, and not for one too many.
fn asked_for(pool: &mut Pool, index: usize) -> bool {
    let known = starts_by_itself(pool) && index < usize::from(pool.revision.spec.replicas);
    let replica = pool.replicas.get_mut(index);
    replica.is_some_and(|replica| std::mem::take(&mut replica.start_anew)) && known
}

/// Records a failure and decides what follows it.
pub(super) fn fail(pool: &mut Pool, index: usize, turn: &mut Turn<'_>, class: ExitClass, text: String) {
    pool.went_wrong(class.clone(), text.clone(), turn.real);
    turn.effects.push(Effect::SaveRuntime);
    let (wanted, asked) = (starts_by_itself(pool), asked_for(pool, index));
    let again = pool.revision.spec.restart.policy != RestartPolicy::Never && class.worth_a_restart();
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.last_exit = Some(class.clone());
    if wanted && again {
        restart_later(pool, index, &class, text, turn);
    } else {
        // But for what the pool is on its way through it would start again, and does if that is called off.
        replica.as_before = again;
        let what = if asked { "started again, as somebody has asked for since" } else { "not started again" };
        stay_down(pool, index, &class, format!("{what}: {text}"), turn);
    }
    if asked {
        start_asked(pool, index, turn);
    }
}

/// No restart follows a failure. One that was being tried has failed all the same.
fn stay_down(pool: &mut Pool, index: usize, class: &ExitClass, text: String, turn: &mut Turn<'_>) {
    let numbers = pool.revision.spec.restart;
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.phase = Phase::Failed;
    let number = replica.id.index;
    let refused = matches!(
        class,
        ExitClass::Refused(_) | ExitClass::Preflight | ExitClass::StageFailed | ExitClass::NotAdmitted
    );
    let kind = if refused { LogKind::EngineRefused } else { LogKind::EngineFailed };
    turn.log(pool, Some(index), kind, text);
    for (kind, open_for) in pool.troubles.on_trial(number, &numbers) {
        open(pool, kind, open_for, Opening::Trial, turn);
    }
}

/// A failure is counted, and a restart follows once nothing is in its way.
fn restart_later(pool: &mut Pool, index: usize, class: &ExitClass, text: String, turn: &mut Turn<'_>) {
    let numbers = pool.revision.spec.restart;
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    replica.failures = replica.failures.saturating_add(1);
    let (n, gpu, number) = (replica.failures, class.is_gpu(), replica.id.index);
    let kind = if gpu { Kind::Gpu } else { Kind::Ordinary };
    turn.log(pool, Some(index), LogKind::EngineFailed, text);
    match pool.troubles.failed(number, kind, class.is_oom(), turn.mono, &numbers) {
        Verdict::Again => {
            let delay = replica::delay(n, gpu, turn.roll(), &numbers);
            wait(pool, index, delay, false, turn);
            turn.log(pool, Some(index), LogKind::EngineRestarting, format!("restarting after {delay}"));
        }
        Verdict::Opens { kind, open_for, why } => {
            trip(pool, index);
            open(pool, kind, open_for, why, turn);
        }
        Verdict::Held => {
            trip(pool, index);
            let text = "not started again before the breaker closes".to_owned();
            turn.log(pool, Some(index), LogKind::EngineRestarting, text);
        }
    }
    // Where it was a trial of the other breaker too, that one has learnt nothing by it.
    breaker::undecided(pool, index, turn);
}

fn trip(pool: &mut Pool, index: usize) {
    if let Some(replica) = pool.replicas.get_mut(index) {
        replica.phase = Phase::Tripped;
    }
}

/// A replica waits for its restart.
fn wait(pool: &mut Pool, index: usize, delay: Usec, storm: bool, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    let timer = turn.timer(delay, Purpose::Restart(replica.id.clone()));
    let pause = Pause { delay, due: turn.mono.plus(delay), until: turn.real.plus(delay), storm };
    replica.phase = Phase::Backoff { timer, pause };
}

/// A restart is due.
pub(crate) fn restart_due(pool: &mut Pool, index: usize, turn: &mut Turn<'_>) {
    let numbers = pool.revision.spec.restart;
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if !matches!(replica.phase, Phase::Backoff { .. }) {
        return;
    }
    match pool.troubles.leave(replica.id.index, turn.mono, &numbers) {
        Leave::Given => {
            replica.ports_tried = 0;
            breaker::restart(pool, index, turn);
        }
        Leave::Refused => {
            replica.phase = Phase::Tripped;
            turn.effects.push(Effect::SaveRuntime);
        }
        Leave::After(delay) => await_storm(pool, index, delay, turn),
    }
}

/// There were so many restarts that the next one waits.
pub(super) fn await_storm(pool: &mut Pool, index: usize, delay: Usec, turn: &mut Turn<'_>) {
    let storm = pool.revision.spec.restart.storm;
    wait(pool, index, delay, true, turn);
    let text = format!("{} restarts within {}: the next one waits {delay}", storm.wait_after, storm.window);
    turn.log(pool, Some(index), LogKind::RestartStorm, text);
    turn.effects.push(Effect::SaveRuntime);
}

/// The daemon itself ends an engine that must not go on.
pub(crate) fn condemn(pool: &mut Pool, index: usize, class: ExitClass, text: String, turn: &mut Turn<'_>) {
    let Some(replica) = pool.replicas.get_mut(index) else { return };
    if !replica.engine_runs() {
        return;
    }
    let name = replica.unit_name(crate::name::UnitKind::Engine);
    replica.condemned = Some((class, text.clone()));
    replica.phase = Phase::Ending;
    turn.effects.push(Effect::SaveRuntime);
    if let Some(hold) = replica.taken.get_mut(&name) {
        hold.kill = Some(turn.timer(KILL_AFTER, Purpose::Kill(name.clone(), hold.start)));
    }
    turn.effects.push(Effect::StopUnit(name));
    turn.log(pool, Some(index), LogKind::EngineStopping, format!("it is ended: {text}"));
}

impl Pool {
    /// Whether what runs now is a new spec that has not proved itself.
    pub(crate) fn candidate_runs(&self) -> bool {
        self.reload.as_ref().is_some_and(|reload| {
            matches!(
                reload.stage,
                ReloadStage::Replacing { .. } | ReloadStage::RollingBack { started: false, .. }
            )
        })
    }
}
