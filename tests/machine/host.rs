//! The machine under test: one for all tests of a run, with the built package installed and a pool that others are to
//! leave alone.

use serde_json::Value;
use std::env;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use xtask::image::Suite;
use xtask::machine::{Machine, Start};

/// Long enough for anything that should happen in an emulated machine on a busy host.
pub const SOON: Duration = Duration::from_secs(120);
/// A model that everybody may read, and the only one that pools of these tests need.
pub const MODEL: &str = "/srv/models/tiny.gguf";
pub const HOSTILE: &str = "/usr/local/bin/hostile-engine";

pub struct Host {
    pub machine: Machine,
}

/// The machine. The first test boots it.
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(Host::boot)
}

/// Held by tests that measure or change what all engines share.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has said so; the others go on.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn from_environment(name: &str) -> PathBuf {
    let value = env::var_os(name);
    value
        .unwrap_or_else(|| {
            panic!("{name} is not set: run these tests with `cargo xtask test --level machine`")
        })
        .into()
}

impl Host {
    fn boot() -> Host {
        let suite: Suite =
            env::var("POOL_TEST_SUITE").unwrap_or_else(|_| "forky".into()).parse().expect("a release");
        let (package, agent) = (from_environment("POOL_TEST_PACKAGE"), from_environment("POOL_TEST_AGENT"));
        let start = Start { suite, name: "tests", package: &package, agent: &agent };
        let machine = Machine::boot(&start).expect("the machine boots");
        println!(
            "{suite}: {} after {:.1} s, {}; {}",
            machine.check(&["uname", "-r"]).expect("a kernel").trim(),
            machine.boot_time().as_secs_f64(),
            machine.accelerator().name(),
            machine.check(&["systemctl", "--version"]).expect("a version").lines().next().unwrap_or_default()
        );
        for (name, variable) in [("conformance", "POOL_TEST_CONFORMANCE"), ("hostile", "POOL_TEST_HOSTILE")] {
            let program = format!("/usr/local/bin/{name}-engine");
            machine.copy_in(&from_environment(variable), &program).expect("copied");
            let template = TEMPLATE.replace("PROGRAM", &program);
            machine
                .write(&format!("/etc/llamaorch/engines.d/{name}.toml"), template, 0o644)
                .expect("written");
        }
        machine.write(MODEL, xtask::gguf::tiny_llama(), 0o644).expect("written");
        Host { machine }
    }

    pub fn suite(&self) -> Suite {
        self.machine.suite()
    }

    pub fn shell(&self, script: &str) -> String {
        self.machine.shell(script).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn run(&self, argv: &[&str]) -> Output {
        self.machine.run(argv).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A pool of an engine with these arguments, ready. It stays: stopping takes time, and nobody needs its name.
    pub fn pool(&self, id: &str, engine: &str, args: &[&str], more: &str) -> Pool<'_> {
        let pool = self.new_pool(id, engine, args, more);
        let limit = format!("{}s", SOON.as_secs());
        let waited = self.run(&["poolctl", "wait", "--timeout", &limit, id]);
        assert!(waited.status.success(), "{id}: {waited:?}\n{}", self.journal_end());
        pool
    }

    /// The same, whatever becomes of it.
    pub fn new_pool(&self, id: &str, engine: &str, args: &[&str], more: &str) -> Pool<'_> {
        let file = format!(
            "engine = {engine:?}\nmodel = \"file:{MODEL}\"\ndevices = [\"none\"]\nargs = {args:?}\n{more}"
        );
        self.machine.write(&format!("/etc/llamaorch/pools.d/{id}.toml"), file, 0o644).expect("written");
        let read = self.run(&["poolctl", "reload"]);
        assert!(read.status.success(), "{read:?}");
        Pool { host: self, id: id.to_owned() }
    }

    /// Asks until it holds; with the journal where it never does.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        self.machine
            .wait_until(what, SOON, |_| Ok(holds().then_some(())))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn journal_end(&self) -> String {
        self.machine.journal(&["--lines=60"]).unwrap_or_default()
    }

    /// A property of a unit, as `systemctl show` prints it.
    pub fn unit_property(&self, unit: &str, name: &str) -> String {
        let shown = self.machine.check(&["systemctl", "show", "--property", name, "--value", unit]);
        shown.expect("shown").trim().to_owned()
    }
}

pub struct Pool<'a> {
    pub host: &'a Host,
    pub id: String,
}

impl Pool<'_> {
    /// What `poolctl --json status` says of it.
    pub fn status(&self) -> Value {
        let said = self.host.run(&["poolctl", "--json", "status", &self.id]);
        serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    pub fn text(&self, key: &str) -> String {
        self.status()[key].as_str().unwrap_or_else(|| panic!("{} has no {key}", self.id)).to_owned()
    }

    fn replica(&self, key: &str) -> Value {
        self.status()["replicas"][0][key].clone()
    }

    pub fn main_pid(&self) -> u64 {
        self.replica("main_pid").as_u64().expect("a process")
    }

    pub fn unit(&self) -> String {
        self.replica("unit").as_str().expect("a unit").to_owned()
    }

    pub fn endpoint(&self) -> String {
        self.replica("endpoint").as_str().expect("an endpoint").to_owned()
    }

    /// Whether its engine answers now.
    pub fn answers(&self) -> bool {
        let url = format!("{}/health", self.endpoint());
        self.host.run(&["curl", "-sf", "-m", "20", "-o", "/dev/null", &url]).status.success()
    }

    /// Has the engine try all acts; its answers in their order.
    pub fn attempts(&self, acts: &[Vec<String>]) -> Vec<Value> {
        let url = format!("{}/attempts", self.endpoint());
        let body = serde_json::to_vec(acts).expect("a list");
        let argv = ["curl", "-sS", "-m", "600", "--data-binary", "@-", &url];
        let output = self.host.machine.run_with_input(Duration::from_secs(620), &argv, &body);
        let output = output.unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", self.host.journal_end()))
    }

    /// One of them.
    pub fn attempt(&self, act: &[&str]) -> Value {
        self.attempts(&[act.iter().map(|&word| word.to_owned()).collect()]).remove(0)
    }

    /// Changes limits of its running unit, as an operator could.
    pub fn limit(&self, properties: &[&str]) {
        let unit = self.unit();
        let argv = [&["systemctl", "set-property", "--runtime", unit.as_str()], properties].concat();
        let set = self.host.run(&argv);
        assert!(set.status.success(), "{set:?}");
    }

    /// A file of its unit's cgroup.
    pub fn cgroup(&self, file: &str) -> String {
        let group = self.host.unit_property(&self.unit(), "ControlGroup");
        self.host.shell(&format!("cat /sys/fs/cgroup{group}/{file}"))
    }
}

const TEMPLATE: &str = r#"
program = "PROGRAM"
args = ["--model", "{model}", "--host", "{host}", "--port", "{port}"]
version_args = ["--version"]
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
