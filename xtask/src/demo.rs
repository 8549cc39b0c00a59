//! The product in two minutes, as an operator meets it: installed, a pool made ready, an engine and the daemon killed.
//!
//! Every step says what it expects and shows what really happened; the first one that doesn't hold ends the demo, with
//! the journal's end. It runs in a sandbox of the release that has a packaged llama-server, with a tiny model.

use std::io::BufRead;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::dist::{self, Place};
use crate::failure::Failure;
use crate::gguf;
use crate::host;
use crate::image::{self, Recipe, Suite};
use crate::sandbox::{self, Process, Sandbox};
use crate::test_levels;

/// Name of the sandbox.
pub const NAME: &str = "demo";

const SUITE: Suite = Suite::Forky;
const POOL_FILE: &str = r#"engine  = "llama-cpp"
model   = "file:/srv/models/tiny.gguf"
devices = ["none"]
args    = ["--ctx-size", "512"]
"#;
const BUS_NAME: &str = "org.llamaorch.PoolManager";
const ROOT: &str = "/org/llamaorch/PoolManager";
const POOL: &str = "/org/llamaorch/PoolManager/pool/demo";

/// How long anything that is waited for may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs the demo. With `keep`, the sandbox outlives it.
pub fn run(keep: bool) -> Result<(), Failure> {
    let begun = Instant::now();
    let makes = [
        format!("a {SUITE} tree in {} (once)", image::cache_dir()?.display()),
        "release binaries and a package in target/".to_owned(),
        format!(
            "a sandbox in target/sandbox, removed at the end{}",
            if keep { " of `shell --stop`" } else { "" }
        ),
    ];
    host::prepare("cargo xtask demo", &test_levels::system_needs(), &test_levels::system_tools(), &makes)?;
    for machine in sandbox::stop_kept(Some(NAME))? {
        println!("(stopped {machine}, which an earlier demo had kept)");
    }
    // The tree is downloaded while the binaries are built.
    let image = thread::spawn(|| image::ensure(Recipe::System(SUITE)));
    let package = dist::package(Place::default())?;
    image.join().map_err(|_| Failure::Broken("making the tree panicked".to_owned()))??;
    println!("built {} after {:.1} s", package.display(), begun.elapsed().as_secs_f64());
    let sandbox = Sandbox::boot(SUITE, NAME)?;
    println!("booted {SUITE} as {} in {:.2} s", sandbox.machine(), sandbox.boot_time().as_secs_f64());

    let mut demo = Demo { sandbox: &sandbox, step: 0 };
    let shown = demo.show(&package);
    if let Err(failure) = &shown {
        eprintln!("\nThis step does not hold: {failure}\n");
        eprintln!("{}", sandbox.journal(&["--lines=60"]).unwrap_or_default());
    } else {
        println!("\nEvery step held. {:.1} s in all.", begun.elapsed().as_secs_f64());
    }
    if keep {
        sandbox.keep()?;
        println!(
            "\nThe sandbox runs on. Enter it, and end it, with:\n  cargo xtask shell\n  cargo xtask shell --stop"
        );
    }
    shown
}

struct Demo<'a> {
    sandbox: &'a Sandbox,
    step: u32,
}

impl Demo<'_> {
    fn show(&mut self, package: &Path) -> Result<(), Failure> {
        self.install(package)?;
        self.configure()?;
        self.become_ready()?;
        self.ask_the_bus()?;
        self.complete()?;
        self.kill_the_engine()?;
        self.kill_the_daemon()?;
        self.read_the_journal()
    }

    fn heading(&mut self, title: &str, expected: &str) {
        self.step += 1;
        println!("\n== {}. {title}\n   expected: {expected}", self.step);
    }

    /// Runs a command line as an operator would, and shows it.
    fn type_in(&self, line: &str) -> Result<String, Failure> {
        println!("   # {line}");
        let output = self.sandbox.shell(line)?;
        for line in output.lines() {
            println!("   {line}");
        }
        Ok(output)
    }

    fn install(&mut self, package: &Path) -> Result<(), Failure> {
        self.heading("Install the package", "the daemon is running, and knows of no pool");
        let name = package.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.sandbox.copy_in(package, &format!("/root/{name}"))?;
        self.type_in(&format!("cd; apt-get install --yes -qq ./{name} 2>&1 | grep -v '^(Reading'"))?;
        self.type_in("systemctl show pool-managerd -p ActiveState -p StatusText")?;
        let state = self.sandbox.shell("systemctl is-active pool-managerd || true")?;
        expect(state.trim() == "active", || format!("pool-managerd is {}", state.trim()))
    }

    fn configure(&mut self) -> Result<(), Failure> {
        self.heading("Write a pool file", "`poolctl check` has nothing against it");
        self.sandbox.write("/srv/models/tiny.gguf", gguf::tiny_llama(), 0o644)?;
        self.sandbox.write("/etc/llamaorch/pools.d/demo.toml", POOL_FILE, 0o644)?;
        self.type_in("cat /etc/llamaorch/pools.d/demo.toml")?;
        self.type_in("poolctl check").map(drop)
    }

    fn become_ready(&mut self) -> Result<(), Failure> {
        self.heading("Start serving", "staging, starting, ready, as the bus reports them");
        let watch = Watch::begin(self.sandbox)?;
        let (begun, begun_at) = (Instant::now(), SystemTime::now());
        self.type_in("systemctl reload pool-managerd")?;
        self.type_in("poolctl wait demo")?;
        let ready = begun.elapsed();
        let phases = watch.end()?;
        for change in &phases {
            let after = change.at.duration_since(begun_at).unwrap_or_default();
            println!("   {:>7.1} ms  {:<10} {}", after.as_secs_f64() * 1e3, change.phase, change.detail);
        }
        println!(
            "   (`poolctl wait` returned {:.1} ms after the reload was typed)",
            ready.as_secs_f64() * 1e3
        );
        let last = phases.last().map(|change| change.phase.as_str());
        expect(last == Some("ready"), || {
            format!("the bus reported {phases:?}, which does not end in ready")
        })?;
        self.type_in("poolctl list").map(drop)
    }

    fn ask_the_bus(&mut self) -> Result<(), Failure> {
        self.heading("Ask the bus", "phase \"ready\"; live and ready both true");
        let phase = self.type_in(&format!(
            "busctl get-property {BUS_NAME} {POOL} {BUS_NAME}.Pool Phase Ready Endpoints"
        ))?;
        expect(phase.contains("s \"ready\"") && phase.contains("b true"), || {
            "the pool is not ready".to_owned()
        })?;
        let health = self.type_in(&format!("busctl call {BUS_NAME} {ROOT} {BUS_NAME} GetHealth s demo"))?;
        expect(health.trim() == "bb true true", || format!("GetHealth says {health}"))
    }

    fn complete(&mut self) -> Result<(), Failure> {
        self.heading(
            "Let it write",
            "16 tokens by the engine itself (nonsense: the model's weights are random)",
        );
        let pool = self.status()?;
        let endpoint = text(&pool, "/endpoints/0")?;
        let request = r#"{"prompt": "Hello", "n_predict": 16, "ignore_eos": true, "seed": 1}"#;
        let line = format!("curl -sS --fail {endpoint}/completion -d '{request}'");
        println!("   # {line}");
        let answer: Value = json(&self.sandbox.shell(&line)?)?;
        println!("   content: {}", answer.get("content").unwrap_or(&Value::Null));
        println!("   tokens_predicted: {}", answer.get("tokens_predicted").unwrap_or(&Value::Null));
        let tokens = answer.get("tokens_predicted").and_then(Value::as_u64);
        expect(tokens == Some(16), || format!("it predicted {tokens:?} tokens"))
    }

    fn kill_the_engine(&mut self) -> Result<(), Failure> {
        self.heading("Kill the engine", "it is back by itself: another PID, restart count 1, ready again");
        let before = Replica::of(&self.status()?)?;
        let begun = Instant::now();
        self.type_in(&format!("kill -KILL {}", before.main_pid))?;
        let (pool, after) = self.await_pool("the engine is back", |pool| {
            let replica = Replica::of(pool).ok()?;
            let back = pool.get("ready") == Some(&Value::Bool(true)) && replica.main_pid != before.main_pid;
            back.then_some(replica)
        })?;
        println!(
            "   ready again after {:.2} s (the backoff before a first restart is 1 s)",
            begun.elapsed().as_secs_f64()
        );
        println!("   PID {} -> {}", before.main_pid, after.main_pid);
        println!("   last error: {} ({})", text(&pool, "/last_error")?, text(&pool, "/last_error_class")?);
        let count = pool.get("restart_count").and_then(Value::as_u64);
        println!("   restart count: {}", count.unwrap_or_default());
        expect(count == Some(1), || format!("the restart count is {count:?}"))
    }

    fn kill_the_daemon(&mut self) -> Result<(), Failure> {
        self.heading(
            "Kill the daemon",
            "the daemon is back, and the engine never noticed: same PID, same invocation",
        );
        let before = Replica::of(&self.status()?)?;
        let daemon = self.daemon_pid()?;
        let begun = Instant::now();
        self.type_in("systemctl kill --kill-whom=main --signal=KILL pool-managerd")?;
        let (_, after) = self.await_pool("the daemon is back", |pool| {
            (pool.get("ready") == Some(&Value::Bool(true))
                && self.daemon_pid().is_ok_and(|pid| pid != daemon))
            .then(|| Replica::of(pool).ok())
            .flatten()
        })?;
        println!("   the daemon answers again after {:.2} s", begun.elapsed().as_secs_f64());
        println!("   daemon PID {daemon} -> {}", self.daemon_pid()?);
        println!("   engine PID {} -> {}", before.main_pid, after.main_pid);
        println!("   engine invocation {} -> {}", before.invocation, after.invocation);
        let in_systemd =
            self.sandbox.check(&["systemctl", "show", "--value", "-p", "InvocationID", &after.unit])?;
        let same = after == before && in_systemd.trim() == before.invocation;
        expect(same, || format!("{before:?} became {after:?}, and systemd says {}", in_systemd.trim()))
    }

    fn read_the_journal(&mut self) -> Result<(), Failure> {
        self.heading("Read its story", "the daemon's lines and the engine's, under one field");
        let story = self.type_in("journalctl POOL_ID=demo --no-pager -n 40")?;
        expect(story.lines().count() > 5, || "the journal has almost nothing for POOL_ID=demo".to_owned())
    }

    fn daemon_pid(&self) -> Result<u32, Failure> {
        let pid = self.sandbox.check(&["systemctl", "show", "--value", "-p", "MainPID", "pool-managerd"])?;
        match pid.trim().parse() {
            Ok(pid) if pid > 0 => Ok(pid),
            _ => Err(Failure::Broken("the daemon has no main process".to_owned())),
        }
    }

    fn status(&self) -> Result<Value, Failure> {
        json(&self.sandbox.check(&["poolctl", "status", "demo", "--json"])?)
    }

    /// Asks for the pool until `found` is satisfied with it.
    fn await_pool<T>(&self, what: &str, found: impl Fn(&Value) -> Option<T>) -> Result<(Value, T), Failure> {
        let begun = Instant::now();
        loop {
            // The daemon may be away just now.
            let output = self.sandbox.run(&["poolctl", "status", "demo", "--json"])?;
            let pool = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
            if let Some(answer) = found(&pool) {
                return Ok((pool, answer));
            }
            if begun.elapsed() > LIMIT {
                return Err(Failure::Broken(format!(
                    "{what}: not within {} s; the pool is {pool}",
                    LIMIT.as_secs()
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The one engine of the demo's pool.
#[derive(Debug, PartialEq, Eq)]
struct Replica {
    unit: String,
    main_pid: u64,
    invocation: String,
}

impl Replica {
    fn of(pool: &Value) -> Result<Self, Failure> {
        let main_pid = pool.pointer("/replicas/0/main_pid").and_then(Value::as_u64).filter(|&pid| pid > 0);
        Ok(Self {
            unit: text(pool, "/replicas/0/unit")?,
            main_pid: main_pid.ok_or_else(|| Failure::Broken("the pool's engine has no PID".to_owned()))?,
            invocation: text(pool, "/replicas/0/invocation_id")?,
        })
    }
}

/// One change of the pool's phase, as the bus reported it.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    at: SystemTime,
    phase: String,
    detail: String,
}

/// `busctl monitor`, read to the end of the demo's step.
struct Watch {
    monitor: Process,
    reader: thread::JoinHandle<Vec<Change>>,
}

impl Watch {
    fn begin(sandbox: &Sandbox) -> Result<Self, Failure> {
        let mut monitor = sandbox.spawn(&["busctl", "monitor", "--json=short", "--quiet", BUS_NAME])?;
        let lines = monitor.stdout();
        let reader = thread::spawn(move || {
            let lines = lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok);
            lines.filter_map(|line| change_in(&serde_json::from_str(&line).ok()?)).collect()
        });
        // In JSON the monitor doesn't say when it is ready to see; it takes a few milliseconds.
        thread::sleep(Duration::from_millis(300));
        Ok(Self { monitor, reader })
    }

    fn end(self) -> Result<Vec<Change>, Failure> {
        thread::sleep(Duration::from_millis(100));
        drop(self.monitor);
        self.reader.join().map_err(|_| Failure::Broken("the bus monitor's reader panicked".to_owned()))
    }
}

/// The change of the pool's phase that a message on the bus tells of, if it does.
fn change_in(message: &Value) -> Option<Change> {
    let body = message.pointer("/payload/data")?;
    let interface = format!("{BUS_NAME}.Pool");
    let properties = match message.get("member")?.as_str()? {
        "PropertiesChanged" if message.get("path")? == POOL && body.get(0)? == interface.as_str() => {
            body.get(1)?
        }
        "InterfacesAdded" if body.get(0)? == POOL => body.get(1)?.get(&interface)?,
        _ => return None,
    };
    let word = |pointer| properties.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let realtime = message.get("timestamp-realtime").and_then(Value::as_u64).unwrap_or_default();
    Some(Change {
        at: UNIX_EPOCH + Duration::from_micros(realtime),
        phase: word("/Phase/data")?,
        detail: word("/Detail/data").unwrap_or_default(),
    })
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds {
        println!("   ok");
        return Ok(());
    }
    Err(Failure::Broken(otherwise()))
}

fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::Broken(format!("no JSON ({error}): {text}")))
}

fn text(value: &Value, pointer: &str) -> Result<String, Failure> {
    let found = value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| Failure::Broken(format!("no {pointer} in {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn phases_are_read_from_changes_and_from_new_objects() {
        let changed = json!({"path": POOL, "member": "PropertiesChanged", "timestamp-realtime": 5, "payload": {"data":
            ["org.llamaorch.PoolManager.Pool", {"Phase": {"type": "s", "data": "starting"}}, []]}});
        let at = UNIX_EPOCH + Duration::from_micros(5);
        let expected = Change { at, phase: "starting".to_owned(), detail: String::new() };
        assert_eq!(change_in(&changed), Some(expected));
        let added = json!({"path": ROOT, "member": "InterfacesAdded", "payload": {"data":
            [POOL, {"org.llamaorch.PoolManager.Pool": {"Phase": {"data": "staging"}, "Detail": {"data": "why"}}}]}});
        let change = change_in(&added).expect("a change");
        assert_eq!((change.phase.as_str(), change.detail.as_str()), ("staging", "why"));
        let other = json!({"path": "/x", "member": "PropertiesChanged", "payload": {"data": []}});
        assert_eq!(change_in(&other), None);
    }

    #[test]
    fn a_replica_without_a_process_is_none() {
        let pool = json!({"replicas": [{"unit": "u", "main_pid": 0, "invocation_id": "ab"}]});
        assert!(Replica::of(&pool).is_err());
        let pool = json!({"replicas": [{"unit": "u", "main_pid": 7, "invocation_id": "ab"}]});
        assert_eq!(Replica::of(&pool).expect("a replica").main_pid, 7);
    }
}
