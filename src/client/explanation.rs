//! Why a pool is as it is.

use super::proxy::Named;
use super::status::Properties;
use serde::Serialize;

/// Why a pool is as it is. Serialized, this is what `poolctl explain --json` prints; fields are added, never taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The pool's id.
    pub id: String,
    /// At least one engine answers requests, and the pool is not draining.
    pub ready: bool,
    /// At least one engine runs and is not known to hang.
    pub live: bool,
    /// As a pool's status says it.
    pub phase: String,
    /// Why it is in that phase, in words.
    pub summary: String,
    /// What holds, and failures of the past: newest first.
    pub reasons: Vec<Reason>,
}

/// One reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// One word for programs, for instance "breaker-open".
    pub code: String,
    /// The class of a failure, for instance "exit:1"; "" where it is none.
    pub class: String,
    /// The engine that it is about; "": the pool as a whole.
    pub replica: String,
    /// What is the matter.
    pub text: String,
    /// What to do; "": waiting is all.
    pub remedy: String,
    /// When it began or happened, in microseconds since the epoch; 0: unknown.
    pub since_timestamp: u64,
    /// When it ends by itself; 0: it does not, or nobody knows when.
    pub until_timestamp: u64,
}

impl Explanation {
    pub(super) fn of(id: &str, named: Named) -> Explanation {
        let mut named = Properties(named);
        let reasons: Vec<Named> = named.take("reasons");
        Explanation {
            id: id.to_owned(),
            ready: named.take("ready"),
            live: named.take("live"),
            phase: named.take("phase"),
            summary: named.take("summary"),
            reasons: reasons.into_iter().map(Reason::of).collect(),
        }
    }
}

impl Reason {
    fn of(named: Named) -> Reason {
        let mut named = Properties(named);
        Reason {
            code: named.take("code"),
            class: named.take("class"),
            replica: named.take("replica"),
            text: named.take("text"),
            remedy: named.take("remedy"),
            since_timestamp: named.take("since_timestamp"),
            until_timestamp: named.take("until_timestamp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use zbus::{OwnedVariant, Variant};

    #[test]
    fn reasons_keep_their_order_and_what_is_missing_is_absent() {
        let reason =
            |code: &'static str| HashMap::from([("code", Variant::from(code)), ("later", 1_u8.into())]);
        let reasons = Variant::new(vec![reason("b"), reason("a")]);
        let named = HashMap::from([
            ("ready".to_owned(), OwnedVariant::from(true)),
            ("reasons".to_owned(), OwnedVariant::try_from(reasons).expect("no descriptor is in it")),
        ]);
        let explanation = Explanation::of("chat", named);
        assert!(explanation.ready && explanation.phase.is_empty());
        let codes: Vec<&str> = explanation.reasons.iter().map(|reason| reason.code.as_str()).collect();
        assert_eq!(codes, ["b", "a"]);
        assert_eq!(explanation.reasons[0], Reason { code: "b".to_owned(), ..Reason::default() });
    }

    #[test]
    fn the_serialized_names_are_kept() {
        let explanation = Explanation { reasons: vec![Reason::default()], ..Explanation::default() };
        let json = serde_json::to_value(&explanation).expect("JSON of ours");
        let keys = |value: &serde_json::Value| -> Vec<String> {
            let mut keys: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&json), ["id", "live", "phase", "ready", "reasons", "summary"]);
        assert_eq!(
            keys(&json["reasons"][0]),
            ["class", "code", "remedy", "replica", "since_timestamp", "text", "until_timestamp"]
        );
    }
}
