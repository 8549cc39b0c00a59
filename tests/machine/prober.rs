//! An engine that kills its own prober speaks for itself from then on, and nobody believes it for long.

use crate::host::host;

#[test]
fn an_engine_that_kills_its_prober_is_ended_and_the_reason_is_told() {
    let (host, _turn) = host();
    let pool = host.pool("unwatched", "hostile", "[health]\nstall_timeout = \"10s\"\n");
    let (before, unit) = (pool.main_pid(), pool.unit());
    let killed = pool.attempt(&["kill-prober"]);
    assert_eq!(killed["outcome"], "succeeded", "it runs as the same user, so it can: {killed}");
    let mut class = String::new();
    host.wait_until("the engine without a prober is ended", || {
        class = pool.text("last_error_class");
        !class.is_empty()
    });
    println!("{unit}: {class} - {}", pool.text("last_error"));
    assert!(["prober-lost", "watchdog"].contains(&class.as_str()), "{class}");
    host.wait_until("another engine serves", || {
        pool.status()["ready"].as_bool() == Some(true) && pool.main_pid() != before
    });
}
