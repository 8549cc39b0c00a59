//! Stories of starts that somebody asks for while an engine is ending by itself: they are honoured, however it ends.

use crate::acts::{of, open, seconds};
use crate::world::{World, spec, unit};
use pool_core::config::{Activation, BreakerNumbers, PoolSpec, Restart, RestartPolicy};
use pool_core::job::JobResult;
use pool_core::name::{InvocationId, UnitKind, UnitName};
use pool_core::pool::PoolPhase;
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, ExitClass, Phase};

const POLICIES: [RestartPolicy; 3] = [RestartPolicy::OnFailure, RestartPolicy::Always, RestartPolicy::Never];

fn engine() -> UnitName {
    unit(UnitKind::Engine, "a", 0)
}

fn with(policy: RestartPolicy) -> PoolSpec {
    PoolSpec { restart: Restart { policy, ..Restart::default() }, ..spec("a") }
}

/// The first sign of its end has come, and nothing of how it ends.
fn ends_by_itself(world: &mut World) {
    world.seen(&engine(), |unit| unit.active = ActiveState::Deactivating);
    assert_eq!(world.pool("a").replicas[0].phase, Phase::Ending);
}

/// How it ends.
type End = fn(&mut World);

fn failed(world: &mut World) {
    world.crash("a", 0);
}

fn exited(world: &mut World) {
    world.exits_0("a", 0);
}

fn exited_before_ready(world: &mut World) {
    world.seen(&engine(), |unit| {
        unit.active = ActiveState::Failed;
        (unit.result, unit.exec_code, unit.exec_status) = ("protocol".into(), 1, 0);
    });
    world.settle();
}

fn refused(world: &mut World) {
    world.seen(&engine(), |unit| {
        (unit.active, unit.main_pid, unit.entered_active) = (ActiveState::Failed, 0, false);
        (unit.result, unit.exec_code) = ("exit-code".into(), 1);
        unit.exec_status = i32::from(Refusal::ModelUnreadable.exit_status());
        unit.status_text = format!("{}: because", Refusal::ModelUnreadable.class());
    });
    world.settle();
}

const ENDS: [(&str, End); 5] = [
    ("failed", failed),
    ("exited", exited),
    ("exited before ready", exited_before_ready),
    ("refused", refused),
    ("stopped outside", |world| world.stopped_outside("a", 0)),
];

#[test]
fn a_start_while_an_engine_ends_starts_it_however_it_ends_and_whatever_the_policy_says() {
    for policy in POLICIES {
        for (how, end) in ENDS {
            let mut world = World::with(&[with(policy)]);
            world.serve("a", 0);
            ends_by_itself(&mut world);
            let job = world.start_job("a");
            end(&mut world);
            let what = format!("{policy:?}, {how}");
            assert_eq!((world.replica_phase("a", 0), world.result(job)), ("staging", None), "{what}");
            assert_eq!(world.pool("a").restart_count, 0, "{what}: it was asked for");
            world.serve("a", 0);
            assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Ready, Some(JobResult::Done)));
        }
    }
}

#[test]
fn a_start_while_an_engine_ends_is_honoured_by_the_next_daemon() {
    for policy in POLICIES {
        for activation in [Activation::Resident, Activation::Manual] {
            for (how, end) in ENDS {
                let pool = PoolSpec { activation, ..with(policy) };
                let mut world = World::with(std::slice::from_ref(&pool));
                if activation == Activation::Manual {
                    world.start("a");
                }
                world.serve("a", 0);
                ends_by_itself(&mut world);
                world.start("a");
                world.kill_daemon(std::slice::from_ref(&pool));
                assert_eq!(world.pool("a").replicas[0].phase, Phase::Ending);
                end(&mut world);
                assert_eq!(world.replica_phase("a", 0), "staging", "{policy:?}, {activation:?}, {how}");
            }
        }
    }
}

/// It is dead, and nobody has heard of it.
fn dies_unheard(world: &mut World) {
    let unit = world.units.get_mut(&engine()).expect("the unit is there");
    (unit.active, unit.main_pid) = (ActiveState::Failed, 0);
    (unit.result, unit.exec_code, unit.exec_status) = ("signal".into(), 2, 9);
}

fn exits_unheard(world: &mut World) {
    let unit = world.units.get_mut(&engine()).expect("the unit is there");
    (unit.active, unit.exited, unit.main_pid, unit.exec_code) = (ActiveState::Active, true, 0, 1);
}

fn vanishes_unheard(world: &mut World) {
    world.units.remove(&engine()).expect("the unit is there");
}

#[test]
fn it_is_honoured_too_where_the_end_comes_while_no_daemon_runs() {
    let ends: [(&str, End); 3] =
        [("failed", dies_unheard), ("exited", exits_unheard), ("vanished", vanishes_unheard)];
    for policy in POLICIES {
        for (how, end) in ends {
            let pool = PoolSpec { activation: Activation::Manual, ..with(policy) };
            let mut world = World::with(std::slice::from_ref(&pool));
            world.start("a");
            world.serve("a", 0);
            ends_by_itself(&mut world);
            world.start("a");
            end(&mut world);
            world.kill_daemon(std::slice::from_ref(&pool));
            assert_eq!(world.replica_phase("a", 0), "staging", "{policy:?}, {how}");
        }
    }
}

#[test]
fn one_too_many_is_not_what_somebody_asks_for() {
    let ends: [End; 2] = [|world| world.exits_0("a", 1), |world| world.dies("a", 1)];
    for (end, phase) in ends.into_iter().zip(["stopped", "failed"]) {
        let of = |replicas| PoolSpec { replicas, ..with(RestartPolicy::Never) };
        let mut world = World::with(&[of(2)]);
        world.all_serve("a");
        world.seen(&unit(UnitKind::Engine, "a", 1), |unit| unit.active = ActiveState::Deactivating);
        world.configure(&[of(1)]);
        world.start("a");
        end(&mut world);
        assert_eq!(world.replica_phase("a", 1), phase);
    }
}

#[test]
fn a_stop_or_a_drain_after_that_start_is_the_newer_wish() {
    for policy in POLICIES {
        for (how, end) in ENDS {
            for drains in [false, true] {
                let mut world = World::with(&[with(policy)]);
                world.serve("a", 0);
                ends_by_itself(&mut world);
                world.start("a");
                if drains {
                    world.drain("a", seconds(10));
                } else {
                    world.stop("a");
                }
                end(&mut world);
                assert_eq!(world.phase("a"), PoolPhase::Stopped, "{policy:?}, {how}, drains: {drains}");
            }
        }
    }
}

#[test]
fn without_such_a_start_the_policy_decides() {
    for (policy, phase) in [(RestartPolicy::OnFailure, "backoff"), (RestartPolicy::Never, "failed")] {
        let mut world = World::with(&[with(policy)]);
        world.start("a");
        world.serve("a", 0);
        ends_by_itself(&mut world);
        world.crash("a", 0);
        assert_eq!(world.replica_phase("a", 0), phase);
    }
}

#[test]
fn of_several_engines_the_one_that_was_ending_is_started() {
    let never = PoolSpec { replicas: 2, ..with(RestartPolicy::Never) };
    let mut world = World::with(&[never]);
    world.all_serve("a");
    ends_by_itself(&mut world);
    world.start("a");
    world.dies("a", 1);
    world.crash("a", 0);
    assert_eq!(world.phases("a"), ["staging", "failed"], "nobody asked for the other since it failed");
}

#[test]
fn a_unit_that_somebody_restarts_meanwhile_is_that_start_and_its_next_end_is_one_like_any_other() {
    for (policy, phase) in [(RestartPolicy::OnFailure, "backoff"), (RestartPolicy::Never, "failed")] {
        for (end, phase) in [(failed as End, phase), (exited, "stopped")] {
            let mut world = World::with(&[with(policy)]);
            world.serve("a", 0);
            ends_by_itself(&mut world);
            let job = world.start_job("a");
            restarted_outside(&mut world);
            world.becomes_ready("a", 0);
            assert_eq!(world.result(job), Some(JobResult::Done));
            end(&mut world);
            assert_eq!(world.replica_phase("a", 0), phase, "{policy:?}");
        }
    }
}

fn restarted_outside(world: &mut World) {
    world.seen(&engine(), |unit| {
        unit.invocation = InvocationId([0xee; 16]);
        (unit.active, unit.main_pid) = (ActiveState::Activating, 7);
    });
}

#[test]
fn one_that_the_daemon_ends_is_ended_also_if_it_was_restarted_and_starts_as_asked() {
    let mut world = World::with(&[with(RestartPolicy::Never)]);
    world.serve("a", 0);
    world.condemn("a", 0, ExitClass::GpuLost);
    world.start("a");
    restarted_outside(&mut world);
    world.pass(seconds(36));
    assert_eq!(world.killed, [engine()]);
    world.crash("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

/// One that is tried is ending; another waits for the breaker.
fn trial_that_ends(policy: RestartPolicy) -> World {
    let breaker = BreakerNumbers { failures: 1, ..BreakerNumbers::default() };
    let with = |policy| PoolSpec { restart: Restart { policy, breaker, ..Restart::default() }, ..of(2) };
    let mut world = World::with(&[with(RestartPolicy::OnFailure)]);
    world.all_serve("a");
    world.crash("a", 1);
    world.crash("a", 0);
    world.configure(&[with(policy)]);
    world.pass(seconds(300));
    assert_eq!(world.phases("a"), ["staging", "tripped"]);
    world.serve("a", 0);
    ends_by_itself(&mut world);
    world
}

#[test]
fn a_trial_that_fails_opens_the_breaker_and_the_start_is_the_one_attempt_which_that_permits() {
    for policy in [RestartPolicy::OnFailure, RestartPolicy::Never] {
        let mut world = trial_that_ends(policy);
        world.start("a");
        world.crash("a", 0);
        assert_eq!(world.phases("a"), ["staging", "tripped"], "{policy:?}");
        assert_eq!(world.said("the trial failed"), 1);
        world.serve("a", 0);
        world.crash("a", 0);
        assert_eq!(
            open(&world.pool("a").troubles.ordinary).expect("it is open").0,
            seconds(1_200),
            "{policy:?}"
        );
    }
}

#[test]
fn a_permitted_attempt_that_came_to_nothing_is_made_again_where_somebody_asked_for_it_since() {
    for (how, end) in ENDS {
        let breaker = BreakerNumbers { failures: 1, ..BreakerNumbers::default() };
        let restart = Restart { breaker, ..Restart::default() };
        let mut world = World::with(&[PoolSpec { restart, ..spec("a") }]);
        world.crash_loop("a", 0, 1);
        assert_eq!(world.phases("a"), ["tripped"]);
        world.start("a");
        world.serve("a", 0);
        ends_by_itself(&mut world);
        world.start("a");
        end(&mut world);
        assert_eq!(
            (world.phases("a"), open(&world.pool("a").troubles.ordinary)),
            (vec!["staging"], None),
            "{how}"
        );
    }
}

#[test]
fn an_engine_that_the_daemon_ends_is_started_if_somebody_asked_for_that_meanwhile() {
    for (policy, kept) in [(RestartPolicy::OnFailure, 1), (RestartPolicy::Never, 0)] {
        let mut world = World::with(&[with(policy)]);
        world.serve("a", 0);
        world.condemn("a", 0, ExitClass::GpuLost);
        world.start("a");
        world.settle();
        assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Staging, "gpu-lost".into()));
        assert_eq!(world.pool("a").troubles.gpu.in_row, kept, "{policy:?}");
    }
}
