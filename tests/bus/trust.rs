//! Whom the daemon believes, and what it does when somebody goes.

use crate::bench::{Bench, MANAGER, NAME, wait_until};
use crate::systemd::{ROOT, path, say};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pool_bus_bench::wire::{BUS, Call, Wire};
use std::time::Duration;
use zbus::{Connection, connection};

const ENGINE: &str = "llamaorch-engine-a-r0.g1.service";

async fn stranger(bench: &Bench) -> Connection {
    connection::Builder::address(bench.bus.address.as_str()).build().await.unwrap()
}

#[tokio::test]
async fn signals_that_only_claim_to_be_systemds_change_nothing() {
    let bench = Bench::new().await;
    bench.pool_file("a", "");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let bus = zbus::fdo::DBusProxy::new(&bench.client).await.unwrap();
    let stranger = stranger(&bench).await;
    // Both connections of the daemon get everything, as one of them is systemd's client.
    for name in bus.list_names().await.unwrap() {
        if !name.as_str().starts_with(':') {
            continue;
        }
        let to = Some(name.as_str());
        say(&stranger, to, ENGINE, "failed", "failed", 0).await.unwrap();
        let removed = (ENGINE, path(ENGINE));
        stranger
            .emit_signal(to, ROOT, "org.freedesktop.systemd1.Manager", "UnitRemoved", &removed)
            .await
            .unwrap();
        let owner = ("org.freedesktop.systemd1", "", stranger.unique_name().unwrap().as_str());
        stranger
            .emit_signal(to, "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", &owner)
            .await
            .unwrap();
        say(&stranger, to, ENGINE, "failed", "failed", 0).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.phase("a").await, "ready");
    // The control: the same words from systemd itself are believed.
    say(&bench.systemd_bus, None, ENGINE, "failed", "failed", 0).await.unwrap();
    bench.wait_phase("a", "backoff").await;
}

#[tokio::test]
async fn nothing_that_a_stranger_sends_makes_the_daemon_deaf() {
    let bench = Bench::new().await;
    bench.pool_file("a", "");
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let bus = zbus::fdo::DBusProxy::new(&bench.client).await.expect("the bus is there");
    let mut to = Vec::new();
    for name in bus.list_names().await.expect("the bus is there") {
        let name = name.into_inner();
        if name.starts_with(':')
            && bus.get_connection_unix_process_id(name.clone()).await == Ok(daemon.0.id())
        {
            to.push(name.to_string());
        }
    }
    assert_eq!(to.len(), 2, "one serves, one is systemd's client: {to:?}");
    let stranger = stranger(&bench).await;
    let socket = bench.bus.path().to_owned();
    for name in to {
        // With descriptors, which no method takes: some at once, so that they come with other messages' bytes.
        let file = std::fs::File::open("/dev/null").expect("it is there");
        for _ in 0..20 {
            let body = (zbus::Fd::from(&file), zbus::Fd::from(&file));
            let call = zbus::Message::method_call(MANAGER, "ListPools").destination(name.as_str());
            let call = call.interface(NAME).build(&body);
            stranger.send(&call.expect("a call")).await.expect("the bus takes it");
            let name = Some(name.as_str());
            stranger.emit_signal(name, "/a", "a.b", "C", &body).await.expect("the bus takes it");
        }
        // With what only a later version of the specification knows.
        let (name, socket) = (name.clone(), socket.clone());
        let odd = move || {
            let mut wire = Wire::connect_to(&socket).expect("the bus is there");
            let call = Call::new((&name, MANAGER, "org.freedesktop.DBus.Peer"), "Ping", &())
                .and_then(Call::with_unknown_field)
                .expect("a call");
            wire.send(&call, 20).expect("the bus takes it");
            // The bus has handed them on when it answers this.
            wire.ask(&Call::new(BUS, "GetId", &()).expect("a call")).expect("an answer");
        };
        tokio::task::spawn_blocking(odd).await.expect("it does not panic");
    }
    assert_eq!(bench.api().list().await.expect("it answers").len(), 1);
    say(&bench.systemd_bus, None, ENGINE, "failed", "failed", 0).await.expect("the bus is there");
    bench.wait_phase("a", "backoff").await;
}

#[tokio::test]
async fn a_second_daemon_ends_with_the_reason_and_starts_nothing() {
    let bench = Bench::new().await;
    bench.pool_file("a", "");
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let before = bench.systemd.book.lock().unwrap().calls.clone();
    let second = bench.daemon_that_ends().await;
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("owned by process {}", daemon.0.id())), "{said}");
    assert_eq!(bench.systemd.book.lock().unwrap().calls, before);
    assert_eq!(bench.phase("a").await, "ready");
}

#[tokio::test]
async fn the_name_cannot_be_taken_away() {
    let bench = Bench::new().await;
    let _daemon = bench.daemon().await;
    let stranger = stranger(&bench).await;
    let flags = zbus::fdo::RequestNameFlags::REPLACE_EXISTING | zbus::fdo::RequestNameFlags::DO_NOT_QUEUE;
    let taken = stranger.request_name_with_flags(NAME, flags).await;
    assert!(taken.is_err(), "{taken:?}");
}

#[tokio::test]
async fn sigterm_leaves_the_engines_running() {
    let bench = Bench::new().await;
    bench.pool_file("a", "");
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let before = bench.systemd.book.lock().unwrap().calls.len();
    kill(Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(daemon.end().await.0, Some(0));
    let book = bench.systemd.book.lock().unwrap();
    assert!(book.units.contains_key(ENGINE));
    // At most the checks' unit is let go of.
    assert!(
        book.calls.iter().skip(before).all(|call| call == "stop llamaorch-stage-a-r0.g1.service"),
        "{:?}",
        book.calls
    );
}

#[tokio::test]
async fn a_bus_that_goes_ends_the_daemon_with_the_reason() {
    let mut bench = Bench::new().await;
    let daemon = bench.daemon().await;
    bench.bus.kill();
    let (code, said) = daemon.end().await;
    assert_eq!(code, Some(1));
    assert!(said.contains("bus"), "{said}");
}

#[tokio::test]
async fn without_systemd_on_the_bus_it_says_so() {
    let bench = Bench::without_systemd().await;
    let ended = bench.daemon_that_ends().await;
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("systemd"), "{said}");
}

#[tokio::test]
async fn a_unit_that_systemd_refuses_is_told_and_tried_again() {
    let bench = Bench::new().await;
    bench.systemd.book.lock().unwrap().refuse = Some("no more units today".into());
    bench.pool_file("a", "");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "backoff").await;
    let error: String = bench
        .property(&format!("{MANAGER}/pool/a"), "org.llamaorch.PoolManager.Pool", "LastError")
        .await
        .try_into()
        .unwrap();
    assert!(error.contains("no more units today"), "{error}");
    bench.systemd.book.lock().unwrap().refuse = None;
    bench.wait_phase("a", "ready").await;
}

#[tokio::test]
async fn a_saved_file_that_is_damaged_is_set_aside() {
    let bench = Bench::new().await;
    bench.pool_file("a", "");
    std::fs::write(bench.folder.join("run/pools.json"), "{ half").unwrap();
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    assert!(bench.folder.join("run/pools.json.damaged").exists());
    wait_until("a new one was written", async || bench.folder.join("run/pools.json").exists()).await;
    kill(Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    let (_, said) = daemon.end().await;
    assert!(said.contains("damaged"), "{said}");
}
