//! What random stories meet so seldom that it is told here once for certain.

use crate::acts::{of, seconds};
use crate::reload::{draining, new, newer, reloading};
use crate::world::{World, spec, unit};
use pool_core::config::{BreakerNumbers, PoolSpec, Restart, StormNumbers};
use pool_core::job::JobResult;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::PoolPhase;
use pool_core::replica::{ExitClass, Phase};

/// Restarts come a second apart, and only a storm holds them back.
fn restless(storm: StormNumbers) -> World {
    let breaker = BreakerNumbers { failures: 1_000, ..BreakerNumbers::default() };
    let restart = Restart { jitter: 0, max_delay: seconds(1), breaker, storm, ..Restart::default() };
    let mut world = World::empty();
    world.tick = Usec(0);
    world.start_daemon(&[PoolSpec { restart, ..spec("a") }], Default::default(), Default::default());
    world
}

/// Its engine serves, and fails exactly then.
fn fails_at(world: &mut World, at: Usec, how: fn(&mut World)) {
    world.serve("a", 0);
    world.now = at;
    how(world);
}

fn crashes(world: &mut World) {
    world.crash("a", 0);
}

fn runs_out_of_memory(world: &mut World) {
    world.out_of_memory("a", 0);
}

#[test]
fn a_failure_finds_the_restarts_that_are_younger_than_the_window() {
    let numbers = StormNumbers { trip_window: seconds(10), trip_after: 2, ..StormNumbers::default() };
    for (early, phase) in [(0, PoolPhase::Backoff), (1, PoolPhase::Tripped)] {
        let mut world = restless(numbers);
        let began = world.now;
        fails_at(&mut world, began, crashes);
        world.pass(seconds(1));
        let first_restart = world.now;
        fails_at(&mut world, began.plus(seconds(2)), crashes);
        world.pass(seconds(1));
        assert_eq!(world.pool("a").restart_count, 2);
        fails_at(&mut world, first_restart.plus(seconds(10)).since(Usec(early)), crashes);
        assert_eq!(world.phase("a"), phase, "{early} µs too early");
    }
}

#[test]
fn an_oom_storm_is_of_ooms_that_are_younger_than_the_window() {
    let numbers = StormNumbers { oom_window: seconds(10), oom_after: 2, ..StormNumbers::default() };
    for (early, phase) in [(0, PoolPhase::Backoff), (1, PoolPhase::Tripped)] {
        let mut world = restless(numbers);
        let first = world.now;
        fails_at(&mut world, first, runs_out_of_memory);
        world.pass(seconds(1));
        fails_at(&mut world, first.plus(seconds(10)).since(Usec(early)), runs_out_of_memory);
        assert_eq!(world.phase("a"), phase, "{early} µs too early");
    }
}

/// Two engines, one of which serves and holds a lease; a reload drains them.
fn drained_for_a_reload() -> World {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 0);
    world.lease("a").expect("a lease");
    world.reload(&new(2), false).expect("a reload");
    world.checks_pass("a", 0);
    assert_eq!((world.phase("a"), world.phases("a")), (PoolPhase::Draining, vec!["ready", "stopped"]));
    world
}

#[test]
fn a_reload_that_takes_a_draining_one_s_place_lets_the_pool_serve_meanwhile() {
    let mut world = drained_for_a_reload();
    world.reload(&PoolSpec { replicas: 2, ..newer() }, true).expect("a reload");
    assert_eq!((world.phase("a"), world.phases("a")), (PoolPhase::Ready, vec!["ready", "staging"]));
    assert!(world.lease("a").is_ok());
    assert_eq!(world.model("a", 1), "/srv/m", "what was stopped for the first one runs as before");
}

#[test]
fn what_failed_in_a_reload_s_drain_comes_back_when_the_drain_that_took_its_place_is_cancelled() {
    let (mut world, first) = draining(2);
    world.lease("a").unwrap_err();
    world.crash("a", 1);
    assert_eq!(world.phases("a"), ["ready", "failed"]);
    let drain = world.drain("a", Usec(0));
    assert_eq!(world.result(first), Some(JobResult::Superseded));
    world.cancel(drain).expect("it can be cancelled");
    assert_eq!((world.phases("a"), world.pool("a").ready()), (vec!["ready", "staging"], true));
}

#[test]
fn an_engine_that_ends_when_a_drain_takes_a_reload_s_place_is_ended_with_it() {
    let (mut world, _) = draining(2);
    world.condemn("a", 1, ExitClass::GpuLost);
    assert_eq!(world.pool("a").replicas[1].phase, Phase::Ending);
    world.drain("a", seconds(10));
    assert_eq!(world.pool("a").replicas[1].phase, Phase::Stopping);
    world.settle();
    assert_eq!(world.phases("a"), ["ready", "stopped"]);
}

#[test]
fn a_reload_ends_when_its_check_is_lost_while_its_engine_waits_for_a_name() {
    let (mut world, job) = reloading(1);
    world.dies("a", 0);
    world.forgotten(&unit(UnitKind::Engine, "a", 0));
    world.ring();
    assert_eq!(world.pool("a").replicas[0].phase, Phase::WaitingForName);
    world.forgotten(&unit(UnitKind::Stage, "a", 0));
    assert_eq!(world.result(job), Some(JobResult::Failed));
    assert!(world.pool("a").reload.is_none());
    assert_eq!(world.pool("a").replicas[0].phase, Phase::Staging);
}
