//! Owns the warm-up: one request that an engine has to answer well before it counts as ready.
//!
//! Its file is JSON: `{"path": "/v1/completions", "body": {…}}`, and `"method"` where it is neither a POST with a body
//! nor a GET without one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pool_core::refusal::Refusal;
use serde_json::{Map, Value};

use crate::endpoint::Url;
use crate::health::Answer;
use crate::http::{Question, Want};
use crate::notify::shown;
use crate::obstacle::Obstacle;
use crate::refused::Refused;

/// The longest file, which may hold a long prompt.
const LONGEST: u64 = 16 << 20;
/// So much of an answer that is no good one is told.
const TOLD: usize = 200;

/// The request, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Warmup {
    method: String,
    path: String,
    body: Option<Vec<u8>>,
}

impl Warmup {
    /// Reads its file, or refuses with what is wrong in it.
    pub(crate) fn read(file: &Path) -> Result<Warmup, Refused> {
        let mut text = Vec::new();
        let read = File::open(file).and_then(|opened| opened.take(LONGEST + 1).read_to_end(&mut text));
        if let Err(error) = read {
            let obstacle = Obstacle::on(file, error);
            let remedy = obstacle.remedy("o+r");
            return Err(refused(file, format_args!("{obstacle}; {remedy}")));
        }
        if text.len() as u64 > LONGEST {
            return Err(refused(file, "it is longer than 16 MiB"));
        }
        let parsed = parse(&text).map_err(|problem| {
            refused(
                file,
                format_args!(
                    "{problem}; expected JSON like {{\"path\": \"/v1/completions\", \"body\": {{…}}}}"
                ),
            )
        })?;
        Ok(parsed)
    }

    /// Asks, and waits for the whole answer; in words what was wrong with it. `tick` is called once a second at least.
    pub(crate) fn ask(&self, health: &Url, limit: Duration, tick: &mut dyn FnMut()) -> Result<(), String> {
        let url = Url { endpoint: health.endpoint.clone(), path: self.path.clone() };
        let body = self.body.as_deref().map(|body| ("application/json", body));
        let reply = Question::of(&url, &self.method, body, Want::Body).ask(limit, tick);
        let what = format!("the warm-up, {self},");
        match reply.answer {
            Answer::Status(200..=299) => Ok(()),
            Answer::Status(code) => {
                let body = reply.body.get(..TOLD).unwrap_or(&reply.body);
                Err(format!("{what} was answered {code}: {}", String::from_utf8_lossy(body).trim()))
            }
            Answer::NotListening => Err(format!("{what} found nobody listening any more")),
            Answer::Silent => Err(format!("{what} was not answered")),
            Answer::NotHttp => Err(format!("{what} got no whole answer of at most 1 MiB")),
            Answer::Unreachable(kind) => Err(format!("{what} could not be sent: {kind}")),
            Answer::Outsider => Err(format!("{what} was answered by a process outside this unit")),
        }
    }
}

impl std::fmt::Display for Warmup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

fn parse(text: &[u8]) -> Result<Warmup, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let Value::Object(mut keys) = value else { return Err("it is no object".to_owned()) };
    let mut take = |key: &str| match keys.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("\"{key}\" is no string")),
    };
    let (path, method) = (take("path")?, take("method")?);
    let body = keys.remove("body").map(|body| body.to_string().into_bytes());
    only_known(&keys)?;
    let path = path.ok_or("it has no \"path\"")?;
    // It goes into a request line as it is.
    if !path.starts_with('/') || !path.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        return Err(format!("\"{path}\" is no path"));
    }
    let usual = if body.is_some() { "POST" } else { "GET" };
    let method = method.unwrap_or_else(|| usual.to_owned());
    match method.as_str() {
        "GET" if body.is_some() => Err("a GET has no \"body\"".to_owned()),
        "GET" | "POST" | "PUT" => Ok(Warmup { method, path, body }),
        other => Err(format!("\"{other}\" is none of GET, POST, PUT")),
    }
}

fn only_known(rest: &Map<String, Value>) -> Result<(), String> {
    match rest.keys().next() {
        Some(unknown) => Err(format!("\"{unknown}\" is none of its keys")),
        None => Ok(()),
    }
}

fn refused(file: &Path, cause: impl std::fmt::Display) -> Refused {
    Refused::new(Refusal::Preflight, format!("`health.warmup` {}: {cause}", shown(file)))
}

/// Refuses where there is one and it cannot be read.
pub(crate) fn check(file: Option<&PathBuf>) -> Result<(), Refused> {
    file.map_or(Ok(()), |file| Warmup::read(file).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_path_and_perhaps_a_body() {
        let request = |method: &str, body: Option<&str>| Warmup {
            method: method.into(),
            path: "/v1/x?a=1".into(),
            body: body.map(Into::into),
        };
        for (text, expected) in [
            (r#"{"path": "/v1/x?a=1"}"#, request("GET", None)),
            (r#"{"path": "/v1/x?a=1", "body": {"n": 1}}"#, request("POST", Some(r#"{"n":1}"#))),
            (r#"{"path": "/v1/x?a=1", "body": "ä", "method": "PUT"}"#, request("PUT", Some("\"ä\""))),
            (r#"{"path": "/v1/x?a=1", "method": "POST"}"#, request("POST", None)),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        for (text, said) in [
            ("", "no JSON"),
            ("[]", "no object"),
            ("{}", "no \"path\""),
            (r#"{"path": 1}"#, "\"path\" is no string"),
            (r#"{"path": "x"}"#, "\"x\" is no path"),
            (r#"{"path": "/a b"}"#, "is no path"),
            (r#"{"path": "/a\r\nX: y"}"#, "is no path"),
            (r#"{"path": "/a", "bdoy": {}}"#, "\"bdoy\" is none of its keys"),
            (r#"{"path": "/a", "body": {}, "method": "GET"}"#, "a GET has no"),
            (r#"{"path": "/a", "method": "TRACE"}"#, "none of GET"),
        ] {
            let refused = parse(text.as_bytes()).expect_err(text);
            assert!(refused.contains(said), "{refused}");
        }
        let refused = Warmup::read(Path::new("/no/such/file")).expect_err("none there");
        assert!(
            refused.text().starts_with("`health.warmup` /no/such/file: /no does not exist"),
            "{}",
            refused.text()
        );
        assert_eq!(refused.refusal(), Refusal::Preflight);
    }
}
