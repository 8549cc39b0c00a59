//! `pool-helper launch`, as it is run by an engine's unit: it becomes the engine, and its prober says when that is ready.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::stand::{Health, Launched, Stand, eventually, probers};

const SERVING: &str = "STATUS=serving\nREADY=1";
const SOON: Duration = Duration::from_secs(2);
/// How an engine that is ready is watched: by the defaults.
const WATCH: [&str; 12] = [
    "--interval",
    "2000000",
    "--timeout",
    "1000000",
    "--failures",
    "3",
    "--stall-timeout",
    "120000000",
    "--computing-timeout",
    "1200000000",
    "--report",
    "/nobody/listens",
];

/// The helper's command line for an engine; times in seconds.
fn launch(stand: &Stand, url: &str, (timeout, limit): (u64, u64), engine: &[&str]) -> Command {
    let model = stand.model();
    launch_with(stand, url, &stand.free_address(), &model, (timeout, limit), engine)
}

fn launch_with(
    stand: &Stand,
    url: &str,
    listen: &str,
    model: &Path,
    (timeout, limit): (u64, u64),
    engine: &[&str],
) -> Command {
    let (timeout, limit) = ((timeout * 1_000_000).to_string(), (limit * 1_000_000).to_string());
    let mut command = stand.helper(&["launch", "--health", url, "--listen", listen]);
    command.arg("--model").arg(model);
    command.args(["--start-timeout", &timeout, "--start-limit", &limit]).args(WATCH).arg("--").args(engine);
    command
}

fn start(command: &mut Command) -> Launched {
    Launched(command.spawn().expect("the helper runs"))
}

#[test]
fn ready_is_said_once_and_not_before_the_engine_says_200() {
    let stand = Stand::new();
    let health = Health::loading();
    let _engine = start(&mut launch(&stand, &health.url, (60, 600), &["sleep", "60"]));
    let before = stand.all(Duration::from_millis(400));
    assert!(before.is_empty(), "{before:?}");
    assert!(health.asked.load(Ordering::SeqCst) > 10, "the engine was asked all the time");
    health.recover();
    assert_eq!(stand.next(SOON).as_deref(), Some(SERVING));
    let after = stand.all(Duration::from_millis(500));
    assert!(after.iter().all(|(_, said)| said == "WATCHDOG=1"), "{after:?}");
}

#[test]
fn ready_is_said_within_30_ms_of_a_short_load() {
    let mut delays: Vec<Duration> = (0..5)
        .map(|round| {
            let stand = Stand::new();
            let health = Health::loading();
            let _engine = start(&mut launch(&stand, &health.url, (60, 600), &["sleep", "60"]));
            thread::sleep(Duration::from_millis(150 + 11 * round));
            let recovered = health.recover();
            assert_eq!(stand.next(SOON).as_deref(), Some(SERVING));
            recovered.elapsed()
        })
        .collect();
    delays.sort();
    assert!(delays[2] < Duration::from_millis(30), "{delays:?}");
}

#[test]
fn the_engine_has_the_process_that_was_launched() {
    let stand = Stand::new();
    let health = Health::loading();
    let mut engine = start(&mut launch(&stand, &health.url, (60, 600), &["sleep", "60"]));
    let comm = format!("/proc/{}/comm", engine.0.id());
    eventually("the engine runs", SOON, || fs::read_to_string(&comm).expect("a process") == "sleep\n");
    engine.0.kill().expect("killed");
    assert_eq!(engine.0.wait().expect("ended").signal(), Some(9));

    let mut engine = start(&mut launch(&stand, &health.url, (60, 600), &["sh", "-c", "exit 42"]));
    assert_eq!(engine.0.wait().expect("ended").code(), Some(42));
}

#[test]
fn the_engine_gets_its_arguments_and_its_environment_without_the_notify_socket() {
    let stand = Stand::new();
    let health = Health::loading();
    let script = "printf '<%s>' \"$0\" \"$@\"; env; grep -E 'SigIgn|SigBlk' /proc/self/status";
    let mut command = launch(&stand, &health.url, (60, 600), &["sh", "-c", script, "a b", "--", "ü"]);
    command
        .env("WATCHDOG_USEC", "1000000")
        .env("WATCHDOG_PID", "1")
        .env("POOL", "chat")
        .env("HOME", "/cache");
    let output = command.output().expect("the engine ran");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.starts_with("<a b><--><ü>"), "{said}");
    assert!(said.contains("POOL=chat") && said.contains("HOME=/cache"), "{said}");
    assert!(!said.contains("NOTIFY_SOCKET") && !said.contains("WATCHDOG"), "{said}");
    // SIGPIPE is ignored, as systemd starts services, and nothing is blocked.
    let mask = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    assert_eq!(mask("SigIgn:") & (1 << 12), 1 << 12, "{said}");
    assert_eq!(mask("SigBlk:"), 0, "{said}");
}

/// An engine that is healthy, and whose warm-up is a request for this path; what its prober says.
fn warmed_up(path: &str) -> (Stand, Launched, String) {
    let stand = Stand::new();
    let health = Health::loading();
    health.recover();
    let warmup = stand.file("warmup.json", &format!("{{\"path\": \"{path}\"}}"), 0o644);
    let (model, free) = (stand.model(), stand.free_address());
    let mut command = stand.helper(&["launch", "--health", &health.url, "--listen", &free, "--model"]);
    command.arg(model).arg("--warmup").arg(warmup).args(["--start-timeout", "60000000"]);
    command.args(["--start-limit", "600000000"]).args(WATCH).args(["--", "sleep", "60"]);
    let engine = start(&mut command);
    let said = stand.next(SOON).expect("a verdict");
    // The health check, and the warm-up; once more the health check where that was answered well.
    assert!(health.asked.load(Ordering::SeqCst) >= 2, "{said}");
    (stand, engine, said)
}

#[test]
fn ready_is_said_once_the_warm_up_was_answered_well() {
    let (_stand, _engine, said) = warmed_up("/version");
    assert_eq!(said, SERVING);
}

#[test]
fn an_engine_that_fails_its_warm_up_is_given_to_systemd_with_the_reason() {
    let (_stand, _engine, said) = warmed_up("/nowhere");
    let reason = "STATUS=unhealthy: the warm-up, GET /nowhere, was answered 404:";
    assert!(said.starts_with(reason) && said.ends_with("WATCHDOG=trigger"), "{said}");
}

#[test]
fn a_warm_up_that_cannot_be_asked_is_refused_before_the_engine_runs() {
    let stand = Stand::new();
    let warmup = stand.file("warmup.json", "{\"path\": 1}", 0o644);
    let (model, warmup) = (stand.model(), warmup.to_str().expect("a path").to_owned());
    let model = model.to_str().expect("a path");
    let mut command = stand.helper(&["stage", "--program", "sh", "--model", model, "--warmup", &warmup]);
    let said = stand.refusal(&mut command, 154, "preflight");
    assert!(said.contains(&format!("`health.warmup` {warmup}: \"path\" is no string")), "{said}");
}

#[test]
fn a_secret_is_the_engines_variable_and_nowhere_else() {
    let stand = Stand::new();
    let health = Health::loading();
    stand.file("key", "s3cret\n", 0o600);
    let script =
        "printf '<%s>' \"$API_KEY\" $(tr '\\0' '\\n' < /proc/$$/environ | grep -c API_KEY); exec sleep 60";
    let (model, free) = (stand.model(), stand.free_address());
    let mut command = stand.helper(&["launch", "--health", &health.url, "--listen", &free, "--model"]);
    command.arg(model).args(["--credential", "API_KEY=key", "--start-timeout", "60000000"]);
    command.args(["--start-limit", "600000000"]).args(WATCH).args(["--", "sh", "-c", script]);
    command.env("CREDENTIALS_DIRECTORY", &stand.folder).env("API_KEY", "the pool's own");
    let mut engine = start(command.stdout(Stdio::piped()));
    let mut said = [0; 11];
    engine.0.stdout.as_mut().expect("a pipe").read_exact(&mut said).expect("what it was given");
    assert_eq!(&said, b"<s3cret><1>");
    eventually("the prober runs alone", SOON, || probers(&health.url).len() == 1);
    let [(prober, _)] = probers(&health.url)[..] else { panic!("not one prober") };
    for process in [prober, engine.0.id()] {
        let command = fs::read(format!("/proc/{process}/cmdline")).expect("a command line");
        assert!(!String::from_utf8_lossy(&command).contains("s3cret"), "{process}");
    }
    let environment = fs::read(format!("/proc/{prober}/environ")).expect("variables");
    assert!(!String::from_utf8_lossy(&environment).contains("API_KEY"));
}

#[test]
fn the_prober_is_not_the_engines_child_and_has_nothing_of_its() {
    let stand = Stand::new();
    let health = Health::loading();
    let mut command = launch(&stand, &health.url, (60, 600), &["sleep", "60"]);
    let engine = start(command.env("SECRET", "x").env("INVOCATION_ID", "00ff"));
    // What brought it into being is gone a moment later.
    let runs_alone = || health.asked.load(Ordering::SeqCst) > 0 && probers(&health.url).len() == 1;
    eventually("the prober runs alone", SOON, runs_alone);
    let [(prober, parent)] = probers(&health.url)[..] else { panic!("not one prober") };
    assert_ne!(parent, engine.0.id());
    let children = format!("/proc/{0}/task/{0}/children", engine.0.id());
    assert_eq!(fs::read_to_string(children).unwrap_or_default(), "");
    let of = |file: &str| format!("/proc/{prober}/{file}");
    assert_eq!(fs::read_to_string(of("comm")).expect("a name"), "pool-prober\n");
    assert_eq!(fs::read_link(of("fd/0")).expect("stdin"), Path::new("/dev/null"));
    let environment = String::from_utf8(fs::read(of("environ")).expect("variables")).expect("text");
    assert!(environment.contains("NOTIFY_SOCKET=") && !environment.contains("SECRET"), "{environment}");
    assert!(environment.contains("INVOCATION_ID=00ff"), "{environment}");
}

#[test]
fn the_prober_ends_with_the_engine() {
    let stand = Stand::new();
    let health = Health::loading();
    let mut engine = start(&mut launch(&stand, &health.url, (60, 600), &["sleep", "60"]));
    eventually("the prober runs", SOON, || probers(&health.url).len() == 1);
    engine.0.kill().expect("killed");
    // Not reaped: a zombie is gone too.
    eventually("the prober ends", SOON, || probers(&health.url).is_empty());
    health.recover();
    assert_eq!(stand.next(Duration::from_millis(300)), None);
}

#[test]
fn loading_is_said_in_words_at_most_once_a_second() {
    let stand = Stand::new();
    let health = Health::loading();
    let _engine = start(&mut launch(&stand, &health.url, (60, 600), &["sleep", "60"]));
    let messages = stand.all(Duration::from_millis(3_500));
    let (first, text) = messages.first().expect("a status");
    assert!(*first >= Duration::from_secs(1) && *first < Duration::from_millis(1_400), "{messages:?}");
    assert!(text.starts_with("STATUS=loading: 503 from /health"), "{text}");
    for pair in messages.windows(2) {
        assert!(pair[1].0 - pair[0].0 > Duration::from_millis(900), "{messages:?}");
    }
    let mut said: Vec<&str> = messages
        .iter()
        .filter_map(|(_, text)| text.lines().find(|line| line.starts_with("STATUS")))
        .collect();
    let count = said.len();
    said.dedup();
    assert_eq!(said.len(), count, "the same text was said twice: {messages:?}");
}

#[test]
fn an_engine_that_does_not_listen_yet_is_said_to() {
    let stand = Stand::new();
    let url = format!("http://{}/health", stand.free_address());
    let _engine = start(&mut launch(&stand, &url, (60, 600), &["sleep", "60"]));
    let said = stand.next(SOON).expect("a status");
    assert!(said.starts_with("STATUS=loading: not listening yet"), "{said}");
}

#[test]
fn the_start_is_extended_while_the_engine_reads_and_not_beyond_the_limit() {
    let stand = Stand::new();
    let health = Health::loading();
    let mut command = launch(&stand, &health.url, (2, 4), &["cat", "/dev/zero"]);
    let _engine = start(command.stdout(Stdio::null()));
    let messages = stand.all(Duration::from_millis(7_500));
    let extensions: Vec<(Duration, u64)> = messages
        .iter()
        .filter_map(|(at, text)| {
            let usec = text.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="))?;
            Some((*at, usec.parse().expect("a number")))
        })
        .collect();
    assert!((2..=4).contains(&extensions.len()), "{messages:?}");
    assert_eq!(extensions[0].1, 2_000_000, "{messages:?}");
    for (at, usec) in extensions {
        let end = at + Duration::from_micros(usec);
        assert!(end < Duration::from_millis(4_200), "an extension to {end:?}: {messages:?}");
    }
}

#[test]
fn a_refusal_starts_nothing() {
    let stand = Stand::new();
    let health = Health::loading();
    let model = stand.model();
    let free = stand.free_address();
    let engine = ["sleep", "60"];
    let times = (60, 600);
    let mut command = launch_with(&stand, &health.url, &free, &model, times, &["no-such-engine"]);
    stand.refusal(&mut command, 150, "program-missing");
    let mut command = launch_with(&stand, &health.url, &free, Path::new("/no/model"), times, &engine);
    stand.refusal(&mut command, 151, "model-unreadable");
    let listener = TcpListener::bind(&free).expect("an address");
    let mut command = launch_with(&stand, &health.url, &free, &model, times, &engine);
    stand.refusal(&mut command, 153, "port-in-use");
    drop(listener);
    let mut command = launch_with(&stand, "health", &free, &model, times, &engine);
    stand.refusal(&mut command, 154, "preflight");
    assert_eq!(health.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_program_that_cannot_be_executed_is_refused_and_leaves_no_prober() {
    let stand = Stand::new();
    let health = Health::loading();
    let script = stand.file("engine", "#!/no/such/interpreter\n", 0o755);
    let mut command = launch(&stand, &health.url, (60, 600), &[script.to_str().expect("a path")]);
    let said = stand.refusal(&mut command, 150, "program-missing");
    assert!(said.contains("its interpreter does not exist"), "{said}");
    eventually("the prober ends", SOON, || probers(&health.url).is_empty());
}
