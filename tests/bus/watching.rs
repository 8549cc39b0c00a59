//! The client's watcher: what it tells, over restarts of the daemon, and whom it believes.

use crate::bench::{Bench, Daemon, MANAGER, NAME, SETTLE, wait_until};
use pool_managerd::client::{Event, Mirror, Watcher};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use zbus::fdo::ObjectManagerProxy;
use zbus::{Connection, Message, Variant, connection};

async fn connected(bench: &Bench) -> Connection {
    connection::Builder::address(bench.bus.address.as_str()).build().await.expect("the bus is there")
}

async fn watcher(bench: &Bench) -> Watcher {
    Watcher::over(connected(bench).await).await.expect("the bus is there")
}

/// The next event, within a time in which it should come.
async fn next(watcher: &mut Watcher) -> Event {
    let within = Duration::from_secs(10);
    let event = tokio::time::timeout(within, watcher.next()).await.expect("an event comes");
    event.expect("the bus is there")
}

/// All events up to the first that is the one looked for, with it.
async fn until(watcher: &mut Watcher, is_it: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = next(watcher).await;
        let found = is_it(&event);
        events.push(event);
        if found {
            return events;
        }
    }
}

fn is_phase(event: &Event, id: &str, wanted: &str) -> bool {
    matches!(event, Event::PhaseChanged { pool, phase, .. } if pool == id && phase == wanted)
}

async fn fresh(bench: &Bench) -> Mirror {
    let proxy = ObjectManagerProxy::new(&bench.client, NAME, MANAGER).await.expect("a proxy");
    Mirror::of(proxy.get_managed_objects().await.expect("the objects"))
}

async fn serving(pools: &[&str]) -> (Bench, Daemon) {
    let bench = Bench::new().await;
    for pool in pools {
        bench.pool_file(pool, SETTLE);
    }
    let daemon = bench.daemon().await;
    for pool in pools {
        bench.wait_phase(pool, "ready").await;
    }
    (bench, daemon)
}

#[tokio::test]
async fn a_watcher_waits_for_the_daemon_and_tells_what_happens() {
    let bench = Bench::new().await;
    bench.pool_file("a", SETTLE);
    let mut watcher = watcher(&bench).await;
    assert_eq!(next(&mut watcher).await, Event::DaemonLeft);
    let _daemon = bench.daemon().await;
    assert_eq!(next(&mut watcher).await, Event::DaemonCame);
    if watcher.pools()[0].phase != "ready" {
        until(&mut watcher, |event| is_phase(event, "a", "ready")).await;
    }
    bench.wait_phase("a", "ready").await;

    let lease = bench.api().allocate_lease("a").await.expect("a lease");
    bench.api().stop("a").await.expect("a job").wait().await.expect("it ends");
    let events = until(&mut watcher, |event| matches!(event, Event::JobEnded { .. })).await;
    let started = |event: &Event| matches!(event, Event::JobStarted { pool, operation, .. } if pool == "a" && operation == "stop");
    let revoked = |event: &Event| matches!(event, Event::LeaseRevoked { lease: id, .. } if *id == lease.id);
    let not_ready = |event: &Event| matches!(event, Event::HealthChanged { pool, ready: false, reason, .. } if pool == "a" && !reason.is_empty());
    for (what, count) in [
        ("started", events.iter().filter(|event| started(event)).count()),
        ("revoked", events.iter().filter(|event| revoked(event)).count()),
    ] {
        assert_eq!(count, 1, "{what}: {events:?}");
    }
    assert!(events.iter().any(not_ready), "{events:?}");
    assert!(
        matches!(events.last(), Some(Event::JobEnded { result, pool, .. }) if result == "done" && pool == "a"),
        "{events:?}"
    );

    bench.pool_file("b", "activation = \"manual\"\n");
    bench.api().reload().await.expect("reloaded");
    let events = until(&mut watcher, |event| matches!(event, Event::PoolAdded { .. })).await;
    assert!(
        matches!(events.last(), Some(Event::PoolAdded { pool, phase }) if pool == "b" && phase == "stopped")
    );
    std::fs::remove_file(bench.folder.join("etc/llamaorch/pools.d/b.toml")).expect("removed");
    bench.api().reload().await.expect("reloaded");
    until(&mut watcher, |event| *event == Event::PoolRemoved { pool: "b".to_owned() }).await;

    // The end of a job is the last that is told of it.
    bench.api().start("a").await.expect("a job").wait().await.expect("it ends");
    until(&mut watcher, |event| matches!(event, Event::JobEnded { .. })).await;
    assert_eq!(watcher.mirror().differences(&fresh(&bench).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_restart_of_the_daemon_is_told_with_what_changed_meanwhile() {
    let (bench, daemon) = serving(&["a", "b"]).await;
    let mut watcher = watcher(&bench).await;
    assert_eq!(next(&mut watcher).await, Event::DaemonCame);
    assert_eq!(watcher.pools().len(), 2);
    drop(daemon);
    assert_eq!(next(&mut watcher).await, Event::DaemonLeft);
    assert_eq!(watcher.pools().len(), 2, "what was known stays");
    std::fs::remove_file(bench.folder.join("etc/llamaorch/pools.d/b.toml")).expect("removed");
    bench.pool_file("c", "activation = \"manual\"\n");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    assert_eq!(next(&mut watcher).await, Event::DaemonCame);
    let mut seen = Vec::new();
    let wanted = |seen: &[Event]| {
        let gone = seen.contains(&Event::PoolRemoved { pool: "b".to_owned() });
        let came = seen.iter().any(|event| matches!(event, Event::PoolAdded { pool, .. } if pool == "c"));
        gone && came
    };
    while !wanted(&seen) {
        seen.push(next(&mut watcher).await);
    }
    let again = seen.iter().any(|event| matches!(event, Event::PoolAdded { pool, .. } if pool == "a"));
    assert!(!again, "what was there is not new: {seen:?}");
}

#[tokio::test]
async fn signals_of_others_are_not_believed() {
    let (bench, _daemon) = serving(&["a"]).await;
    let connection = connected(&bench).await;
    let name = connection.unique_name().expect("a name").to_string();
    let mut watcher = Watcher::over(connection).await.expect("the bus is there");
    assert_eq!(next(&mut watcher).await, Event::DaemonCame);

    let forger = connected(&bench).await;
    let send = async |path: &str,
                      interface: &str,
                      member: &str,
                      body: &dyn Fn(zbus::message::Builder<'_>) -> Message| {
        let builder = Message::signal(path.to_owned(), interface.to_owned(), member.to_owned());
        forger.send(&body(builder.destination(name.as_str()))).await.expect("sent");
    };
    let changed = HashMap::from([("Phase", Variant::from("failed"))]);
    let none: &[&str] = &[];
    let pool = format!("{NAME}.Pool");
    send(&format!("{MANAGER}/pool/a"), "org.freedesktop.DBus.Properties", "PropertiesChanged", &|builder| {
        builder.build(&(pool.as_str(), &changed, none)).expect("a signal")
    })
    .await;
    send(MANAGER, NAME, "LeaseRevoked", &|builder| builder.build(&("x", "a", "forged")).expect("a signal"))
        .await;
    send("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", &|builder| {
        let forger = forger.unique_name().expect("a name").as_str();
        builder.build(&(NAME, "", forger)).expect("a signal")
    })
    .await;
    // What the daemon says after that is the next thing told.
    bench.api().stop("a").await.expect("a job").wait().await.expect("it ends");
    let event = next(&mut watcher).await;
    let phase = |wanted: &str| is_phase(&event, "a", wanted);
    let job = matches!(event, Event::JobStarted { .. });
    assert!(phase("stopping") || job, "{event:?}");
}

#[tokio::test]
async fn nothing_is_missed_or_told_twice_while_everything_changes() {
    const WATCHERS: usize = 4;
    let ids = ["a", "b", "c", "d", "e", "f"];
    let (bench, _daemon) = serving(&ids).await;
    let client = bench.api();
    let begun = AtomicUsize::new(0);
    let stir = async {
        // Until the last watcher has begun, and for some rounds more.
        let mut left = 6;
        for round in 0.. {
            left -= usize::from(begun.load(Ordering::Relaxed) == WATCHERS);
            if left == 0 {
                break;
            }
            let asked = ids.iter().map(|id| {
                let client = client.clone();
                async move {
                    let job = if round % 2 == 0 { client.stop(id).await } else { client.start(id).await };
                    job.expect("a job").wait().await.expect("it ends");
                }
            });
            futures_util::future::join_all(asked).await;
        }
        // A last word that a watcher can wait for.
        bench.pool_file("end", "activation = \"manual\"\n");
        client.reload().await.expect("reloaded");
    };
    // Watchers that begin somewhere in between, each after a few more changes.
    let watch = async {
        let following = (0..WATCHERS).map(|number| {
            let (bench, begun) = (&bench, &begun);
            async move {
                let mut first = watcher(bench).await;
                for _ in 0..number * 15 {
                    next(&mut first).await;
                }
                let mut watcher = watcher(bench).await;
                assert_eq!(next(&mut watcher).await, Event::DaemonCame);
                begun.fetch_add(1, Ordering::Relaxed);
                let start = watcher.pools().into_iter();
                let mut known: BTreeMap<String, (String, bool, bool)> =
                    start.map(|pool| (pool.id, (pool.phase, pool.live, pool.ready))).collect();
                let mut jobs = BTreeMap::new();
                loop {
                    match next(&mut watcher).await {
                        Event::PoolAdded { pool, .. } => {
                            assert_eq!(pool, "end");
                            break;
                        }
                        Event::PhaseChanged { pool, from, phase, .. } => {
                            let was = known.get_mut(&pool).expect("a pool that is known");
                            assert_eq!(was.0, from, "{pool}: one was missed");
                            assert_ne!(from, phase, "{pool}: told twice");
                            was.0 = phase;
                        }
                        Event::HealthChanged { pool, live, ready, .. } => {
                            let was = known.get_mut(&pool).expect("a pool that is known");
                            assert_ne!((was.1, was.2), (live, ready), "{pool}: told twice");
                            (was.1, was.2) = (live, ready);
                        }
                        Event::JobStarted { job, .. } => {
                            assert_eq!(jobs.insert(job, false), None, "job {job} was told twice");
                        }
                        Event::JobEnded { job, .. } => {
                            assert_ne!(jobs.insert(job, true), Some(true), "job {job} ended twice");
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert!(jobs.values().all(|over| *over), "{jobs:?}");
                watcher
            }
        });
        futures_util::future::join_all(following).await
    };
    let (watchers, ()) = futures_util::future::join(watch, stir).await;
    let now = fresh(&bench).await;
    for watcher in watchers {
        assert_eq!(watcher.mirror().differences(&now), Vec::<String>::new());
    }
    wait_until("all are there", async || client.list().await.expect("listed").len() == ids.len() + 1).await;
}

/// A daemon whose answer is older than a signal that it sent before.
struct Late;

#[zbus::interface(name = "org.freedesktop.DBus.ObjectManager")]
impl Late {
    async fn get_managed_objects(
        &self,
        #[zbus(connection)] connection: &Connection,
    ) -> zbus::fdo::Result<zbus::fdo::ManagedObjects> {
        let (path, pool) = (format!("{MANAGER}/pool/a"), format!("{NAME}.Pool"));
        let value = |text: &'static str| zbus::OwnedVariant::try_from(Variant::from(text)).expect("a text");
        let changed = HashMap::from([("Phase", value("ready"))]);
        let none: &[&str] = &[];
        let body = (pool.as_str(), &changed, none);
        let properties = "org.freedesktop.DBus.Properties";
        connection.emit_signal(None::<&str>, path.as_str(), properties, "PropertiesChanged", &body).await?;
        let stale = HashMap::from([("Id".to_owned(), value("a")), ("Phase".to_owned(), value("starting"))]);
        let interface = zbus::names::OwnedInterfaceName::try_from(pool).expect("a name");
        Ok(HashMap::from([(path.try_into().expect("a path"), HashMap::from([(interface, stale)]))]))
    }
}

#[tokio::test]
async fn what_came_before_the_answer_is_followed_on_top_of_it() {
    let bench = Bench::new().await;
    let builder = connection::Builder::address(bench.bus.address.as_str());
    let _late = builder.serve_at(MANAGER, Late).name(NAME).build().await.expect("a daemon of sorts");
    let mut watcher = watcher(&bench).await;
    assert_eq!(next(&mut watcher).await, Event::DaemonCame);
    assert_eq!(watcher.pools()[0].phase, "ready");
}

#[tokio::test]
async fn a_bus_that_is_lost_ends_the_events() {
    use futures_util::StreamExt;
    let mut bench = Bench::new().await;
    let watcher = watcher(&bench).await;
    let mut events = Box::pin(watcher.into_stream());
    assert_eq!(events.next().await.expect("an event").expect("the bus is there"), Event::DaemonLeft);
    bench.bus.kill();
    let error = events.next().await.expect("an end").expect_err("the bus is lost");
    assert_eq!(error.exit() as u8, 9, "{error}");
    assert!(events.next().await.is_none());
}
