//! Stories of pools that somebody else runs.

use crate::acts::seconds;
use crate::world::{World, spec};
use pool_core::host::{Answer, Caller, LeaseWish, RequestId};
use pool_core::lease::LeaseId;
use pool_core::name::{PoolId, Usec};
use pool_core::registry::{External, ExternalRefused, HealthStatus, Report};
use pool_core::view::{PoolView, View};
use pool_core::{Denied, Request};
use std::sync::Arc;

const SERVES: Report = Report::Health(HealthStatus { live: true, ready: true });

fn owner() -> Caller {
    Caller { name: ":1.7".into(), uid: 7, ..Caller::default() }
}

fn stranger() -> Caller {
    Caller { name: ":1.8".into(), uid: 8, ..Caller::default() }
}

fn register(world: &mut World, who: &Caller, endpoint: &str, timeout: Usec) -> Result<RequestId, Denied> {
    let request = Request::RegisterPool {
        pool: "x".into(),
        engine: "vllm".into(),
        endpoint: endpoint.into(),
        heartbeat_timeout: timeout,
    };
    world.ask_as(who, request)
}

fn report(world: &mut World, who: &Caller, report: Report) -> Result<RequestId, Denied> {
    world.ask_as(who, Request::Report { pool: "x".into(), report })
}

fn x() -> PoolId {
    "x".parse().expect("a valid name")
}

fn shown(world: &World) -> Option<Arc<PoolView>> {
    View::of(&world.state).pools.get(&x()).cloned()
}

fn serving() -> World {
    let mut world = World::with(&[spec("a")]);
    register(&mut world, &owner(), "http://10.0.0.7:8000", seconds(10)).expect("nobody has it yet");
    report(&mut world, &owner(), SERVES).expect("it is its owner's");
    world
}

fn lease(world: &mut World, who: &Caller, wish: LeaseWish) -> Result<RequestId, Denied> {
    world.ask_as(who, Request::AllocateLease { pool: "x".into(), wish })
}

fn given(world: &World, request: RequestId) -> (LeaseId, String) {
    match world.answers_to(request)[..] {
        [Answer::Lease { lease, endpoint }] => (lease.clone(), endpoint.clone()),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_published_as_its_owner_says() {
    let mut world = World::with(&[spec("a")]);
    assert!(shown(&world).is_none());
    register(&mut world, &owner(), "http://10.0.0.7:8000", Usec(0)).expect("nobody has it yet");
    let view = shown(&world).expect("it is known");
    assert!(view.external && !view.live && view.engine == "vllm" && view.phase == "stopped");
    assert!(view.endpoints.is_empty(), "it does not serve");
    report(&mut world, &owner(), SERVES).expect("it is its owner's");
    report(&mut world, &owner(), Report::Version("0.11".into())).expect("it is its owner's");
    let view = shown(&world).expect("it is known");
    assert!(view.ready && view.phase == "ready" && view.version == "0.11");
    assert_eq!(view.endpoints, ["http://10.0.0.7:8000"]);
    report(&mut world, &owner(), Report::Health(HealthStatus { live: true, ready: false })).expect("its own");
    assert_eq!(shown(&world).expect("it is known").phase, "starting");
    report(&mut world, &owner(), Report::Health(HealthStatus::default())).expect("its own");
    report(&mut world, &owner(), Report::LastError(Some("out of memory".into()))).expect("its own");
    let view = shown(&world).expect("it is known");
    assert_eq!((view.phase, view.detail.as_str()), ("failed", "out of memory"));
    assert!(view.last_error_timestamp > Usec(0) && view.last_heartbeat > Usec(0));
    let manager = View::of(&world.state).manager;
    assert_eq!((manager.pool_count, manager.ready_pool_count), (2, 0));
}

#[test]
fn it_is_its_owner_s_alone() {
    let mut world = serving();
    let not_owner = ExternalRefused::NotOwner { pool: x(), owner_uid: 7 };
    for who in [stranger(), Caller::default()] {
        assert_eq!(report(&mut world, &who, SERVES), Err(Denied::Refused(not_owner.clone())));
        let again = register(&mut world, &who, "", Usec(0));
        assert_eq!(again, Err(Denied::Refused(ExternalRefused::AlreadyExists(x()))));
    }
    let unregister = Request::UnregisterPool { pool: "x".into() };
    assert_eq!(world.ask_as(&stranger(), unregister.clone()), Err(Denied::Refused(not_owner)));
    world.ask_as(&Caller::default(), unregister.clone()).expect("root may");
    assert!(shown(&world).is_none());
    assert_eq!(world.ask_as(&owner(), unregister), Err(Denied::NoSuchPool("x".into())));
    let own = Request::UnregisterPool { pool: "a".into() };
    let not_external = ExternalRefused::NotExternal("a".parse().expect("a valid name"));
    assert_eq!(world.ask(own), Err(Denied::Refused(not_external.clone())));
    let report = Request::Report { pool: "a".into(), report: SERVES };
    assert_eq!(world.ask(report), Err(Denied::Refused(not_external)));
}

#[test]
fn nobody_starts_stops_drains_or_reloads_it_here() {
    let mut world = serving();
    let pool = || "x".to_owned();
    for request in [
        Request::Start { pool: pool() },
        Request::Stop { pool: pool() },
        Request::Drain { pool: pool(), deadline: Usec(0) },
        Request::Reload { pool: pool(), revision: None, deadline: Usec(0), force: true },
        Request::Reset { pool: pool() },
    ] {
        assert_eq!(world.ask(request), Err(Denied::External(x())));
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let mut world = serving();
    let ask = |world: &mut World, pool: &str, endpoint: &str, engine: &str| {
        let (pool, endpoint, engine) = (pool.to_owned(), endpoint.to_owned(), engine.to_owned());
        world.ask(Request::RegisterPool { pool, engine, endpoint, heartbeat_timeout: Usec(0) })
    };
    for (pool, endpoint, engine, named) in [
        ("UPPER", "", "", "UPPER"),
        ("y", "nowhere", "", "\"endpoint\""),
        ("y", &*format!("http://a:{}80", "0".repeat(256)), "", "\"endpoint\" has"),
        ("y", "", &*"x".repeat(65), "\"engine\""),
    ] {
        let refused = ask(&mut world, pool, endpoint, engine).expect_err("it makes no sense");
        assert!(refused.to_string().contains(named), "{refused}");
    }
    for (report, named) in [
        (Report::Health(HealthStatus { live: false, ready: true }), "\"ready\""),
        (Report::Version("x".repeat(257)), "\"version\""),
        (Report::LastError(Some("x".repeat(4_097))), "\"error\""),
    ] {
        let refused = world.ask_as(&owner(), Request::Report { pool: "x".into(), report });
        assert!(refused.expect_err("it makes no sense").to_string().contains(named), "{named}");
    }
}

#[test]
fn a_silent_owner_s_pool_is_not_ready_and_comes_back() {
    let mut world = serving();
    world.pass(seconds(6));
    report(&mut world, &owner(), Report::Heartbeat(Usec(u64::MAX))).expect("it is its owner's");
    world.pass(seconds(9));
    assert!(shown(&world).expect("it is known").ready, "it was heard meanwhile");
    world.pass(seconds(1));
    let view = shown(&world).expect("it is known");
    assert!(!view.live && !view.ready && view.phase == "failed", "{view:?}");
    assert!(view.last_error.contains("silent for 10 s"), "{}", view.last_error);
    assert!(world.lines.iter().any(|line| line.contains("pool x: uid 7, who runs it, has been silent")));
    report(&mut world, &owner(), SERVES).expect("it is its owner's");
    assert!(shown(&world).expect("it is known").ready);
    world.pass(seconds(10));
    assert!(!shown(&world).expect("it is known").ready, "it is looked after again");
}

#[test]
fn its_phase_has_the_time_of_its_own_change() {
    let mut world = World::with(&[]);
    register(&mut world, &owner(), "", Usec(0)).expect("nobody has it yet");
    let since = |world: &World| {
        let view = shown(world).expect("it is known");
        (view.phase, view.state_change_timestamp)
    };
    let registered = world.now;
    assert_eq!(since(&world), ("stopped", registered));
    world.pass(seconds(5));
    report(&mut world, &owner(), Report::LastError(Some("hot".into()))).expect("it is its owner's");
    let failed = world.now;
    assert_eq!(since(&world), ("failed", failed));
    world.pass(seconds(5));
    report(&mut world, &owner(), Report::LastError(Some("hotter".into()))).expect("it is its owner's");
    assert_eq!(since(&world), ("failed", failed), "it is the same phase");
    report(&mut world, &owner(), Report::LastError(None)).expect("it is its owner's");
    assert_eq!(since(&world), ("stopped", world.now));
    report(&mut world, &owner(), SERVES).expect("it is its owner's");
    let ready = world.now;
    assert_eq!(since(&world), ("ready", ready));
    world.pass(seconds(5));
    report(&mut world, &owner(), Report::LastError(Some("hot".into()))).expect("it is its owner's");
    assert_eq!(since(&world), ("ready", ready), "an error takes no readiness");
}

#[test]
fn a_restart_is_no_sign_of_life_but_its_owner_has_its_whole_time_again() {
    let mut world = serving();
    let heard = |world: &World| shown(world).expect("it is known").last_heartbeat;
    let said = world.now;
    world.pass(seconds(9));
    world.restart_daemon(&[]);
    assert_eq!(heard(&world), said);
    world.pass(seconds(9));
    assert!(shown(&world).expect("it is known").ready, "its time began anew");
    world.pass(seconds(1));
    assert!(!shown(&world).expect("it is known").ready);
    assert_eq!(heard(&world), said);
    // Not every heartbeat is saved, but none that is much older than the last.
    for _ in 0..25 {
        world.pass(seconds(1));
        report(&mut world, &owner(), Report::Heartbeat(Usec(u64::MAX))).expect("it is its owner's");
    }
    let last = heard(&world);
    assert_eq!(last, world.now);
    world.restart_daemon(&[]);
    assert!(heard(&world) <= last && last.since(heard(&world)) < seconds(10), "{:?}", heard(&world));
    // One that was never heard was not heard by the restart either.
    world.ask_as(&owner(), Request::UnregisterPool { pool: "x".into() }).expect("it is its owner's");
    register(&mut world, &owner(), "", Usec(0)).expect("nobody has it by now");
    world.restart_daemon(&[]);
    assert_eq!(heard(&world), Usec(0));
}

#[test]
fn who_waited_for_it_in_vain_is_told_why() {
    let mut world = World::with(&[]);
    register(&mut world, &owner(), "", Usec(0)).expect("nobody has it yet");
    let wait = |world: &mut World| {
        let request = Request::WaitReady { pool: "x".into(), timeout: seconds(1) };
        let request = world.ask_as(&stranger(), request).expect("it is known");
        world.pass(seconds(1));
        match world.answers_to(request)[..] {
            [Answer::Denied(Denied::Timeout { why, .. })] => why.clone(),
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(&mut world), "whoever runs it has not said that it is ready");
    report(&mut world, &owner(), Report::LastError(Some("out of memory".into()))).expect("its own");
    assert_eq!(wait(&mut world), "out of memory");
}

#[test]
fn the_first_of_several_silent_owners_is_noticed_first() {
    let mut world = World::with(&[]);
    let add = |world: &mut World, pool: &str, timeout| {
        let request = Request::RegisterPool {
            pool: pool.to_owned(),
            engine: String::new(),
            endpoint: String::new(),
            heartbeat_timeout: timeout,
        };
        world.ask_as(&owner(), request).expect("nobody has it yet");
        let request = Request::Report { pool: pool.to_owned(), report: SERVES };
        world.ask_as(&owner(), request).expect("it is its owner's");
    };
    add(&mut world, "slow", seconds(60));
    add(&mut world, "fast", seconds(10));
    add(&mut world, "slower", seconds(90));
    let ready = |world: &World| View::of(&world.state).manager.ready_pool_count;
    world.pass(seconds(9));
    assert_eq!((ready(&world), world.timers.len()), (3, 1), "one timer is for all");
    world.pass(seconds(1));
    assert_eq!(ready(&world), 2);
    world.pass(seconds(50));
    assert_eq!(ready(&world), 1);
    world.pass(seconds(30));
    assert_eq!((ready(&world), world.timers.len()), (0, 0));
}

#[test]
fn a_host_knows_so_many_of_all_users() {
    let mut world = World::with(&[]);
    for number in 0..1_024 {
        let id = format!("n{number}").parse().expect("a valid name");
        world.state.registry.register(&id, External::of(number)).expect("nobody has it yet");
    }
    for who in [owner(), Caller::default()] {
        assert_eq!(register(&mut world, &who, "", Usec(0)), Err(Denied::TooManyExternals(1_024)));
        assert_eq!(report(&mut world, &who, SERVES), Err(Denied::TooManyExternals(1_024)));
    }
    let known = Request::Report { pool: "n7".into(), report: SERVES };
    world.ask_as(&owner(), known).expect("what is known is reported on as ever");
}

#[test]
fn the_first_report_makes_it_known_and_there_are_so_many_of_one_user() {
    let mut world = World::with(&[spec("a")]);
    report(&mut world, &owner(), SERVES).expect("nobody has it yet");
    assert!(shown(&world).expect("it is known").ready);
    let refused = lease(&mut world, &stranger(), LeaseWish::default()).expect_err("nobody said where it is");
    assert!(refused.to_string().contains("has not said where it answers"), "{refused}");
    register(&mut world, &owner(), "http://10.0.0.7:8000", Usec(0)).expect("it takes that on");
    lease(&mut world, &stranger(), LeaseWish::default()).expect("there is one");
    for number in 1..256 {
        let pool = format!("n{number}");
        world.ask_as(&owner(), Request::Report { pool, report: SERVES }).expect("there is room");
    }
    let more = Request::Report { pool: "more".into(), report: SERVES };
    let refused = world.ask_as(&owner(), more.clone());
    assert!(matches!(refused, Err(Denied::TooManyOfAUser { what: "external pools", .. })), "{refused:?}");
    world.ask_as(&stranger(), more).expect("others have their own");
}

#[test]
fn its_leases_have_its_endpoint_and_end_with_it() {
    let mut world = serving();
    let request = lease(&mut world, &stranger(), LeaseWish::default()).expect("there is one");
    let (first, endpoint) = given(&world, request);
    assert_eq!(endpoint, "http://10.0.0.7:8000");
    let wish = LeaseWish { ttl: seconds(5), ..LeaseWish::default() };
    lease(&mut world, &stranger(), wish).expect("there is one");
    assert_eq!(shown(&world).expect("it is known").active_leases, 2);
    world.pass(seconds(5));
    assert_eq!(shown(&world).expect("it is known").active_leases, 1);
    world.restart_daemon(&[spec("a")]);
    let view = shown(&world).expect("it is known after a restart");
    assert!(view.ready && view.active_leases == 1 && world.held.contains(&first), "{view:?}");
    world.revoked.clear();
    world.ask_as(&owner(), Request::UnregisterPool { pool: "x".into() }).expect("it is its owner's");
    assert_eq!(
        (world.revoked.as_slice(), world.held.len(), world.state.leases.len()),
        ([first].as_slice(), 0, 0)
    );
}

#[test]
fn who_waits_for_it_is_served_when_its_owner_says_so() {
    let mut world = World::with(&[]);
    register(&mut world, &owner(), "http://10.0.0.7:8000", Usec(0)).expect("nobody has it yet");
    let wait = |world: &mut World| {
        world
            .ask_as(&stranger(), Request::WaitReady { pool: "x".into(), timeout: Usec(0) })
            .expect("it is known")
    };
    let (first, wish) = (wait(&mut world), LeaseWish { wait: seconds(60), ..LeaseWish::default() });
    let leased = lease(&mut world, &stranger(), wish).expect("it may wait");
    report(&mut world, &owner(), SERVES).expect("it is its owner's");
    assert_eq!(world.answers_to(first), [&Answer::Ready]);
    given(&world, leased);
    report(&mut world, &owner(), Report::Health(HealthStatus::default())).expect("it is its owner's");
    let second = wait(&mut world);
    world.ask_as(&owner(), Request::UnregisterPool { pool: "x".into() }).expect("it is its owner's");
    assert_eq!(world.answers_to(second), [&Answer::Denied(Denied::NoSuchPool("x".into()))]);
}

#[test]
fn a_file_of_its_id_takes_its_place() {
    let mut world = serving();
    let request = lease(&mut world, &stranger(), LeaseWish::default()).expect("there is one");
    let (taken, _) = given(&world, request);
    world.configure(&[spec("a"), spec("x")]);
    let view = shown(&world).expect("it is there");
    assert!(!view.external && !view.ready && view.active_leases == 0);
    assert_eq!((world.revoked.as_slice(), world.held.len()), ([taken].as_slice(), 0));
    let refused = report(&mut world, &owner(), SERVES);
    assert_eq!(refused, Err(Denied::Refused(ExternalRefused::NotExternal(x()))));
    // Also where the file came while the daemon was away.
    let mut world = serving();
    world.restart_daemon(&[spec("a"), spec("x")]);
    assert!(!shown(&world).expect("it is there").external);
}
