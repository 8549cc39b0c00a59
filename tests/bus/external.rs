//! Pools that somebody else runs, over the bus.

use crate::bench::{Bench, MANAGER, wait_until};
use pool_managerd::client::Error;
use pool_managerd::client::proxy::ManagerProxy;
use std::collections::HashMap;
use zbus::Variant;

const POOL: &str = "org.llamaorch.PoolManager.Pool";

async fn manager(bench: &Bench) -> ManagerProxy<'static> {
    bench.api().manager().await.expect("nobody is asked")
}

async fn text(bench: &Bench, property: &str) -> String {
    let path = format!("{MANAGER}/pool/elsewhere");
    bench.property(&path, POOL, property).await.try_into().expect("a text")
}

#[tokio::test]
async fn an_external_pool_is_as_its_owner_reports() {
    let bench = Bench::new().await;
    let daemon = bench.daemon().await;
    let bus = manager(&bench).await;
    let mut signals = bench.signals().await;
    let options = HashMap::from([
        ("engine", Variant::from("vllm")),
        ("endpoint", Variant::from("http://10.0.0.7:8000")),
        ("heartbeat_timeout_usec", Variant::from(60_000_000_u64)),
    ]);
    let path = bus.register_pool("elsewhere", options).await.expect("nobody has it");
    assert_eq!(path.as_str(), format!("{MANAGER}/pool/elsewhere"));
    crate::bench::signal(&mut signals, "PoolAdded").await;
    assert_eq!(bus.get_health("elsewhere").await.expect("it is known"), (false, false));
    bus.set_health("elsewhere", true, true).await.expect("it is ours");
    let told = crate::bench::signal(&mut signals, "HealthChanged").await;
    let (id, live, ready, _): (String, bool, bool, String) =
        told.body().deserialize().expect("as in the XML");
    assert_eq!((id.as_str(), live, ready), ("elsewhere", true, true));
    bus.set_version("elsewhere", "0.11").await.expect("it is ours");
    bus.set_last_error("elsewhere", "slow").await.expect("it is ours");
    bus.set_heartbeat("elsewhere", 0).await.expect("it is ours");
    assert_eq!(
        (text(&bench, "Version").await, text(&bench, "LastError").await),
        ("0.11".into(), "slow".into())
    );
    bus.wait_ready("elsewhere", 0).await.expect("it is ready");
    let (lease, endpoint, held) = bus.allocate_lease("elsewhere", HashMap::new()).await.expect("a lease");
    assert_eq!(endpoint, "http://10.0.0.7:8000");
    // All of it outlives the daemon.
    drop(daemon);
    let _daemon = bench.daemon().await;
    assert_eq!(bus.get_health("elsewhere").await.expect("it is known"), (true, true));
    let statistics = bus.get_statistics().await.expect("numbers");
    let (id, numbers) = statistics.first().expect("a row");
    let number = numbers.get("active_leases").expect("a number").try_clone().expect("no descriptor");
    assert_eq!((id.as_str(), u32::try_from(number)), ("elsewhere", Ok(1)));
    drop(held);
    wait_until("the lease is over", async || bus.active_leases().await.expect("a number") == 0).await;
    let gone = Error::from(bus.release_lease(&lease).await.expect_err("it is over"));
    assert!(matches!(gone, Error::NoSuchLease(_)), "{gone:?}");
    let refused =
        Error::from(bus.stop_pool("elsewhere", HashMap::new()).await.expect_err("it is not ours to stop"));
    assert!(matches!(refused, Error::External(_)), "{refused:?}");
    bus.unregister_pool("elsewhere").await.expect("it is ours");
    let gone = Error::from(bus.get_health("elsewhere").await.expect_err("it is gone"));
    assert!(matches!(gone, Error::NoSuchPool(_)), "{gone:?}");
}

#[tokio::test]
async fn a_silent_owner_s_pool_is_not_ready() {
    let bench = Bench::new().await;
    let _daemon = bench.daemon().await;
    let bus = manager(&bench).await;
    let options = HashMap::from([("heartbeat_timeout_usec", Variant::from(300_000_u64))]);
    bus.register_pool("elsewhere", options).await.expect("nobody has it");
    bus.set_health("elsewhere", true, true).await.expect("it is ours");
    wait_until("its silence is noticed", async || {
        bus.get_health("elsewhere").await.expect("it is known") == (false, false)
    })
    .await;
    assert!(text(&bench, "LastError").await.contains("silent"));
    bus.set_health("elsewhere", true, true).await.expect("it is ours");
    assert_eq!(bus.get_health("elsewhere").await.expect("it is known"), (true, true));
}
