//! The machine under test: one for all tests of a run, with the built package installed and a pool that others are to
//! leave alone.

use serde_json::Value;
use std::env;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
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

/// The machine, for a test that runs beside others. The first test boots it.
pub fn host() -> (&'static Host, Turn) {
    (booted(), Turn::take(false))
}

/// The machine, for a test that needs all of it: no other test runs meanwhile, and no pool of another test either.
pub fn host_alone() -> (&'static Host, Turn) {
    let (host, turn) = (booted(), Turn::take(true));
    let stopped = host.run(&["poolctl", "stop", "--all"]);
    assert!(stopped.status.success(), "{stopped:?}");
    (host, turn)
}

/// Held by who loads the module that machines have to spare: there is one. Taken before the machine.
pub fn spare_module() -> MutexGuard<'static, ()> {
    static MODULE: Mutex<()> = Mutex::new(());
    MODULE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn booted() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(Host::boot)
}

/// How many tests run now. One that waits to be alone keeps nobody waiting: it comes when there is nobody.
static RUNNING: Mutex<usize> = Mutex::new(0);
static CHANGED: Condvar = Condvar::new();
/// A test runs that has to be alone.
const ALONE: usize = usize::MAX;

/// A test has the machine, beside others or alone. How long is said at its end, which is where the level's time goes.
pub struct Turn {
    begun: Instant,
}

impl Turn {
    fn take(alone: bool) -> Turn {
        // A test that failed has said so; the others go on.
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let others = |running: &mut usize| if alone { *running > 0 } else { *running == ALONE };
        let mut running = CHANGED.wait_while(running, others).unwrap_or_else(PoisonError::into_inner);
        *running = if alone { ALONE } else { *running + 1 };
        Turn { begun: Instant::now() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let test = thread::current();
        println!("{:6.1} s: {}", self.begun.elapsed().as_secs_f64(), test.name().unwrap_or_default());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        *running = if *running == ALONE { 0 } else { *running - 1 };
        CHANGED.notify_all();
    }
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
            "{suite}: {}, its disk made in {:.1} s and booted in {:.1} s, {}; {}",
            machine.check(&["uname", "-r"]).expect("a kernel").trim(),
            machine.disk_time().as_secs_f64(),
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

    /// A pool of an engine, ready. It stays: stopping takes time, and nobody needs its name.
    pub fn pool(&self, id: &str, engine: &str, more: &str) -> Pool<'_> {
        let pool = self.new_pool(id, engine, more);
        let limit = format!("{}s", SOON.as_secs());
        let waited = self.run(&["poolctl", "wait", "--timeout", &limit, id]);
        assert!(waited.status.success(), "{id}: {waited:?}\n{}", self.journal_end());
        pool
    }

    /// The same, whatever becomes of it.
    pub fn new_pool(&self, id: &str, engine: &str, more: &str) -> Pool<'_> {
        // On the CPU, where it does not say otherwise.
        let devices = if more.contains("devices = ") { "" } else { "devices = [\"none\"]\n" };
        let file = format!("engine = {engine:?}\nmodel = \"file:{MODEL}\"\n{devices}{more}");
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

    /// What curl is told to ask its engine for that path.
    fn curl(&self, path: &str) -> Vec<String> {
        let endpoint = self.endpoint();
        match endpoint.strip_prefix("unix:") {
            Some(socket) => {
                vec!["--unix-socket".to_owned(), socket.to_owned(), format!("http://localhost{path}")]
            }
            None => vec![format!("{endpoint}{path}")],
        }
    }

    /// Whether it takes that request.
    pub fn post(&self, path: &str) -> bool {
        let whom = self.curl(path);
        let argv = ["curl", "-sf", "-m", "60", "-o", "/dev/null", "-X", "POST"].map(str::to_owned);
        let argv: Vec<&str> = argv.iter().chain(&whom).map(String::as_str).collect();
        self.host.run(&argv).status.success()
    }

    /// Asks its engine for one completion after the other for as long as that takes, and for ten at least; says how many it
    /// gave, and how many it did not.
    pub fn answers_while<T>(&self, other: impl FnOnce() -> T) -> (T, usize, usize) {
        let over = format!("/run/{}-is-over", self.id);
        let curl = "curl -sf -m 30 -o /dev/null --json '{\"prompt\": \"a\"}'";
        let whom = self.curl("/completion").join(" ");
        let script = format!(
            "asked=0; until test -e {over} -a $asked -ge 10; do
               {curl} {whom} && echo answered || echo failed; asked=$((asked + 1)); done; rm {over}"
        );
        thread::scope(|scope| {
            let asking = scope.spawn(|| self.host.shell(&script));
            let done = {
                let _end = End(self.host, &over);
                other()
            };
            let said = asking.join().expect("it ended");
            let count = |word: &str| said.lines().filter(|line| *line == word).count();
            (done, count("answered"), count("failed"))
        })
    }

    /// Has the engine try all acts; its answers in their order.
    pub fn attempts(&self, acts: &[Vec<String>]) -> Vec<Value> {
        let output = self.asked(acts);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", self.host.journal_end()))
    }

    /// The same, whatever comes back.
    pub fn asked(&self, acts: &[Vec<String>]) -> Output {
        let whom = self.curl("/attempts");
        let argv = ["curl", "-sS", "-m", "600", "--data-binary", "@-"].map(str::to_owned);
        let argv: Vec<&str> = argv.iter().chain(&whom).map(String::as_str).collect();
        let body = serde_json::to_vec(acts).expect("a list");
        let output = self.host.machine.run_with_input(Duration::from_secs(620), &argv, &body);
        output.unwrap_or_else(|error| panic!("{error}"))
    }

    /// One of them.
    pub fn attempt(&self, act: &[&str]) -> Value {
        self.attempts(&[words(act)]).remove(0)
    }

    /// The folder of its unit's cgroup.
    pub fn cgroup(&self) -> String {
        format!("/sys/fs/cgroup{}", self.host.unit_property(&self.unit(), "ControlGroup"))
    }
}

/// Ends what goes on until that file is there, also where a test fails meanwhile.
struct End<'a>(&'a Host, &'a str);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.machine.check(&["touch", self.1]) {
            println!("it goes on: {error}");
        }
    }
}

/// An act and its arguments.
pub fn words(act: &[&str]) -> Vec<String> {
    act.iter().map(|&word| word.to_owned()).collect()
}

const TEMPLATE: &str = r#"
program = "PROGRAM"
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
