//! The prober beside an engine that is ready: it says that the engine lives, or why systemd shall end it.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::stand::{Health, Launched, Stand, eventually, probers};

const SOON: Duration = Duration::from_secs(3);
const IDLE: [&str; 2] = ["sleep", "60"];
const AT_WORK: [&str; 3] = ["sh", "-c", "while :; do :; done"];
const RUN: &str = "00ff10fedcba98765432100123456789";

/// The command line for an engine that is asked every 100 ms and may stall for a second.
fn launch(stand: &Stand, health: &Health, more: &[&str], engine: &[&str]) -> Command {
    let mut command = stand.helper(&["launch", "--health", &health.url, "--listen", &stand.free_address()]);
    command.arg("--model").arg(stand.model()).args([
        "--start-timeout",
        "60000000",
        "--start-limit",
        "600000000",
    ]);
    for (name, value) in [
        ("interval", "100000"),
        ("timeout", "100000"),
        ("failures", "3"),
        ("stall-timeout", "1000000"),
        // The same: what else runs in the control group of these tests computes as well.
        ("computing-timeout", "1000000"),
    ] {
        if !more.contains(&format!("--{name}").as_str()) {
            command.arg(format!("--{name}")).arg(value);
        }
    }
    command.arg("--report").arg(stand.folder.join("report")).args(more).arg("--").args(engine);
    command.env("INVOCATION_ID", RUN);
    command
}

fn metrics(health: &Health) -> Vec<String> {
    ["--progress", &health.at("/metrics"), "--in-flight", "x:running", "--counter", "x:steps_total"]
        .map(str::to_owned)
        .to_vec()
}

/// An engine that has just said that it is ready.
fn ready(stand: &Stand, health: &Health, more: &[&str], engine: &[&str]) -> Launched {
    health.recover();
    let launched = Launched(launch(stand, health, more, engine).spawn().expect("the helper runs"));
    assert_eq!(stand.next(SOON).as_deref(), Some("STATUS=serving\nREADY=1"));
    launched
}

/// The same with metrics.
fn ready_with_metrics(stand: &Stand, health: &Health, engine: &[&str]) -> Launched {
    let more = metrics(health);
    ready(stand, health, &more.iter().map(String::as_str).collect::<Vec<_>>(), engine)
}

/// What is said until systemd is asked to end the engine, and that message.
fn verdict(stand: &Stand) -> (usize, String) {
    let started = Instant::now();
    for before in 0.. {
        let said = stand.next(SOON).expect("a message");
        if said.contains("WATCHDOG=trigger") {
            return (before, said);
        }
        assert!(started.elapsed() < SOON, "no verdict after {before} messages");
    }
    unreachable!("there are more numbers than messages")
}

fn no_verdict(messages: &[(Duration, String)]) {
    assert!(messages.iter().all(|(_, said)| !said.contains("trigger")), "{messages:?}");
}

#[test]
fn while_all_is_well_each_round_says_so_and_nothing_else() {
    let stand = Stand::new();
    let health = Health::loading();
    let _engine = ready_with_metrics(&stand, &health, &IDLE);
    let messages = stand.all(Duration::from_secs(2));
    assert!((10..=21).contains(&messages.len()), "{messages:?}");
    assert!(messages.iter().all(|(_, said)| said == "WATCHDOG=1"), "{messages:?}");
    assert_eq!(probers(&health.url).len(), 1);
}

#[test]
fn the_watchdog_is_told_in_time_however_long_the_interval_is() {
    let stand = Stand::new();
    let health = Health::loading();
    health.recover();
    let mut command = launch(&stand, &health, &["--interval", "60000000"], &IDLE);
    let _engine = Launched(command.env("WATCHDOG_USEC", "3000000").spawn().expect("the helper runs"));
    assert!(stand.next(SOON).is_some_and(|said| said.contains("READY=1")));
    let times: Vec<Duration> =
        stand.all(Duration::from_millis(4_500)).into_iter().map(|(at, _)| at).collect();
    assert!(times.len() >= 3, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_secs(2)), "{times:?}");
}

#[test]
fn busy_without_progress_is_a_hang_though_health_is_200() {
    let stand = Stand::new();
    let health = Health::loading();
    health.set_work(2, 5);
    let _engine = ready_with_metrics(&stand, &health, &AT_WORK);
    let (before, said) = verdict(&stand);
    assert!(before >= 5, "it is given its time");
    assert!(said.starts_with("STATUS=hung: 2 in flight, no counter moved for 1"), "{said}");
    assert!(said.ends_with("\nWATCHDOG=trigger"), "{said}");
    // From now on the watchdog is not told that it lives.
    assert_eq!(stand.next(Duration::from_millis(700)), None);
    assert_eq!(probers(&health.url).len(), 1);
}

#[test]
fn busy_and_moving_is_left_alone() {
    let stand = Stand::new();
    let health = Health::loading();
    health.set_work(2, 5);
    let _engine = ready_with_metrics(&stand, &health, &IDLE);
    thread::scope(|scope| {
        scope.spawn(|| {
            for step in 6..14 {
                thread::sleep(Duration::from_millis(400));
                health.set_work(2, step);
            }
        });
        let messages = stand.all(Duration::from_millis(3_200));
        no_verdict(&messages);
        assert!(messages.len() > 15, "{messages:?}");
    });
}

#[test]
fn an_engine_that_answers_nothing_and_works_is_left_alone_and_told_to_be_slow() {
    let stand = Stand::new();
    let health = Health::loading();
    health.set_work(2, 5);
    let _engine = ready_with_metrics(&stand, &health, &AT_WORK);
    thread::sleep(Duration::from_millis(300));
    health.fall_silent();
    let messages = stand.all(Duration::from_secs(6));
    no_verdict(&messages);
    assert!(messages.len() > 12, "{messages:?}");
    let said: Vec<_> = messages.iter().filter(|(_, said)| said.contains("STATUS=")).collect();
    assert_eq!(said.len(), 1, "{messages:?}");
    assert!(
        said[0].1.contains("STATUS=serving, slow: 2 in flight, no answer from /health for 5 s"),
        "{said:?}"
    );
}

#[test]
fn a_refused_connection_is_its_end_the_third_time() {
    let stand = Stand::new();
    let health = Health::loading();
    let _engine = ready(&stand, &health, &[], &AT_WORK);
    health.close();
    let (_, said) = verdict(&stand);
    let address = health.url.trim_start_matches("http://").trim_end_matches("/health").to_owned();
    assert_eq!(
        said,
        format!("STATUS=dead: nothing listens on {address}, 3 times in a row\nWATCHDOG=trigger")
    );
}

#[test]
fn a_bad_answer_is_its_end_the_third_time() {
    let stand = Stand::new();
    let health = Health::loading();
    let _engine = ready_with_metrics(&stand, &health, &AT_WORK);
    health.set_status(503);
    let (_, said) = verdict(&stand);
    assert_eq!(said, "STATUS=unhealthy: 503 from /health, 3 times in a row\nWATCHDOG=trigger");
}

#[test]
fn the_prober_of_a_ready_engine_ends_with_it() {
    let stand = Stand::new();
    let health = Health::loading();
    let mut engine = ready(&stand, &health, &["--interval", "60000000"], &IDLE);
    // The first round is over, and the next one due in a minute.
    assert!(stand.next(SOON).is_some());
    assert_eq!(probers(&health.url).len(), 1);
    engine.0.kill().expect("killed");
    // Not reaped: a zombie is gone too.
    eventually("the prober ends", SOON, || probers(&health.url).is_empty());
    assert_eq!(stand.next(Duration::from_millis(300)), None);
}

#[test]
fn no_question_is_asked_while_another_one_is_not_answered() {
    let stand = Stand::new();
    let health = Health::loading();
    let _engine = ready_with_metrics(&stand, &health, &AT_WORK);
    thread::sleep(Duration::from_millis(300));
    health.fall_silent();
    let before = health.asked.load(Ordering::SeqCst);
    let rounds = stand.all(Duration::from_millis(1_500)).len();
    let asked = health.asked.load(Ordering::SeqCst) - before;
    assert!(rounds >= 5, "{rounds} rounds");
    assert!(asked <= 2, "{asked} questions to two paths in {rounds} rounds");
    health.speak();
    eventually("it is asked again", SOON, || health.asked.load(Ordering::SeqCst) > before + 4);
}

#[test]
fn each_round_is_reported_to_whoever_listens() {
    let stand = Stand::new();
    let health = Health::loading();
    health.set_work(0, 5);
    let mut more = metrics(&health);
    more.extend(["--slots".into(), health.at("/props"), "--slots-pointer".into(), "/total_slots".into()]);
    more.extend([
        "--version-url".into(),
        health.at("/version"),
        "--version-pointer".into(),
        "/version".into(),
    ]);
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let _engine = ready(&stand, &health, &more, &IDLE);
    let path = stand.folder.join("report");
    // Twice: the daemon makes its socket anew when it is restarted.
    for (in_flight, steps) in [(3, 17), (0, 20)] {
        health.set_work(in_flight, steps);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let next = || {
            let mut buffer = [0; 4096];
            let count = socket.recv(&mut buffer).expect("a report");
            String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned()
        };
        // The first may be of a round that had begun before.
        next();
        let mut report = next();
        // How many processes there are is known where there is a unit.
        report = report
            .lines()
            .filter(|line| !line.starts_with("PROCESSES=") && !line.starts_with("MEMORY_PEAK="))
            .collect::<Vec<_>>()
            .join("\n");
        let expected =
            format!("INVOCATION_ID={RUN}\nIN_FLIGHT={in_flight}\nSLOTS=4\nPROGRESS={steps}\nVERSION=0.11.0");
        assert_eq!(report, expected);
        drop(socket);
        std::fs::remove_file(&path).expect("removed");
        thread::sleep(Duration::from_millis(250));
    }
    let paths_once = health.asked.load(Ordering::SeqCst);
    let messages = stand.all(Duration::from_millis(200));
    assert!(messages.iter().all(|(_, said)| said == "WATCHDOG=1"), "{messages:?} {paths_once}");
}

#[test]
fn while_metrics_are_silent_what_was_in_flight_last_is_reported_and_one_at_least() {
    for (before, silent) in [(3, 3), (0, 1)] {
        falls_silent(before, silent);
    }
}

fn falls_silent(before: u64, then: u64) {
    let stand = Stand::new();
    let health = Health::loading();
    health.set_work(before, 17);
    let socket = UnixDatagram::bind(stand.folder.join("report")).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let next = || {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).expect("a report");
        String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned()
    };
    let _engine = ready_with_metrics(&stand, &health, &AT_WORK);
    assert!(next().contains("\nPROGRESS=17"));
    health.fall_silent();
    let silent = (0..20).map(|_| next()).find(|report| !report.contains("PROGRESS="));
    let silent = silent.expect("silence is seen");
    assert!(silent.contains(&format!("\nIN_FLIGHT={then}")), "{silent}");
}

#[test]
fn what_is_not_known_is_not_reported() {
    let stand = Stand::new();
    let health = Health::loading();
    let socket = UnixDatagram::bind(stand.folder.join("report")).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let slots = ["--slots", &health.at("/nothing"), "--slots-pointer", "/total_slots"];
    let _engine = ready(&stand, &health, &slots, &IDLE);
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer).expect("a report");
    let report = str::from_utf8(&buffer[..count]).expect("text");
    let known: Vec<&str> = report
        .lines()
        .filter(|line| !line.starts_with("PROCESSES=") && !line.starts_with("MEMORY_PEAK="))
        .collect();
    assert_eq!(known, [format!("INVOCATION_ID={RUN}")]);
}
