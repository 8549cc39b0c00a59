//! `poolctl explain`: what is the matter and what to do, for troubles that were really made; `docs/explain.md` lists them.

use crate::host::{Host, MODEL, Pool, SOON, conformance_file, host};
use nix::sys::signal::Signal;
use serde_json::Value;

const DOCS: &str = include_str!("../../docs/explain.md");

fn explain(host: &Host, id: &str) -> Value {
    let said = host.poolctl(&["explain", id, "--json"]);
    serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Waits until a reason of that code is told; it names its cause and its remedy, and the docs list it so.
fn told(host: &Host, pool: &Pool<'_>, code: &str, cause: &str, remedy: &str) {
    let find = || {
        let said = explain(host, &pool.id);
        let reasons = said["reasons"].as_array().unwrap().clone();
        reasons.into_iter().find(|reason| reason["code"] == code)
    };
    host.wait_for(&format!("{} is explained by {code}", pool.id), SOON, || find().is_some());
    let reason = find().unwrap();
    let text = |field: &str| reason[field].as_str().unwrap().to_owned();
    assert!(text("text").contains(cause), "{code}: {reason}");
    assert!(text("remedy").contains(remedy), "{code}: {reason}");
    assert!(reason["since_timestamp"].as_u64().unwrap() > 1_700_000_000_000_000, "{reason}");
    let row = DOCS.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
    let row = row.unwrap_or_else(|| panic!("docs/explain.md has no row for {code}"));
    let general = |text: &str| text.replace(&pool.id, "POOL");
    assert!(row.contains(&general(cause)), "docs/explain.md on {code}: {cause}");
    assert!(row.contains(&general(remedy)), "docs/explain.md on {code}: {remedy}");
    let words = String::from_utf8(host.poolctl(&["explain", &pool.id]).stdout).unwrap();
    assert!(words.contains(code) && words.contains(&text("text")), "{words}");
}

#[test]
fn twelve_troubles_are_explained_with_their_causes_and_remedies() {
    let host = host();
    let plain = conformance_file(&[]);

    let pool = host.pool("why-stopped", &plain);
    pool.wait_ready();
    assert_eq!(explain(&host, "why-stopped")["reasons"], Value::Array(vec![]), "nothing is the matter");
    pool.stop();
    told(&host, &pool, "stopped", "an operator stopped it", "poolctl start why-stopped");

    let pool = host.pool("why-hand", &format!("activation = \"manual\"\n{plain}"));
    told(&host, &pool, "not-started", "it starts by hand", "poolctl start why-hand");

    let gone = plain.replace(MODEL, "/srv/models/gone.gguf");
    let pool = host.pool("why-model", &gone);
    told(&host, &pool, "failed", "model-unreadable", "make it readable for everyone");

    let slow = "[restart]\ninitial_delay = \"1h\"\nmax_delay = \"1h\"\n";
    let pool = host.pool("why-pause", &format!("{plain}{slow}"));
    pool.wait_ready();
    host.kill(pool.main_pid(0), Signal::SIGKILL);
    told(&host, &pool, "waits-for-restart", "is started again after a pause", "poolctl start why-pause");
    told(&host, &pool, "earlier-failure", "signal:KILL", "journalctl POOL_ID=why-pause");

    let pool = host.pool("why-breaker", &format!("{plain}[restart.breaker]\nfailures = 1\n"));
    pool.wait_ready();
    host.kill(pool.main_pid(0), Signal::SIGKILL);
    told(&host, &pool, "breaker-open", "nothing is started by itself", "poolctl reset why-breaker");

    let pool = host.pool("why-meant", &plain);
    pool.wait_ready();
    host.http("POST", &format!("{}/exit?code=0", pool.endpoint()));
    told(
        &host,
        &pool,
        "ended-as-meant",
        "exited with status 0, which counts as meant",
        "poolctl start why-meant",
    );

    let pool = host.pool("why-outside", &plain);
    pool.wait_ready();
    host.shell(&format!("systemctl stop {}", pool.unit(0)));
    told(&host, &pool, "stopped-outside", "somebody stopped its unit", "poolctl start why-outside");

    let pool = host.pool("why-drain", &plain);
    pool.wait_ready();
    let lease = host.sandbox.spawn(&["poolctl", "lease", "why-drain", "--", "sleep", "1000"]).unwrap();
    host.wait_until("it is held", || pool.number("ActiveLeases") == 1);
    assert!(host.poolctl(&["drain", "--no-wait", "why-drain"]).status.success());
    told(&host, &pool, "draining", "1 leases held", "poolctl stop why-drain");
    drop(lease);

    let pool = host.pool("why-file", &plain);
    pool.wait_ready();
    pool.write_file(&format!("{plain}modle = 1\n"));
    host.reload();
    told(&host, &pool, "file-broken", "its file has an error", "mend it, then: poolctl reload");
    pool.write_file(&format!("{plain}env = {{ A = \"1\" }}\n"));
    host.reload();
    told(&host, &pool, "pending-changes", "changes of its file wait: env", "poolctl apply why-file");

    let pool = host.pool("why-load", &conformance_file(&["--load-time", "60s", "--load-cpu"]));
    told(&host, &pool, "loading", "its engine is starting", "journalctl POOL_ID=why-load");
}
