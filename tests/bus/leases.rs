//! Leases: who gets one, how it ends, and how everybody hears of that.

use crate::bench::{Bench, MANAGER, NAME, SETTLE, signal, wait_until};
use futures_util::StreamExt;
use pool_managerd::client::Error;
use pool_managerd::client::proxy::AllocatedLease;
use std::collections::HashMap;
use std::time::Duration;
use zbus::{Variant, connection};

const ENGINE: &str = "llamaorch-engine-a-r0.g1.service";

/// How many are held, as the manager, the pool, its engine and the list of pools have it.
async fn held(bench: &Bench) -> [u32; 4] {
    let objects = [
        (MANAGER.to_owned(), NAME.to_owned()),
        (format!("{MANAGER}/pool/a"), format!("{NAME}.Pool")),
        (format!("{MANAGER}/replica/a_2dr0"), format!("{NAME}.Replica")),
    ];
    let mut counts = Vec::new();
    for (path, interface) in objects {
        counts.push(bench.property(&path, &interface, "ActiveLeases").await.try_into().unwrap());
    }
    let listed = bench.api().manager().await.unwrap().list_pools().await.unwrap();
    counts.push(listed[0].5);
    counts.try_into().unwrap()
}

async fn serving(more: &str) -> (Bench, crate::bench::Daemon) {
    let bench = Bench::new().await;
    bench.pool_file("a", &format!("{more}{SETTLE}"));
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    (bench, daemon)
}

#[tokio::test]
async fn a_lease_names_an_engine_and_ends_with_its_descriptor() {
    let (bench, _daemon) = serving("").await;
    let pool = bench.api().pool("a").await.unwrap();
    let lease = bench.api().allocate_lease("a").await.unwrap();
    assert_eq!(pool.endpoints, [lease.endpoint.as_str()]);
    assert!(lease.id.starts_with("a-r0."), "{}", lease.id);
    assert_eq!(held(&bench).await, [1; 4]);
    let copy = lease.descriptor.try_clone().unwrap();
    drop(lease);
    let second = bench.api().allocate_lease("a").await.unwrap();
    assert_eq!(held(&bench).await, [2; 4], "the copy keeps the first one");
    drop((copy, second));
    wait_until("no lease is held", async || held(&bench).await == [0; 4]).await;
}

#[tokio::test]
async fn a_lease_is_released_once() {
    let (bench, _daemon) = serving("").await;
    let lease = bench.api().allocate_lease("a").await.unwrap();
    bench.api().release_lease(&lease.id).await.unwrap();
    assert_eq!(held(&bench).await, [0; 4], "before the reply");
    let other = bench.api().allocate_lease("a").await.unwrap();
    for unknown in [lease.id.as_str(), "a-r0.0000000000000001", "nonsense", ""] {
        let error = bench.api().release_lease(unknown).await.unwrap_err();
        assert!(matches!(error, Error::NoSuchLease(_)), "{unknown}: {error:?}");
    }
    // That of a lease which is over does not end another one.
    drop(lease);
    // By when one that was closed later is over, so would the other one be.
    drop(bench.api().allocate_lease("a").await.expect("a lease"));
    wait_until("the last one is over", async || held(&bench).await == [1; 4]).await;
    bench.api().release_lease(&other.id).await.expect("it ends well");
    assert_eq!(held(&bench).await, [0; 4]);
}

#[tokio::test]
async fn a_pool_gives_no_more_than_its_capacity() {
    let (bench, _daemon) = serving("[leases]\ncapacity = 1\n").await;
    assert_eq!(bench.api().pool("a").await.unwrap().lease_capacity, 1);
    let lease = bench.api().allocate_lease("a").await.unwrap();
    let error = bench.api().allocate_lease("a").await.unwrap_err();
    assert!(matches!(&error, Error::AtCapacity(text) if text.contains("1 of 1")), "{error:?}");
    assert_eq!(held(&bench).await, [1; 4]);
    drop(lease);
    wait_until("there is room again", async || bench.api().allocate_lease("a").await.is_ok()).await;
}

#[tokio::test]
async fn who_cannot_get_a_lease_is_told_why() {
    let bench = Bench::new().await;
    bench.pool_file("a", "activation = \"manual\"\n");
    let _daemon = bench.daemon().await;
    let error = bench.api().allocate_lease("a").await.unwrap_err();
    assert!(matches!(error, Error::NotReady(_)), "{error:?}");
    let error = bench.api().allocate_lease("b").await.unwrap_err();
    assert!(matches!(error, Error::NoSuchPool(_)), "{error:?}");
    for (key, says) in
        [("holder", "is a name (s)"), ("tll", "this version takes: holder, ttl_usec, wait_usec")]
    {
        let options = HashMap::from([(key, Variant::from(1_u64))]);
        let error = bench.api().manager().await.unwrap().allocate_lease("a", options).await.unwrap_err();
        let error = Error::from(error);
        assert!(matches!(&error, Error::InvalidArgs(text) if text.contains(says)), "{key}: {error:?}");
    }
}

#[tokio::test]
async fn an_engine_that_dies_revokes_its_leases_after_its_own_news() {
    let (bench, _daemon) = serving("").await;
    let lease = bench.api().allocate_lease("a").await.unwrap();
    let mut signals = bench.signals().await;
    crate::systemd::say(&bench.systemd_bus, None, ENGINE, "failed", "failed", 0).await.unwrap();
    let mut not_ready = false;
    let revoked = async {
        loop {
            let signal = signals.next().await.unwrap().unwrap();
            let body = signal.body();
            match signal.header().member().unwrap().as_str() {
                "PropertiesChanged" => {
                    let (_, changed, _): (String, HashMap<String, Variant<'_>>, Vec<String>) =
                        body.deserialize().unwrap();
                    not_ready |= changed.get("Ready") == Some(&Variant::from(false));
                }
                "LeaseRevoked" => return body.deserialize::<(String, String, String)>().unwrap(),
                _ => {}
            }
        }
    };
    let within = std::time::Duration::from_secs(10);
    let (revoked, pool, reason) = tokio::time::timeout(within, revoked).await.expect("a signal comes");
    assert_eq!((revoked, pool.as_str()), (lease.id, "a"));
    assert!(reason.contains("a-r0"), "{reason}");
    assert!(not_ready, "the engine's change comes first");
    assert_eq!(held(&bench).await, [0; 4]);
}

#[tokio::test]
async fn a_stop_revokes_before_its_job_ends() {
    let (bench, _daemon) = serving("").await;
    let _lease = bench.api().allocate_lease("a").await.unwrap();
    let mut signals = bench.signals().await;
    bench.api().stop("a").await.unwrap().wait().await.unwrap();
    let revoked = signal(&mut signals, "LeaseRevoked").await;
    let removed = signal(&mut signals, "JobRemoved").await;
    assert!(revoked.recv_position() < removed.recv_position());
}

/// What `AllocateLease` says with options.
async fn allocate(bench: &Bench, options: HashMap<&str, Variant<'_>>) -> Result<AllocatedLease, Error> {
    let manager = bench.api().manager().await.expect("nobody is asked");
    manager.allocate_lease("a", options).await.map_err(Error::from)
}

#[tokio::test]
async fn a_lease_ends_at_its_time_limit_unless_it_is_renewed() {
    let (bench, _daemon) = serving("").await;
    let mut signals = bench.signals().await;
    let short = || HashMap::from([("ttl_usec", Variant::from(200_000_u64))]);
    let (renewed, _, _held) = allocate(&bench, short()).await.expect("a lease");
    let manager = bench.api().manager().await.expect("nobody is asked");
    manager.renew_lease(&renewed, 600_000_000).await.expect("it is held");
    let (short, _, _also) = allocate(&bench, short()).await.expect("a lease");
    let revoked = signal(&mut signals, "LeaseRevoked").await;
    let (lease, pool, reason): (String, String, String) = revoked.body().deserialize().expect("three texts");
    assert_eq!((lease, pool.as_str(), reason.as_str()), (short.clone(), "a", "its time limit is over"));
    let gone = Error::from(manager.renew_lease(&short, 1).await.expect_err("it is over"));
    assert!(matches!(gone, Error::NoSuchLease(_)), "{gone:?}");
    manager.release_lease(&renewed).await.expect("it is held");
}

#[tokio::test]
async fn who_waits_is_served_in_turn_and_forgotten_when_it_leaves() {
    let (bench, _daemon) = serving("[leases]\ncapacity = 1\n").await;
    let (first, _, _held) = allocate(&bench, HashMap::new()).await.expect("a lease");
    let path = bench.folder.join("run/leases");
    let held = || std::fs::read_dir(&path).expect("the folder is there").count();
    let waits = || HashMap::from([("wait_usec", Variant::from(60_000_000_u64))]);
    // One that leaves the bus while it waits.
    let stranger = connection::Builder::address(bench.bus.address.as_str()).build().await.expect("the bus");
    let body = ("a", waits());
    let call = stranger.call_method(Some(NAME), MANAGER, Some(NAME), "AllocateLease", &body);
    let left = tokio::time::timeout(Duration::from_millis(300), call).await;
    assert!(left.is_err(), "it waits");
    let (next, next_but_one) = (allocate(&bench, waits()), allocate(&bench, waits()));
    let (mut next, mut next_but_one) = (Box::pin(next), Box::pin(next_but_one));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut next).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut next_but_one).await.is_err());
    stranger.close().await.expect("it leaves");
    let manager = bench.api().manager().await.expect("nobody is asked");
    manager.release_lease(&first).await.expect("it is held");
    let (second, _, held_second) = next.await.expect("its turn has come");
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut next_but_one).await.is_err());
    assert_eq!(held(), 1, "{second}");
    drop(held_second);
    next_but_one.await.expect("its turn has come");
    let nobody = HashMap::from([("wait_usec", Variant::from(1_000_u64))]);
    let (_third, _, _held_third) = allocate(&bench, waits()).await.expect("the one before was dropped");
    let late = allocate(&bench, nobody).await.expect_err("there is none");
    assert!(matches!(&late, Error::Timeout(text) if text.contains("1 of 1 leases")), "{late:?}");
}
