//! Another model in the place of one that serves, drain-first: the new one serves, or the old one does again.

use crate::host::{Host, MODEL, Pool, conformance_file, host, llama_file};
use std::collections::HashMap;
use std::time::Duration;
use zbus::{OwnedFd, OwnedObjectPath, Variant};

const JOB: &str = "org.llamaorch.PoolManager.Job";
const PROMPT: &str = "[health]\ninterval = \"100ms\"\ntimeout = \"200ms\"\n[drain]\nsettle = \"400ms\"\n";

fn file(host: &Host) -> String {
    let file = if host.has_llama() { llama_file() } else { conformance_file(&[]) };
    format!("{file}{PROMPT}")
}

fn reload(host: &Host, pool: &str, model: &str, options: HashMap<&str, Variant<'_>>) -> OwnedObjectPath {
    host.manager("ReloadPool", &(pool, model, options))
}

fn result(host: &Host, job: &OwnedObjectPath) -> String {
    host.call(job.as_str(), JOB, "Wait", &()).unwrap()
}

/// A request that the engine answers with what it generated.
fn serves(host: &Host, pool: &Pool<'_>) {
    let url = format!("{}/completion", pool.endpoint());
    let body = "{\"prompt\": \"a\", \"n_predict\": 4, \"ignore_eos\": true}";
    let argv = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", "-d", body, &url];
    let said = String::from_utf8(host.run(&argv).stdout).unwrap();
    assert!(said.ends_with("\n200"), "{said}");
}

#[test]
fn another_model_serves_after_a_reload_and_stays_over_what_the_file_still_says() {
    let host = host();
    let pool = host.pool("swap", &file(&host));
    pool.wait_ready();
    host.shell(&format!("cp {MODEL} /srv/models/second.gguf"));
    let before = pool.main_pid(0);
    let job = reload(&host, "swap", "file:/srv/models/second.gguf", HashMap::new());
    assert_eq!(result(&host, &job), "done");
    assert_eq!(pool.text("ModelPath"), "/srv/models/second.gguf");
    assert!(pool.flag("Ready") && pool.main_pid(0) != before);
    serves(&host, &pool);
    host.reload();
    host.kill_daemon();
    assert_eq!(pool.text("ModelPath"), "/srv/models/second.gguf");
    assert!(!pool.flag("NeedsReload"));
}

#[test]
fn a_broken_model_leaves_the_old_one_serving() {
    let host = host();
    let pool = host.pool("broken", &file(&host));
    pool.wait_ready();
    let before = pool.main_pid(0);
    let job = reload(&host, "broken", "file:/srv/models/none.gguf", HashMap::new());
    assert_eq!(result(&host, &job), "failed");
    assert_eq!(pool.main_pid(0), before, "one that cannot even be read costs nothing");
    assert_eq!(pool.text("LastErrorClass"), "model-unreadable");
    if host.has_llama() {
        host.shell(
            "head -c 5000 /dev/urandom > /srv/models/garbage.gguf; chmod 644 /srv/models/garbage.gguf",
        );
        let job = reload(&host, "broken", "file:/srv/models/garbage.gguf", HashMap::new());
        assert_eq!(result(&host, &job), "failed");
    } else {
        let args = ["--exit-during-load", "--load-time", "200ms", "--exit-code", "7"];
        pool.write_file(&format!("{}{PROMPT}", conformance_file(&args)));
        host.reload();
        assert!(pool.flag("NeedsReload"));
        let job = reload(&host, "broken", "", HashMap::new());
        assert_eq!(result(&host, &job), "failed");
        assert!(pool.flag("NeedsReload"), "the file still says something else");
    }
    assert!(pool.flag("Ready") && pool.main_pid(0) != before);
    assert_eq!(pool.text("ModelPath"), MODEL);
    let error = pool.text("LastError");
    assert!(error.contains("the new model failed") && error.contains("serves again"), "{error}");
    assert_eq!(pool.text("Breaker"), "closed");
    serves(&host, &pool);
}

#[test]
fn a_reload_whose_leases_do_not_end_is_given_up_and_the_old_engine_goes_on() {
    let host = host();
    let pool = host.pool("patient", &file(&host));
    pool.wait_ready();
    let before = pool.main_pid(0);
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let (_, _, held): (String, String, OwnedFd) = host.manager("AllocateLease", &("patient", options));
    let deadline = || HashMap::from([("deadline_usec", Variant::from(1_000_000_u64))]);
    let job = reload(&host, "patient", "", deadline());
    assert_eq!(result(&host, &job), "timeout");
    assert_eq!((pool.flag("Ready"), pool.main_pid(0), pool.number("ActiveLeases")), (true, before, 1));
    let mut forced = deadline();
    forced.insert("force", Variant::from(true));
    let job = reload(&host, "patient", "", forced);
    assert_eq!(result(&host, &job), "done");
    assert!(pool.flag("Ready") && pool.main_pid(0) != before);
    assert_eq!(pool.number("ActiveLeases"), 0);
    drop(held);
}

#[test]
fn a_changed_file_is_applied_by_poolctl_and_by_itself_where_it_says_so() {
    let host = host();
    let with = |args: &[&str], more: &str| {
        let file = conformance_file(args);
        format!("{more}{file}{PROMPT}")
    };
    let pool = host.pool("applied", &with(&[], ""));
    pool.wait_ready();
    let first = pool.main_pid(0);
    pool.write_file(&with(&["--load-time", "100ms"], ""));
    host.reload();
    assert!(pool.flag("NeedsReload") && pool.main_pid(0) == first);
    let diff = String::from_utf8(host.poolctl(&["diff", "applied"]).stdout).unwrap();
    assert!(diff.contains("args"), "{diff}");
    assert!(host.poolctl(&["apply", "applied"]).status.success());
    let second = pool.main_pid(0);
    assert!(!pool.flag("NeedsReload") && second != first);
    pool.write_file(&with(&["--load-time", "200ms"], "on_change = \"drain-first\"\n"));
    host.reload();
    host.wait_for("it is applied", Duration::from_secs(20), || {
        pool.flag("Ready") && !pool.flag("NeedsReload") && pool.main_pid(0) != second
    });
}
