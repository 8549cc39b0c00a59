//! The compiled conformance engine, judged by what another process sees of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

static COUNT: AtomicU32 = AtomicU32::new(0);
const SOON: Duration = Duration::from_secs(5);

/// A running engine and a folder of its own.
struct Engine {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
    port: u16,
    folder: PathBuf,
}

impl Engine {
    fn start(options: &[&str]) -> Engine {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("conformance-engine-{}-{count}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("model.gguf"), "abc").expect("a model");
        let address = format!("127.78.{}.{}", std::process::id() % 250, count + 1);
        let port = TcpListener::bind((address.as_str(), 0)).expect("a port").local_addr().expect("it").port();
        let options = options.iter().map(|option| option.replace('@', folder.to_str().expect("a path")));
        let mut child = Command::new(env!("CARGO_BIN_EXE_conformance-engine"))
            .args(["--host", &address, "--port", &port.to_string()])
            .args(options)
            .env("NOTIFY_SOCKET", folder.join("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the engine runs");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        Engine { child, stdout, address, port, folder }
    }

    /// One that was waited for until it answers 200.
    fn ready(options: &[&str]) -> Engine {
        let engine = Engine::start(options);
        eventually("the engine is healthy", || {
            engine.get("/health").is_some_and(|(status, _)| status == 200)
        });
        engine
    }

    fn ask(&self, port: u16, request: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((self.address.as_str(), port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.ask(self.port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn post(&self, path: &str, body: &str) -> Option<(u16, String)> {
        let length = body.len();
        self.ask(
            self.port,
            &format!("POST {path} HTTP/1.1\r\nHost: x\r\ncontent-length: {length}\r\n\r\n{body}"),
        )
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the engine ends", || {
            status = self.child.try_wait().expect("its state");
            status.is_some()
        });
        status.expect("its status")
    }

    fn signal(&self, signal: Signal) {
        kill(pid(self.child.id()), signal).expect("the signal is sent");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().expect("a process id"))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < SOON, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock").into()
}

#[test]
fn health_is_503_until_the_model_is_loaded_and_the_stamp_is_there_before_200() {
    let started = monotonic();
    let engine = Engine::start(&["--model", "@/model.gguf", "--load-time", "300ms", "--stamp", "@/stamp"]);
    let mut loading = 0;
    eventually("the engine is healthy", || match engine.get("/health") {
        Some((503, body)) => {
            assert!(body.contains("Loading model"), "{body}");
            loading += 1;
            false
        }
        Some((200, body)) => {
            assert_eq!(body, "{\"status\":\"ok\"}\n");
            true
        }
        other => {
            assert_eq!(other, None);
            false
        }
    });
    let healthy = monotonic();
    let stamp = fs::read_to_string(engine.folder.join("stamp")).expect("a stamp");
    let stamp = Duration::from_nanos(stamp.trim().parse().expect("nanoseconds"));
    assert!(loading > 10, "{loading} answers while loading");
    assert!(
        stamp >= started + Duration::from_millis(300) && stamp <= healthy,
        "{started:?} {stamp:?} {healthy:?}"
    );
    assert!(healthy - stamp < Duration::from_millis(100), "{stamp:?} {healthy:?}");
}

#[test]
fn it_can_listen_only_once_loaded() {
    let engine = Engine::start(&["--listen-after-load", "--load-time", "300ms", "--stamp", "@/stamp"]);
    let mut refused = 0;
    let mut first = None;
    eventually("the engine answers", || {
        first = engine.get("/health");
        refused += u32::from(first.is_none());
        first.is_some()
    });
    assert_eq!(first.map(|(status, _)| status), Some(200));
    assert!(refused > 10 && engine.folder.join("stamp").exists());
}

#[test]
fn loading_uses_cpu_only_when_told_to() {
    let used = |engine: &Engine| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", engine.child.id())).expect("its state");
        let (_, rest) = stat.rsplit_once(") ").expect("fields");
        rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum::<u64>()
    };
    let asleep = Engine::start(&["--load-time", "60s"]);
    let at_work = Engine::start(&["--load-time", "60s", "--load-cpu"]);
    // However little of a busy host it gets.
    eventually("it computes", || used(&at_work) >= 30);
    assert!(used(&asleep) <= 10, "{} and {} ticks of 10 ms", used(&asleep), used(&at_work));
}

#[test]
fn it_can_stay_at_503_for_ever() {
    let engine = Engine::start(&["--never-ready", "--stamp", "@/stamp"]);
    eventually("the engine answers", || engine.get("/health").is_some());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(engine.get("/health").expect("an answer").0, 503);
    assert!(!engine.folder.join("stamp").exists());
}

#[test]
fn it_hangs_after_the_load_or_on_one_path_or_when_told_to() {
    let silent = |engine: &Engine, path: &str| {
        TcpStream::connect((engine.address.as_str(), engine.port)).expect("it accepts");
        assert_eq!(engine.get(path), None, "{path}");
    };
    let engine = Engine::start(&["--hang-after-load", "--load-time", "100ms", "--stamp", "@/stamp"]);
    eventually("it is loaded", || engine.folder.join("stamp").exists());
    silent(&engine, "/health");

    let engine = Engine::ready(&["--hang-on", "/metrics"]);
    silent(&engine, "/metrics");
    assert_eq!(engine.get("/health").expect("an answer").0, 200);

    let engine = Engine::ready(&[]);
    assert_eq!(engine.post("/hang", "").expect("an answer").0, 200);
    silent(&engine, "/health");
}

/// The value of a metric, over all labels.
fn sum(text: &str, name: &str) -> f64 {
    let samples =
        text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with('{'));
    samples.map(|rest| rest.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

/// Whether a completion is at work, and whether steps are made meanwhile.
fn works(engine: &Engine) -> (bool, bool) {
    let metrics = || engine.get("/metrics").expect("metrics").1;
    let before = metrics();
    thread::sleep(Duration::from_millis(100));
    let after = metrics();
    let steps = |text| sum(text, "conformance:steps_total");
    (sum(&after, "conformance:in_flight") > 0.0, steps(&after) > steps(&before))
}

#[test]
fn a_completion_stalls_when_told_to_or_with_a_dead_worker_while_health_stays_200() {
    let begin = |engine: &Engine| {
        let mut stream = TcpStream::connect((engine.address.as_str(), engine.port)).expect("it accepts");
        let body = "{\"delay_ms\": 60000}";
        let length = body.len();
        let request = format!("POST /completion HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("a request");
        eventually("it is at work", || works(engine) == (true, true));
        stream
    };
    let stalls = |engine: &Engine| {
        eventually("no step is made", || works(engine) == (true, false));
        assert_eq!(engine.get("/health").expect("an answer").0, 200);
    };
    let engine = Engine::ready(&[]);
    let _request = begin(&engine);
    assert_eq!(engine.post("/stall", "").expect("an answer").0, 200);
    stalls(&engine);

    let mut engine = Engine::ready(&["--workers", "2", "--stall-without-workers"]);
    let workers = [engine.line(), engine.line()]
        .map(|line| Worker(pid(line.strip_prefix("worker ").expect("it").parse().expect("an id"))));
    let _request = begin(&engine);
    kill(workers[1].0, Signal::SIGKILL).expect("killed");
    stalls(&engine);
}

#[test]
fn it_gets_unhealthy_slow_or_deaf_when_told_to() {
    let engine = Engine::ready(&["--parallel", "4"]);
    assert_eq!(engine.get("/props").expect("properties").1, "{\"total_slots\":4}\n");
    assert!(engine.get("/version").expect("a version").1.contains(env!("CARGO_PKG_VERSION")));
    engine.post("/health?code=503", "").expect("an answer");
    assert_eq!(engine.get("/health").expect("an answer").0, 503);
    engine.post("/health?code=200", "").expect("an answer");
    assert_eq!(engine.get("/health").expect("an answer").0, 200);

    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", engine.child.id())).expect("its state");
        let (_, rest) = stat.rsplit_once(") ").expect("fields");
        rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum::<u64>()
    };
    engine.post("/slow?ms=2000", "").expect("an answer");
    let before = ticks();
    assert_eq!((engine.get("/health"), engine.get("/metrics")), (None, None));
    assert!(ticks() > before + 10, "it is at work meanwhile");
    engine.post("/slow?ms=0", "").expect("an answer");
    assert_eq!(engine.get("/health").expect("an answer").0, 200);

    engine.post("/close", "").expect("an answer");
    eventually("nobody listens", || TcpStream::connect((engine.address.as_str(), engine.port)).is_err());
}

#[test]
fn on_sigterm_it_can_stop_listening_and_go_on_for_a_while() {
    let mut engine = Engine::ready(&["--drain-time", "500ms"]);
    let started = Instant::now();
    engine.signal(Signal::SIGTERM);
    eventually("nobody listens", || TcpStream::connect((engine.address.as_str(), engine.port)).is_err());
    assert!(engine.child.try_wait().expect("its state").is_none());
    assert_eq!(engine.end().code(), Some(0));
    assert!(started.elapsed() >= Duration::from_millis(500));
}

#[test]
fn it_ends_by_itself_with_a_status_or_a_signal() {
    assert_eq!(Engine::start(&["--exit-after", "50ms", "--exit-code", "42"]).end().code(), Some(42));
    for (name, number) in [("SIGSEGV", 11), ("KILL", 9), ("TERM", 15), ("SIGABRT", 6)] {
        assert_eq!(Engine::start(&["--exit-after", "50ms", "--signal", name]).end().signal(), Some(number));
    }
    let mut engine =
        Engine::start(&["--load-time", "400ms", "--exit-during-load", "--exit-code", "3", "--stamp", "@/s"]);
    assert_eq!(engine.end().code(), Some(3));
    assert!(!engine.folder.join("s").exists());
}

#[test]
fn it_ends_when_a_client_asks_it_to() {
    let mut engine = Engine::ready(&[]);
    assert_eq!(engine.post("/exit?code=7", "").expect("an answer").0, 200);
    assert_eq!(engine.end().code(), Some(7));
    let mut engine = Engine::ready(&[]);
    assert_eq!(engine.post("/signal?name=SIGSEGV", "").expect("an answer").0, 200);
    assert_eq!(engine.end().signal(), Some(11));
    let engine = Engine::ready(&[]);
    assert_eq!(engine.post("/exit?code=x", "").expect("an answer").0, 400);
}

#[test]
fn sigterm_ends_it_with_status_0_unless_it_takes_no_notice() {
    let mut engine = Engine::ready(&[]);
    engine.signal(Signal::SIGTERM);
    assert_eq!(engine.end().code(), Some(0));

    let engine = Engine::ready(&["--ignore-sigterm"]);
    engine.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(engine.get("/health").expect("it lives").0, 200);
}

#[test]
fn its_workers_outlive_it_and_take_no_notice_of_sigterm() {
    let mut engine = Engine::start(&["--workers", "2"]);
    let workers: Vec<Worker> = (0..2)
        .map(|_| Worker(pid(engine.line().strip_prefix("worker ").expect("it").parse().expect("an id"))))
        .collect();
    engine.signal(Signal::SIGTERM);
    assert_eq!(engine.end().code(), Some(0));
    thread::sleep(Duration::from_millis(100));
    for Worker(worker) in &workers {
        kill(*worker, Signal::SIGTERM).expect("it lives");
    }
    thread::sleep(Duration::from_millis(100));
    for Worker(worker) in &workers {
        let state = fs::read_to_string(format!("/proc/{worker}/status")).expect("it lives");
        assert!(!state.contains("State:\tZ"), "{state}");
    }
}

/// A process that would outlive the test.
struct Worker(Pid);

impl Drop for Worker {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGKILL).unwrap_or_default();
    }
}

#[test]
fn it_can_listen_on_the_wrong_port() {
    let mut engine = Engine::start(&["--wrong-port"]);
    assert_eq!(engine.line(), format!("listening on {}:{}", engine.address, engine.port + 1));
    assert_eq!(engine.get("/health"), None);
    let request = "GET /health HTTP/1.1\r\n\r\n";
    eventually("the engine is healthy", || {
        engine.ask(engine.port + 1, request).is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_port_in_use_or_a_missing_model_ends_it_with_status_1() {
    let first = Engine::ready(&[]);
    let second = Command::new(env!("CARGO_BIN_EXE_conformance-engine"))
        .args(["--host", &first.address, "--port", &first.port.to_string()])
        .output()
        .expect("the engine runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("couldn't bind"), "{second:?}");
    assert_eq!(Engine::start(&["--model", "/no/model"]).end().code(), Some(1));
}

#[test]
fn a_completion_is_counted_while_it_is_at_work() {
    let engine = Engine::ready(&["--no-webui", "--metrics", "-ngl", "99"]);
    let metric = |name: &str| {
        let (status, text) = engine.get("/metrics").expect("metrics");
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("llamacpp:{name} ")));
        line.expect(name).parse::<u64>().expect("a number")
    };
    assert_eq!(metric("requests_processing"), 0);
    let (status, body) = engine.post("/completion", "{\"prompt\": \"hello\"}").expect("a completion");
    assert!(status == 200 && body.contains("\"content\":\"conformance\""), "{body}");
    thread::scope(|scope| {
        let delayed = scope.spawn(|| engine.post("/completion", "{\"delay_ms\": 300}"));
        eventually("it is at work", || metric("requests_processing") == 1);
        let before = metric("n_decode_total");
        eventually("counters move", || metric("n_decode_total") > before + 3);
        assert_eq!(delayed.join().expect("a completion").expect("an answer").0, 200);
    });
    assert_eq!(metric("requests_processing"), 0);
    assert_eq!(engine.post("/completion", "{").expect("an answer").0, 400);
    let loading = Engine::start(&["--load-time", "60s"]);
    eventually("it answers", || loading.get("/health").is_some());
    assert_eq!(loading.post("/completion", "").expect("an answer").0, 503);
}

#[test]
fn its_surroundings_can_be_looked_at_through_it() {
    let engine = Engine::ready(&[]);
    let (_, environment) = engine.get("/env").expect("an answer");
    let uid = nix::unistd::getuid();
    assert!(
        environment.starts_with(&format!("uid={uid}\n")) && environment.contains("NOTIFY_SOCKET="),
        "{environment}"
    );
    let (_, status) = engine.get("/status").expect("an answer");
    assert!(status.contains(&format!("Pid:\t{}\n", engine.child.id())), "{status}");
    let file = engine.folder.join("a b");
    let target = file.to_str().expect("a path").replace(' ', "%20");
    assert_eq!(engine.post(&format!("/write?path={target}"), ""), Some((200, "ok".to_owned())));
    assert!(file.exists());
    assert_eq!(engine.post("/write?path=/usr", ""), Some((403, "EISDIR".to_owned())));
    assert_eq!(engine.post("/write?path=/no/such/file", ""), Some((403, "ENOENT".to_owned())));
    assert_eq!(engine.get("/nothing").expect("an answer").0, 404);
}

#[test]
fn it_forges_a_notification_at_the_start_of_loading() {
    let folder = std::env::temp_dir().join(format!("forge-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder");
    let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a time limit");
    let mut engine = Command::new(env!("CARGO_BIN_EXE_conformance-engine"))
        .args(["--forge", "READY=1", "--load-time", "60s", "--host", "127.78.0.254", "--port", "8099"])
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .stdout(Stdio::null())
        .spawn()
        .expect("the engine runs");
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer);
    engine.kill().expect("killed");
    engine.wait().expect("ended");
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(&buffer[..count.expect("a notification")], b"READY=1");
}

#[test]
fn it_prints_what_it_is_asked_to() {
    let mut engine = Engine::start(&["--spam-stdout", "1000"]);
    assert_eq!(engine.line(), "line 1 of 1000");
    for _ in 2..1000 {
        engine.line();
    }
    assert_eq!(engine.line(), "line 1000 of 1000");
    let run = |option| {
        Command::new(env!("CARGO_BIN_EXE_conformance-engine")).arg(option).output().expect("it runs")
    };
    let version = String::from_utf8(run("--version").stdout).expect("text");
    assert_eq!(version, format!("conformance-engine {}\n", env!("CARGO_PKG_VERSION")));
    let help = String::from_utf8(run("--help").stdout).expect("text");
    for option in
        ["--load-time", "--stamp", "--hang-on", "--ignore-sigterm", "--workers", "--forge", "/completion"]
    {
        assert!(help.contains(option), "{option}");
    }
}
