//! Stories of trials that come to nothing, and of starts that wait for one.

use crate::acts::{of, open, seconds};
use crate::breaker::state;
use crate::world::{World, unit};
use pool_core::name::UnitKind;

/// Engine 0 serves; engine 1 has opened the breaker.
fn one_serves_and_one_is_tripped() -> World {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 0);
    world.crash_loop("a", 1, 5);
    assert_eq!(world.phases("a"), ["ready", "tripped"]);
    world
}

#[test]
fn a_trial_of_an_engine_that_the_file_no_longer_has_keeps_no_other_waiting() {
    let mut world = World::with(&[of(3)]);
    world.serve("a", 0);
    world.serve("a", 1);
    world.crash_loop("a", 2, 5);
    world.pass(seconds(300));
    world.crash("a", 0);
    assert_eq!(world.phases("a"), ["tripped", "ready", "staging"]);
    world.units.remove(&unit(UnitKind::Stage, "a", 2));
    world.kill_daemon(&[of(2)]);
    assert_eq!(world.phases("a"), ["staging", "ready"]);
    assert!(world.pool("a").troubles.tries(0));
}

#[test]
fn a_start_that_waited_for_the_breaker_is_a_start_and_counts_as_no_restart() {
    let mut world = one_serves_and_one_is_tripped();
    let restarts = world.pool("a").restart_count;
    world.exits_0("a", 0);
    world.settle();
    assert_eq!(world.phases("a"), ["stopped", "tripped"]);
    world.pass(seconds(300));
    assert_eq!(
        (world.phases("a"), world.pool("a").restart_count),
        (vec!["stopped", "staging"], restarts + 1)
    );
    world.start("a");
    assert_eq!(world.phases("a"), ["tripped", "staging"], "one is tried before the others");
    world.serve("a", 1);
    world.pass(seconds(61));
    assert_eq!(world.phases("a"), ["staging", "ready"]);
    assert_eq!((state(&world), world.pool("a").restart_count), ("closed", restarts + 1));
}

#[test]
fn an_attempt_that_is_permitted_and_not_made_is_taken_back_by_a_stop() {
    let mut world = one_serves_and_one_is_tripped();
    let (_, until) = open(&world.pool("a").troubles.ordinary).expect("it is open");
    world.configure(&[of(1)]);
    world.start("a");
    assert_eq!((state(&world), world.phases("a")), ("half-open", vec!["ready", "stopped"]));
    world.pass(seconds(7));
    world.stop("a");
    world.settle();
    assert_eq!(open(&world.pool("a").troubles.ordinary).map(|(_, until)| until), Some(until));
    // Once the breaker's time is over nothing needs a permit.
    world.start("a");
    world.pass(seconds(300));
    world.stop("a");
    world.settle();
    assert_eq!(state(&world), "half-open");
}
