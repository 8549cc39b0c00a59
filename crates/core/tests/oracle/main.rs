//! The oracle's own tests, for it has to be right before anything is held against it; and the core held against it.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
mod dice;
mod driver;
mod jobs;
mod model;
mod numbers;
mod oracle;
mod twin;
mod undertakings;
mod wishes;
// Its stories use more of it than this one does.
#[allow(dead_code)]
#[path = "../lifecycle/world.rs"]
mod world;

use dice::Dice;
use oracle::Happening::{
    BecameReady, Ended, Failed, OperatorResets, OperatorStarts, OperatorStops, Refused, Started, TimePasses,
};
use oracle::{GPU, Happening, Leases, ORDINARY, Oracle, Rules, SECOND, Standing, Told};

const CRASH: &str = "signal:SEGV";
const NOBODY: [usize; 0] = [];

/// A pool whose happenings are told in seconds.
struct Story(Oracle);

impl Story {
    fn of(replicas: usize, rules: Rules) -> Self {
        let mut story = Story(Oracle::new(rules, replicas));
        story.at(0, &OperatorStarts);
        for replica in 0..replicas {
            let told = story.at(0, &Started(replica));
            assert!(!told.restart && !told.trial);
        }
        story
    }

    fn at(&mut self, second: u64, happening: &Happening) -> Told {
        let told = self.0.tell(second * SECOND, happening);
        told.unwrap_or_else(|problem| panic!("at {second} s, {happening:?}: {problem}"))
    }

    fn refused(&mut self, second: u64, happening: &Happening) -> String {
        self.0.tell(second * SECOND, happening).unwrap_err()
    }

    fn crash(&mut self, second: u64, replica: usize) -> Told {
        self.at(second, &Failed(replica, CRASH.into()))
    }

    /// Five failures in a row of replica 0, at 0, 10, … 40 s: open until 340 s.
    fn tripped(replicas: usize) -> Self {
        let mut story = Story::of(replicas, Rules { backoff_most: 5 * SECOND, ..Rules::default() });
        for number in 0..4 {
            assert_eq!(story.crash(number * 10, 0).opened, None);
            assert!(story.at(number * 10 + 6, &Started(0)).restart);
        }
        assert_eq!(story.crash(40, 0).opened, Some("row"));
        assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: 340 * SECOND });
        story
    }
}

/// Restarts at will: no backoff, and no breaker by failures in a row.
fn restless() -> Rules {
    Rules { backoff_first: 0, backoff_least: 0, row: u32::MAX, ..Rules::default() }
}

#[test]
fn a_restart_comes_within_its_jitter_and_later_each_time() {
    let rules = Rules { row: u32::MAX, ..Rules::default() };
    for (class, factor) in [(CRASH, 1), ("gpu-error:79", 2)] {
        let mut oracle = Oracle::new(rules.clone(), 1);
        oracle.tell(0, &OperatorStarts).unwrap();
        oracle.tell(0, &Started(0)).unwrap();
        let mut now = 0;
        for (least, most) in [
            (900, 1_100),
            (1_800, 2_200),
            (3_600, 4_400),
            (7_200, 8_800),
            (14_400, 17_600),
            (28_800, 35_200),
            (54_000, 60_000),
            (54_000, 60_000),
        ] {
            oracle.tell(now, &Failed(0, class.into())).unwrap();
            let (from, to) = (now + least * 1_000 * factor, now + most * 1_000 * factor);
            assert!(oracle.tell(from - 1, &Started(0)).is_err());
            oracle.tell(from, &TimePasses).unwrap();
            assert!(oracle.may_start(0).is_ok());
            oracle.tell(to - 1, &TimePasses).unwrap();
            assert_eq!(oracle.overdue(), NOBODY);
            oracle.tell(to, &TimePasses).unwrap();
            assert_eq!(oracle.overdue(), [0]);
            assert!(oracle.tell(to, &Started(0)).unwrap().restart);
            now = to;
        }
    }
}

#[test]
fn a_backoff_forgets_after_long_readiness_of_that_replica_alone() {
    for (ready_for, failures) in [(299, 3), (300, 1)] {
        let mut story = Story::of(2, Rules { row: u32::MAX, ..Rules::default() });
        for (failure, start) in [(0, 2), (3, 6)] {
            for replica in 0..2 {
                story.crash(failure, replica);
            }
            for replica in 0..2 {
                story.at(start, &Started(replica));
            }
        }
        story.at(10, &BecameReady(0));
        story.crash(10 + ready_for, 0);
        assert_eq!(story.0.failures(0), failures);
        assert_eq!(story.0.failures(1), 2, "the other was never ready");
    }
}

#[test]
fn the_fifth_failure_in_a_row_opens_the_breaker_whichever_replicas_they_are_of() {
    let mut story = Story::of(5, Rules::default());
    for replica in 0..4 {
        assert_eq!(story.crash(0, replica).opened, None);
    }
    assert_eq!(story.0.row(ORDINARY), 4);
    assert_eq!(story.crash(0, 4).opened, Some("row"));
    assert!(story.refused(299, &Started(2)).contains("open until 300"));
    assert_eq!(story.0.overdue(), NOBODY);
    assert_eq!(story.0.breakers(), "open");
}

#[test]
fn a_row_ends_when_any_replica_has_been_ready_for_a_minute() {
    for (second, row) in [(159, 5), (160, 1)] {
        let mut story = Story::of(5, Rules::default());
        for replica in 0..4 {
            story.crash(100, replica);
        }
        story.at(100, &BecameReady(4));
        story.crash(second, 4);
        assert_eq!(story.0.row(ORDINARY), row);
    }
}

#[test]
fn a_replica_that_was_ready_all_the_time_ends_no_row() {
    let mut story = Story::of(6, Rules::default());
    story.at(0, &BecameReady(5));
    story.at(100, &TimePasses);
    for replica in 0..4 {
        story.crash(100, replica);
    }
    assert_eq!(story.crash(170, 4).opened, Some("row"));
}

#[test]
fn one_trial_starts_when_the_time_is_over_and_closes_the_breaker_when_it_lasts() {
    let mut story = Story::tripped(3);
    story.crash(41, 1);
    story.crash(42, 2);
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: 340 * SECOND });
    story.refused(339, &Started(1));
    story.at(340, &TimePasses);
    assert_eq!(story.0.breaker(ORDINARY), Standing::HalfOpen);
    assert_eq!(story.0.overdue(), [0, 1, 2]);
    let told = story.at(340, &Started(1));
    assert!(told.restart && told.trial);
    assert_eq!(story.0.overdue(), NOBODY);
    assert!(story.refused(340, &Started(0)).contains("trial"));
    story.at(350, &BecameReady(1));
    story.refused(409, &Started(0));
    assert_eq!(story.0.breakers(), "half-open");
    story.at(410, &TimePasses);
    assert_eq!((story.0.breakers(), story.0.row(ORDINARY)), ("closed", 0));
    assert_eq!(story.0.overdue(), [0, 2]);
    assert!(story.at(410, &Started(0)).restart && story.at(410, &Started(2)).restart);
}

#[test]
fn a_failed_trial_doubles_the_time_up_to_an_hour_and_a_success_forgets_that() {
    let mut story = Story::tripped(1);
    let mut now = 340;
    for length in [600, 1_200, 2_400, 3_600, 3_600] {
        story.at(now, &Started(0));
        story.at(now, &BecameReady(0));
        assert_eq!(story.crash(now + 59, 0).opened, Some("trial"));
        assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: (now + 59 + length) * SECOND });
        now += 59 + length;
    }
    story.at(now, &Started(0));
    story.at(now, &BecameReady(0));
    assert_eq!(
        story.crash(now + 60, 0).opened,
        None,
        "it closed in the same moment, and this is a first failure"
    );
    assert_eq!((story.0.breakers(), story.0.row(ORDINARY)), ("closed", 1));
    for number in 1..5 {
        story.at(now + 60 + number * 6, &Started(0));
        story.crash(now + 60 + number * 6, 0);
    }
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: (now + 84 + 300) * SECOND });
}

#[test]
fn failures_beside_a_trial_are_not_the_trial_s() {
    let mut story = Story::tripped(2);
    story.at(340, &Started(0));
    assert_eq!(story.crash(341, 1).opened, None);
    assert_eq!(story.0.breaker(ORDINARY), Standing::HalfOpen);
    story.refused(350, &Started(1));
}

#[test]
fn what_else_is_ready_for_a_minute_ends_the_row_and_closes_nothing() {
    let mut story = Story::tripped(2);
    story.at(330, &BecameReady(1));
    story.at(340, &Started(0));
    story.at(390, &TimePasses);
    assert_eq!((story.0.row(ORDINARY), story.0.breaker(ORDINARY)), (0, Standing::HalfOpen));
    assert_eq!(story.crash(391, 0).opened, Some("trial"));
}

#[test]
fn behind_a_breaker_no_backoff_is_waited_for() {
    let rules = Rules { row: 2, open: 20 * SECOND, backoff_first: 30 * SECOND, ..Rules::default() };
    let mut story = Story::of(3, rules);
    story.crash(0, 0);
    story.refused(1, &Started(0));
    assert_eq!(story.crash(1, 1).opened, Some("row"));
    story.refused(20, &Started(0));
    assert!(story.at(21, &Started(0)).trial);
}

#[test]
fn a_trial_that_ends_as_meant_or_is_stopped_leaves_the_chance_to_the_next() {
    let mut story = Story::tripped(2);
    story.crash(41, 1);
    story.at(340, &Started(0));
    story.at(341, &Ended(0));
    assert_eq!(story.0.breaker(ORDINARY), Standing::HalfOpen);
    assert!(story.at(341, &Started(1)).trial);
    story.at(342, &OperatorStops);
    assert_eq!(story.0.breaker(ORDINARY), Standing::HalfOpen);
    story.at(343, &Ended(1));
    story.at(344, &OperatorStarts);
    assert!(story.at(344, &Started(1)).trial);
    assert_eq!(story.0.overdue(), NOBODY);
}

#[test]
fn a_refused_trial_is_a_failed_one() {
    let mut story = Story::tripped(1);
    story.at(340, &Started(0));
    assert_eq!(story.at(341, &Refused(0)).opened, Some("trial"));
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: 941 * SECOND });
    assert!(story.refused(941, &Started(0)).contains("does not wait"));
}

#[test]
fn gpu_failures_and_others_are_counted_apart() {
    let mut story = Story::of(8, Rules { backoff_most: SECOND, ..Rules::default() });
    for replica in 0..4 {
        assert_eq!(story.at(0, &Failed(replica, "gpu-lost".into())).opened, None);
        assert_eq!(story.crash(0, replica + 4).opened, None);
    }
    assert_eq!((story.0.row(ORDINARY), story.0.row(GPU)), (4, 4));
    story.at(3, &Started(0));
    assert_eq!(story.at(3, &Failed(0, "cpu-fallback".into())).opened, Some("row"));
    assert_eq!(story.0.breaker(GPU), Standing::Open { until: 303 * SECOND });
    assert_eq!(story.0.breaker(ORDINARY), Standing::Closed);
    story.refused(10, &Started(5));
    // The trial fails otherwise: no verdict on the GPU, the next one is its trial.
    story.at(303, &Started(0));
    assert_eq!(story.crash(304, 0).opened, Some("row"));
    assert_eq!(story.0.breaker(GPU), Standing::HalfOpen);
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: 604 * SECOND });
    assert_eq!(story.0.breakers(), "open");
    // One trial for both.
    story.at(604, &Started(3));
    story.at(604, &BecameReady(3));
    story.at(664, &TimePasses);
    assert_eq!(story.0.breakers(), "closed");
}

#[test]
fn a_sixth_restart_in_a_minute_is_a_warning() {
    let mut story = Story::of(1, restless());
    for number in 0..6 {
        story.crash(number, 0);
        assert_eq!(story.at(number, &Started(0)).warning, number == 5);
    }
    story.at(59, &TimePasses);
    assert!(story.0.storm_warns());
    story.at(60, &TimePasses);
    assert!(!story.0.storm_warns(), "what is a minute old is out");
}

#[test]
fn an_eleventh_restart_in_a_minute_waits_for_the_first_to_be_a_minute_old() {
    let mut story = Story::of(1, restless());
    for number in 0..10 {
        story.crash(number * 4, 0);
        assert!(story.at(number * 4, &Started(0)).restart);
    }
    assert_eq!(story.crash(40, 0).opened, None);
    assert_eq!(story.0.storm_waits_until(), Some(60 * SECOND));
    assert_eq!(story.0.next(), Some(60 * SECOND));
    assert!(story.refused(59, &Started(0)).contains("waits until 60"));
    let mut asked = Story(story.0.clone());
    asked.at(59, &OperatorStarts);
    assert!(!asked.at(59, &Started(0)).restart, "what an operator asks for does not wait");
    story.at(60, &TimePasses);
    assert_eq!(story.0.storm_waits_until(), None);
    assert!(story.at(60, &Started(0)).restart);
    assert_eq!(story.0.storm_waits_until(), Some(64 * SECOND));
}

#[test]
fn a_failure_that_finds_ten_restarts_in_half_a_minute_opens_the_breaker() {
    for (last, opened) in [(29, Some("storm")), (30, None)] {
        let mut story = Story::of(1, restless());
        for number in 0..10 {
            assert_eq!(story.crash(number, 0).opened, None);
            story.at(number, &Started(0));
        }
        assert_eq!(story.crash(last, 0).opened, opened);
    }
}

#[test]
fn the_fifth_oom_in_a_minute_is_a_storm_of_its_own() {
    for (last, opened) in [(59, Some("oom-storm")), (60, None)] {
        let mut story = Story::of(1, restless());
        for class in ["oom-host", "oom-vram", "oom-host", "oom-vram"] {
            assert_eq!(story.at(0, &Failed(0, class.into())), Told::default());
            story.at(0, &Started(0));
        }
        let told = story.at(last, &Failed(0, "oom-vram".into()));
        assert_eq!((told.opened, told.oom_storm), (opened, opened.is_some()));
        let open = Standing::Open { until: (last + 300) * SECOND };
        assert_eq!(story.0.breaker(GPU), if opened.is_some() { open } else { Standing::Closed });
    }
}

#[test]
fn the_restart_count_is_kept_until_a_replica_was_ready_for_ten_minutes() {
    let mut story = Story::of(2, restless());
    for second in 0..3 {
        story.crash(second, 0);
        story.at(second, &Started(0));
    }
    story.at(10, &BecameReady(1));
    story.at(609, &TimePasses);
    assert_eq!(story.0.restart_count(), 3);
    story.at(610, &TimePasses);
    assert_eq!(story.0.restart_count(), 0);
}

#[test]
fn an_operator_s_start_while_open_permits_one_attempt_and_keeps_the_count() {
    let mut story = Story::tripped(2);
    story.crash(41, 1);
    let count = story.0.restart_count();
    story.at(50, &OperatorStarts);
    assert_eq!(story.0.breaker(ORDINARY), Standing::HalfOpen);
    let told = story.at(50, &Started(0));
    assert!(told.trial && !told.restart);
    story.at(51, &OperatorStarts);
    story.refused(51, &Started(1));
    assert_eq!(story.crash(52, 0).opened, Some("trial"));
    assert_eq!(story.0.restart_count(), count);
    assert_eq!(story.0.failures(0), 1, "the operator's start is a first one");
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: 652 * SECOND });
    story.at(60, &OperatorStarts);
    story.at(60, &OperatorStops);
    assert_eq!(
        story.0.breaker(ORDINARY),
        Standing::Open { until: 652 * SECOND },
        "the attempt was taken back"
    );
}

#[test]
fn an_operator_permits_no_second_attempt_beside_a_trial() {
    let mut story = Story::tripped(6);
    story.at(340, &Started(0));
    for replica in 1..6 {
        story.at(341, &Failed(replica, "gpu-lost".into()));
    }
    assert_eq!(story.0.breaker(GPU), Standing::Open { until: 641 * SECOND });
    story.at(342, &OperatorStarts);
    assert_eq!(story.0.breaker(GPU), Standing::Open { until: 641 * SECOND });
    story.at(343, &BecameReady(0));
    story.at(403, &TimePasses);
    assert_eq!(story.0.breaker(ORDINARY), Standing::Closed);
    story.refused(640, &Started(1));
    assert!(story.at(641, &Started(1)).restart);
}

#[test]
fn a_reset_forgets_everything_and_starts_what_failed() {
    let mut story = Story::of(3, Rules { row: 12, storm_trips: 11, ..restless() });
    for second in 0..10 {
        story.crash(second, 0);
        story.at(second, &Started(0));
    }
    story.at(10, &Refused(1));
    story.at(10, &Ended(2));
    assert_eq!(story.crash(10, 0).opened, None);
    assert_eq!(story.0.storm_waits_until(), Some(60 * SECOND));
    story.at(60, &Started(0));
    assert_eq!(story.crash(61, 0).opened, Some("row"));
    assert_eq!((story.0.failures(0), story.0.restart_count(), story.0.storm_warns()), (12, 11, true));
    story.at(62, &OperatorResets);
    assert_eq!((story.0.breakers(), story.0.row(ORDINARY), story.0.restart_count()), ("closed", 0, 0));
    assert_eq!((story.0.failures(0), story.0.storm_warns(), story.0.storm_waits_until()), (0, false, None));
    assert_eq!(story.0.overdue(), [0, 1], "what ended as meant stays down");
    assert!(!story.at(62, &Started(0)).restart);
    assert_eq!(story.crash(63, 0), Told::default());
    assert_eq!(story.0.failures(0), 1);
}

#[test]
fn a_reset_forgets_ooms_and_doubled_times() {
    let mut story = Story::tripped(1);
    story.at(340, &Started(0));
    assert_eq!(story.crash(341, 0).opened, Some("trial"));
    story.at(342, &OperatorResets);
    for number in 0..4 {
        story.at(342 + number * 6, &Started(0));
        story.at(342 + number * 6, &Failed(0, "oom-host".into()));
    }
    story.at(366, &OperatorResets);
    story.at(366, &Started(0));
    assert_eq!(story.at(366, &Failed(0, "oom-host".into())), Told::default());
    for number in 1..5 {
        story.at(366 + number * 6, &Started(0));
        story.crash(366 + number * 6, 0);
    }
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: (390 + 300) * SECOND });
}

#[test]
fn a_reset_starts_nothing_of_a_stopped_pool() {
    let mut story = Story::tripped(1);
    story.at(41, &OperatorStops);
    story.at(42, &OperatorResets);
    assert_eq!(story.0.breakers(), "closed");
    assert!(story.refused(1_000, &Started(0)).contains("does not wait"));
}

#[test]
fn a_stop_wins_over_a_restart_and_what_it_ends_counts_nothing() {
    let mut story = Story::of(3, restless());
    story.crash(1, 0);
    story.at(1, &OperatorStops);
    story.refused(100, &Started(0));
    assert_eq!(story.crash(100, 1), Told::default());
    assert_eq!(story.0.row(ORDINARY), 1);
    story.at(101, &OperatorStarts);
    assert_eq!(story.0.overdue(), NOBODY, "one of them is still on its way out");
    story.at(102, &Ended(2));
    assert_eq!(story.0.overdue(), [0, 1, 2]);
    assert!(!story.at(102, &Started(1)).restart);
}

#[test]
fn an_end_that_was_meant_counts_nothing_and_stays() {
    let mut story = Story::of(1, restless());
    story.at(1, &BecameReady(0));
    story.at(2, &Ended(0));
    assert_eq!((story.0.row(ORDINARY), story.0.failures(0), story.0.restart_count()), (0, 0, 0));
    story.refused(1_000, &Started(0));
    story.at(1_000, &OperatorStarts);
    story.at(1_000, &Started(0));
}

#[test]
fn what_cannot_have_happened_is_told_and_changes_nothing() {
    let mut story = Story::of(1, Rules::default());
    story.refused(0, &Started(0));
    story.at(0, &BecameReady(0));
    story.refused(0, &BecameReady(0));
    story.crash(5, 0);
    for happening in [BecameReady(0), Failed(0, CRASH.into()), Ended(0), Refused(0)] {
        story.refused(5, &happening);
    }
    assert!(story.refused(4, &TimePasses).contains("went back"));
    assert_eq!(story.0.row(ORDINARY), 1);
}

#[test]
fn the_next_moment_is_the_one_when_something_is_due() {
    let mut story = Story::tripped(1);
    assert_eq!(story.0.next(), Some(45_000_000), "the backoff, behind the breaker");
    story.at(45, &TimePasses);
    assert_eq!(story.0.next(), Some(340 * SECOND));
    story.at(340, &Started(0));
    assert_eq!(story.0.next(), None);
    story.at(341, &BecameReady(0));
    for second in [401, 641, 941] {
        assert_eq!(story.0.next(), Some(second * SECOND));
        story.at(second, &TimePasses);
    }
    assert_eq!(story.0.next(), None);
}

#[test]
fn whatever_happens_restarts_are_few_and_trials_alone() {
    let (mut opened, mut trials, mut waited) = (0, 0, 0);
    for seed in 1..=300 {
        let mut dice = Dice::new(seed);
        // Every other story is one where nothing but the storm holds restarts back.
        let storm = seed % 2 == 0;
        let never = usize::MAX;
        let rules = if storm {
            Rules { row: u32::MAX, ooms: never, storm_trips: never, backoff_most: SECOND, ..Rules::default() }
        } else {
            Rules { backoff_most: 4 * SECOND, ..Rules::default() }
        };
        let mut oracle = Oracle::new(rules, 4);
        let (mut now, mut restarts, mut trial) = (0, Vec::new(), None);
        for _ in 0..300 {
            let longest = if storm { SECOND / 2 } else { 61 * SECOND };
            now += [0, 0, 0, SECOND / 4, SECOND / 4, longest][dice.roll(6)];
            if !storm && dice.roll(4) == 0 {
                now = oracle.next().unwrap_or(now).max(now);
            }
            let replica = dice.roll(4);
            let happening = match dice.roll(60) {
                0 if dice.roll(4) == 0 => OperatorStops,
                1 | 2 => OperatorStarts,
                4 if dice.roll(4) == 0 => OperatorResets,
                5 => Ended(replica),
                6 => Refused(replica),
                7..=10 => BecameReady(replica),
                11..=32 => Failed(replica, ["oom-host", "gpu-lost", CRASH][dice.roll(3)].into()),
                _ => Started(replica),
            };
            let told = oracle.tell(now, &happening);
            let standing = oracle.breakers();
            if standing == "closed" || happening == OperatorStops {
                trial = None;
            }
            match (&happening, told) {
                (Started(_), Ok(told)) => {
                    assert_eq!(told.trial, standing != "closed", "seed {seed}");
                    if told.trial {
                        assert_eq!(trial.replace(replica), None, "seed {seed}: two trials at once");
                        assert_eq!(standing, "half-open", "seed {seed}");
                        trials += 1;
                    }
                    if told.restart {
                        restarts.push(now);
                    }
                }
                (Started(_), Err(why)) => waited += u32::from(why.contains("so many")),
                (Failed(of, _) | Ended(of) | Refused(of), Ok(told)) => {
                    if trial == Some(*of) {
                        trial = None;
                    }
                    opened += u32::from(told.opened.is_some());
                }
                (OperatorResets, Ok(_)) => {
                    assert_eq!(standing, "closed");
                    restarts.clear();
                }
                (OperatorStarts, Ok(_)) => assert!(standing != "open" || trial.is_some(), "seed {seed}"),
                _ => {}
            }
            let recent = restarts.iter().filter(|at| now - **at < 60 * SECOND).count();
            assert!(recent <= 10, "seed {seed}: {recent} restarts in a minute");
            assert_eq!(oracle.storm_warns(), recent > 5, "seed {seed}");
            assert!(oracle.restart_count() as usize <= restarts.len(), "seed {seed}");
        }
    }
    assert!(
        opened > 100 && trials > 100 && waited > 100,
        "{opened} opened, {trials} trials, {waited} waited"
    );
}

#[test]
fn a_lease_is_of_the_least_loaded_ready_replica_then_of_the_lowest() {
    let mut leases = Leases::new(2, 3);
    assert_eq!(leases.allocate(1), Err("not-ready"));
    leases.ready(1, true);
    leases.ready(2, true);
    assert_eq!([2, 3, 4].map(|lease| leases.allocate(lease).unwrap()), [1, 2, 1]);
    leases.ready(0, true);
    assert_eq!([5, 6, 7].map(|lease| leases.allocate(lease).unwrap()), [0, 0, 2]);
    assert_eq!(leases.allocate(8), Err("at-capacity"));
    assert_eq!(leases.release(2), Ok(5));
    assert_eq!(leases.release(2), Err("no-such-lease"));
    assert_eq!(leases.of_pool(), 5);
    leases.draining = true;
    assert_eq!(leases.allocate(9), Err("draining"));
    assert_eq!(leases.of_pool(), 5);
}

#[test]
fn an_engine_s_end_frees_its_leases_and_a_pause_does_not() {
    let mut leases = Leases::new(4, 2);
    leases.ready(0, true);
    leases.ready(1, true);
    assert_eq!([1, 2, 3].map(|lease| leases.allocate(lease).unwrap()), [0, 1, 0]);
    leases.ready(0, false);
    assert_eq!((leases.of_replica(0), leases.allocate(4)), (2, Ok(1)));
    assert_eq!(leases.engine_ended(0), [1, 3]);
    assert_eq!((leases.of_replica(0), leases.of_pool()), (0, 2));
    leases.ready(0, true);
    leases.engine_ended(0);
    assert_eq!(leases.allocate(5), Ok(1), "what has ended is not ready");
    assert_eq!(leases.release(5), Ok(2));
    assert_eq!(leases.release(1), Err("no-such-lease"));
}
