//! The oracle's own tests of drains, replacements, changed numbers and the newest wish.

use super::oracle::Happening::{
    BecameReady, DaemonRestarted, DrainCalledOff, Drains, Ended, Failed, Leaves, OperatorResets,
    OperatorStarts, OperatorStops, Refused, ReplacementEnds, Replaces, Started, TakenDown, TimePasses,
};
use super::oracle::{GPU, ORDINARY, Rules, SECOND, Standing, Stands};
use super::{NOBODY, Story};

fn stand(story: &Story, replicas: usize) -> Vec<Stands> {
    (0..replicas).map(|replica| story.0.stands(replica)).collect()
}

#[test]
fn a_drain_keeps_what_serves_and_counts_no_failure() {
    let mut story = Story::of(3, Rules::default());
    story.at(1, &BecameReady(0));
    story.at(1, &BecameReady(1));
    story.at(2, &Drains);
    assert_eq!(stand(&story, 3), [Stands::Serves, Stands::Serves, Stands::Ending]);
    story.at(3, &Ended(2));
    story.crash(4, 1);
    assert_eq!((story.0.row(ORDINARY), story.0.failures(1)), (0, 0));
    story.refused(1_000, &Started(1));
    assert_eq!(story.0.overdue(), NOBODY);
}

#[test]
fn what_went_down_for_a_drain_comes_back_and_what_was_meant_does_not() {
    let mut story = Story::of(5, Rules::default());
    story.at(1, &Ended(0));
    for replica in 1..5 {
        story.at(1, &BecameReady(replica));
    }
    story.at(2, &Drains);
    story.crash(3, 1);
    story.at(3, &Ended(2));
    story.at(3, &Refused(3));
    story.at(4, &DrainCalledOff);
    assert_eq!(story.0.overdue(), [1]);
    assert!(!story.at(4, &Started(1)).restart);
    assert_eq!(story.0.stands(4), Stands::Serves);
}

#[test]
fn a_replacement_starts_whatever_breakers_say_and_makes_no_trial() {
    let mut story = Story::tripped(2);
    story.at(41, &Replaces);
    story.at(41, &TakenDown(0));
    story.at(41, &TakenDown(1));
    assert_eq!(stand(&story, 2), [Stands::Down, Stands::Ending]);
    story.at(42, &Ended(1));
    for replica in 0..2 {
        assert_eq!(story.at(43, &Started(replica)), super::Told::default());
    }
    story.crash(44, 0);
    assert_eq!(story.0.stands(0), Stands::Down);
    story.at(45, &ReplacementEnds);
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: 340 * SECOND });
    // Nobody is on trial when the time is over: the next that fails is the next trial.
    story.at(340, &TimePasses);
    assert_eq!(story.crash(341, 1).opened, None);
    assert!(story.at(342, &Started(1)).trial);
}

#[test]
fn what_a_replacement_took_down_comes_back_with_a_drain_that_is_called_off() {
    let mut story = Story::of(2, Rules::default());
    story.at(1, &BecameReady(0));
    story.at(1, &BecameReady(1));
    story.at(2, &Replaces);
    story.at(2, &TakenDown(0));
    story.at(3, &Ended(0));
    story.at(4, &Drains);
    story.at(5, &DrainCalledOff);
    assert_eq!(story.0.overdue(), [0]);
}

#[test]
fn a_stop_ends_a_drain_and_a_replacement() {
    for undertaking in [Drains, Replaces] {
        let mut story = Story::of(1, Rules::default());
        story.at(1, &BecameReady(0));
        story.at(2, &undertaking);
        story.at(3, &OperatorStops);
        story.at(4, &OperatorStarts);
        story.at(5, &Ended(0));
        assert_eq!(story.0.overdue(), [0], "the newest wish wins");
    }
}

#[test]
fn an_engine_on_its_way_down_is_not_ready_and_starts_again_if_somebody_asks() {
    let mut story = Story::of(2, Rules::default());
    story.crash(0, 1);
    story.at(1, &BecameReady(0));
    story.at(60, &Leaves(0));
    story.at(200, &TimePasses);
    assert_eq!(story.0.row(ORDINARY), 1, "it was ready for less than a minute");
    let mut asked = Story(story.0.clone());
    story.at(201, &Ended(0));
    assert_eq!(story.0.stands(0), Stands::Down);
    asked.at(201, &OperatorStarts);
    asked.at(201, &Ended(0));
    assert!(asked.0.overdue().contains(&0));
}

#[test]
fn one_that_is_asked_for_while_it_leaves_starts_however_it_ends() {
    let ends = [Ended(0), Failed(0, "exit:1".into()), Refused(0)];
    for (end, failures) in ends.into_iter().zip([0, 1, 0]) {
        let mut story = Story::of(2, Rules::default());
        story.at(1, &Leaves(0));
        story.at(2, &OperatorStarts);
        story.at(3, &end);
        assert_eq!((story.0.overdue(), story.0.row(ORDINARY)), (vec![0], failures), "{end:?}");
        assert!(!story.at(3, &Started(0)).restart, "{end:?}");
        story.at(4, &end);
        assert_eq!(story.0.overdue(), NOBODY, "once: {end:?}");
    }
}

#[test]
fn a_refused_trial_that_somebody_asked_for_since_is_a_failed_one_and_tried_once_more() {
    let mut story = Story::tripped(2);
    story.at(340, &Started(0));
    story.at(341, &Leaves(0));
    story.at(342, &OperatorStarts);
    assert_eq!(story.at(343, &Refused(0)).opened, Some("trial"));
    let told = story.at(343, &Started(0));
    assert!(told.trial && !told.restart);
    assert_eq!(story.crash(344, 0).opened, Some("trial"));
    assert_eq!(story.0.breaker(ORDINARY), Standing::Open { until: (344 + 1_200) * SECOND });
}

#[test]
fn a_permitted_attempt_that_comes_to_nothing_is_made_again_where_somebody_asked_since() {
    let mut story = Story::tripped(1);
    story.at(50, &OperatorStarts);
    story.at(50, &Started(0));
    story.at(51, &Leaves(0));
    let mut unasked = Story(story.0.clone());
    unasked.at(52, &Ended(0));
    assert_eq!(unasked.0.breaker(ORDINARY), Standing::Open { until: 340 * SECOND });
    story.at(51, &OperatorStarts);
    story.at(52, &Ended(0));
    assert!(story.at(52, &Started(0)).trial);
}

#[test]
fn a_length_of_readiness_counts_once_and_a_shorter_one_at_once() {
    let mut story = Story::of(2, Rules::default());
    story.at(0, &BecameReady(0));
    story.at(61, &TimePasses);
    story.crash(61, 1);
    story.0.change(Rules { row_ends: 30 * SECOND, count_forgets: 61 * SECOND, ..Rules::default() });
    assert_eq!(story.0.row(ORDINARY), 1, "that it ended a row is behind it");
    story.at(63, &Started(1));
    assert_eq!(story.0.restart_count(), 1, "the count was forgotten before the restart");
}

#[test]
fn a_permitted_attempt_is_no_restart_and_what_fails_afterwards_is_one() {
    let mut story = Story::tripped(3);
    story.at(50, &OperatorStarts);
    // The others run; one fails, and takes the attempt that nobody asked for on its behalf.
    story.crash(51, 1);
    assert!(story.at(52, &Started(1)).restart);
    let mut story = Story::tripped(3);
    story.at(50, &OperatorStarts);
    assert!(!story.at(50, &Started(0)).restart);
}

#[test]
fn a_trial_of_both_that_fails_one_way_is_over_for_the_other() {
    let rules = Rules { row: 1, backoff_most: SECOND, ..Rules::default() };
    let mut story = Story::of(3, rules);
    story.at(0, &Failed(0, "gpu-lost".into()));
    story.crash(0, 1);
    story.at(300, &Started(0));
    assert_eq!(story.crash(301, 0).opened, Some("trial"));
    assert_eq!(story.0.breaker(GPU), Standing::HalfOpen);
    story.at(901, &TimePasses);
    assert_eq!(story.0.overdue(), [0, 1]);
}

#[test]
fn a_restarted_daemon_tries_what_had_failed_for_good_and_a_reset_in_a_drain_starts_nothing() {
    let mut story = Story::of(2, Rules::default());
    story.at(1, &Refused(0));
    story.at(1, &Ended(1));
    story.at(2, &DaemonRestarted);
    assert_eq!(story.0.overdue(), [0]);
    story.at(2, &Started(0));
    story.at(2, &BecameReady(0));
    story.at(3, &Drains);
    story.at(4, &Refused(0));
    story.at(5, &OperatorResets);
    story.at(5, &DaemonRestarted);
    assert_eq!((story.0.overdue(), story.0.stands(0)), (NOBODY.to_vec(), Stands::Down));
}
