//! Memory that is promised: what does not fit is refused, and who holds what is named.

use crate::world::{World, spec, unit};
use pool_core::Event;
use pool_core::config::{Bytes, PoolSpec, Resources, Size};
use pool_core::host::HostFacts;
use pool_core::name::UnitKind;
use pool_core::pool::PoolPhase;
use pool_core::replica::{ActiveState, Report};

const GIB: u64 = 1 << 30;

fn wants(id: &str, gib: u64) -> PoolSpec {
    let memory_max = Some(Size::Bytes(Bytes(gib * GIB)));
    PoolSpec { resources: Resources { memory_max, ..Resources::default() }, ..spec(id) }
}

/// A daemon on a host of 64 GiB that has just started with these pools.
fn with(specs: &[PoolSpec]) -> World {
    let mut world = World::empty();
    world.host = HostFacts { memory: 64 * GIB, ..HostFacts::default() };
    world.start_daemon(specs, Default::default(), Default::default());
    world
}

fn error(world: &World, id: &str) -> (String, String) {
    let error = world.pool(id).last_error.as_ref().expect("it went wrong");
    (error.class.to_string(), error.text.clone())
}

#[test]
fn a_pool_that_does_not_fit_is_refused_and_told_who_holds_what() {
    let mut world = with(&[wants("a", 30), wants("b", 20), wants("c", 15)]);
    world.serve("a", 0);
    world.serve("b", 0);
    assert_eq!(world.phase("c"), PoolPhase::Failed);
    let text = "its memory_max is 15 GiB, and of the host's 64 GiB only 14 GiB are not promised: \
                a-r0 holds 30 GiB, b-r0 holds 20 GiB";
    assert_eq!(error(&world, "c"), ("not-admitted".to_owned(), text.to_owned()));
    assert!(!world.started.contains(&unit(UnitKind::Stage, "c", 0)), "nothing of it was spawned");
    let reasons = world.pool("c").reasons();
    let remedy = reasons[0].cause.remedy(world.pool("c").id());
    assert!(remedy.contains("resources.memory_max") && remedy.contains("poolctl start c"), "{remedy}");
    // Once there is room, it starts when somebody starts it.
    world.stop("a");
    world.settle();
    world.start("c");
    world.serve("c", 0);
    assert_eq!((world.phase("b"), world.phase("c")), (PoolPhase::Ready, PoolPhase::Ready));
    world.start("a");
    assert_eq!(world.phase("a"), PoolPhase::Failed);
}

#[test]
fn what_just_fits_is_let_in_and_each_replica_counts() {
    let mut world = with(&[PoolSpec { replicas: 2, ..wants("a", 32) }]);
    world.serve("a", 0);
    world.serve("a", 1);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    let mut world = with(&[PoolSpec { replicas: 3, ..wants("a", 32) }]);
    world.serve("a", 0);
    world.serve("a", 1);
    assert!(
        error(&world, "a").1.ends_with("a-r0 holds 32 GiB, a-r1 holds 32 GiB"),
        "{:?}",
        error(&world, "a")
    );
}

#[test]
fn a_pool_that_no_host_like_this_can_have_is_told_so() {
    let world = with(&[wants("a", 65)]);
    assert_eq!(error(&world, "a").1, "its memory_max is 65 GiB, and the host has 64 GiB");
}

#[test]
fn who_says_nothing_is_promised_nothing() {
    let mut world = with(&[spec("a"), wants("b", 64)]);
    world.serve("a", 0);
    world.serve("b", 0);
    assert_eq!((world.phase("a"), world.phase("b")), (PoolPhase::Ready, PoolPhase::Ready));
    // And where it is not known how much there is, nobody is refused.
    let mut world = World::with(&[wants("a", 1000), wants("b", 1000)]);
    world.serve("a", 0);
    world.serve("b", 0);
    assert_eq!((world.phase("a"), world.phase("b")), (PoolPhase::Ready, PoolPhase::Ready));
}

#[test]
fn an_engine_keeps_its_promise_between_two_restarts() {
    let mut world = with(&[
        wants("a", 40),
        PoolSpec { activation: pool_core::config::Activation::Manual, ..wants("b", 40) },
    ]);
    world.serve("a", 0);
    world.crash("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Backoff);
    world.start("b");
    assert!(error(&world, "b").1.contains("a-r0 holds 40 GiB"));
    world.ring();
    world.serve("a", 0);
    assert_eq!(world.phase("a"), PoolPhase::Ready);
}

#[test]
fn what_runs_is_counted_before_what_a_new_daemon_would_start() {
    let mut world = with(&[wants("b", 40)]);
    world.serve("b", 0);
    world.restart_daemon(&[wants("a", 40), wants("b", 40)]);
    assert_eq!((world.phase("a"), world.phase("b")), (PoolPhase::Failed, PoolPhase::Ready));
    assert!(error(&world, "a").1.contains("b-r0 holds 40 GiB"));
}

#[test]
fn a_reload_that_does_not_fit_leaves_the_old_engine() {
    let mut world = with(&[wants("a", 30), wants("b", 30)]);
    world.serve("a", 0);
    world.serve("b", 0);
    world.reload(&wants("a", 40), false).expect("a reload");
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    let (class, text) = error(&world, "a");
    assert_eq!(class, "not-admitted");
    assert!(text.contains("the old engine goes on") && text.contains("b-r0 holds 30 GiB"), "{text}");
    assert!(!text.contains("a-r0 holds"), "what it has itself would be given back: {text}");
    // What fits instead of the old one is checked like any other.
    world.reload(&wants("a", 34), false).expect("a reload");
    assert!(world.units.contains_key(&unit(UnitKind::Stage, "a", 0)));
}

#[test]
fn a_pool_whose_file_is_gone_holds_nothing() {
    let mut world = with(&[wants("a", 40)]);
    world.serve("a", 0);
    world.configure(&[]);
    world.stop("a");
    world.settle();
    world.configure(&[wants("b", 40)]);
    world.serve("b", 0);
    assert_eq!(world.phase("b"), PoolPhase::Ready);
}

/// The kernel kills it for want of memory.
fn runs_out(world: &mut World, id: &str, peak: Option<u64>) {
    world.seen(&unit(UnitKind::Engine, id, 0), |unit| {
        unit.active = ActiveState::Failed;
        unit.main_pid = 0;
        unit.result = "oom-kill".into();
        (unit.exec_code, unit.exec_status) = (2, 9);
        unit.memory_peak = peak;
    });
    world.settle();
}

#[test]
fn who_ran_out_of_memory_is_told_how_much_it_had_and_might_have() {
    let mut world = with(&[wants("a", 30), spec("b")]);
    world.serve("a", 0);
    world.serve("b", 0);
    runs_out(&mut world, "a", Some(30 * GIB));
    let text = "the kernel ran out of memory and killed it; it had 30 GiB at its peak, resources.memory_max is 30 GiB";
    assert_eq!(error(&world, "a"), ("oom-host".to_owned(), text.to_owned()));
    assert_eq!(world.phase("b"), PoolPhase::Ready);
    runs_out(&mut world, "b", None);
    let text = "the kernel ran out of memory and killed it; how much it had is not known, resources.memory_max is not set";
    assert_eq!(error(&world, "b").1, text);
}

#[test]
fn where_systemd_does_not_say_how_much_it_had_its_prober_did() {
    let mut world = with(&[wants("a", 30)]);
    world.serve("a", 0);
    let name = unit(UnitKind::Engine, "a", 0);
    for (own, told) in
        [(true, "it had at least 29.5 GiB at its peak"), (false, "how much it had is not known")]
    {
        let invocation = if own { world.units[&name].invocation } else { Default::default() };
        let report = format!("INVOCATION_ID={invocation}\nMEMORY_PEAK={}", 59 * GIB / 2);
        let report = Report::parse(&report).expect("a report");
        world.event(Event::Reported { unit: name.clone(), report });
        runs_out(&mut world, "a", None);
        assert!(error(&world, "a").1.contains(told), "{}", error(&world, "a").1);
        world.ring();
        world.serve("a", 0);
    }
}
