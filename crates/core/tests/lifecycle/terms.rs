//! Stories of leases with terms: time limits, renewal, callers that wait, and what one user may have.

use crate::acts::{of, seconds};
use crate::world::{World, spec};
use pool_core::config::{LeaseNumbers, PoolSpec};
use pool_core::host::{Answer, Caller, LeaseWish, RequestId};
use pool_core::job::{JobResult, Operation};
use pool_core::lease::{Held, LeaseId, Terms};
use pool_core::name::Usec;
use pool_core::{Denied, Event, Request};

fn capped(capacity: u32) -> PoolSpec {
    PoolSpec { leases: LeaseNumbers { capacity: Some(capacity) }, ..of(1) }
}

fn serving(spec: PoolSpec) -> World {
    let mut world = World::with(&[spec]);
    world.all_serve("a");
    world
}

fn caller(name: &str, uid: u32) -> Caller {
    Caller { name: name.to_owned(), uid, ..Caller::default() }
}

fn ask(world: &mut World, who: &Caller, wish: LeaseWish) -> Result<RequestId, Denied> {
    world.ask_as(who, Request::AllocateLease { pool: "a".into(), wish })
}

fn lasting(time: Usec) -> LeaseWish {
    LeaseWish { ttl: time, ..LeaseWish::default() }
}

fn waiting(time: Usec) -> LeaseWish {
    LeaseWish { wait: time, ..LeaseWish::default() }
}

fn given(world: &World, request: RequestId) -> Option<LeaseId> {
    match world.answers_to(request)[..] {
        [] => None,
        [Answer::Lease { lease, .. }] => Some(lease.clone()),
        ref other => panic!("{other:?}"),
    }
}

fn denied(world: &World, request: RequestId) -> Denied {
    match world.answers_to(request)[..] {
        [Answer::Denied(denied)] => denied.clone(),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_ends_at_its_time_limit_and_that_is_told() {
    let mut world = serving(capped(1));
    let request = ask(&mut world, &caller(":1.1", 7), lasting(seconds(30))).expect("there is one");
    let lease = given(&world, request).expect("it was given");
    world.pass(Usec(seconds(30).0 - 1));
    assert!(world.held.contains(&lease));
    world.pass(Usec(1));
    assert_eq!((world.held.len(), world.revoked.as_slice()), (0, [lease].as_slice()));
    assert_eq!(world.pool("a").active_leases(), 0);
    assert!(world.lease("a").is_ok(), "its place is free");
}

#[test]
fn a_lease_without_a_limit_lasts_and_one_that_ends_before_leaves_no_timer() {
    for ttl in [Usec(0), Usec(u64::MAX), seconds(5)] {
        let mut world = serving(capped(1));
        let timers = world.timers.len();
        let request = ask(&mut world, &Caller::default(), lasting(ttl)).expect("there is one");
        let lease = given(&world, request).expect("it was given");
        if ttl == seconds(5) {
            world.release(&lease);
            assert_eq!(world.timers.len(), timers);
        } else {
            world.pass(seconds(1_000_000));
            assert!(world.held.contains(&lease));
        }
        assert!(world.revoked.is_empty());
    }
}

#[test]
fn a_renewed_lease_lasts_from_then_on() {
    let mut world = serving(capped(1));
    let holder = caller(":1.1", 7);
    let request = ask(&mut world, &holder, lasting(seconds(30))).expect("there is one");
    let lease = given(&world, request).expect("it was given");
    let renew = |world: &mut World, ttl| {
        world.ask_as(&holder, Request::RenewLease { lease: lease.to_string(), ttl }).expect("it is held")
    };
    world.pass(seconds(20));
    renew(&mut world, seconds(30));
    world.pass(seconds(29));
    assert!(world.held.contains(&lease), "the old limit is past");
    renew(&mut world, Usec(0));
    world.pass(seconds(1_000));
    assert!(world.held.contains(&lease), "it has no limit any more");
    renew(&mut world, seconds(1));
    world.pass(seconds(1));
    assert!(!world.held.contains(&lease));
    let gone = world.ask_as(&holder, Request::RenewLease { lease: lease.to_string(), ttl: Usec(1) });
    assert_eq!(gone, Err(Denied::NoSuchLease(lease.to_string())));
}

#[test]
fn a_time_limit_holds_over_a_restart_of_the_daemon() {
    let mut world = serving(capped(2));
    let holder = caller(":1.1", 7);
    let short = ask(&mut world, &holder, lasting(seconds(30))).expect("there is one");
    let short = given(&world, short).expect("it was given");
    let long = ask(&mut world, &holder, lasting(seconds(30))).expect("there is one");
    let long = given(&world, long).expect("it was given");
    let renewal = Request::RenewLease { lease: long.to_string(), ttl: seconds(90) };
    world.ask_as(&holder, renewal).expect("it is held");
    world.pass(seconds(20));
    world.restart_daemon(&[capped(2)]);
    assert_eq!(world.held.len(), 2);
    world.pass(seconds(10));
    assert_eq!(world.held.iter().collect::<Vec<_>>(), [&long]);
    assert_eq!(world.revoked, [short]);
    let stranger = Request::ReleaseLease { lease: long.to_string() };
    let refused = world.ask_as(&caller(":1.2", 8), stranger);
    assert_eq!(refused, Err(Denied::NotTheHolder { lease: long.clone(), uid: 7 }), "whose it is was kept");
    world.pass(seconds(60));
    assert!(world.held.is_empty());
}

#[test]
fn only_its_user_and_root_may_have_a_lease() {
    let mut world = serving(capped(3));
    let holder = caller(":1.1", 7);
    for by in [holder.clone(), caller(":1.9", 7), Caller::default()] {
        let request = ask(&mut world, &holder, lasting(seconds(5))).expect("there is one");
        let lease = given(&world, request).expect("it was given").to_string();
        let strange = caller(":1.2", 8);
        for request in [
            Request::ReleaseLease { lease: lease.clone() },
            Request::RenewLease { lease: lease.clone(), ttl: Usec(1) },
        ] {
            assert!(matches!(world.ask_as(&strange, request), Err(Denied::NotTheHolder { uid: 7, .. })));
        }
        world.ask_as(&by, Request::RenewLease { lease: lease.clone(), ttl: seconds(9) }).expect("it may");
        world.ask_as(&by, Request::ReleaseLease { lease }).expect("it may");
        assert!(world.held.is_empty());
    }
}

#[test]
fn who_waits_is_served_in_turn() {
    let mut world = serving(capped(1));
    let timers = world.timers.len();
    let first = world.lease("a").expect("there is one");
    let waits = |world: &mut World, name: &str| {
        ask(world, &caller(name, 7), waiting(seconds(60))).expect("it may wait")
    };
    let (one, two, three) = (waits(&mut world, ":1.1"), waits(&mut world, ":1.2"), waits(&mut world, ":1.3"));
    assert!([one, two, three].iter().all(|request| world.answers_to(*request).is_empty()));
    assert!(
        matches!(world.lease("a"), Err(Denied::AtCapacity { .. })),
        "who does not wait is not served before"
    );
    world.release(&first);
    let second = given(&world, one).expect("its turn");
    assert_eq!((given(&world, two), given(&world, three)), (None, None));
    // The next in line has left meanwhile.
    world.event(Event::CallerLeft(":1.2".to_owned()));
    assert_eq!(world.forgotten, [two]);
    world.event(Event::LeaseEnded { lease: second, how: pool_core::lease::LeaseEnd::Closed });
    assert!(given(&world, three).is_some());
    assert!(world.answers_to(two).is_empty() && world.state.waiters.is_empty());
    assert_eq!(world.timers.len(), timers, "nobody waits any more");
    assert_eq!(world.held.len(), 1);
}

#[test]
fn who_waits_for_a_pool_that_starts_is_served_when_it_is_ready() {
    let mut world = World::with(&[capped(2)]);
    let request = ask(&mut world, &caller(":1.1", 7), waiting(Usec(u64::MAX))).expect("it may wait");
    world.pass(seconds(5));
    assert!(world.answers_to(request).is_empty());
    world.all_serve("a");
    assert!(given(&world, request).is_some());
}

#[test]
fn waiting_ends_with_its_time_and_says_how_it_stands() {
    let mut world = serving(capped(1));
    world.lease("a").expect("there is one");
    let request = ask(&mut world, &caller(":1.1", 7), waiting(seconds(5))).expect("it may wait");
    world.pass(seconds(5));
    let denied = denied(&world, request);
    assert!(matches!(denied, Denied::NoLeaseInTime { .. }), "{denied:?}");
    assert!(denied.to_string().contains("1 of 1 leases are held"), "{denied}");
    assert!(world.state.waiters.is_empty());
}

#[test]
fn what_will_not_come_by_itself_is_not_waited_for() {
    let wait = |world: &mut World| ask(world, &caller(":1.1", 7), waiting(seconds(60)));
    let mut world =
        World::with(&[PoolSpec { activation: pool_core::config::Activation::Manual, ..spec("a") }]);
    assert!(matches!(wait(&mut world), Err(Denied::NotReady { .. })), "it is stopped");
    // Whoever waits already is told when that comes to pass.
    for (way, is_it) in [
        ("drain", (|denied| matches!(denied, Denied::Draining(_))) as fn(&Denied) -> bool),
        ("stop", |denied| matches!(denied, Denied::NotReady { .. })),
        ("removal", |denied| matches!(denied, Denied::Leaving(_) | Denied::NoSuchPool(_))),
    ] {
        let mut world = serving(capped(1));
        world.lease("a").expect("there is one");
        let request = wait(&mut world).expect("it may wait");
        match way {
            "drain" => drop(world.drain("a", Usec(0))),
            "stop" => drop(world.stop("a")),
            _ => world.configure(&[]),
        }
        assert!(is_it(&denied(&world, request)), "{way}: {:?}", world.answers_to(request));
        assert!(world.state.waiters.is_empty(), "{way}");
    }
}

#[test]
fn a_holder_has_a_name_that_can_stand_in_a_file_s() {
    let mut world = serving(capped(2));
    for holder in ["a/b".to_owned(), "a\nb".to_owned(), "x".repeat(65)] {
        let refused = ask(&mut world, &caller(":1.1", 7), LeaseWish { holder, ..LeaseWish::default() });
        assert!(matches!(refused, Err(Denied::InvalidArgument(text)) if text.contains("\"holder\"")));
    }
    let holder = "job 7 of node-3".to_owned();
    let wish = LeaseWish { holder: holder.clone(), ..LeaseWish::default() };
    let request = ask(&mut world, &caller(":1.1", 7), wish).expect("there is one");
    let lease = given(&world, request).expect("it was given");
    assert_eq!(world.terms[&lease].holder, holder);
    assert!(world.lines.iter().any(|line| line.contains("given to uid 7 (job 7 of node-3)")));
}

#[test]
fn one_user_has_so_many_leases_and_waits_and_others_have_theirs() {
    let mut world = serving(of(1));
    let (greedy, other) = (caller(":1.1", 7), caller(":1.2", 8));
    for number in 0..25_000 {
        let id = LeaseId { replica: "b-r0".parse().expect("a valid name"), number };
        let terms = Terms { uid: greedy.uid, ..Terms::default() };
        world.state.leases.insert(id, Held { terms, caller: greedy.name.clone(), timer: None });
    }
    let refused = ask(&mut world, &greedy, waiting(seconds(9)));
    assert!(matches!(refused, Err(Denied::TooManyOfAUser { what: "leases", uid: 7, most: 25_000 })));
    assert!(ask(&mut world, &other, LeaseWish::default()).is_ok());

    let mut world = World::with(&[spec("a")]);
    let wait = |world: &mut World, who: &Caller| {
        world.ask_as(who, Request::WaitReady { pool: "a".into(), timeout: Usec(0) })
    };
    for _ in 0..256 {
        wait(&mut world, &greedy).expect("it may wait");
    }
    let refused = wait(&mut world, &greedy);
    assert!(matches!(refused, Err(Denied::TooManyOfAUser { what: "waiting calls", .. })), "{refused:?}");
    wait(&mut world, &other).expect("it may wait");
    world.event(Event::CallerLeft(":1.1".to_owned()));
    assert_eq!((world.forgotten.len(), world.state.waiters.len()), (256, 1));
    wait(&mut world, &greedy).expect("it may wait again");
}

#[test]
fn root_may_wait_where_all_others_wait_already() {
    let mut world = World::with(&[spec("a")]);
    let wait = |world: &mut World, uid| {
        let who = caller(&format!(":1.{uid}"), uid);
        world.ask_as(&who, Request::WaitReady { pool: "a".into(), timeout: Usec(0) })
    };
    for uid in 1..=3 {
        for _ in 0..256 {
            wait(&mut world, uid).expect("it may wait");
        }
    }
    assert_eq!(wait(&mut world, 4), Err(Denied::TooManyWaiters));
    for _ in 0..256 {
        wait(&mut world, 0).expect("root may");
    }
    assert_eq!(wait(&mut world, 0), Err(Denied::TooManyWaiters));
}

#[test]
fn a_holder_is_told_where_another_connection_released_its_lease() {
    let mut world = serving(spec("a"));
    let holder = caller(":1.1", 7);
    let take = |world: &mut World| {
        let request = ask(world, &holder, LeaseWish::default()).expect("there is one");
        given(world, request).expect("it was given")
    };
    let release = |world: &mut World, who: &Caller, lease: &LeaseId| {
        world.ask_as(who, Request::ReleaseLease { lease: lease.to_string() }).expect("it may");
        assert!(!world.held.contains(lease));
    };
    let own = take(&mut world);
    release(&mut world, &holder, &own);
    assert!(world.revoked.is_empty(), "it knows");
    for who in [caller(":1.2", 7), caller(":1.3", 0)] {
        let lease = take(&mut world);
        release(&mut world, &who, &lease);
        assert_eq!(world.revoked, [lease]);
        assert_eq!(world.reasons, [format!("it was released by uid {}", who.uid)]);
        world.revoked.clear();
        world.reasons.clear();
    }
    // Nobody knows after a restart who took it.
    let lease = take(&mut world);
    world.restart_daemon(&[spec("a")]);
    release(&mut world, &holder, &lease);
    assert_eq!(world.revoked, [lease]);
}

#[test]
fn one_user_has_so_many_jobs_and_root_is_never_refused() {
    let mut world = World::with(&[spec("a"), spec("b")]);
    let stop =
        |world: &mut World, uid| world.ask_as(&caller(":1.1", uid), Request::Stop { pool: "a".into() });
    for _ in 0..260 {
        stop(&mut world, 7).expect("it may");
    }
    let refused = stop(&mut world, 7);
    assert!(
        matches!(refused, Err(Denied::TooManyOfAUser { what: "jobs", uid: 7, most: 260 })),
        "{refused:?}"
    );
    stop(&mut world, 0).expect("root may");
    for _ in 0..pool_core::job::MOST {
        let id = "a".parse().expect("a valid name");
        let job = world.state.jobs.open(id, Operation::Stop, None, Usec(0));
        assert!(world.state.jobs.end(job, JobResult::Done, String::new(), Usec(0)));
    }
    stop(&mut world, 0).expect("root may");
    assert_eq!(world.state.jobs.all.len(), pool_core::job::MOST, "what ended first is forgotten first");
    stop(&mut world, 7).expect("its jobs are forgotten");
}

#[test]
fn who_asked_stands_in_the_journal() {
    let mut world = serving(spec("a"));
    let who = Caller { name: ":1.1".into(), uid: 7, pid: 42, unit: "session-3.scope".into() };
    world.ask_as(&who, Request::Stop { pool: "a".into() }).expect("it may");
    let line = "stop of pool a asked for by uid 7, process 42 in session-3.scope";
    assert!(world.lines.iter().any(|said| said == line), "{:?}", world.lines);
}
