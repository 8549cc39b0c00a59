//! Stories of explanations: whatever a pool waits for or suffers from, it says so, with what to do about it.

use crate::acts::{of, seconds};
use crate::world::{World, configuration, spec, unit};
use pool_core::Event;
use pool_core::config::{Activation, BreakerNumbers, FileError, PoolSpec, Restart};
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::Reason;
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, ExitClass};

fn codes(world: &World) -> Vec<&'static str> {
    world.reasons("a").iter().map(|reason| reason.cause.code()).collect()
}

fn found(world: &World, code: &str) -> Reason {
    let reasons = world.reasons("a");
    let found = reasons.iter().find(|reason| reason.cause.code() == code);
    found.unwrap_or_else(|| panic!("{code} is not among {reasons:?}")).clone()
}

fn serving() -> World {
    let mut world = World::with(&[spec("a")]);
    world.serve("a", 0);
    world
}

#[test]
fn a_pool_that_serves_and_has_no_trouble_behind_it_has_nothing_to_explain() {
    assert_eq!(serving().reasons("a"), []);
}

type Trouble = fn() -> World;

/// What troubles a pool, by the word for it, with a piece of what is said and of the remedy; "": waiting is all.
const TROUBLES: [(&str, &str, &str, Trouble); 24] = [
    ("stopped", "an operator stopped it", "poolctl start a", || {
        let mut world = serving();
        world.stop("a");
        world.settle();
        world
    }),
    ("not-started", "starts by hand", "poolctl start a", || {
        World::with(&[PoolSpec { activation: Activation::Manual, ..spec("a") }])
    }),
    ("leaving", "file was removed", "poolctl reload", || {
        let mut world = serving();
        world.configure(&[]);
        world
    }),
    ("draining", "before it stops: 1 leases held, 2 requests in flight", "poolctl stop a", || {
        let mut world = serving();
        world.lease("a").unwrap();
        world.reports("a", 0, 2, None);
        world.drain("a", Usec(0));
        world
    }),
    ("draining", "before it stops and starts again", "poolctl stop a", || {
        let mut world = serving();
        world.lease("a").unwrap();
        world.drain("a", Usec(0));
        world.start("a");
        world
    }),
    ("draining", "before it is reloaded", "--force", || {
        let mut world = serving();
        world.lease("a").unwrap();
        world.reload(&PoolSpec { model: "/srv/n".into(), ..spec("a") }, false).unwrap();
        world.checks_pass("a", 0);
        world
    }),
    ("draining", "0 leases held, 0 requests", "", || {
        let mut world = serving();
        world.drain("a", Usec(0));
        world
    }),
    ("reloading", "checking the new model beside the old engine", "", || {
        let mut world = serving();
        world.reload(&PoolSpec { model: "/srv/n".into(), ..spec("a") }, false).unwrap();
        world
    }),
    ("waits-for-name", "llamaorch-engine-a-r0.g1.service", "systemctl status", || {
        let mut world = serving();
        world.dies("a", 0);
        world.restart_rings("a", 0);
        world
    }),
    ("staging", "being checked", "", || World::with(&[spec("a")])),
    ("loading", "loading 40 %", "journalctl POOL_ID=a", || {
        let mut world = World::with(&[spec("a")]);
        world.checks_pass("a", 0);
        world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.status_text = "loading 40 %".into());
        world
    }),
    ("ending", "its engine is ending", "", || {
        let mut world = serving();
        world.stop("a");
        world
    }),
    ("waits-for-restart", "started again after a pause of", "poolctl start a", || {
        let mut world = serving();
        world.crash("a", 0);
        world
    }),
    ("restart-storm", "too many restarts", "poolctl start a", || {
        let mut restart = Restart { initial_delay: seconds(4), max_delay: seconds(4), ..Restart::default() };
        restart.breaker = BreakerNumbers { failures: 100, ..BreakerNumbers::default() };
        let mut world = World::with(&[PoolSpec { restart, ..spec("a") }]);
        world.crash_loop("a", 0, 11);
        world.ring();
        world
    }),
    ("breaker-open", "after 5 failures in a row", "poolctl reset a", || {
        let mut world = World::with(&[spec("a")]);
        world.crash_loop("a", 0, 5);
        world
    }),
    ("gpu-breaker-open", "after 5 GPU errors in a row", "poolctl start a", || {
        let mut world = World::with(&[of(5)]);
        world.all_serve("a");
        (0..5).for_each(|index| world.condemned("a", index, ExitClass::GpuLost));
        world
    }),
    ("on-trial", "engine 0 is tried", "", || {
        let mut world = World::with(&[spec("a")]);
        world.crash_loop("a", 0, 5);
        world.pass(seconds(300));
        world
    }),
    ("failed", "model-unreadable: because", "chmod", || {
        let mut world = World::with(&[spec("a")]);
        world.refuses("a", Refusal::ModelUnreadable);
        world
    }),
    ("ended-as-meant", "status 0", "poolctl start a", || {
        let mut world = serving();
        world.exits_0("a", 0);
        world
    }),
    ("stopped-outside", "systemctl", "poolctl start a", || {
        let mut world = serving();
        world.stopped_outside("a", 0);
        world
    }),
    ("unkillable", "frozen", "systemctl thaw", || {
        let mut world = serving();
        world.stop("a");
        let name = unit(UnitKind::Engine, "a", 0);
        world.event(Event::StopRefused { name, error: "frozen".into() });
        world
    }),
    ("file-broken", "line 1", "poolctl reload", || {
        let mut world = serving();
        let mut broken = configuration(&[]);
        let error = FileError { file: "a.toml".into(), error: "line 1".into() };
        broken.broken.insert("a".parse().unwrap(), error);
        world.event(Event::ConfigurationRead { configuration: broken, requests: vec![] });
        world
    }),
    ("pending-changes", "args, model", "poolctl apply a", || {
        let mut world = serving();
        world.configure(&[PoolSpec { args: vec!["-x".into()], model: "/srv/n".into(), ..spec("a") }]);
        world
    }),
    ("earlier-failure", "signal:KILL", "journalctl POOL_ID=a", || {
        let mut world = serving();
        world.crash("a", 0);
        world.restart_rings("a", 0);
        world.serve("a", 0);
        world
    }),
];

#[test]
fn every_trouble_is_told_with_what_to_do_about_it() {
    for (code, text, remedy, trouble) in TROUBLES {
        let world = trouble();
        let id = "a".parse().unwrap();
        let told: Vec<Reason> =
            world.reasons("a").into_iter().filter(|reason| reason.cause.code() == code).collect();
        let fits = |reason: &&Reason| {
            let said = reason.cause.remedy(&id);
            reason.cause.text().contains(text)
                && said.contains(remedy)
                && said.is_empty() == remedy.is_empty()
        };
        assert!(told.iter().any(|reason| fits(&reason)), "{code} {text}: {:?}", world.reasons("a"));
        let pool = &world.view.pools[&id];
        assert!(pool.reasons.iter().any(|reason| reason.code == code), "{code} is published");
    }
}

#[test]
fn reasons_are_told_newest_first() {
    for (code, _, _, trouble) in TROUBLES {
        let world = trouble();
        let since: Vec<Usec> = world.reasons("a").iter().map(|reason| reason.since).collect();
        assert!(since.is_sorted_by(|newer, older| newer >= older), "{code}: {since:?}");
    }
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 5);
    assert_eq!(
        codes(&world),
        [
            "breaker-open",
            "earlier-failure",
            "earlier-failure",
            "earlier-failure",
            "earlier-failure",
            "earlier-failure"
        ]
    );
}

#[test]
fn what_ends_by_itself_says_when() {
    let mut world = serving();
    world.crash("a", 0);
    let timer = *world.timers.values().next().unwrap();
    assert_eq!(found(&world, "waits-for-restart").until, timer);
    let mut world = World::with(&[spec("a")]);
    world.crash_loop("a", 0, 5);
    assert_eq!(found(&world, "breaker-open").until, *world.timers.values().next().unwrap());
    let mut world = serving();
    world.drain("a", seconds(77));
    assert_eq!(found(&world, "draining").until, *world.timers.values().max().unwrap());
}

#[test]
fn a_failure_that_is_told_as_the_reason_is_not_told_again_as_an_earlier_one() {
    let mut world = World::with(&[spec("a")]);
    world.refuses("a", Refusal::ModelUnreadable);
    world.settle();
    assert_eq!(codes(&world), ["failed"]);
    world.start("a");
    world.refuses("a", Refusal::Preflight);
    assert_eq!(codes(&world), ["failed", "earlier-failure"]);
    assert!(found(&world, "failed").cause.text().starts_with("preflight"));
}

#[test]
fn of_past_failures_the_last_sixteen_are_told() {
    let mut world = serving();
    for _ in 0..20 {
        world.crash("a", 0);
        world.start("a");
        world.serve("a", 0);
    }
    assert_eq!(codes(&world).iter().filter(|code| **code == "earlier-failure").count(), 16);
}

#[test]
fn that_wishes_are_not_saved_is_told_until_they_are() {
    let mut world = serving();
    world.stop("a");
    world.settle();
    let told = |world: &World| {
        world.view.pools[&"a".parse().unwrap()].reasons.iter().any(|one| one.code == "not-saved")
    };
    world.event(Event::WishesSaved { error: Some("no space left".into()) });
    assert!(told(&world));
    let reasons = &world.view.pools[&"a".parse().unwrap()].reasons;
    let reason = reasons.iter().find(|reason| reason.code == "not-saved").unwrap();
    assert!(reason.text.contains("no space left") && !reason.remedy.is_empty());
    world.event(Event::WishesSaved { error: None });
    assert!(!told(&world));
}

#[test]
fn each_engine_says_what_it_waits_for() {
    let mut world = World::with(&[of(3)]);
    world.serve("a", 0);
    world.checks_pass("a", 1);
    let of_engine = |world: &World, index: u16| -> Vec<&'static str> {
        let its = |reason: &&Reason| reason.replica.as_ref().is_some_and(|replica| replica.index == index);
        world.reasons("a").iter().filter(its).map(|reason| reason.cause.code()).collect()
    };
    assert_eq!(
        (of_engine(&world, 0), of_engine(&world, 1), of_engine(&world, 2)),
        (vec![], vec!["loading"], vec!["staging"])
    );
    world.seen(&unit(UnitKind::Engine, "a", 0), |unit| unit.active = ActiveState::Deactivating);
    assert_eq!(of_engine(&world, 0), ["ending"]);
}

#[test]
fn a_phase_is_told_in_one_sentence_which_says_what_went_wrong() {
    type Told = fn() -> World;
    fn stopped(mut world: World) -> World {
        world.stop("a");
        world.settle();
        world
    }
    let told: [(&str, &str, Told); 10] = [
        ("stopped", "stopped; start it with: poolctl start a", || stopped(serving())),
        ("stopped", "stopped: it was ended by SIGKILL", || {
            let mut world = serving();
            world.crash("a", 0);
            stopped(world)
        }),
        ("stopped", "stopped; start it with: poolctl start a", || {
            let mut world = serving();
            world.exits_0("a", 0);
            stopped(world)
        }),
        ("stopped", "it exited with status 0, which counts as meant; start it with: poolctl start a", || {
            let mut world = World::with(&[of(2)]);
            world.all_serve("a");
            world.exits_0("a", 0);
            world.stopped_outside("a", 1);
            world
        }),
        ("staging", "checking program, model and address as the engine's user", || World::with(&[spec("a")])),
        ("starting", "loading 40 %", || {
            let mut world = World::with(&[of(2)]);
            world.checks_pass("a", 1);
            world.seen(&unit(UnitKind::Engine, "a", 1), |unit| unit.status_text = "loading 40 %".into());
            world
        }),
        ("ready", "1 of 2 engines ready", || {
            let mut world = World::with(&[of(2)]);
            world.serve("a", 1);
            world
        }),
        ("stopping", "engines are ending", || {
            let mut world = serving();
            world.stop("a");
            world
        }),
        ("backoff", "restart 2 after ", || {
            let mut world = World::with(&[spec("a")]);
            world.crash_loop("a", 0, 2);
            world
        }),
        ("failed", "failed: because", || {
            let mut world = World::with(&[spec("a")]);
            world.refuses("a", Refusal::ModelUnreadable);
            world.settle();
            world
        }),
    ];
    for (phase, sentence, world) in told {
        let world = world();
        let pool = world.pool("a");
        assert_eq!(pool.phase().as_str(), phase, "{sentence}");
        let detail = pool.detail();
        assert!(detail == sentence || (phase == "backoff" && detail.starts_with(sentence)), "{detail}");
    }
}

#[test]
fn the_engines_version_is_that_of_the_newest() {
    let mut world = World::with(&[of(2)]);
    assert_eq!(world.pool("a").engine_version(), "");
    world.serve("a", 1);
    assert_eq!(world.pool("a").engine_version(), "1.2");
    assert_eq!(world.view.pools[&"a".parse().expect("an id")].engine_version, "1.2");
}

#[test]
fn an_engine_that_is_one_too_many_or_was_stopped_with_its_pool_explains_nothing() {
    let mut world = World::with(&[of(2)]);
    world.all_serve("a");
    world.exits_0("a", 1);
    assert_eq!(codes(&world), ["ended-as-meant"]);
    world.configure(&[of(1)]);
    assert_eq!(codes(&world), ["pending-changes"], "the file has one engine by now");
    let mut world = serving();
    world.exits_0("a", 0);
    world.stop("a");
    assert_eq!(codes(&world), ["stopped"]);
}

#[test]
fn a_pool_that_started_by_hand_and_was_stopped_by_an_operator_says_the_latter() {
    let mut world = World::with(&[PoolSpec { activation: Activation::Manual, ..spec("a") }]);
    world.start("a");
    world.serve("a", 0);
    world.stop("a");
    world.settle();
    assert_eq!(codes(&world), ["stopped"]);
}

#[test]
fn a_failure_beside_an_engine_that_serves_says_since_when() {
    let mut world = World::with(&[of(2)]);
    world.serve("a", 1);
    world.pass(seconds(5));
    world.refuses("a", Refusal::ModelUnreadable);
    let failed_at = world.pool("a").last_error.as_ref().expect("something went wrong").at;
    assert!(failed_at > world.pool("a").changed);
    assert_eq!(found(&world, "failed").since, failed_at);
}

#[test]
fn an_engine_that_says_nothing_while_it_loads_is_starting() {
    let mut world = World::with(&[spec("a")]);
    world.checks_pass("a", 0);
    assert_eq!(found(&world, "loading").cause.text(), "its engine is starting");
}

#[test]
fn a_failure_says_since_when_and_of_which_class() {
    let mut world = World::with(&[spec("a")]);
    world.refuses("a", Refusal::ModelUnreadable);
    let failed_at = world.pool("a").last_error.as_ref().expect("something went wrong").at;
    world.pass(seconds(5));
    world.settle();
    let reason = found(&world, "failed");
    assert_eq!(
        (reason.since, reason.cause.class().map(ToString::to_string)),
        (failed_at, Some("model-unreadable".into()))
    );
    world.start("a");
    assert_eq!(found(&world, "staging").cause.class(), None);
    assert_eq!(
        found(&world, "earlier-failure").cause.class().map(ToString::to_string),
        Some("model-unreadable".into())
    );
}
