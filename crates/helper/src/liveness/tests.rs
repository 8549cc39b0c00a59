//! Engines in 25 minutes of rounds, two seconds apart: which are ended, when, and why.

use std::io::ErrorKind;

use super::*;

const OK: Answer = Answer::Status(200);
const UNAVAILABLE: Answer = Answer::Status(503);
const INTERVAL: u64 = 2;
/// CPU time of one round, in milliseconds: none, more than 1 % of one CPU, more than 5 %.
const ASLEEP: u64 = 0;
const AT_WORK: u64 = 30;
const COMPUTING: u64 = 110;

fn new() -> Liveness {
    let limits = Limits {
        stall: Duration::from_secs(120),
        computing: Duration::from_secs(1_200),
        failures: 3,
        longest_round: Duration::from_secs(INTERVAL + 5),
    };
    let names =
        Names { endpoint: "127.0.0.1:1".into(), health: "/health".into(), metrics: "/metrics".into() };
    Liveness::new(limits, names, Duration::ZERO)
}

fn counted(in_flight: u32, steps: u64) -> Seen {
    Seen::Read(Metrics { in_flight: Some(in_flight), counters: Some(vec![7.0, steps as f64]) })
}

/// What an engine shows in the round at that second: health, metrics, CPU milliseconds since the last, processes.
type Engine = fn(u64) -> (Answer, Seen, u64, u32);

/// The second of its end and the reason, within 25 minutes; every status text before, without repetitions.
fn fate(engine: Engine) -> (Option<(u64, String)>, Vec<String>) {
    let mut liveness = new();
    let mut cpu = Duration::ZERO;
    let mut said: Vec<String> = Vec::new();
    for second in (INTERVAL..1_500).step_by(2) {
        let (health, metrics, used, processes) = engine(second);
        cpu += Duration::from_millis(used);
        let ended = Duration::from_secs(second);
        let began = ended - Duration::from_secs(1);
        let round = Round { began, ended, health, metrics, cpu: Some(cpu), processes: Some(processes) };
        match liveness.judge(&round) {
            Verdict::Lost(reason) => return (Some((second, reason)), said),
            Verdict::Serving(status) if said.last() == Some(&status) => {}
            Verdict::Serving(status) => said.push(status),
        }
    }
    (None, said)
}

#[test]
fn an_engine_that_gets_on_is_left_alone() {
    let engines: [(&str, Engine); 17] = [
        ("idle", |_| (OK, counted(0, 5), ASLEEP, 3)),
        ("idle, without metrics", |_| (OK, Seen::NotAsked, ASLEEP, 3)),
        ("idle, with metrics that say nothing", |_| (OK, Seen::Read(Metrics::default()), ASLEEP, 3)),
        ("idle, with a metrics path that fails", |_| (OK, Seen::Unreadable, ASLEEP, 3)),
        ("busy and moving", |second| (OK, counted(2, second), ASLEEP, 3)),
        ("busy, a step a minute", |second| (OK, counted(2, second / 60), ASLEEP, 3)),
        ("busy, silent, moving", |second| (Answer::Silent, counted(2, second), ASLEEP, 3)),
        ("silent all over, at work", |second| match second {
            ..10 => (OK, counted(2, second), AT_WORK, 3),
            _ => (Answer::Silent, Seen::Silent, AT_WORK, 3),
        }),
        ("had not moved yet when it fell silent, at work", |second| match second {
            ..=10 => (OK, counted(0, 5), ASLEEP, 3),
            11..=12 => (OK, counted(2, 5), AT_WORK, 3),
            _ => (Answer::Silent, Seen::Silent, AT_WORK, 3),
        }),
        ("silent, without metrics, at work", |_| (Answer::Silent, Seen::NotAsked, AT_WORK, 3)),
        ("answers once a minute and has moved", |second| match second % 60 {
            0 => (OK, counted(1, second), AT_WORK, 3),
            _ => (Answer::Silent, Seen::Silent, AT_WORK, 3),
        }),
        ("a batch takes 19 minutes, every question is answered", |second| {
            (OK, counted(1, second / 1_140), COMPUTING, 3)
        }),
        ("the same on and off, and mostly off", |second| {
            (OK, counted(1, second / 1_140), if second % 20 == 0 { COMPUTING } else { ASLEEP }, 3)
        }),
        ("completes without counting", |second| (OK, counted(2 - (second as u32 / 60) % 2, 5), ASLEEP, 3)),
        ("503 at times", |second| (if second % 6 == 0 { OK } else { UNAVAILABLE }, counted(0, 5), ASLEEP, 3)),
        ("503 and moving", |second| (UNAVAILABLE, counted(2, second), ASLEEP, 3)),
        ("refuses at times", |second| {
            (if second % 6 == 0 { Answer::Silent } else { Answer::NotListening }, Seen::NotAsked, ASLEEP, 3)
        }),
    ];
    for (name, engine) in engines {
        assert_eq!(fate(engine).0, None, "{name}");
    }
    assert_eq!(fate(|_| (Answer::Unreachable(ErrorKind::AddrInUse), Seen::NotAsked, ASLEEP, 3)).0, None);
}

#[test]
fn an_engine_that_does_not_is_ended_with_a_reason() {
    let engines: [(&str, Engine, u64, &str); 18] = [
        (
            "its core is frozen, health is 200",
            |second| (OK, counted(2, second.min(10)), ASLEEP, 3),
            130,
            "hung: 2 in flight, no counter moved for 2 min",
        ),
        (
            "the same, and something spins",
            |second| (OK, counted(2, second.min(10)), AT_WORK, 3),
            130,
            "hung: 2 in flight, no counter moved for 2 min",
        ),
        (
            "the same, and it computes for ever",
            |second| (OK, counted(2, second.min(10)), COMPUTING, 3),
            1_210,
            "hung: 2 in flight, no counter moved for 20 min, CPU time used meanwhile",
        ),
        (
            "it was stopped in the middle of a long batch",
            |second| match second {
                ..=10 => (OK, counted(2, second), COMPUTING, 3),
                11..=310 => (OK, counted(2, 10), COMPUTING, 3),
                _ => (Answer::Silent, Seen::Silent, ASLEEP, 3),
            },
            430,
            "hung: 2 in flight, no answer from /health for 119 s, no counter moved for 7 min",
        ),
        (
            "it was never seen idle",
            |_| (OK, counted(1, 5), AT_WORK, 3),
            120,
            "hung: 1 in flight, no counter moved for 2 min",
        ),
        (
            "more and more come, none is done",
            |second| (OK, counted(second as u32, 5), ASLEEP, 3),
            120,
            "hung: 120 in flight, no counter moved for 2 min",
        ),
        (
            "a worker died",
            |second| (OK, counted(2, second.min(10)), ASLEEP, if second > 10 { 2 } else { 3 }),
            130,
            "hung: 2 in flight, no counter moved for 2 min, 1 of 3 processes of the unit are gone",
        ),
        (
            "it was stopped in the middle of its work",
            |second| match second {
                ..=10 => (OK, counted(2, second), AT_WORK, 3),
                _ => (Answer::Silent, Seen::Silent, ASLEEP, 3),
            },
            130,
            "hung: 2 in flight, no answer from /health for 119 s, no CPU time used for 2 min",
        ),
        (
            "it was stopped while idle",
            |second| match second {
                ..=10 => (OK, counted(0, 5), ASLEEP, 3),
                _ => (Answer::Silent, Seen::Silent, ASLEEP, 3),
            },
            130,
            "hung: no answer from /health for 119 s, no CPU time used for 2 min",
        ),
        (
            "without metrics it was stopped",
            |second| (if second > 10 { Answer::Silent } else { OK }, Seen::NotAsked, ASLEEP, 3),
            130,
            "hung: no answer from /health for 119 s, no CPU time used for 2 min",
        ),
        (
            "it hangs up on every question",
            |_| (Answer::NotHttp, Seen::Unreadable, ASLEEP, 3),
            120,
            "hung: no answer from /health for 119 s, no CPU time used for 2 min",
        ),
        (
            "its metrics alone are silent",
            |_| (OK, Seen::Silent, ASLEEP, 3),
            120,
            "hung: no answer from /metrics for 119 s, no CPU time used for 2 min",
        ),
        (
            "its counters stood still before it went silent",
            |second| match second {
                ..=10 => (OK, counted(2, second), AT_WORK, 3),
                11..=60 => (OK, counted(2, 10), AT_WORK, 3),
                _ => (Answer::Silent, Seen::Silent, ASLEEP, 3),
            },
            130,
            "hung: 2 in flight, no answer from /health for 69 s, no counter moved for 2 min",
        ),
        (
            "its counters stand still whenever they can be read, and something spins",
            |second| match second % 4 {
                0 => (OK, counted(2, 5), AT_WORK, 3),
                _ => (Answer::Silent, Seen::Silent, AT_WORK, 3),
            },
            236,
            "hung: 2 in flight, no counter moved for 2 min",
        ),
        (
            "nobody listens",
            |second| match second {
                ..=10 => (OK, counted(2, second), AT_WORK, 3),
                _ => (Answer::NotListening, Seen::NotAsked, AT_WORK, 3),
            },
            16,
            "dead: nothing listens on 127.0.0.1:1, 3 times in a row",
        ),
        (
            "somebody else listens",
            |_| (Answer::Outsider, counted(0, 5), ASLEEP, 3),
            6,
            "dead: 127.0.0.1:1 is answered by a process outside this unit, 3 times in a row",
        ),
        (
            "it says so itself",
            |second| (if second > 10 { UNAVAILABLE } else { OK }, counted(0, 5), ASLEEP, 3),
            16,
            "unhealthy: 503 from /health, 3 times in a row",
        ),
        (
            "it says so itself, and is slow between",
            |second| (if second % 4 == 0 { UNAVAILABLE } else { Answer::Silent }, counted(0, 5), ASLEEP, 3),
            12,
            "unhealthy: 503 from /health, 3 times in a row",
        ),
    ];
    for (name, engine, second, reason) in engines {
        let (end, _) = fate(engine);
        assert_eq!(end, Some((second, reason.to_owned())), "{name}");
    }
}

#[test]
fn a_bad_answer_with_progress_is_none_of_its_row() {
    let (end, _) = fate(|second| (UNAVAILABLE, counted(2, second.min(20)), ASLEEP, 3));
    assert_eq!(end.map(|(second, _)| second), Some(26));
    let (end, _) =
        fate(|second| (UNAVAILABLE, Seen::NotAsked, if second > 20 { ASLEEP } else { AT_WORK }, 3));
    assert_eq!(end.map(|(second, _)| second), Some(26));
}

#[test]
fn where_one_failure_is_the_end_an_engine_that_gets_on_may_still_answer_badly() {
    let mut liveness = new();
    liveness.limits.failures = 1;
    let mut judge = |second: u64, steps| {
        let ended = Duration::from_secs(second);
        let (health, metrics) = (if second == 2 { OK } else { UNAVAILABLE }, counted(2, steps));
        liveness.judge(&Round { began: ended, ended, health, metrics, cpu: None, processes: None })
    };
    judge(2, 5);
    assert_eq!(judge(4, 6), Verdict::Serving("serving, but 503 from /health".into()));
    assert_eq!(judge(6, 6), Verdict::Lost("unhealthy: 503 from /health, 1 times in a row".into()));
}

#[test]
fn what_is_slow_is_said_in_few_words() {
    let (_, said) = fate(|second| match second {
        ..=10 => (OK, counted(2, second), AT_WORK, 3),
        11..=200 => (Answer::Silent, Seen::Silent, AT_WORK, 3),
        _ => (OK, counted(0, second), AT_WORK, 3),
    });
    let slow = |time: &str| format!("serving, slow: 2 in flight, no answer from /health for {time}");
    let mut expected = vec!["serving".to_owned()];
    expected.extend(["5 s", "10 s", "20 s", "30 s", "40 s", "50 s", "1 min", "2 min", "3 min"].map(slow));
    expected.push("serving".to_owned());
    assert_eq!(said, expected);
    let (_, said) = fate(|second| (OK, counted(1, second / 20), ASLEEP, 3));
    assert_eq!(said[..2], ["serving", "serving, slow: 1 in flight, no counter moved for 5 s"]);
    let (_, said) = fate(|_| (Answer::NotListening, Seen::NotAsked, ASLEEP, 3));
    assert_eq!(said, ["serving, but nothing listens on 127.0.0.1:1"]);
    let (_, said) = fate(|second| (if second > 10 { UNAVAILABLE } else { OK }, counted(0, 5), ASLEEP, 3));
    assert_eq!(said, ["serving", "serving, but 503 from /health"]);
}

#[test]
fn time_in_which_the_prober_did_not_run_is_no_hang() {
    let mut liveness = new();
    let mut judge = |second: u64| {
        let ended = Duration::from_secs(second);
        let (health, metrics) = (OK, counted(1, 5));
        liveness.judge(&Round { began: ended, ended, health, metrics, cpu: None, processes: None })
    };
    assert_eq!(judge(2), Verdict::Serving("serving".into()));
    // The whole unit was frozen for an hour.
    let thawed = judge(3_600);
    assert!(matches!(thawed, Verdict::Serving(_)), "{thawed:?}");
}

#[test]
fn one_silence_that_begins_between_two_questions_is_told_as_one() {
    let (_, said) = fate(|second| match second {
        ..=10 => (OK, counted(2, second), AT_WORK, 3),
        11..=12 => (OK, Seen::Silent, AT_WORK, 3),
        13..=17 => (Answer::Silent, Seen::Silent, AT_WORK, 3),
        _ => (OK, counted(2, second), AT_WORK, 3),
    });
    let slow = "serving, slow: 2 in flight, no answer from /health for 5 s";
    assert_eq!(said, ["serving", slow, "serving"]);
}
