//! What polkit said of one caller, kept for as long as it counts, and the questions under way, which all who want to know
//! the same share.
//!
//! An answer counts for one action and one pool, since rules can tell pools apart; until polkit says that something
//! changed; and for [`KEPT`], since groups change without a word. Only what polkit says by itself is kept: what a person
//! allowed or refused is for those who waited for him, and whether polkit remembers it polkit says the next time.

use super::Action;
use super::authority::Verdict;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// How long an answer counts.
const KEPT: Duration = Duration::from_secs(60);
/// Answers kept of one caller; more pools than that are asked about anew.
const POOLS: usize = 64;

/// What is asked.
type Kind = (Action, bool);

/// One question, for all who want to know.
#[derive(Debug)]
pub(super) struct Question {
    epoch: u64,
    asked: Instant,
    pub(super) verdict: OnceCell<Verdict>,
}

/// All of one caller, by pool.
#[derive(Debug, Default)]
pub(super) struct Verdicts(HashMap<String, BTreeMap<Kind, Arc<Question>>>);

impl Verdicts {
    /// The question whether the caller may do `action` to `pool`, a person being asked or not: the one that was
    /// answered or is under way, or a new one.
    pub(super) fn question(
        &mut self,
        (action, pool, with_a_person): (Action, &str, bool),
        epoch: u64,
        now: Instant,
    ) -> Arc<Question> {
        let kind = (action, with_a_person);
        let known = self.0.get(pool).and_then(|questions| questions.get(&kind));
        if let Some(known) = known
            && known.epoch == epoch
            && (known.verdict.get().is_none() || now.duration_since(known.asked) < KEPT)
        {
            return known.clone();
        }
        if self.0.len() >= POOLS && !self.0.contains_key(pool) {
            // Those under way are still shared by who has them.
            self.0.clear();
        }
        let question = Arc::new(Question { epoch, asked: now, verdict: OnceCell::new() });
        self.0.entry(pool.to_owned()).or_default().insert(kind, question.clone());
        question
    }

    /// Keeps an answer, or not.
    pub(super) fn answered(
        &mut self,
        (action, pool, with_a_person): (Action, &str, bool),
        question: &Arc<Question>,
        verdict: Verdict,
    ) {
        let kept = match verdict {
            Verdict::Authorized | Verdict::Challenge | Verdict::Refused => !with_a_person,
            Verdict::NotAllowed
            | Verdict::Unanswered
            | Verdict::Failed
            | Verdict::Missing
            | Verdict::Silent
            | Verdict::Left => false,
        };
        let Some(questions) = self.0.get_mut(pool) else { return };
        if !kept {
            questions.retain(|_, known| !Arc::ptr_eq(known, question));
        }
        if with_a_person && verdict == Verdict::Authorized {
            // Without a person it may be answered otherwise now.
            questions.remove(&(action, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: (Action, &str, bool) = (Action::Lease, "a", false);
    const WITH_A_PERSON: (Action, &str, bool) = (Action::Lease, "a", true);

    fn answer(verdicts: &mut Verdicts, what: (Action, &str, bool), verdict: Verdict) -> Arc<Question> {
        let question = verdicts.question(what, 0, Instant::now());
        question.verdict.set(verdict).expect("it was not answered yet");
        verdicts.answered(what, &question, verdict);
        question
    }

    fn is_kept(verdicts: &mut Verdicts, what: (Action, &str, bool), question: &Arc<Question>) -> bool {
        Arc::ptr_eq(&verdicts.question(what, 0, Instant::now()), question)
    }

    #[test]
    fn a_question_under_way_is_shared_and_its_answer_kept_for_this_action_and_pool() {
        let mut verdicts = Verdicts::default();
        let now = Instant::now();
        let question = verdicts.question(PLAIN, 0, now);
        assert!(Arc::ptr_eq(&question, &verdicts.question(PLAIN, 0, now + KEPT * 2)), "it is under way");
        question.verdict.set(Verdict::Authorized).expect("it was not answered yet");
        verdicts.answered(PLAIN, &question, Verdict::Authorized);
        assert!(is_kept(&mut verdicts, PLAIN, &question));
        assert!(!is_kept(&mut verdicts, (Action::Manage, "a", false), &question));
        assert!(!is_kept(&mut verdicts, (Action::Lease, "b", false), &question));
        assert!(!is_kept(&mut verdicts, WITH_A_PERSON, &question));
    }

    #[test]
    fn an_answer_counts_for_its_time_and_its_epoch() {
        let mut verdicts = Verdicts::default();
        let question = answer(&mut verdicts, PLAIN, Verdict::Authorized);
        let at = question.asked;
        assert!(Arc::ptr_eq(&question, &verdicts.question(PLAIN, 0, at + KEPT - Duration::from_nanos(1))));
        assert!(!Arc::ptr_eq(&question, &verdicts.question(PLAIN, 0, at + KEPT)));
        let question = answer(&mut Verdicts::default(), PLAIN, Verdict::Authorized);
        assert!(!Arc::ptr_eq(&question, &verdicts.question(PLAIN, 1, question.asked)));
    }

    #[test]
    fn a_question_of_before_a_change_is_not_what_is_asked_after_it() {
        let mut verdicts = Verdicts::default();
        let before = verdicts.question(PLAIN, 0, Instant::now());
        let after = verdicts.question(PLAIN, 1, Instant::now());
        assert!(!Arc::ptr_eq(&before, &after));
        // Its answer, when it comes, takes nothing away from the newer one.
        verdicts.answered(PLAIN, &before, Verdict::Silent);
        assert!(Arc::ptr_eq(&after, &verdicts.question(PLAIN, 1, Instant::now())));
    }

    #[test]
    fn what_a_person_says_and_what_nobody_says_is_not_kept() {
        for verdict in [Verdict::Failed, Verdict::Missing, Verdict::Silent, Verdict::Left] {
            let mut verdicts = Verdicts::default();
            let question = answer(&mut verdicts, PLAIN, verdict);
            assert!(!is_kept(&mut verdicts, PLAIN, &question), "{verdict:?}");
        }
        for verdict in [Verdict::Authorized, Verdict::Challenge, Verdict::NotAllowed, Verdict::Unanswered] {
            let mut verdicts = Verdicts::default();
            let challenge = answer(&mut verdicts, PLAIN, Verdict::Challenge);
            let question = answer(&mut verdicts, WITH_A_PERSON, verdict);
            assert!(!is_kept(&mut verdicts, WITH_A_PERSON, &question), "{verdict:?}");
            let still_a_challenge = is_kept(&mut verdicts, PLAIN, &challenge);
            assert_eq!(still_a_challenge, verdict != Verdict::Authorized);
        }
    }

    #[test]
    fn answers_about_ever_more_pools_are_bounded() {
        let mut verdicts = Verdicts::default();
        for number in 0..10 * POOLS {
            let pool = number.to_string();
            answer(&mut verdicts, (Action::Lease, &pool, false), Verdict::Refused);
            assert!(verdicts.0.len() <= POOLS);
        }
    }
}
