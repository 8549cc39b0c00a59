//! Stories of pools whose files go, and come back.

use crate::acts::seconds;
use crate::drain::serving;
use crate::world::{World, spec};
use pool_core::Denied;
use pool_core::config::{Activation, PoolSpec};
use pool_core::job::JobResult;
use pool_core::name::Usec;
use pool_core::pool::PoolPhase;

#[test]
fn a_pool_whose_file_is_removed_is_drained_and_goes_then() {
    let mut world = serving();
    let lease = world.lease("a").unwrap();
    let start = world.start_job("a");
    world.configure(&[]);
    assert_eq!((world.phase("a"), world.held.len()), (PoolPhase::Draining, 1));
    assert!(matches!(world.lease("a"), Err(Denied::Leaving(_))));
    assert_eq!(world.result(start), Some(JobResult::Done), "it was ready");
    world.pass(seconds(10));
    world.release(&lease);
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.settle();
    assert!(world.state.pools.is_empty() && world.wishes.is_empty());
    // Also where the daemon is killed meanwhile; and at the deadline at the latest.
    let mut world = serving();
    world.lease("a").unwrap();
    world.configure(&[]);
    world.pass(seconds(100));
    world.kill_daemon(&[]);
    assert_eq!((world.phase("a"), world.held.len(), world.pool("a").leaving), (PoolPhase::Draining, 1, true));
    world.pass(seconds(200));
    world.kill_daemon(&[]);
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.settle();
    assert!(world.state.pools.is_empty() && world.held.is_empty() && world.state.leases.is_empty());
    assert!(world.timers.is_empty());
}

#[test]
fn a_file_that_comes_back_while_its_pool_drains_calls_that_off() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.configure(&[]);
    world.configure(&[spec("a")]);
    assert_eq!((world.phase("a"), world.pool("a").active_leases()), (PoolPhase::Ready, 1));
    world.pass(seconds(400));
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Ready, 2));
    // Also where it comes back while the daemon is away.
    world.configure(&[]);
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.pool("a").leaving), (PoolPhase::Ready, false));
    // By hand or not: what served serves.
    let by_hand = PoolSpec { activation: Activation::Manual, ..spec("a") };
    let mut world = World::with(std::slice::from_ref(&by_hand));
    world.start("a");
    world.serve("a", 0);
    world.configure(&[]);
    world.configure(&[by_hand]);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn a_file_that_is_removed_while_its_pool_drains_changes_nothing_but_that_it_goes() {
    let mut world = serving();
    world.lease("a").unwrap();
    let job = world.drain("a", seconds(40));
    world.pass(seconds(20));
    world.configure(&[]);
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Draining, None));
    assert!(world.cancel(job).is_err(), "its file is gone");
    world.pass(seconds(20));
    world.settle();
    assert!(world.state.pools.is_empty());
    assert_eq!(world.result(job), Some(JobResult::Done));
    // Nor is it called off when the file comes back: an operator wanted it.
    let mut world = serving();
    world.lease("a").unwrap();
    world.drain("a", Usec(0));
    world.configure(&[]);
    world.configure(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Draining);
}

#[test]
fn a_stop_of_a_pool_whose_file_is_gone_stops_now_and_is_no_wish_for_a_later_file() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.configure(&[]);
    world.stop("a");
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.settle();
    assert!(world.state.pools.is_empty() && world.wishes.is_empty());
    world.configure(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}
