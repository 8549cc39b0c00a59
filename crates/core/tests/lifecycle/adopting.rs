//! Stories of what the next daemon finds, and of files that change.

use crate::world::{World, configuration, spec, unit};
use pool_core::host::Saved;
use pool_core::name::{InvocationId, UnitKind};
use pool_core::pool::PoolPhase;
use pool_core::refusal::Refusal;
use pool_core::replica::ActiveState;
use pool_core::{Denied, Event, Request};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn adoption_takes_up_what_runs_and_starts_what_does_not() {
    let pools = [spec("loads"), spec("new"), spec("serves")];
    let mut world = World::with(&pools);
    world.serve("serves", 0);
    world.checks_pass("loads", 0);
    world.settle();
    let before = world.started.len();
    // The checks of "new" were under way: they are begun again.
    world.restart_daemon(&pools);
    assert_eq!((world.phase("serves"), world.phase("loads")), (PoolPhase::Ready, PoolPhase::Starting));
    assert_eq!(world.started.len(), before);
    world.settle();
    assert_eq!(world.started[before..], [unit(UnitKind::Stage, "new", 0)]);
    world.becomes_ready("loads", 0);
    assert!(world.pool("loads").ready());
}

#[test]
fn adoption_keeps_how_an_engine_ended_meanwhile() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let engine = world.units.get_mut(&unit(UnitKind::Engine, "a", 0)).expect("the unit is there");
    (engine.active, engine.result, engine.exec_code, engine.exec_status) =
        (ActiveState::Failed, "signal".into(), 2, 11);
    world.restart_daemon(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
    assert_eq!(world.last_class("a"), "signal:SEGV");
}

#[test]
fn adoption_leaves_a_stopped_pool_stopped() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.stop("a");
    world.settle();
    let before = world.started.len();
    world.restart_daemon(&[spec("a")]);
    assert_eq!((world.phase("a"), world.started.len()), (PoolPhase::Stopped, before));
    world.start("a");
    assert!(world.state.stopped.is_empty());
}

#[test]
fn adoption_stops_engines_whose_pool_is_gone() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.restart_daemon(&[]);
    assert!(world.state.pools.is_empty());
    assert_eq!(world.units[&unit(UnitKind::Engine, "a", 0)].active, ActiveState::Deactivating);
}

#[test]
fn adoption_keeps_an_engine_whose_file_broke() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let (saved, units) = (world.state.saved(), world.facts());
    let broken = |saved: Saved| {
        let mut configuration = configuration(&[]);
        let error = pool_core::config::FileError { file: "a.toml".into(), error: "line 1".into() };
        configuration.broken.insert("a".parse().expect("an id"), error);
        Event::Started {
            configuration,
            units: units.clone(),
            saved: Box::new(saved),
            stopped: BTreeSet::new(),
            quarantined: BTreeMap::new(),
            leases: vec![],
            host: Default::default(),
        }
    };
    world.state = Default::default();
    world.event(broken(saved));
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    // Also where nothing was saved: it is taken up when the file is mended.
    world.state = Default::default();
    world.event(broken(Saved::default()));
    assert!(world.state.pools.is_empty());
    assert_eq!(world.units[&unit(UnitKind::Engine, "a", 0)].active, ActiveState::Active);
    world.configure(&[spec("a")]);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn a_changed_file_is_marked_and_used_by_the_next_start() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let changed = pool_core::config::PoolSpec { args: vec!["--new".into()], replicas: 2, ..spec("a") };
    world.configure(std::slice::from_ref(&changed));
    assert_eq!(world.pool("a").pending(), ["args", "replicas"]);
    world.stop("a");
    world.settle();
    world.start("a");
    assert_eq!(world.pool("a").replicas.len(), 2);
    assert!(world.pool("a").pending().is_empty());
}

#[test]
fn a_crash_restarts_what_ran_and_not_what_the_file_says_by_now() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.configure(&[pool_core::config::PoolSpec { args: vec!["--new".into()], ..spec("a") }]);
    world.dies("a", 0);
    world.settle();
    world.configure(&[pool_core::config::PoolSpec { args: vec!["--new".into()], ..spec("a") }]);
    world.ring();
    assert_eq!(world.pool("a").pending(), ["args"]);
}

#[test]
fn a_removed_file_ends_its_pool_and_one_that_comes_back_meanwhile_keeps_it() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.configure(&[]);
    assert!(matches!(world.ask(Request::Start { pool: "a".into() }), Err(Denied::Leaving(_))));
    while world.phase("a") == PoolPhase::Draining {
        world.ring();
    }
    assert_eq!(world.phase("a"), PoolPhase::Stopping);
    world.configure(&[spec("a")]);
    world.settle();
    assert_eq!(world.phase("a"), PoolPhase::Staging);
    world.configure(&[]);
    world.settle();
    assert!(world.state.pools.is_empty());
}

#[test]
fn a_changed_file_is_tried_where_the_old_one_had_failed() {
    let mut world = World::with(&[spec("a")]);
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    world.configure(&[pool_core::config::PoolSpec { model: "/srv/n".into(), ..spec("a") }]);
    assert_eq!(world.phase("a"), PoolPhase::Staging);
}

#[test]
fn an_engine_that_runs_keeps_its_port_from_those_that_are_started_beside_it() {
    let mut world = World::with(&[spec("b")]);
    world.serve("b", 0);
    world.kill_daemon(&[spec("a"), spec("b")]);
    let port =
        |world: &World, pool: &str| world.pool(pool).replicas[0].endpoint.as_ref().and_then(|at| at.port());
    assert_eq!((world.phase("a"), port(&world, "a")), (PoolPhase::Staging, Some(20_001)));
    assert_eq!((world.phase("b"), port(&world, "b")), (PoolPhase::Ready, Some(20_000)));
}

#[test]
fn a_lease_of_an_engine_that_ended_while_the_daemon_was_away_is_revoked() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    let lease = world.lease("a").expect("a lease");
    world.units.clear();
    world.kill_daemon(&[spec("a")]);
    assert_eq!((world.revoked.as_slice(), world.held.len()), ([lease].as_slice(), 0));
}

#[test]
fn how_many_leases_an_engine_can_have_is_known_to_the_next_daemon() {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world.reports("a", 0, 0, Some(1));
    world.lease("a").expect("a lease");
    world.kill_daemon(&[spec("a")]);
    let refused = world.lease("a");
    assert!(matches!(refused, Err(Denied::AtCapacity { held: 1, capacity: 1, .. })), "{refused:?}");
    // What is known of one is not what is known of the next.
    let invocation = InvocationId([200; 16]);
    world.units.get_mut(&unit(UnitKind::Engine, "a", 0)).expect("the unit is there").invocation = invocation;
    world.kill_daemon(&[spec("a")]);
    assert_eq!(world.pool("a").capacity(), None);
}
