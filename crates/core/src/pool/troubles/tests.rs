use super::*;
use crate::host::Timers;

const AT: fn(u64) -> Usec = Usec::from_secs;

fn open() -> BreakerState {
    let (mut timers, mut effects) = (Timers::default(), Vec::new());
    let purpose = crate::host::Purpose::Trial("a".parse().expect("an id"));
    let timer = timers.set(AT(10), purpose, &mut effects);
    BreakerState::Open { timer, until: AT(10), until_real: AT(10) }
}

fn half(trial: Option<u16>) -> BreakerState {
    BreakerState::HalfOpen { trial, until: AT(10) }
}

fn troubles(ordinary: BreakerState, gpu: BreakerState) -> Troubles {
    let breaker = |state| Breaker { state, ..Breaker::default() };
    Troubles { ordinary: breaker(ordinary), gpu: breaker(gpu), ..Troubles::default() }
}

#[test]
fn both_breakers_are_asked() {
    let closed = BreakerState::Closed;
    // States of the two, whether all are closed, whether one is open, whether one is on trial.
    let table = [
        (closed.clone(), closed.clone(), true, false, false),
        (open(), closed.clone(), false, true, false),
        (closed.clone(), open(), false, true, false),
        (half(None), closed.clone(), false, false, false),
        (closed.clone(), half(None), false, false, false),
        (half(Some(1)), closed.clone(), false, false, true),
        (closed, half(Some(1)), false, false, true),
    ];
    for (ordinary, gpu, all_closed, any_open, any_trial) in table {
        let both = troubles(ordinary, gpu);
        let told = (both.all_closed(), both.any_open(), both.any_trial());
        assert_eq!(told, (all_closed, any_open, any_trial), "{both:?}");
        assert_eq!(both.trials(), if any_trial { vec![1] } else { vec![] }, "{both:?}");
        assert_eq!((both.tries(1), both.tries(0)), (any_trial, false), "{both:?}");
    }
}

#[test]
fn an_attempt_that_was_permitted_is_known_until_it_is_made_or_needs_no_permit() {
    let permits = |state, now| troubles(state, BreakerState::Closed).permits(now);
    assert_eq!(permits(half(None), AT(9)), [(Kind::Ordinary, AT(10))]);
    assert_eq!(permits(half(None), AT(10)), []);
    assert_eq!(permits(half(Some(0)), AT(9)), []);
    assert_eq!(permits(open(), AT(9)), []);
    assert_eq!(troubles(BreakerState::Closed, half(None)).permits(AT(9)), [(Kind::Gpu, AT(10))]);
}

#[test]
fn a_trial_that_comes_to_nothing_opens_the_breaker_again_only_before_its_time() {
    for (now, again) in [(AT(9), vec![(Kind::Gpu, AT(10))]), (AT(10), vec![]), (AT(11), vec![])] {
        let mut both = troubles(BreakerState::Closed, half(Some(3)));
        assert_eq!(both.trial_undecided(2, now), [], "another engine's");
        assert_eq!(both.gpu.state, half(Some(3)));
        assert_eq!(both.trial_undecided(3, now), again);
        assert_eq!(both.gpu.state, half(None));
    }
}

#[test]
fn a_failure_beside_a_breaker_that_waits_for_a_trial_is_tried_unless_another_breaker_is_in_the_way() {
    let numbers = Restart::default();
    let verdict = |ordinary, gpu| troubles(ordinary, gpu).failed(0, Kind::Ordinary, false, AT(1), &numbers);
    assert_eq!(verdict(half(None), BreakerState::Closed), Verdict::Again);
    assert_eq!(verdict(half(None), open()), Verdict::Held);
    assert_eq!(verdict(half(Some(1)), BreakerState::Closed), Verdict::Held);
    assert_eq!(verdict(BreakerState::Closed, half(Some(1))), Verdict::Held);
    assert_eq!(verdict(BreakerState::Closed, half(Some(0))), Verdict::Again);
    let trial =
        Verdict::Opens { kind: Kind::Ordinary, open_for: numbers.breaker.open_for, why: Opening::Trial };
    assert_eq!(verdict(half(Some(0)), BreakerState::Closed), trial);
}

#[test]
fn what_is_exactly_as_old_as_its_window_is_out_of_it() {
    let numbers = Restart::default();
    let storm = &numbers.storm;
    let after = |times: u32, seconds: Usec| {
        let mut both = Troubles::default();
        for _ in 0..times {
            both.restarted(AT(100), &numbers);
        }
        (both, AT(100).plus(seconds))
    };
    let (both, now) = after(storm.wait_after, storm.window);
    assert_eq!(both.leave(0, now, &numbers), Leave::Given);
    assert_eq!(both.leave(0, Usec(now.0 - 1), &numbers), Leave::After(Usec(1)));
    let (mut both, now) = after(storm.warn_after, storm.window);
    assert_eq!(both.restarted(now, &numbers), None);
    let (mut both, now) = after(storm.warn_after, Usec(storm.window.0 - 1));
    assert_eq!(both.restarted(now, &numbers), Some(storm.warn_after + 1));
    let (mut both, now) = after(storm.trip_after, storm.trip_window);
    assert_eq!(both.failed(0, Kind::Ordinary, false, now, &numbers), Verdict::Again);
    let (mut both, now) = after(storm.trip_after, Usec(storm.trip_window.0 - 1));
    let why = Opening::Storm(storm.trip_after, storm.trip_window);
    let opens = Verdict::Opens { kind: Kind::Ordinary, open_for: numbers.breaker.open_for, why };
    assert_eq!(both.failed(0, Kind::Ordinary, false, now, &numbers), opens);
}

#[test]
fn running_out_of_memory_exactly_one_window_ago_is_forgotten() {
    let mut numbers = Restart::default();
    numbers.breaker.failures = 100;
    let storm = numbers.storm;
    for (later, opens) in [(storm.oom_window, false), (Usec(storm.oom_window.0 - 1), true)] {
        let mut both = Troubles::default();
        for _ in 1..storm.oom_after {
            assert_eq!(both.failed(0, Kind::Ordinary, true, AT(100), &numbers), Verdict::Again);
        }
        let verdict = both.failed(0, Kind::Ordinary, true, AT(100).plus(later), &numbers);
        assert_eq!(
            matches!(verdict, Verdict::Opens { why: Opening::OomStorm(..), .. }),
            opens,
            "{verdict:?}"
        );
        assert_eq!(both.ooms.len(), if opens { 5 } else { 1 }, "what is too old is kept no longer");
    }
}
