//! Stories of daemons that are killed and come back: everything goes on where it stood.

use crate::acts::{of, open, seconds};
use crate::world::{World, spec, unit};
use pool_core::config::{Activation, PoolSpec};
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::{BreakerState, PoolPhase};
use pool_core::replica::{ActiveState, ExitClass};

#[test]
fn a_breaker_stays_open_for_the_rest_of_its_time() {
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 5);
    let before = open(&world.pool("a").troubles.ordinary);
    world.pass(seconds(200));
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), open(&world.pool("a").troubles.ordinary)), (PoolPhase::Tripped, before));
    world.pass(seconds(98));
    assert_eq!(world.phase("a"), PoolPhase::Tripped);
    world.pass(seconds(2));
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    // One whose time was over while nobody was there is tried at once.
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 5);
    world.now = world.now.plus(seconds(400));
    world.kill_daemon(&[spec("a")]);
    world.pass(seconds(1));
    assert_eq!((world.phase("a"), world.pool("a").breaker().as_str()), (PoolPhase::Staging, "half-open"));
}

#[test]
fn a_trial_goes_on_and_closes_the_breaker_or_opens_it() {
    for dies in [false, true] {
        let mut world = World::with(&[of(2)]);
        world.crash_loop("a", 0, 5);
        world.crash_loop("a", 1, 1);
        world.pass(seconds(300));
        world.serve("a", 0);
        world.pass(seconds(30));
        world.kill_daemon(&[of(2)]);
        assert_eq!((world.phases("a"), world.pool("a").troubles.tries(0)), (vec!["ready", "tripped"], true));
        if dies {
            world.crash("a", 0);
            assert_eq!(open(&world.pool("a").troubles.ordinary).unwrap().0, seconds(600));
        } else {
            world.pass(seconds(29));
            assert_eq!(world.phases("a"), ["ready", "tripped"]);
            world.pass(seconds(2));
            assert_eq!(world.phases("a"), ["ready", "staging"]);
        }
    }
}

#[test]
fn a_trial_of_which_nothing_is_left_is_made_again() {
    let mut world = World::with(&[of(2)]);
    world.crash_loop("a", 0, 5);
    world.crash_loop("a", 1, 1);
    world.pass(seconds(300));
    assert_eq!(world.phases("a"), ["staging", "tripped"]);
    world.kill_daemon(&[of(2)]);
    world.settle();
    let phases = world.phases("a");
    assert_eq!(phases.iter().filter(|phase| **phase == "staging").count(), 1, "{phases:?}");
    assert_eq!(phases.iter().filter(|phase| **phase == "tripped").count(), 1, "{phases:?}");
    assert!(matches!(world.pool("a").troubles.ordinary.state, BreakerState::HalfOpen { trial: Some(_), .. }));
}

#[test]
fn a_row_a_storm_and_the_counts_go_on() {
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 4);
    world.kill_daemon(&[spec("a")]);
    let troubles = world.pool("a").troubles.clone();
    assert_eq!((troubles.ordinary.in_row, world.pool("a").restart_count), (4, 3));
    assert!(world.restart_rings("a", 0) > seconds(6), "the fourth wait is the longest");
    world.serve("a", 0);
    world.crash("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Tripped);
}

#[test]
fn how_long_an_engine_has_served_goes_on_and_what_it_has_come_to_does_so_once() {
    let mut world = World::with(&[of(2)]);
    world.crash_loop("a", 1, 1);
    world.serve("a", 0);
    world.pass(seconds(400));
    world.serve("a", 1);
    world.crash("a", 1);
    world.restart_rings("a", 1);
    world.serve("a", 1);
    world.crash("a", 1);
    let row = world.pool("a").troubles.ordinary.in_row;
    assert_eq!((row, world.pool("a").restart_count), (2, 2));
    world.kill_daemon(&[of(2)]);
    world.pass(Usec::from_millis(100));
    assert_eq!(world.pool("a").troubles.ordinary.in_row, row, "its first minute ended no row again");
    world.pass(seconds(150));
    assert_eq!(world.pool("a").restart_count, 3);
    world.pass(seconds(60));
    assert_eq!(world.pool("a").restart_count, 0, "after ten minutes in all");
    // One that somebody restarted meanwhile is another engine.
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.pass(seconds(400));
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.active = ActiveState::Deactivating);
    let saved = (world.saved.clone(), world.wishes.clone());
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.active = ActiveState::Active);
    world.start_daemon(&[spec("a")], saved.0, saved.1);
    let replica = &world.pool("a").replicas[0];
    assert_eq!((world.phase("a"), replica.reached.marks.len()), (PoolPhase::Ready, 0));
}

#[test]
fn a_wall_clock_that_is_set_changes_no_interval() {
    for ahead in [seconds(0), seconds(2_000)] {
        let mut world = World::with(&[spec("a"), spec("b")]);
        world.ahead = seconds(1_000);
        world.crash_loop("b", 0, 5);
        world.crash_loop("a", 0, 4);
        world.ahead = ahead;
        world.kill_daemon(&[spec("a"), spec("b")]);
        let waited = world.restart_rings("a", 0);
        assert!(waited > seconds(7) && waited < seconds(9), "{waited}");
        let (_, until) = open(&world.pool("b").troubles.ordinary).unwrap();
        assert!(until.since(world.now) > seconds(270), "{until}");
    }
}

#[test]
fn a_pool_that_was_started_by_hand_goes_on_and_one_that_was_not_does_not_begin() {
    let by_hand = |id: &str| PoolSpec { activation: Activation::Manual, ..spec(id) };
    let pools = [by_hand("a"), by_hand("b"), by_hand("c")];
    let mut world = World::with(&pools);
    world.start("a");
    world.serve("a", 0);
    world.start("b");
    world.serve("b", 0);
    let engine = world.units.get_mut(&unit(UnitKind::Engine, "b", 0)).unwrap();
    (engine.active, engine.result, engine.exec_code, engine.exec_status) =
        (ActiveState::Failed, "signal".into(), 2, 9);
    world.kill_daemon(&pools);
    assert_eq!(
        (world.phase("a"), world.phase("b"), world.phase("c")),
        (PoolPhase::Ready, PoolPhase::Backoff, PoolPhase::Stopped)
    );
}

#[test]
fn a_stop_that_was_under_way_ends_and_its_end_is_no_failure() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    let engine = world.units.get_mut(&unit(UnitKind::Engine, "a", 0)).unwrap();
    (engine.active, engine.result, engine.exec_code, engine.exec_status) =
        (ActiveState::Failed, "exit-code".into(), 1, 143);
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Stopping, String::new()));
    world.settle();
    assert_eq!((world.phase("a"), world.timers.len()), (PoolPhase::Stopped, 0));
    // One of which systemd never heard is asked for again, and killed in time.
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    world.units.get_mut(&unit(UnitKind::Engine, "a", 0)).unwrap().active = ActiveState::Active;
    world.kill_daemon(&[spec("a")]);
    assert_eq!(world.units[&unit(UnitKind::Engine, "a", 0)].active, ActiveState::Deactivating);
    world.pass(seconds(36));
    assert_eq!(world.killed, [unit(UnitKind::Engine, "a", 0)]);
}

#[test]
fn a_gpu_breaker_goes_on_apart() {
    let mut world = World::with(&[spec("a")]);
    for time in 0..5 {
        if time > 0 {
            world.restart_rings("a", 0);
        }
        world.serve("a", 0);
        world.condemned("a", 0, ExitClass::GpuError(79));
    }
    let troubles = world.pool("a").troubles.clone();
    world.kill_daemon(&[spec("a")]);
    assert_eq!(open(&world.pool("a").troubles.gpu), open(&troubles.gpu));
    assert_eq!(world.pool("a").troubles.ordinary, troubles.ordinary);
    world.pass(seconds(300));
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn what_is_saved_is_read_back() {
    let mut world = World::with(&[of(3), spec("b")]);
    world.crash_loop("a", 0, 1);
    world.serve("a", 1);
    world.pass(Usec::from_millis(1));
    world.serve("b", 0);
    world.drain("b", Usec(0));
    let text = serde_json::to_string(&world.saved).unwrap();
    assert_eq!(serde_json::from_str::<pool_core::host::Saved>(&text).unwrap(), world.saved);
}
