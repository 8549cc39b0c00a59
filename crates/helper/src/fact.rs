//! Owns one value that an engine says of itself in a JSON document: asked for until it is known, or known not to be there.

use std::time::Duration;

use pool_core::replica::Report;
use serde_json::Value;

use crate::health::Answer;
use crate::http::{Question, Want};
use crate::watch::Fact;

/// A value, or the question for it.
#[derive(Debug)]
pub(crate) struct Asked<'a, T> {
    known: Option<T>,
    question: Option<(Question<'a>, &'a str)>,
    read: fn(&Value) -> Option<T>,
}

impl<'a, T> Asked<'a, T> {
    pub(crate) fn new(fact: Option<&'a Fact>, read: fn(&Value) -> Option<T>) -> Self {
        let question = fact.map(|fact| (Question::new(&fact.url, Want::Body), fact.pointer.as_str()));
        Asked { known: None, question, read }
    }

    pub(crate) fn known(&self) -> Option<&T> {
        self.known.as_ref()
    }

    /// Asks where it is not known yet.
    pub(crate) fn ask(&mut self, limit: Duration, tick: &mut dyn FnMut()) {
        let Some((question, pointer)) = &mut self.question else { return };
        let reply = question.ask(limit, tick);
        match reply.answer {
            Answer::Status(200) => {
                self.known = found(&reply.body, pointer).and_then(|value| (self.read)(&value))
            }
            Answer::Status(404) => {}
            _ => return,
        }
        if self.known.is_some() || reply.answer == Answer::Status(404) {
            self.question = None;
        }
    }
}

fn found(document: &[u8], pointer: &str) -> Option<Value> {
    let document: Value = serde_json::from_slice(document).ok()?;
    document.pointer(pointer).cloned()
}

/// How many requests it works on at once.
pub(crate) fn slots(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

/// A version as it can be reported.
pub(crate) fn version(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Report::is_version(&text).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_pointer() {
        let document = br#"{"total_slots": 4, "a/b": [{"version": "0.11.0"}], "build": 6123}"#;
        let at = |pointer: &str| found(document, pointer);
        assert_eq!(at("/total_slots").and_then(|value| slots(&value)), Some(4));
        assert_eq!(at("/a~1b/0/version").and_then(|value| version(&value)).as_deref(), Some("0.11.0"));
        assert_eq!(at("/build").and_then(|value| version(&value)).as_deref(), Some("6123"));
        assert_eq!(at("/none"), None);
        assert_eq!(found(b"{", "/a"), None);
    }

    #[test]
    fn what_cannot_be_reported_is_not_known() {
        for text in ["\"\"", "\"a\\nb\"", "null", "[1]", &format!("\"{}\"", "x".repeat(65))] {
            assert_eq!(version(&serde_json::from_str(text).expect("JSON")), None, "{text}");
        }
        for text in ["-1", "1.5", "4294967296", "\"4\""] {
            assert_eq!(slots(&serde_json::from_str(text).expect("JSON")), None, "{text}");
        }
    }
}
