//! Stories of leases: who gives one, when there is none left, and what ends them.

use crate::acts::{of, seconds};
use crate::world::{World, spec, unit};
use pool_core::config::{LeaseNumbers, PoolSpec};
use pool_core::host::{Answer, Caller, LeaseWish};
use pool_core::lease::{LeaseEnd, LeaseId};
use pool_core::name::{UnitKind, Usec};
use pool_core::replica::ActiveState;
use pool_core::{Denied, Event, Request};

fn serving(spec: PoolSpec) -> World {
    let mut world = World::with(&[spec]);
    world.all_serve("a");
    world
}

fn capped(replicas: u16, capacity: u32) -> PoolSpec {
    PoolSpec { leases: LeaseNumbers { capacity: Some(capacity) }, ..of(replicas) }
}

fn held(world: &World) -> Vec<u32> {
    world.pool("a").replicas.iter().map(|replica| replica.leases).collect()
}

#[test]
fn the_least_loaded_engine_gives_the_lease_and_the_lowest_among_equals() {
    let mut world = serving(of(3));
    let leases: Vec<LeaseId> = (0..4).map(|_| world.lease("a").unwrap()).collect();
    let of_engines: Vec<u16> = leases.iter().map(|lease| lease.replica.index).collect();
    assert_eq!((of_engines, held(&world)), (vec![0, 1, 2, 0], vec![2, 1, 1]));
    world.release(&leases[2]);
    assert_eq!(world.lease("a").unwrap().replica.index, 2);
    world.release(&leases[0]);
    world.release(&leases[3]);
    assert_eq!((world.lease("a").unwrap().replica.index, held(&world)), (0, vec![1, 1, 1]));
}

#[test]
fn a_lease_tells_the_endpoint_of_its_engine() {
    let mut world = serving(of(2));
    world.lease("a").unwrap();
    let request = world
        .ask(Request::AllocateLease { pool: "a".into(), wish: LeaseWish::default() })
        .expect("there is one");
    let endpoint = world.pool("a").replicas[1].endpoint.as_ref().unwrap().to_string();
    assert!(
        matches!(world.answers_to(request)[..], [Answer::Lease { endpoint: told, .. }] if *told == endpoint)
    );
}

#[test]
fn only_engines_that_serve_give_leases() {
    let mut world = World::with(&[of(2)]);
    assert!(matches!(world.lease("a"), Err(Denied::NotReady { .. })));
    world.serve("a", 1);
    assert_eq!([world.lease("a").unwrap().replica.index, world.lease("a").unwrap().replica.index], [1, 1]);
    assert!(matches!(world.lease("nobody"), Err(Denied::NoSuchPool(_))));
    world.stop("a");
    assert!(matches!(world.lease("a"), Err(Denied::NotReady { .. })));
}

#[test]
fn the_capacity_is_the_files_else_the_engines_slots_else_there_is_no_limit() {
    let mut world = serving(capped(2, 2));
    world.reports("a", 0, 0, Some(9));
    assert_eq!(world.pool("a").capacity(), Some(4), "the file's, whatever the engine says");
    for _ in 0..4 {
        world.lease("a").unwrap();
    }
    let denied = world.lease("a");
    assert!(matches!(denied, Err(Denied::AtCapacity { held: 4, capacity: 4, .. })), "{denied:?}");
    assert_eq!((held(&world), world.held.len()), (vec![2, 2], 4));
    let mut world = serving(of(2));
    for _ in 0..50 {
        world.lease("a").unwrap();
    }
    assert_eq!(world.pool("a").capacity(), None);
    let mut world = serving(of(2));
    world.reports("a", 0, 0, Some(1));
    world.reports("a", 1, 0, Some(3));
    assert_eq!(world.pool("a").capacity(), Some(4));
    let engines: Vec<u16> = (0..4).map(|_| world.lease("a").unwrap().replica.index).collect();
    assert_eq!(engines, [0, 1, 1, 1]);
    assert!(matches!(world.lease("a"), Err(Denied::AtCapacity { .. })));
}

#[test]
fn an_engine_that_says_of_fewer_slots_revokes_nothing_that_is_held() {
    let mut world = serving(of(1));
    world.reports("a", 0, 0, Some(3));
    let leases: Vec<LeaseId> = (0..3).map(|_| world.lease("a").unwrap()).collect();
    world.reports("a", 0, 0, Some(1));
    assert_eq!((held(&world), world.revoked.len()), (vec![3], 0));
    world.release(&leases[0]);
    world.release(&leases[1]);
    assert!(matches!(world.lease("a"), Err(Denied::AtCapacity { held: 1, capacity: 1, .. })));
    world.release(&leases[2]);
    assert!(world.lease("a").is_ok());
}

#[test]
fn the_end_of_an_engine_revokes_its_leases_and_no_others() {
    type End = fn(&mut World);
    let ends: [End; 5] = [
        |world| world.dies("a", 0),
        |world| world.exits_0("a", 0),
        |world| world.stopped_outside("a", 0),
        |world| world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.active = ActiveState::Deactivating),
        |world| world.condemn("a", 0, pool_core::replica::ExitClass::GpuLost),
    ];
    for (way, end) in ends.into_iter().enumerate() {
        let mut world = serving(of(2));
        let [first, second] = [world.lease("a").unwrap(), world.lease("a").unwrap()];
        end(&mut world);
        assert_eq!(
            (world.revoked.as_slice(), held(&world)),
            ([first.clone()].as_slice(), vec![0, 1]),
            "{way}"
        );
        assert_eq!(world.held.iter().collect::<Vec<_>>(), [&second], "{way}: its descriptor is closed");
        let again = world.ask(Request::ReleaseLease { lease: first.to_string() });
        assert!(matches!(again, Err(Denied::NoSuchLease(_))), "{way}");
        world.event(Event::LeaseEnded { lease: first, how: LeaseEnd::Closed });
        assert_eq!(held(&world), [0, 1], "{way}: counted once");
    }
}

#[test]
fn a_stop_revokes_every_lease() {
    let mut world = serving(of(2));
    for _ in 0..5 {
        world.lease("a").unwrap();
    }
    world.stop("a");
    assert_eq!((world.revoked.len(), world.held.len(), world.state.leases.len()), (5, 0, 0));
    assert_eq!((held(&world), world.view.manager.active_leases), (vec![0, 0], 0));
}

#[test]
fn a_lease_ends_once_by_its_descriptor_or_by_its_release() {
    let mut world = serving(of(1));
    let lease = world.lease("a").unwrap();
    world.event(Event::LeaseEnded { lease: lease.clone(), how: LeaseEnd::Closed });
    assert_eq!((held(&world), world.held.len()), (vec![0], 0));
    let released = world.ask(Request::ReleaseLease { lease: lease.to_string() });
    assert!(matches!(released, Err(Denied::NoSuchLease(_))));
    world.event(Event::LeaseEnded { lease, how: LeaseEnd::Closed });
    assert_eq!(held(&world), [0], "never below zero");
}

#[test]
fn the_release_of_an_unknown_lease_is_an_error_and_changes_no_count() {
    let mut world = serving(of(1));
    let lease = world.lease("a").unwrap();
    let other = LeaseId { number: lease.number.wrapping_add(1), ..lease };
    for text in [other.to_string(), "a-r7.0000000000000001".into(), "nonsense".into(), String::new()] {
        let released = world.ask(Request::ReleaseLease { lease: text.clone() });
        assert!(matches!(released, Err(Denied::NoSuchLease(_))), "{text}");
    }
    assert_eq!((held(&world), world.pool("a").active_leases()), (vec![1], 1));
}

#[test]
fn a_descriptor_that_could_not_be_made_leaves_no_lease() {
    let mut world = serving(of(1));
    let lease = world.lease("a").unwrap();
    world.event(Event::LeaseEnded { lease, how: LeaseEnd::NotOpened("too many open files".into()) });
    assert_eq!((held(&world), world.state.leases.len(), world.said("too many open files")), (vec![0], 0, 1));
}

#[test]
fn leases_are_taken_up_after_a_daemon_restart_and_those_of_engines_that_are_gone_are_not() {
    let mut world = serving(of(2));
    let leases: Vec<LeaseId> = (0..4).map(|_| world.lease("a").unwrap()).collect();
    world.units.get_mut(&unit(UnitKind::Engine, "a", 1)).unwrap().active = ActiveState::Failed;
    world.kill_daemon(&[of(2)]);
    assert_eq!((held(&world), world.state.leases.len()), (vec![2, 0], 2));
    let kept: Vec<&LeaseId> = world.held.iter().collect();
    assert!(kept.len() == 2 && kept.iter().all(|lease| lease.replica.index == 0), "the others are closed");
    world.release(&leases[0]);
    assert_eq!(held(&world), [1, 0]);
    let newer = world.lease("a").unwrap();
    assert!(!leases.contains(&newer));
}

#[test]
fn pools_know_nothing_of_each_others_leases() {
    let mut world =
        World::with(&[capped(1, 1), PoolSpec { id: "b".parse().unwrap(), ..capped(1, 1) }, spec("a-r0")]);
    for pool in ["a", "b", "a-r0"] {
        world.serve(pool, 0);
    }
    world.lease("a").unwrap();
    assert!(matches!(world.lease("a"), Err(Denied::AtCapacity { .. })));
    world.lease("b").unwrap();
    world.lease("a-r0").unwrap();
    world.crash("a", 0);
    assert_eq!((world.pool("b").active_leases(), world.pool("a-r0").active_leases()), (1, 1));
    assert_eq!((world.revoked.len(), world.held.len()), (1, 2));
    world.drain("b", Usec(0));
    assert!(world.lease("a-r0").is_ok());
}

#[test]
fn leases_of_engines_that_are_resized_away_end_with_them() {
    let mut world = serving(of(3));
    for _ in 0..3 {
        world.lease("a").unwrap();
    }
    world.reload(&of(1), true).unwrap();
    world.checks_pass("a", 0);
    world.pass(seconds(60));
    world.settle();
    assert_eq!((world.revoked.len(), world.state.leases.len(), held(&world)), (3, 0, vec![0]));
    world.becomes_ready("a", 0);
    assert_eq!(world.lease("a").unwrap().replica.index, 0);
}

#[test]
fn a_lease_that_was_allowed_is_judged_again_when_it_is_given() {
    // Between the two a drain has begun.
    let mut world = serving(of(1));
    let accepted = pool_core::decide(
        &world.state,
        &Caller::default(),
        &Request::AllocateLease { pool: "a".into(), wish: LeaseWish::default() },
    )
    .expect("there is one");
    world.drain("a", Usec(0));
    let request = pool_core::host::RequestId(77);
    world.event(Event::Asked { request, caller: Caller::default(), accepted });
    assert!(matches!(world.answers_to(request)[..], [Answer::Denied(Denied::Draining(_))]));
    assert_eq!(held(&world), [0]);
}
