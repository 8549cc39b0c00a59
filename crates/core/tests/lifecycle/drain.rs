//! Stories of drains: who waits for what, what a deadline does, and what is left afterwards.

use crate::acts::{of, seconds};
use crate::world::{World, spec, unit};
use pool_core::config::{DrainNumbers, PoolSpec, Restart, RestartPolicy};
use pool_core::job::JobResult;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::{DrainFor, PoolPhase};
use pool_core::refusal::Refusal;
use pool_core::replica::ExitClass;
use pool_core::{Denied, Request};

pub fn serving() -> World {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world
}

#[test]
fn a_pool_that_drains_gives_no_lease_and_keeps_those_that_are_held() {
    let mut world = serving();
    let lease = world.lease("a").unwrap();
    let job = world.drain("a", Usec(0));
    assert_eq!(
        (world.phase("a"), world.pool("a").ready(), world.pool("a").live()),
        (PoolPhase::Draining, false, true)
    );
    let refused = world.lease("a");
    assert!(matches!(&refused, Err(Denied::Draining(id)) if id.as_str() == "a"), "{refused:?}");
    assert_eq!((world.pool("a").active_leases(), world.held.len()), (1, 1));
    assert!(world.revoked.is_empty() && world.held.contains(&lease) && world.result(job).is_none());
}

#[test]
fn a_drain_ends_with_the_last_lease_but_not_before_it_has_settled() {
    let mut world = serving();
    let lease = world.lease("a").unwrap();
    let job = world.drain("a", Usec(0));
    world.release(&lease);
    assert_eq!(world.phase("a"), PoolPhase::Draining, "ten seconds are for balancers that take no leases");
    world.pass(seconds(9));
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    world.pass(seconds(1));
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.settle();
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Stopped, Some(JobResult::Done)));
    let details = world.details(job);
    assert_eq!(
        (details.force_stopped, details.leases_left, world.last_class("a")),
        (false, 0, String::new())
    );
    // And once it has settled, at once.
    let mut world = serving();
    let lease = world.lease("a").unwrap();
    world.drain("a", Usec(0));
    world.pass(seconds(20));
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    world.release(&lease);
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    assert!(world.revoked.is_empty());
}

#[test]
fn a_drain_waits_for_requests_of_which_nobody_holds_a_lease() {
    let mut world = serving();
    world.reports("a", 0, 2, None);
    world.drain("a", Usec(0));
    world.pass(seconds(100));
    world.reports("a", 0, 1, None);
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    world.reports("a", 0, 0, None);
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
}

#[test]
fn at_its_deadline_what_is_left_is_stopped_by_force_and_the_pool_and_the_job_say_so() {
    let mut world = serving();
    let leases = [world.lease("a").unwrap(), world.lease("a").unwrap()];
    world.reports("a", 0, 3, None);
    let job = world.drain("a", Usec(0));
    world.pass(seconds(299));
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    world.pass(seconds(1));
    assert_eq!(world.phase("a"), PoolPhase::Stopping, "after five minutes");
    assert_eq!((world.revoked.len(), world.held.len()), (leases.len(), 0));
    assert!(world.let_go.contains(&unit(UnitKind::Engine, "a", 0)));
    assert_eq!(world.last_class("a"), "stopped");
    assert!(world.last_text("a").contains("deadline passed with 2 leases held, 3 requests in flight"));
    world.settle();
    let details = world.details(job);
    assert_eq!(
        (world.result(job), details.force_stopped, details.leases_left),
        (Some(JobResult::Done), true, 2)
    );
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
}

#[test]
fn a_drain_that_is_asked_for_with_a_deadline_has_that_one() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.drain("a", seconds(30));
    world.pass(seconds(29));
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    world.pass(seconds(1));
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    let drain = DrainNumbers { deadline: seconds(50), settle: seconds(20) };
    let mut world = World::with(&[PoolSpec { drain, ..spec("a") }]);
    world.serve("a", 0);
    world.drain("a", Usec(0));
    world.pass(seconds(19));
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    world.pass(seconds(1));
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
}

#[test]
fn a_deadline_at_which_nothing_is_left_is_no_force() {
    // Shorter than the time to settle, at once or since somebody hastened it.
    for hastened in [false, true] {
        let mut world = serving();
        let job = world.drain("a", if hastened { Usec(0) } else { seconds(3) });
        if hastened {
            world.pass(seconds(1));
            assert_eq!(world.drain("a", seconds(3)), job);
        }
        world.pass(seconds(3));
        world.settle();
        assert_eq!((world.result(job), world.details(job).force_stopped), (Some(JobResult::Done), false));
        assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Stopped, String::new()));
    }
}

#[test]
fn where_nothing_serves_a_drain_is_a_stop() {
    type Reach = fn(&mut World);
    let phases: [(&str, Reach); 7] = [
        ("stopped", |world| {
            world.stop("a");
            world.settle();
        }),
        ("staging", |_| {}),
        ("starting", |world| world.checks_pass("a", 0)),
        ("backoff", |world| world.crash_loop("a", 0, 1)),
        ("tripped", |world| world.crash_loop("a", 0, 5)),
        ("failed", |world| world.refuses("a", Refusal::Preflight)),
        ("stopping", |world| {
            world.serve("a", 0);
            world.stop("a");
        }),
    ];
    for (phase, reach) in phases {
        let mut world = World::with(&[spec("a")]);
        reach(&mut world);
        let job = world.drain("a", Usec(0));
        world.settle();
        assert_eq!(
            (world.phase("a"), world.result(job)),
            (PoolPhase::Stopped, Some(JobResult::Done)),
            "{phase}"
        );
        assert!(world.pool("a").by_operator && world.pool("a").at_rest(), "{phase}");
        world.pass(seconds(700));
        assert!(world.units.is_empty() && world.timers.is_empty(), "{phase}");
        assert_eq!(world.phase("a"), PoolPhase::Stopped, "{phase}");
    }
}

#[test]
fn an_engine_that_dies_while_it_drains_is_not_started_again() {
    let mut world = serving();
    world.lease("a").unwrap();
    let job = world.drain("a", Usec(0));
    let starts = world.started.len();
    world.crash("a", 0);
    assert_eq!((world.phase("a"), world.result(job)), (PoolPhase::Stopped, Some(JobResult::Done)));
    assert_eq!((world.last_class("a"), world.revoked.len()), ("signal:KILL".into(), 1));
    world.pass(seconds(700));
    assert_eq!(world.started.len(), starts);
}

#[test]
fn of_several_engines_a_drain_waits_for_all_and_an_engine_that_ends_by_itself_is_not_missed() {
    let mut world = World::with(&[of(3)]);
    world.all_serve("a");
    let leases: Vec<_> = (0..3).map(|_| world.lease("a").unwrap()).collect();
    let job = world.drain("a", Usec(0));
    world.pass(seconds(20));
    world.crash("a", 0);
    assert_eq!((world.phases("a"), world.revoked.len()), (vec!["failed", "ready", "ready"], 1));
    world.exits_0("a", 1);
    assert_eq!(
        (world.phase("a"), world.phases("a")),
        (PoolPhase::Draining, vec!["failed", "stopped", "ready"])
    );
    world.release(&leases[2]);
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.settle();
    assert_eq!((world.phases("a"), world.result(job)), (vec!["stopped"; 3], Some(JobResult::Done)));
}

#[test]
fn what_does_not_serve_when_a_drain_begins_is_stopped_at_once_and_starts_when_it_is_cancelled() {
    let mut world = World::with(&[of(6)]);
    world.crash_loop("a", 2, 1);
    world.crash_loop("a", 3, 1);
    world.restart_rings("a", 2);
    world.checks_pass("a", 1);
    world.serve("a", 0);
    world.serve("a", 5);
    world.exits_0("a", 5);
    if world.replica_phase("a", 3) == "staging" {
        world.serve("a", 3);
        world.crash("a", 3);
    }
    assert_eq!(world.phases("a"), ["ready", "starting", "staging", "backoff", "staging", "stopped"]);
    let job = world.drain("a", Usec(0));
    assert_eq!(world.phases("a"), ["ready", "stopping", "stopping", "stopped", "stopping", "stopped"]);
    world.settle();
    let count = world.pool("a").restart_count;
    world.cancel(job).unwrap();
    assert_eq!(world.phases("a"), ["ready", "staging", "staging", "staging", "staging", "stopped"]);
    assert_eq!((world.phase("a"), world.pool("a").restart_count), (PoolPhase::Ready, count));
    // The last one had ended as meant, and nobody asked for it.
}

#[test]
fn a_drain_that_is_cancelled_while_engines_still_end_starts_them_when_they_are_gone() {
    let mut world = World::with(&[of(3)]);
    world.serve("a", 0);
    world.serve("a", 2);
    world.exits_0("a", 2);
    let job = world.drain("a", Usec(0));
    world.cancel(job).unwrap();
    assert_eq!(world.phases("a"), ["ready", "stopping", "stopped"]);
    world.settle();
    assert_eq!(world.phases("a"), ["ready", "staging", "stopped"]);
}

#[test]
fn an_engine_that_died_while_it_drained_starts_when_the_drain_is_cancelled() {
    for (policy, phase) in [(RestartPolicy::OnFailure, "staging"), (RestartPolicy::Never, "failed")] {
        let restart = Restart { policy, ..Restart::default() };
        let mut world = World::with(&[PoolSpec { restart, ..of(2) }]);
        world.all_serve("a");
        let job = world.drain("a", Usec(0));
        world.crash("a", 1);
        assert_eq!(world.phases("a"), ["ready", "failed"]);
        world.cancel(job).unwrap();
        assert_eq!((world.phases("a"), world.result(job)), (vec!["ready", phase], Some(JobResult::Canceled)));
    }
}

#[test]
fn what_waits_for_a_breaker_waits_for_it_again_when_a_drain_is_cancelled() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 0);
    world.crash_loop("a", 1, 5);
    assert_eq!(world.phases("a"), ["ready", "tripped"]);
    let job = world.drain("a", Usec(0));
    world.cancel(job).unwrap();
    assert_eq!((world.phases("a"), world.pool("a").breaker().as_str()), (vec!["ready", "tripped"], "open"));
    world.pass(seconds(300));
    assert_eq!(world.phases("a"), ["ready", "staging"]);
}

#[test]
fn a_drain_that_begins_while_an_engine_is_tried_tries_no_other() {
    let mut world = World::with(&[of(3)]);
    world.serve("a", 2);
    world.crash_loop("a", 0, 5);
    world.crash_loop("a", 1, 1);
    world.pass(seconds(300));
    assert_eq!(world.phases("a"), ["staging", "tripped", "ready"]);
    let starts = world.started.len();
    world.drain("a", Usec(0));
    assert_eq!((world.started.len(), world.phases("a")), (starts, vec!["stopping", "stopped", "ready"]));
}

#[test]
fn a_pool_that_was_drained_stays_stopped_over_daemon_restarts_and_reboots() {
    let mut world = serving();
    world.drain("a", Usec(0));
    world.pass(seconds(10));
    world.settle();
    let starts = world.started.len();
    world.kill_daemon(&[spec("a")]);
    world.reboot(&[spec("a")]);
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Stopped, starts));
    world.start("a");
    world.reboot(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn a_drain_that_a_reboot_cuts_short_is_a_stop_all_the_same() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.drain("a", Usec(0));
    world.reboot(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
}

#[test]
fn a_drain_goes_on_after_a_daemon_restart_with_the_rest_of_its_deadline() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.drain("a", Usec(0));
    world.pass(seconds(200));
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.pool("a").active_leases()), (PoolPhase::Draining, 1));
    assert!(matches!(world.lease("a"), Err(Denied::Draining(_))));
    world.pass(seconds(98));
    assert_eq!(world.phase("a"), PoolPhase::Draining);
    world.pass(seconds(2));
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Stopped);
    assert!(world.last_text("a").contains("by force"));
}

#[test]
fn a_drain_whose_engine_died_while_the_daemon_was_away_is_over() {
    let mut world = serving();
    world.drain("a", Usec(0));
    let engine = world.units.get_mut(&unit(UnitKind::Engine, "a", 0)).unwrap();
    (engine.active, engine.result, engine.exec_code, engine.exec_status) =
        (pool_core::replica::ActiveState::Failed, "signal".into(), 2, 9);
    world.kill_daemon(&[spec("a")]);
    world.settle();
    assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Stopped, "signal:KILL".into()));
    assert!(world.timers.is_empty());
}

#[test]
fn what_a_drain_stopped_is_not_taken_for_stopped_from_outside_after_a_daemon_restart() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 0);
    world.drain("a", Usec(0));
    assert_eq!(world.phases("a"), ["ready", "stopping"]);
    world.checks_are_over("a", 1);
    world.kill_daemon(&[of(2)]);
    world.settle();
    assert_eq!((world.phases("a"), world.last_class("a")), (vec!["ready", "stopped"], String::new()));
    let mut world = World::with(&[of(2)]);
    world.serve("a", 0);
    world.checks_pass("a", 1);
    world.drain("a", Usec(0));
    world.kill_daemon(&[of(2)]);
    assert_eq!(world.phases("a"), ["ready", "stopping"]);
    world.settle();
    assert_eq!((world.phases("a"), world.last_class("a")), (vec!["ready", "stopped"], String::new()));
}

#[test]
fn a_start_or_a_stop_while_it_drains_is_not_forgotten_when_the_daemon_dies() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.drain("a", Usec(0));
    world.start("a");
    world.kill_daemon(&[spec("a")]);
    assert_eq!(world.pool("a").drain.as_ref().unwrap().purpose, DrainFor::Restart);
    world.drain("a", Usec(0));
    world.kill_daemon(&[spec("a")]);
    assert_eq!(world.pool("a").drain.as_ref().unwrap().purpose, DrainFor::Stop);
    world.stop("a");
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.pool("a").drain.is_some()), (PoolPhase::Stopping, false));
}

#[test]
fn a_condemned_engine_of_a_draining_pool_ends_and_is_not_started_again() {
    let mut world = serving();
    world.lease("a").unwrap();
    world.drain("a", Usec(0));
    world.condemned("a", 0, ExitClass::GpuLost);
    assert_eq!((world.phase("a"), world.revoked.len()), (PoolPhase::Stopped, 1));
}

#[test]
fn somebody_who_waits_for_a_pool_that_drains_is_told_when_it_has_stopped() {
    let mut world = serving();
    world.drain("a", Usec(0));
    let waits = world.ask(Request::WaitReady { pool: "a".into(), timeout: Usec(0) }).unwrap();
    assert!(world.answers_to(waits).is_empty());
    world.pass(seconds(10));
    assert_eq!(world.answers_to(waits).len(), 1);
}
