//! Drains, reloads, resets and explanations, as a client sees them.

use crate::bench::{Bench, Daemon, MANAGER, NAME, SETTLE, signal, wait_until};
use pool_managerd::client::{Error, JobDetails, Reloading};
use std::collections::HashMap;
use std::time::Duration;
use zbus::Variant;

async fn serving() -> (Bench, Daemon) {
    let bench = Bench::new().await;
    bench.pool_file("a", SETTLE);
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    (bench, daemon)
}

#[tokio::test]
async fn a_drain_waits_for_leases_and_leaves_the_pool_stopped() {
    let (bench, _daemon) = serving().await;
    let lease = bench.api().allocate_lease("a").await.unwrap();
    let job = bench.api().drain("a", None).await.unwrap();
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.phase.as_str(), pool.draining, pool.ready, pool.live), ("draining", true, false, true));
    let error = bench.api().allocate_lease("a").await.unwrap_err();
    assert!(matches!(error, Error::Draining(_)), "{error:?}");
    let again = bench.api().drain("a", None).await.unwrap();
    assert_eq!(again.path(), job.path(), "asked again, it is the same job");
    assert_eq!(job.details().await.unwrap(), JobDetails::default());
    drop(lease);
    job.wait().await.unwrap();
    let details = job.details().await.unwrap();
    assert_eq!((details.force_stopped, details.leases_left), (false, 0));
    assert!(details.duration_usec >= 200_000, "{details:?}");
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.phase.as_str(), pool.draining), ("stopped", false));
}

#[tokio::test]
async fn at_its_deadline_a_drain_stops_what_is_left_and_says_so() {
    let (bench, _daemon) = serving().await;
    let lease = bench.api().allocate_lease("a").await.unwrap();
    let mut signals = bench.signals().await;
    let job = bench.api().drain("a", Some(Duration::from_millis(300))).await.unwrap();
    job.wait().await.unwrap();
    let details = job.details().await.unwrap();
    assert_eq!((details.force_stopped, details.leases_left), (true, 1));
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.phase.as_str(), pool.active_leases), ("stopped", 0));
    assert!(pool.last_error.contains("1 leases held"), "{}", pool.last_error);
    let revoked = signal(&mut signals, "LeaseRevoked").await;
    let (id, _, _): (String, String, String) = revoked.body().deserialize().unwrap();
    assert_eq!(id, lease.id);
}

#[tokio::test]
async fn a_drain_is_cancelled_and_nothing_else_is() {
    let (bench, _daemon) = serving().await;
    let _lease = bench.api().allocate_lease("a").await.unwrap();
    let job = bench.api().drain("a", None).await.unwrap();
    let number = job.path().rsplit('/').next().unwrap();
    bench.api().find_job(number).await.unwrap().cancel().await.unwrap();
    // The reply comes after what it says.
    assert_eq!(bench.phase("a").await, "ready");
    let error = job.wait().await.unwrap_err();
    assert!(matches!(&error, Error::JobCanceled(text) if text.contains("serves on")), "{error:?}");
    bench.api().allocate_lease("a").await.unwrap();

    let error = job.cancel().await.unwrap_err();
    assert!(matches!(error, Error::TransitionInProgress(_)), "{error:?}");
    let start = bench.api().start("a").await.unwrap();
    let error = start.cancel().await.unwrap_err();
    assert!(matches!(error, Error::TransitionInProgress(_)), "{error:?}");
    let error = bench.api().find_job("4711").await.unwrap_err();
    assert!(matches!(error, Error::NoSuchJob(_)), "{error:?}");
    let gone = bench.api().find_job(&format!("{MANAGER}/job/4711")).await.unwrap();
    let error = gone.cancel().await.unwrap_err();
    assert!(matches!(error, Error::NoSuchJob(_)), "{error:?}");
}

#[tokio::test]
async fn a_stopped_pool_takes_another_model_and_starts_nothing() {
    let bench = Bench::new().await;
    bench.pool_file("a", "activation = \"manual\"\n");
    let _daemon = bench.daemon().await;
    let how = Reloading { model: Some("file:/srv/other".into()), ..Reloading::default() };
    bench.api().reload_pool("a", &how).await.unwrap().wait().await.unwrap();
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.phase.as_str(), pool.model_path.as_str()), ("stopped", "/srv/other"));
    let calls = bench.systemd.book.lock().unwrap().calls.clone();
    assert!(!calls.iter().any(|call| call.starts_with("start ")), "{calls:?}");
    bench.api().start("a").await.unwrap().wait().await.unwrap();
    assert_eq!(bench.api().pool("a").await.unwrap().model_path, "/srv/other");
}

#[tokio::test]
async fn a_reload_that_cannot_be_is_refused_by_name() {
    let (bench, _daemon) = serving().await;
    let how = Reloading { model: Some("floppy:a".into()), ..Reloading::default() };
    let error = bench.api().reload_pool("a", &how).await.unwrap_err();
    assert!(matches!(error, Error::InvalidSpec(_)), "{error:?}");
    let error = bench.api().reload_pool("b", &Reloading::default()).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchPool(_)), "{error:?}");
    for (key, value, says) in [
        ("strategy", Variant::from("rolling"), "not supported by this version yet"),
        ("strategy", Variant::from("sideways"), "auto, drain-first"),
        ("strategy", Variant::from(true), "a word"),
        ("deadline", Variant::from(1_u64), "deadline_usec"),
        ("deadline_usec", Variant::from("soon"), "microseconds"),
    ] {
        let options = HashMap::from([(key, value)]);
        let refused = bench.api().manager().await.unwrap().reload_pool("a", "", options).await;
        let error = Error::from(refused.unwrap_err());
        assert!(matches!(&error, Error::InvalidArgs(text) if text.contains(says)), "{key}: {error:?}");
    }
}

#[tokio::test]
async fn a_changed_file_is_applied_by_a_reload_and_a_bad_model_is_not() {
    let (bench, _daemon) = serving().await;
    bench.pool_file("a", &format!("args = [\"--new\"]\n{SETTLE}"));
    bench.api().reload().await.unwrap();
    assert_eq!(bench.api().pool("a").await.unwrap().pending, ["args"]);
    bench.api().reload_pool("a", &Reloading::default()).await.unwrap().wait().await.unwrap();
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.phase.as_str(), pool.needs_reload), ("ready", false));
    let calls = bench.systemd.book.lock().unwrap().calls.clone();
    let engine: Vec<&str> = calls.iter().map(String::as_str).filter(|call| call.contains("engine")).collect();
    let again = ["start", "stop", "start"].map(|verb| format!("{verb} llamaorch-engine-a-r0.g1.service"));
    assert_eq!(engine, again);

    bench.systemd.book.lock().unwrap().checks_fail = Some((151, "model-unreadable: no such file".into()));
    let how = Reloading { model: Some("file:/srv/missing".into()), ..Reloading::default() };
    let error = bench.api().reload_pool("a", &how).await.unwrap().wait().await.unwrap_err();
    assert!(matches!(&error, Error::JobFailed(text) if text.contains("no such file")), "{error:?}");
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.phase.as_str(), pool.model_path.as_str()), ("ready", "/srv/m"));
    assert_eq!(pool.last_error_class, "model-unreadable");
}

#[tokio::test]
async fn a_reset_closes_the_breaker_and_starts_again() {
    let bench = Bench::new().await;
    bench.systemd.book.lock().unwrap().refuse = Some("no more units today".into());
    bench.pool_file("a", "[restart.breaker]\nfailures = 1\n");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "tripped").await;
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.breaker.as_str(), pool.last_error.is_empty()), ("open", false));
    let explained = bench.api().explain("a").await.unwrap();
    let open = explained.reasons.iter().find(|reason| reason.code == "breaker-open").unwrap();
    assert!(open.until_timestamp > open.since_timestamp, "{open:?}");
    assert!(open.remedy.contains("poolctl reset a"), "{open:?}");
    bench.systemd.book.lock().unwrap().refuse = None;
    bench.api().reset("a").await.unwrap();
    bench.wait_phase("a", "ready").await;
    let pool = bench.api().pool("a").await.unwrap();
    assert_eq!((pool.breaker.as_str(), pool.restart_count, pool.last_error.as_str()), ("closed", 0, ""));
    let error = bench.api().reset("b").await.unwrap_err();
    assert!(matches!(error, Error::NoSuchPool(_)), "{error:?}");
}

#[tokio::test]
async fn a_refused_pool_is_explained() {
    let bench = Bench::new().await;
    bench.systemd.book.lock().unwrap().checks_fail = Some((151, "model-unreadable: no such file".into()));
    bench.pool_file("a", "");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "failed").await;
    let explained = bench.api().explain("a").await.unwrap();
    assert_eq!((explained.phase.as_str(), explained.ready, explained.live), ("failed", false, false));
    assert!(explained.summary.contains("no such file"), "{explained:?}");
    let newest = explained.reasons.first().unwrap();
    assert_eq!((newest.code.as_str(), newest.class.as_str()), ("failed", "model-unreadable"));
    assert_eq!(newest.replica, "a-r0");
    assert!(newest.text.contains("no such file") && !newest.remedy.is_empty(), "{newest:?}");
    assert!(newest.since_timestamp > 0 && newest.until_timestamp == 0, "{newest:?}");
    let error = bench.api().explain("b").await.unwrap_err();
    assert!(matches!(error, Error::NoSuchPool(_)), "{error:?}");
}

#[tokio::test]
async fn a_pools_object_does_what_the_manager_does() {
    let (bench, _daemon) = serving().await;
    let path = bench.api().manager().await.unwrap().get_pool("a").await.unwrap();
    let pool = bench.api().pool_at(path).await.unwrap();
    let (lease, _, descriptor) = pool.allocate_lease(HashMap::new()).await.unwrap();
    assert_eq!(pool.active_leases().await.unwrap(), 1);
    bench.api().release_lease(&lease).await.unwrap();
    drop(descriptor);
    let reload = pool.reload("", HashMap::new()).await.unwrap();
    bench.api().job(reload).await.unwrap().wait().await.unwrap();
    let drain = pool.drain(0, HashMap::new()).await.unwrap();
    bench.api().job(drain).await.unwrap().wait().await.unwrap();
    pool.reset().await.unwrap();
    assert_eq!(pool.phase().await.unwrap(), "stopped");
}

#[tokio::test]
async fn what_cannot_be_saved_is_a_taint_until_it_can() {
    let (bench, _daemon) = serving().await;
    let tainted = async || {
        let words: Vec<String> = bench.property(MANAGER, NAME, "Tainted").await.try_into().unwrap();
        words.contains(&"wishes-not-saved".to_owned())
    };
    assert!(!tainted().await);
    let state = bench.folder.join("state");
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::write(&state, "in the way").unwrap();
    let mut signals = bench.signals().await;
    bench.api().stop("a").await.unwrap().wait().await.unwrap();
    wait_until("the taint is there", tainted).await;
    loop {
        let changed = signal(&mut signals, "PropertiesChanged").await;
        let body = changed.body();
        let (_, values, _): (String, HashMap<String, Variant<'_>>, Vec<String>) = body.deserialize().unwrap();
        if let Some(words) = values.get("Tainted") {
            assert!(format!("{words:?}").contains("wishes-not-saved"), "{words:?}");
            break;
        }
    }
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    bench.api().start("a").await.unwrap().wait().await.unwrap();
    wait_until("the taint is gone", async || !tainted().await).await;
}
