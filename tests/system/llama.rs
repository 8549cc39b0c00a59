//! A real llama-server: one that hangs in the middle of its work, and one that is only slow.

use crate::host::{Host, MODEL, Pool, REPLICA, host, monotonic};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(200);
const STALL: Duration = Duration::from_secs(3);
/// Twice what an engine may stall: one that is not left alone is gone by then.
const ENOUGH: Duration = Duration::from_secs(6);
/// For the longest work that a test gives to an engine.
const LIMIT: Duration = Duration::from_secs(120);

/// A pool of one slot, one thread and one batch for a whole prompt; `None` on a release without llama-server.
fn llama<'a>(host: &'a Host, id: &str, stall: Duration) -> Option<Pool<'a>> {
    if !host.has_llama_to_test() {
        return None;
    }
    let args = "--ctx-size 12288 --override-kv llama.context_length=int:12288 --batch-size 12288 --parallel 1 \
                --threads 1 --threads-batch 1 --threads-http 1";
    let args: Vec<&str> = args.split_whitespace().collect();
    let pool = host.pool(
        id,
        &format!(
            "engine = \"llama-cpp\"\nmodel = \"file:{MODEL}\"\ndevices = [\"none\"]\nargs = {args:?}\n[health]\n\
             interval = \"{}ms\"\ntimeout = \"{}ms\"\nstall_timeout = \"{}s\"\n",
            INTERVAL.as_millis(),
            TIMEOUT.as_millis(),
            stall.as_secs()
        ),
    );
    pool.wait_ready();
    Some(pool)
}

/// So many completions at the same time; each prints its HTTP status on a line.
fn completions(pool: &Pool<'_>, count: u32, prompt: &str, tokens: u32) -> xtask::sandbox::Process {
    let body = format!("{{\"prompt\": \"{prompt}\", \"n_predict\": {tokens}, \"ignore_eos\": true}}");
    let one = format!(
        "curl -s -m {} -o /dev/null -w '%{{http_code}}\\n' -d '{body}' {}/completion",
        LIMIT.as_secs(),
        pool.endpoint()
    );
    let script = format!("for i in $(seq {count}); do {one} & done; wait");
    pool.host.sandbox.spawn(&["bash", "-c", &script]).expect("it can be done")
}

/// The statuses that they printed.
fn answers(mut requests: xtask::sandbox::Process) -> Vec<String> {
    let mut printed = String::new();
    requests.stdout().expect("it can be done").read_to_string(&mut printed).expect("it can be done");
    printed.lines().map(str::to_owned).collect()
}

/// Requests in flight and batches computed so far; `None` without an answer within the prober's time-out.
fn work(host: &Host, endpoint: &str) -> Option<(u64, u64)> {
    let (limit, url) = (TIMEOUT.as_secs_f64().to_string(), format!("{endpoint}/metrics"));
    let output = host.run(&["curl", "-s", "-m", &limit, &url]).stdout;
    let text = String::from_utf8_lossy(&output).into_owned();
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
            .map(|value| value as u64)
    };
    value("llamacpp:requests_processing ").zip(value("llamacpp:n_decode_total "))
}

/// What one waits for longest while requests are worked on.
#[derive(Default)]
struct Waits {
    /// For a counter to move.
    still: Duration,
    /// For an answer.
    silent: Duration,
    /// For the end.
    all: Duration,
    /// What the prober said of it.
    said: Vec<String>,
}

/// Lets the engine run for a quarter of the time, as a CPU with much else to do would; for longer than a probe waits for
/// an answer it does not run at all.
fn slow_down(engine: Pid, enough: &AtomicBool) {
    let begun = monotonic();
    while !enough.load(Ordering::Relaxed) && monotonic() - begun < LIMIT / 6 {
        for (signal, time) in [(Signal::SIGSTOP, 450), (Signal::SIGCONT, 150)] {
            if kill(engine, signal).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(time));
        }
    }
}

/// Looks on until the requests are done. The engine is slow until that is enough.
fn look_on(
    pool: &Pool<'_>,
    requests: &mut xtask::sandbox::Process,
    is_enough: impl Fn(&Waits) -> bool,
) -> Waits {
    let (engine, enough) = (pool.host.host_pid(pool.main_pid(0)), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| slow_down(engine, &enough));
        watch(pool, requests, |waits| enough.store(is_enough(waits), Ordering::Relaxed))
    })
}

fn watch(pool: &Pool<'_>, requests: &mut xtask::sandbox::Process, mut each: impl FnMut(&Waits)) -> Waits {
    let (mut waits, begun, endpoint) = (Waits::default(), monotonic(), pool.endpoint());
    let (mut moved, mut answered, mut batches) = (begun, begun, None);
    while requests.is_running() {
        assert!(monotonic() - begun < LIMIT, "the requests are not done");
        let work = work(pool.host, &endpoint);
        let now = monotonic();
        if let Some((in_flight, count)) = work {
            answered = now;
            if in_flight == 0 || batches.replace(count) != Some(count) {
                moved = now;
            }
        }
        waits.still = waits.still.max(now - moved);
        waits.silent = waits.silent.max(now - answered);
        let status: String = pool.host.property(&pool.replica_path(0), REPLICA, "StatusText");
        if waits.said.last() != Some(&status) {
            waits.said.push(status);
        }
        waits.all = now - begun;
        each(&waits);
    }
    waits
}

/// That it is the engine of that run still, and nothing was ever wrong with it.
fn assert_left_alone(pool: &Pool<'_>, main_pid: u32, invocation: &[u8]) {
    assert_eq!(pool.text("LastError"), "");
    assert_eq!((pool.main_pid(0), pool.invocation(0).as_slice()), (main_pid, invocation));
    assert_eq!((pool.number("RestartCount"), pool.flag("Ready")), (0, true));
    let unit = pool.unit(0);
    let properties = pool.host.shell(&format!("systemctl show -P Result -P NRestarts {unit}"));
    assert_eq!(properties.split_whitespace().collect::<Vec<_>>(), ["success", "0"]);
}

#[test]
fn a_busy_llama_server_that_is_stopped_is_hung_and_another_one_takes_its_place() {
    let host = host();
    let Some(pool) = llama(&host, "halted", STALL) else { return };
    let (unit, engine) = (pool.unit(0), pool.main_pid(0));
    let _request = completions(&pool, 1, "a", 12_000);
    let generates =
        || work(&host, &pool.endpoint()).is_some_and(|(busy, batches)| busy == 1 && batches > 100);
    host.wait_until("it generates", generates);
    // The prober sees that too.
    std::thread::sleep(2 * INTERVAL);
    assert!(generates(), "it is done already");
    let mut signals = host.listen();
    let stopped = monotonic();
    host.kill(engine, Signal::SIGSTOP);
    let found = signals.when(&pool.path(), "Ready", false) - stopped;
    host.wait_until("its end is known", || pool.text("LastErrorClass") == "watchdog");
    let said = pool.text("LastError");
    println!(
        "stall_timeout {STALL:?}, interval {INTERVAL:?}, timeout {TIMEOUT:?}: found after {found:?}: {said}"
    );
    assert!(said.contains("hung: 1 in flight, no answer from /health"), "{said}");
    // Two questions show the first silence, two more the last; beyond that it is the machine's own slowness.
    let latest = STALL + INTERVAL + 4 * TIMEOUT + Duration::from_millis(500);
    assert!(found >= STALL - INTERVAL && found < latest, "{found:?}");
    signals.when(&pool.path(), "Ready", true);
    let journal = host.sandbox.journal(&["-u", &unit]).expect("it can be done");
    assert!(journal.contains("Failed with result 'watchdog'"), "{journal}");
    assert_ne!(pool.main_pid(0), engine);
    assert_eq!(pool.number("RestartCount"), 1);
    assert_eq!(answers(completions(&pool, 1, "a", 4)), ["200"]);
}

#[test]
fn a_llama_server_with_a_long_prompt_and_too_little_cpu_to_answer_in_time_is_left_alone() {
    let host = host();
    let Some(pool) = llama(&host, "batch", STALL) else { return };
    let (main_pid, invocation) = (pool.main_pid(0), pool.invocation(0));
    let mut request = completions(&pool, 1, &"a".repeat(12_000), 4);
    let Waits { still, silent, all, said } = look_on(&pool, &mut request, |waits| waits.still > ENOUGH);
    println!("no counter moved for {still:?}, no answer for {silent:?} at most, of {all:?}; {said:?}");
    assert_eq!(answers(request), ["200"]);
    assert!(still > ENOUGH && silent > TIMEOUT, "too quick to prove anything: {still:?}, {silent:?}");
    assert_left_alone(&pool, main_pid, &invocation);
}
