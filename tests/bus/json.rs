//! `poolctl --json`: one value for every verb, errors in one shape, exit codes as without it; and `watch`.

use crate::bench::{Bench, SETTLE, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

async fn serving() -> (Bench, crate::bench::Daemon) {
    let bench = Bench::new().await;
    bench.pool_file("a", SETTLE);
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    (bench, daemon)
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// What a verb that does well prints.
async fn said(bench: &Bench, arguments: &[&str]) -> Value {
    let output = bench.poolctl(&[&["--json"], arguments].concat()).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    parsed(&output.stdout)
}

fn error(output: &Output) -> (&'static str, Value, i32) {
    let from = if output.stderr.is_empty() { "stdout" } else { "stderr" };
    let value = parsed(if from == "stdout" { &output.stdout } else { &output.stderr });
    (from, value, output.status.code().expect("it ended by itself"))
}

fn without_the_time(mut value: Value) -> Value {
    let took = value[0].as_object_mut().expect("an object").remove("duration_usec");
    assert!(took.is_some_and(|took| took.is_u64()), "{value}");
    value
}

#[tokio::test]
async fn every_verb_prints_one_value() {
    let (bench, _daemon) = serving().await;
    assert_eq!(said(&bench, &["list"]).await[0]["id"], "a");
    assert_eq!(said(&bench, &["status", "a"]).await["phase"], "ready");
    assert_eq!(said(&bench, &["explain", "a"]).await["reasons"], json!([]));
    assert_eq!(said(&bench, &["wait", "a"]).await, json!({ "pool": "a", "result": "ready" }));
    assert_eq!(said(&bench, &["diff"]).await, json!([]));
    assert_eq!(said(&bench, &["apply", "a"]).await, json!([{ "pool": "a", "result": "unchanged" }]));
    assert_eq!(said(&bench, &["reset", "a"]).await, json!([{ "pool": "a", "result": "reset" }]));

    let stopped = without_the_time(said(&bench, &["stop", "a"]).await);
    let job = stopped[0]["job"].clone();
    assert!(job.as_str().is_some_and(|path| path.starts_with("/org/llamaorch/PoolManager/job/")), "{job}");
    let done = |result: &str, job: &Value| json!([{ "pool": "a", "result": result, "job": job, "force_stopped": false, "rolled_back": false, "leases_left": 0 }]);
    assert_eq!(stopped, done("stopped", &job));
    let started = without_the_time(said(&bench, &["start", "a"]).await);
    assert_eq!(started, done("ready", &started[0]["job"]));
    let drain = said(&bench, &["drain", "--no-wait", "a"]).await;
    assert_eq!(drain, json!([{ "pool": "a", "result": "accepted", "job": drain[0]["job"] }]));
    let job = drain[0]["job"].as_str().expect("a path");
    assert_eq!(said(&bench, &["cancel", job]).await, json!({ "job": job, "result": "canceled" }));

    bench.pool_file("a", &format!("args = [\"--new\"]\n{SETTLE}"));
    let read = json!({ "added": [], "changed": ["a"], "removed": [], "errors": [] });
    assert_eq!(said(&bench, &["reload"]).await, read);
    assert_eq!(said(&bench, &["diff", "a"]).await, json!([{ "pool": "a", "pending": ["args"] }]));
    let reloaded = without_the_time(said(&bench, &["reload", "a"]).await);
    assert_eq!(reloaded, done("reloaded", &reloaded[0]["job"]));

    let registered = said(&bench, &["register", "there"]).await;
    let object = "/org/llamaorch/PoolManager/pool/there";
    assert_eq!(registered, json!({ "pool": "there", "result": "registered", "object": object }));
    let stopped = said(&bench, &["stop", "--all"]).await;
    assert_eq!((&stopped[0]["pool"], stopped.as_array().map(Vec::len)), (&json!("a"), Some(1)));
    let reported = said(&bench, &["report", "there", "--health", "live"]).await;
    assert_eq!(reported, json!({ "pool": "there", "result": "reported" }));
    let numbers = said(&bench, &["statistics", "there"]).await;
    assert_eq!((&numbers[0]["id"], &numbers[0]["values"]["active_leases"]), (&json!("there"), &json!(0)));
    let forgotten = said(&bench, &["unregister", "there"]).await;
    assert_eq!(forgotten, json!([{ "pool": "there", "result": "unregistered" }]));

    let root = bench.folder.to_str().expect("a path");
    assert_eq!(said(&bench, &["check", "--root", root]).await, json!({ "pools": 1, "errors": [] }));
    let file = bench.folder.join("report.json");
    let file = file.to_str().expect("a path");
    assert_eq!(said(&bench, &["bugreport", file]).await, json!({ "file": file }));
}

#[tokio::test]
async fn errors_have_one_shape_and_the_same_exit_codes() {
    let (bench, _daemon) = serving().await;
    let table: [(&[&str], &str, i32); 7] = [
        (&["status", "b", "--json"], "no-such-pool", 4),
        (&["explain", "b", "--json"], "no-such-pool", 4),
        (&["wait", "b", "--json"], "no-such-pool", 4),
        (&["cancel", "4711", "--json"], "no-such-job", 4),
        (&["lease", "b", "--json", "--", "true"], "no-such-pool", 4),
        (&["lease", "a", "--json", "--", "/no/such/program"], "command", 127),
        (&["status", "--json"], "usage", 2),
    ];
    for (arguments, code, status) in table {
        let output = bench.poolctl(arguments).await;
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let (from, value, ended) = error(&output);
        let error = &value["error"];
        assert_eq!((from, error["code"].as_str(), ended), ("stderr", Some(code), status), "{value}");
        assert_eq!(error["status"].as_i64(), Some(status.into()), "{value}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{value}");
        let members: Vec<&String> = error.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["code", "message", "status"]);
    }

    let several = bench.poolctl(&["stop", "--json", "b", "a"]).await;
    let (from, value, ended) = error(&several);
    assert_eq!((from, ended), ("stdout", 4), "{value}");
    assert_eq!((&value[0]["pool"], &value[0]["error"]["code"]), (&json!("b"), &json!("no-such-pool")));
    assert_eq!((&value[1]["pool"], &value[1]["result"]), (&json!("a"), &json!("stopped")));

    std::fs::write(bench.folder.join("etc/llamaorch/pools.d/broken.toml"), "engine = 1\n").expect("written");
    for verb in [&["reload"][..], &["check", "--root", bench.folder.to_str().expect("a path")][..]] {
        let broken = bench.poolctl(&[&["--json"], verb].concat()).await;
        let (from, value, ended) = error(&broken);
        assert_eq!((from, ended), ("stdout", 2), "{value}");
        let file = value["errors"][0]["file"].as_str().expect("a path");
        assert!(file.ends_with("broken.toml"), "{value}");
    }
}

#[tokio::test]
async fn where_no_daemon_runs_errors_say_so() {
    let bench = Bench::new().await;
    let away = bench.poolctl(&["list", "--json"]).await;
    let (_, value, ended) = error(&away);
    assert_eq!((value["error"]["code"].as_str(), ended), (Some("daemon-away"), 9), "{value}");
}

/// A `poolctl watch` that runs, and its lines.
struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    fn begin(bench: &Bench, arguments: &[&str]) -> Watch {
        let mut command = bench.poolctl_command(&[&["watch"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let out = child.stdout.take().expect("a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                if sender.send(line.expect("text")).is_err() {
                    return;
                }
            }
        });
        Watch { child, lines }
    }

    /// The next line, within a time in which it should come.
    async fn line(&self) -> String {
        let mut got = None;
        wait_until("a line comes", async || {
            got = got.take().or_else(|| self.lines.try_recv().ok());
            got.is_some()
        })
        .await;
        got.expect("a line")
    }

    async fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.line().await;
            if wanted(&line) {
                return line;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().expect("it ends");
        }
    }
}

#[tokio::test]
async fn watch_tells_what_happens_a_line_for_each_event_and_over_a_restart() {
    let (bench, daemon) = serving().await;
    let watch = Watch::begin(&bench, &[]);
    let first = watch.line().await;
    assert!(first.ends_with(" UTC  pool-managerd is there"), "{first}");
    assert!(watch.line().await.ends_with(" UTC  a: ready"));
    bench.api().stop("a").await.expect("a job").wait().await.expect("it ends");
    let line = watch.until(|line| line.contains(": job ") && line.contains(" is done")).await;
    assert!(line.contains("a: job ") && line.contains("(stop)"), "{line}");
    drop(daemon);
    watch.until(|line| line.ends_with("pool-managerd is not there")).await;
    let _daemon = bench.daemon().await;
    watch.until(|line| line.ends_with("pool-managerd is there again")).await;
    bench.api().start("a").await.expect("a job").wait().await.expect("it ends");
    let ready = watch.until(|line| line.contains("a: ") && line.contains("-> ready")).await;
    assert!(!ready.contains('\u{1b}'), "no colour in a pipe: {ready}");
}

#[tokio::test]
async fn watch_prints_an_object_on_each_line_of_the_pools_that_were_named() {
    let (bench, _daemon) = serving().await;
    bench.pool_file("b", SETTLE);
    let watch = Watch::begin(&bench, &["b", "--json"]);
    let next = async || parsed(watch.line().await.as_bytes());
    let came = next().await;
    assert_eq!((came["event"].as_str(), &came["pools"]), (Some("daemon-came"), &json!([])), "{came}");
    assert!(came["timestamp"].as_u64().is_some_and(|time| time > 1_700_000_000_000_000), "{came}");
    bench.api().stop("a").await.expect("a job").wait().await.expect("it ends");
    bench.api().reload().await.expect("reloaded");
    let added = next().await;
    assert_eq!((added["event"].as_str(), added["pool"].as_str()), (Some("pool-added"), Some("b")), "{added}");
    loop {
        let event = next().await;
        assert_eq!(event["pool"], "b", "{event}");
        if event["event"] == "health-changed" && event["ready"] == true {
            break;
        }
    }
}

#[tokio::test]
async fn watch_ends_when_nobody_reads_any_more() {
    let (bench, _daemon) = serving().await;
    let mut command = bench.poolctl_command(&["watch", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let (read, out) = tokio::task::spawn_blocking(move || {
        let read = out.read_line(&mut line).map(|_| line);
        (read, out)
    })
    .await
    .expect("read");
    assert!(read.expect("a line").contains("daemon-came"));
    drop(out);
    bench.api().stop("a").await.expect("a job").wait().await.expect("it ends");
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(ended.await.expect("it ends").success());
}

/// What a command prints to a terminal, which `script` makes for it.
async fn on_a_terminal(bench: &Bench, arguments: &str, environment: [(&str, &str); 2]) -> String {
    let mut command = std::process::Command::new("script");
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_poolctl"));
    command
        .args(["-qec", &line, "/dev/null"])
        .env("DBUS_SYSTEM_BUS_ADDRESS", &bench.bus.address)
        .envs(environment)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran");
    String::from_utf8_lossy(&output.expect("script is there").stdout).into_owned()
}

#[tokio::test]
async fn on_a_terminal_phases_are_in_colour_for_those_who_want_it() {
    let (bench, _daemon) = serving().await;
    let ready = "\u{1b}[32mready\u{1b}[0m";
    for arguments in ["list", "status a", "explain a"] {
        let said = on_a_terminal(&bench, arguments, [("TERM", "xterm"), ("NO_COLOR", "")]).await;
        assert!(said.contains(ready), "{arguments}: {said:?}");
        for plain in [[("TERM", "dumb"), ("NO_COLOR", "")], [("TERM", "xterm"), ("NO_COLOR", "1")]] {
            let said = on_a_terminal(&bench, arguments, plain).await;
            assert!(said.contains("ready") && !said.contains('\u{1b}'), "{arguments}: {said:?}");
        }
        let json = format!("{arguments} --json");
        let said = on_a_terminal(&bench, &json, [("TERM", "xterm"), ("NO_COLOR", "")]).await;
        assert!(said.contains("ready") && !said.contains('\u{1b}'), "{json}: {said:?}");
        let piped = bench.poolctl(&arguments.split(' ').collect::<Vec<_>>()).await;
        assert!(!piped.stdout.contains(&0x1b), "{arguments}: {piped:?}");
    }
}
