//! The machine under test: a sandbox with systemd as PID 1 and the built package installed, one for all tests of a run.
//! Tests take turns on it, so that what one measures is not what another one does.

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use xtask::image::Suite;
use xtask::sandbox::{Bus, Sandbox};
use zbus::wire::DynamicDeserialize;
use zbus::{Connection, MatchRule, MessageStream, OwnedVariant, Variant};

pub const NAME: &str = "org.llamaorch.PoolManager";
pub const ROOT: &str = "/org/llamaorch/PoolManager";
pub const POOL: &str = "org.llamaorch.PoolManager.Pool";
pub const REPLICA: &str = "org.llamaorch.PoolManager.Replica";
pub const MODEL: &str = "/srv/models/tiny.gguf";

/// Long enough for anything that should happen, short enough that a failure does not take the night.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Host {
    pub sandbox: Sandbox,
    pub runtime: Runtime,
    pub bus: Connection,
}

/// A test's turn on the host.
pub struct Turn {
    host: &'static Host,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Host;

    fn deref(&self) -> &Host {
        self.host
    }
}

pub fn host() -> Turn {
    host_with(Bus::Broker)
}

/// The one whose system bus is that program.
pub fn host_with(bus: Bus) -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    static BROKER: OnceLock<Host> = OnceLock::new();
    static DAEMON: OnceLock<Host> = OnceLock::new();
    let host = match bus {
        Bus::Broker => &BROKER,
        Bus::Daemon => &DAEMON,
    };
    // A test that failed has said so; the others go on.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { host: host.get_or_init(|| Host::boot("system", bus)), _turn: turn }
}

fn from_environment(name: &str) -> PathBuf {
    let value = env::var_os(name);
    value
        .unwrap_or_else(|| {
            panic!("{name} is not set: run these tests with `cargo xtask test --level system`")
        })
        .into()
}

impl Host {
    /// A machine of that name, for a test that must not share the one that `host` has.
    pub fn boot(name: &str, bus: Bus) -> Host {
        let suite: Suite = env::var("POOL_TEST_SUITE").unwrap_or_else(|_| "forky".into()).parse().unwrap();
        let package = from_environment("POOL_TEST_PACKAGE");
        let engine = from_environment("POOL_TEST_CONFORMANCE");
        let sandbox = Sandbox::boot_with(suite, name, bus).expect("the sandbox boots");
        sandbox.install_package(&package).unwrap();
        sandbox.copy_in(&engine, "/usr/local/bin/conformance-engine").unwrap();
        sandbox.write(MODEL, xtask::gguf::tiny_llama(), 0o644).unwrap();
        sandbox.write("/etc/llamaorch/engines.d/conformance.toml", CONFORMANCE, 0o644).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let socket = sandbox.root().join("run/dbus/system_bus_socket");
        let address = format!("unix:path={}", socket.display());
        let bus = runtime.block_on(zbus::connection::Builder::address(address.as_str()).build()).unwrap();
        Host { sandbox, runtime, bus }
    }

    /// Whether this release has a real llama-server.
    pub fn has_llama(&self) -> bool {
        self.sandbox.suite() == Suite::Forky
    }

    /// The same for a test that is about it: where there is none it says so, in words that `cargo xtask test` counts.
    pub fn has_llama_to_test(&self) -> bool {
        if self.has_llama() {
            return true;
        }
        assert!(self.run(&["which", "llama-server"]).stdout.is_empty(), "llama-server is there: test it");
        println!(
            "{} on {}: no llama-server; forky runs it",
            xtask::test_levels::LEFT_OUT,
            self.sandbox.suite()
        );
        false
    }

    pub fn shell(&self, script: &str) -> String {
        self.sandbox.shell(script).unwrap()
    }

    pub fn run(&self, argv: &[&str]) -> Output {
        self.sandbox.run(argv).unwrap()
    }

    /// A pool with this file. It goes, with its engines, when the value goes.
    pub fn pool(&self, id: &str, file: &str) -> Pool<'_> {
        let path = format!("/etc/llamaorch/pools.d/{id}.toml");
        self.sandbox.write(&path, file, 0o644).unwrap();
        self.reload();
        Pool { host: self, id: id.to_owned() }
    }

    /// A pool of the conformance engine with these arguments.
    pub fn conformance(&self, id: &str, args: &[&str]) -> Pool<'_> {
        self.pool(id, &conformance_file(args))
    }

    /// A pool of the best engine that there is.
    pub fn serving(&self, id: &str) -> Pool<'_> {
        let file = if self.has_llama() { llama_file() } else { conformance_file(&[]) };
        let pool = self.pool(id, &file);
        pool.wait_ready();
        pool
    }

    /// Has the files read again; what was added, changed, removed.
    pub fn reload(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        self.manager("ReloadConfiguration", &())
    }

    pub fn call<B, R>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<R, zbus::Error>
    where
        B: serde::Serialize + zbus::DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.runtime.block_on(async {
            let reply = self.bus.call_method(Some(NAME), path, Some(interface), method, body).await?;
            let body = reply.body();
            body.deserialize()
        })
    }

    pub fn manager<B, R>(&self, method: &str, body: &B) -> R
    where
        B: serde::Serialize + zbus::DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.call(ROOT, NAME, method, body).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub fn property<T>(&self, path: &str, interface: &str, name: &str) -> T
    where
        T: TryFrom<OwnedVariant>,
        T::Error: std::fmt::Debug,
    {
        let value: OwnedVariant = self
            .call(path, "org.freedesktop.DBus.Properties", "Get", &(interface, name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        T::try_from(value).unwrap()
    }

    /// Polls until it holds; with the daemon's journal where it never does.
    pub fn wait_until(&self, what: &str, holds: impl FnMut() -> bool) {
        self.wait_for(what, SOON, holds);
    }

    pub fn wait_for(&self, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            if begun.elapsed() > limit {
                let journal = self.sandbox.journal(&["-n", "60"]).unwrap();
                panic!("after {limit:?} it still does not hold: {what}\n{journal}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn poolctl(&self, args: &[&str]) -> Output {
        self.run(&[&["poolctl"], args].concat())
    }

    /// Everything that the daemon signals from now on.
    pub fn listen(&self) -> Signals<'_> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let ready = self.runtime.block_on(async {
            let rule =
                MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(NAME).build().unwrap();
            MessageStream::for_match_rule(rule, &self.bus, None).await.unwrap()
        });
        let task = self.runtime.spawn(forward(ready, sender));
        Signals { host: self, receiver, task }
    }

    /// The host's PID of a process of the sandbox.
    pub fn host_pid(&self, inner: u32) -> Pid {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(&self.sandbox.leader_pid().to_string());
        let found = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let outer: i32 = name.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
            let last: u32 = ids.split_whitespace().next_back()?.parse().ok()?;
            (last == inner && namespace(&name) == ours).then_some(outer)
        });
        Pid::from_raw(found.unwrap_or_else(|| panic!("no process {inner} in the sandbox")))
    }

    pub fn kill(&self, inner: u32, signal: Signal) {
        kill(self.host_pid(inner), signal).unwrap();
    }

    pub fn daemon_pid(&self) -> u32 {
        self.shell("systemctl show -P MainPID pool-managerd").trim().parse().unwrap()
    }

    /// Kills the daemon and waits until another one serves.
    pub fn kill_daemon(&self) {
        let before = self.daemon_pid();
        self.kill(before, Signal::SIGKILL);
        self.wait_daemon(before);
    }

    pub fn wait_daemon(&self, before: u32) {
        self.wait_until("the daemon is back", || {
            let state = self.shell("systemctl show -P ActiveState -P MainPID pool-managerd");
            let mut words = state.split_whitespace();
            let pid = words.clone().find_map(|word| word.parse::<u32>().ok()).unwrap_or(0);
            words.any(|word| word == "active") && pid != before && pid != 0
        });
    }

    /// The names of all services of ours, loaded or failed. The slices of pools stay when nothing is in them any more.
    pub fn units(&self) -> Vec<String> {
        let listed = self.shell("systemctl list-units --all --plain --no-legend 'llamaorch-*.service'");
        listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    pub fn http(&self, method: &str, url: &str) -> (u32, String) {
        let output = self.run(&["curl", "-s", "-m", "10", "-X", method, "-w", "\n%{http_code}", url]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or_default();
        (code.parse().unwrap_or(0), body.to_owned())
    }
}

pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

async fn forward(mut stream: MessageStream, sender: mpsc::UnboundedSender<Said>) {
    use futures_util::StreamExt;
    while let Some(Ok(message)) = stream.next().await {
        let at = monotonic();
        let header = message.header();
        let path = header.path().map(ToString::to_string).unwrap_or_default();
        let member = header.member().map(ToString::to_string).unwrap_or_default();
        let mut signal = Said { at, path, interface: String::new(), changed: HashMap::new() };
        if member == "PropertiesChanged" {
            let body = message.body();
            let (interface, changed, _): (&str, HashMap<String, Variant<'_>>, Vec<&str>) =
                body.deserialize().unwrap();
            signal.interface = interface.to_owned();
            signal.changed =
                changed.into_iter().map(|(name, value)| (name, value.try_to_owned().unwrap())).collect();
        }
        if sender.send(signal).is_err() {
            return;
        }
    }
}

/// A signal of the daemon.
#[derive(Debug)]
pub struct Said {
    pub at: Duration,
    pub path: String,
    pub interface: String,
    pub changed: HashMap<String, OwnedVariant>,
}

pub struct Signals<'a> {
    host: &'a Host,
    receiver: mpsc::UnboundedReceiver<Said>,
    task: tokio::task::JoinHandle<()>,
}

impl Signals<'_> {
    pub fn next(&mut self) -> Option<Said> {
        let limited = async { tokio::time::timeout(SOON, self.receiver.recv()).await };
        self.host.runtime.block_on(limited).ok().flatten()
    }

    /// When a boolean property of an object was signalled to have this value.
    pub fn when(&mut self, path: &str, property: &str, value: bool) -> Duration {
        let mut seen = String::new();
        while let Some(signal) = self.next() {
            let said = signal.changed.get(property).and_then(|value| bool::try_from(value).ok());
            if signal.path == path && said == Some(value) {
                return signal.at;
            }
            writeln!(seen, "{signal:?}").unwrap();
        }
        panic!("{path} never signalled {property} = {value}; seen:\n{seen}");
    }
}

impl Drop for Signals<'_> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct Pool<'a> {
    pub host: &'a Host,
    pub id: String,
}

impl Pool<'_> {
    pub fn path(&self) -> String {
        format!("{ROOT}/pool/{}", pool_core::name::path_element(&self.id))
    }

    pub fn replica_path(&self, index: u32) -> String {
        format!("{ROOT}/replica/{}", pool_core::name::path_element(&format!("{}-r{index}", self.id)))
    }

    pub fn text(&self, property: &str) -> String {
        self.host.property(&self.path(), POOL, property)
    }

    pub fn flag(&self, property: &str) -> bool {
        self.host.property(&self.path(), POOL, property)
    }

    pub fn number(&self, property: &str) -> u32 {
        self.host.property(&self.path(), POOL, property)
    }

    pub fn main_pid(&self, index: u32) -> u32 {
        self.host.property(&self.replica_path(index), REPLICA, "MainPid")
    }

    pub fn unit(&self, index: u32) -> String {
        self.host.property(&self.replica_path(index), REPLICA, "Unit")
    }

    pub fn invocation(&self, index: u32) -> Vec<u8> {
        self.host.property(&self.replica_path(index), REPLICA, "InvocationId")
    }

    pub fn endpoint(&self) -> String {
        let endpoints: Vec<String> = self.host.property(&self.path(), POOL, "Endpoints");
        endpoints.first().cloned().unwrap_or_else(|| panic!("{} has no endpoint", self.id))
    }

    pub fn wait_ready(&self) {
        let limit = u64::try_from(SOON.as_micros()).unwrap();
        if let Err(error) = self.host.call::<_, ()>(ROOT, NAME, "WaitReady", &(self.id.as_str(), limit)) {
            panic!("{}: {error}\n{}", self.id, self.host.sandbox.journal(&["-n", "60"]).unwrap());
        }
    }

    pub fn wait_phase(&self, phase: &str) {
        self.host.wait_until(&format!("{} is {phase}", self.id), || self.text("Phase") == phase);
    }

    /// Starts it as an operator does, and ends a backoff with that.
    pub fn start(&self) {
        let options: HashMap<&str, Variant<'_>> = HashMap::new();
        let _job: zbus::OwnedObjectPath = self.host.manager("StartPool", &(self.id.as_str(), options));
    }

    /// Stops it and waits for that.
    pub fn stop(&self) -> String {
        let options: HashMap<&str, Variant<'_>> = HashMap::new();
        let job: zbus::OwnedObjectPath = self.host.manager("StopPool", &(self.id.as_str(), options));
        self.host.call(job.as_str(), "org.llamaorch.PoolManager.Job", "Wait", &()).unwrap()
    }

    pub fn write_file(&self, file: &str) {
        self.host.sandbox.write(&format!("/etc/llamaorch/pools.d/{}.toml", self.id), file, 0o644).unwrap();
    }

    pub fn remove_file(&self) {
        self.host.shell(&format!("rm -f /etc/llamaorch/pools.d/{}.toml", self.id));
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.remove_file();
        if std::thread::panicking() {
            // The failure is what matters; the next test must not find this pool.
            let reloaded = self.host.sandbox.run(&["poolctl", "reload"]);
            println!("removed pool {}: {}", self.id, reloaded.is_ok());
            return;
        }
        // Without the file it would be drained, which takes its time; stopped first, it has nothing to drain.
        let options: HashMap<&str, Variant<'_>> = HashMap::new();
        let stopped =
            self.host.call::<_, zbus::OwnedObjectPath>(ROOT, NAME, "StopPool", &(self.id.as_str(), options));
        if let Err(error) = stopped {
            println!("{} was not there to be stopped: {error}", self.id);
        }
        self.host.reload();
        let prefix = format!("llamaorch-engine-{}-r", self.id);
        self.host.wait_for("the pool's units are gone", Duration::from_secs(45), || {
            self.host.units().iter().all(|unit| !unit.starts_with(&prefix))
        });
    }
}

const CONFORMANCE: &str = r#"
program = "/usr/local/bin/conformance-engine"
args = ["--model", "{model}"]
version_args = ["--version"]
[listen.tcp]
args = ["--host", "{host}", "--port", "{port}"]
[listen.unix]
args = ["--host", "{socket}"]
[health]
path = "/health"
[progress]
path = "/metrics"
in_flight = ["conformance:in_flight"]
counters = ["conformance:steps_total"]
[slots]
path = "/props"
pointer = "/total_slots"
"#;

pub fn conformance_file(args: &[&str]) -> String {
    format!("engine = \"conformance\"\nmodel = \"file:{MODEL}\"\ndevices = [\"none\"]\nargs = {args:?}\n")
}

pub fn llama_file() -> String {
    format!(
        "engine = \"llama-cpp\"\nmodel = \"file:{MODEL}\"\ndevices = [\"none\"]\nargs = [\"--ctx-size\", \"512\"]\n"
    )
}

/// The median, and all values for the log.
pub fn median(what: &str, mut values: Vec<Duration>) -> Duration {
    values.sort();
    let median = values[values.len() / 2];
    println!(
        "{what}: median {median:?} of {}, from {:?} to {:?}",
        values.len(),
        values[0],
        values[values.len() - 1]
    );
    median
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
