//! Starts that are refused: each by its own class, with a remedy, and nothing left behind.

use crate::host::{Host, MODEL, Pool, REPLICA, conformance_file, host};

/// What a refused start must not leave: units, folders, sockets.
fn nothing_is_left(host: &Host, pool: &Pool<'_>) {
    host.wait_until("its units are gone", || {
        host.units().iter().all(|unit| !unit.contains(&format!("-{}-", pool.id)))
    });
    for folder in
        ["/var/cache/private/llamaorch", "/var/cache/llamaorch", "/run/private/llamaorch", "/run/llamaorch"]
    {
        let left = host.shell(&format!("ls {folder} 2>/dev/null | grep -x '{0}\\|{0}-r0' || true", pool.id));
        assert_eq!(left, "", "{folder}");
    }
    let pid: u32 = host.property(&pool.replica_path(0), REPLICA, "MainPid");
    assert_eq!(pid, 0);
}

#[test]
fn a_missing_program_is_refused() {
    let host = host();
    let pool =
        host.pool("noprogram", &format!("program = \"/opt/absent/server\"\n{}", conformance_file(&[])));
    pool.wait_phase("failed");
    assert_eq!(pool.text("LastErrorClass"), "program-missing");
    assert!(pool.text("LastError").contains("/opt/absent/server"), "{}", pool.text("LastError"));
    assert_eq!(pool.number("RestartCount"), 0);
    nothing_is_left(&host, &pool);
}

#[test]
fn a_model_that_the_engines_user_cannot_read_is_refused() {
    let host = host();
    host.shell(&format!("install -m 0600 {MODEL} /srv/models/secret.gguf"));
    let pool = host.pool("nomodel", &conformance_file(&[]).replace("tiny", "secret"));
    pool.wait_phase("failed");
    assert_eq!(pool.text("LastErrorClass"), "model-unreadable");
    let error = pool.text("LastError");
    assert!(error.contains("/srv/models/secret.gguf") && error.contains("chmod"), "{error}");
    nothing_is_left(&host, &pool);
    host.shell("chmod 0644 /srv/models/secret.gguf");
    pool.start();
    pool.wait_ready();
}

#[test]
fn a_model_that_is_not_there_is_refused() {
    let host = host();
    let pool = host.pool("absent", &conformance_file(&[]).replace("tiny", "absent"));
    pool.wait_phase("failed");
    assert_eq!(pool.text("LastErrorClass"), "model-unreadable");
    nothing_is_left(&host, &pool);
}

#[test]
fn a_model_below_a_private_home_is_readable_where_its_file_is() {
    let host = host();
    host.shell(&format!(
        "install -d -m 0700 /home/somebody && install -m 0644 {MODEL} /home/somebody/tiny.gguf"
    ));
    let pool = host.pool("home", &conformance_file(&[]).replace("/srv/models", "/home/somebody"));
    pool.wait_ready();
}

#[test]
fn a_wrong_digest_is_refused_and_the_right_one_passes() {
    let host = host();
    let sum = host.shell(&format!("sha256sum {MODEL}"));
    let right = sum.split_whitespace().next().unwrap();
    let file = |digest: &str| format!("digest = \"sha256:{digest}\"\n{}", conformance_file(&[]));
    let pool = host.pool("digest", &file(&"0".repeat(64)));
    pool.wait_phase("failed");
    assert_eq!(pool.text("LastErrorClass"), "digest-mismatch");
    assert!(pool.text("LastError").contains(right), "{}", pool.text("LastError"));
    nothing_is_left(&host, &pool);
    pool.write_file(&file(right));
    host.reload();
    pool.wait_ready();
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let host = host();
    let mut squatter = host.sandbox.spawn(&["/usr/local/bin/conformance-engine", "--port", "18080"]).unwrap();
    host.wait_until("the port is taken", || host.http("GET", "http://127.0.0.1:18080/health").0 == 200);
    let file = format!("{}[network]\nlisten = \"127.0.0.1:18080\"\n", conformance_file(&[]));
    let pool = host.pool("noport", &file);
    pool.wait_phase("failed");
    assert_eq!(pool.text("LastErrorClass"), "port-in-use");
    assert!(pool.text("LastError").contains("127.0.0.1:18080"), "{}", pool.text("LastError"));
    assert!(!pool.flag("Ready"), "the other one's 200 is not ours");
    nothing_is_left(&host, &pool);
    assert!(squatter.is_running());
    drop(squatter);
    host.wait_until("the port is free", || host.http("GET", "http://127.0.0.1:18080/health").0 == 0);
    pool.start();
    pool.wait_ready();
}

#[test]
fn an_automatic_port_that_is_taken_is_stepped_over() {
    let host = host();
    let _squatter = host.sandbox.spawn(&["/usr/local/bin/conformance-engine", "--port", "20000"]).unwrap();
    host.wait_until("the port is taken", || host.http("GET", "http://127.0.0.1:20000/health").0 == 200);
    let pool = host.conformance("steps", &[]);
    pool.wait_ready();
    assert_eq!(pool.endpoint(), "http://127.0.0.1:20001");
    assert_eq!(pool.text("LastError"), "");
}
