//! Stories of who computes where.

use crate::acts::seconds;
use crate::world::{World, spec, unit};
use pool_core::Event;
use pool_core::config::PoolSpec;
use pool_core::cpu::{CpuWish, Topology};
use pool_core::host::LogKind;
use pool_core::name::UnitKind;
use pool_core::pool::PoolPhase;
use std::collections::{BTreeMap, BTreeSet};

fn topology(online: &str) -> Topology {
    Topology { online: online.parse().expect("a list of CPUs"), nodes: BTreeMap::new() }
}

fn with(cpus: CpuWish, id: &str) -> PoolSpec {
    PoolSpec { cpus, ..spec(id) }
}

fn own(id: &str, count: u16) -> PoolSpec {
    with(CpuWish::Exclusive(count), id)
}

/// A host with four CPUs.
fn host(specs: &[PoolSpec]) -> World {
    let mut world = World::empty();
    world.topology = topology("0-3");
    world.start_daemon(specs, Default::default(), BTreeSet::new());
    world
}

/// Which CPUs an engine may use: as systemd was told, and as it is published.
fn allowed(world: &World, pool: &str) -> String {
    let name = unit(UnitKind::Engine, pool, 0);
    let told = world.allowed(&name);
    assert_eq!(world.view.replicas[&name.replica].allowed_cpus, told, "{pool}");
    told
}

#[test]
fn an_engine_has_its_own_from_its_checks_until_it_is_stopped() {
    let mut world = host(&[spec("all"), own("own", 2)]);
    assert_eq!(world.allowed(&unit(UnitKind::Stage, "own", 0)), "0-1");
    for pool in ["all", "own"] {
        world.serve(pool, 0);
    }
    assert_eq!((allowed(&world, "all"), allowed(&world, "own")), ("2-3".into(), "0-1".into()));
    // Over a restart of its engine it has the same ones.
    world.crash("own", 0);
    assert_eq!((world.phase("own"), allowed(&world, "all")), (PoolPhase::Backoff, "2-3".into()));
    world.ring();
    world.serve("own", 0);
    assert_eq!(allowed(&world, "own"), "0-1");
    world.stop("own");
    assert_eq!(allowed(&world, "all"), "2-3", "it may compute until it is gone");
    world.settle();
    assert_eq!((world.phase("own"), allowed(&world, "all")), (PoolPhase::Stopped, String::new()));
}

#[test]
fn a_pool_that_does_not_fit_is_refused_with_who_has_what_and_fits_once_that_is_gone() {
    let mut world = host(&[own("a", 3), own("b", 2)]);
    world.serve("a", 0);
    assert_eq!((world.phase("b"), world.last_class("b")), (PoolPhase::Failed, "preflight".into()));
    let error = world.last_text("b");
    assert!(error.contains("wants 2 CPUs of its own, and 1 of 4 are left (engine a-r0 has 0-2)"), "{error}");
    assert!(error.contains("stop one of those"), "{error}");
    world.stop("a");
    world.settle();
    world.start("b");
    world.serve("b", 0);
    assert_eq!(allowed(&world, "b"), "0-1");
}

#[test]
fn who_would_be_left_without_any_keeps_the_last_ones() {
    let mut world = host(&[spec("all"), own("own", 4)]);
    world.serve("all", 0);
    assert_eq!((world.phase("own"), allowed(&world, "all")), (PoolPhase::Failed, String::new()));
    let error = world.last_text("own");
    assert!(error.contains("engine all-r0 would be left without any"), "{error}");
}

#[test]
fn over_a_restart_of_the_daemon_everybody_keeps_what_he_has() {
    // In the order of their names, the one without its own would be looked at first.
    let specs = [spec("all"), own("own", 2), own("z", 1)];
    let mut world = host(&specs);
    for pool in ["all", "own", "z"] {
        world.serve(pool, 0);
    }
    world.stop("z");
    world.settle();
    world.restart_daemon(&specs);
    assert_eq!((allowed(&world, "all"), allowed(&world, "own")), ("2-3".into(), "0-1".into()));
    world.start("z");
    world.serve("z", 0);
    assert_eq!((allowed(&world, "all"), allowed(&world, "z")), ("3".into(), "2".into()));
    // While the daemon is away one of them dies.
    world.units.remove(&unit(UnitKind::Engine, "own", 0));
    world.restart_daemon(&specs[..1]);
    assert_eq!(allowed(&world, "all"), "0-1,3", "one without a file has them until it is gone");
    world.settle();
    assert_eq!(allowed(&world, "all"), "");
}

#[test]
fn a_reload_gives_others_and_back_what_it_had_where_the_new_model_fails() {
    let mut world = host(&[own("own", 1)]);
    world.serve("own", 0);
    world.configure(&[own("own", 3)]);
    assert_eq!(world.pool("own").pending(), ["resources.cpus"]);
    let replaced = |world: &mut World, to: PoolSpec| {
        let before = allowed(world, "own");
        let job = world.reload(&to, false).expect("a reload");
        let checks =
            world.units.keys().filter(|name| name.kind == UnitKind::Stage).cloned().collect::<Vec<_>>();
        assert_eq!(
            checks.iter().map(|name| world.allowed(name)).collect::<Vec<_>>(),
            [before],
            "where it is"
        );
        world.checks_pass("own", 0);
        world.pass(seconds(10));
        world.settle();
        job
    };
    replaced(&mut world, own("own", 3));
    world.becomes_ready("own", 0);
    assert_eq!(allowed(&world, "own"), "0-2");
    let job = replaced(&mut world, own("own", 5));
    world.serve("own", 0);
    assert!(world.details(job).rolled_back && world.error_of(job).contains("it wants 5 CPUs of its own"));
    assert_eq!((world.phase("own"), allowed(&world, "own")), (PoolPhase::Ready, "0-2".into()));
}

#[test]
fn cpus_that_come_and_go_are_told_to_those_that_may_use_any() {
    let mut world = host(&[spec("all"), own("own", 2)]);
    for pool in ["all", "own"] {
        world.serve(pool, 0);
    }
    world.event(Event::CpusFound(topology("1-5")));
    assert_eq!((allowed(&world, "all"), allowed(&world, "own")), ("2-5".into(), "0-1".into()));
    let line = world.lines.last().expect("it is told");
    assert!(
        line.contains("are 1-5 by now, they were 0-3; engine own-r0 goes on without its own CPUs 0"),
        "{line}"
    );
    assert_eq!(world.kinds.last(), Some(&LogKind::CpusChanged));
    let told = world.lines.len();
    world.event(Event::CpusFound(topology("1-5")));
    assert_eq!(world.lines.len(), told, "once");
}
