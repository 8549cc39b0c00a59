//! Owns engine templates: data that says how to run a kind of engine, and the command line that it gives for a pool.
//!
//! A placeholder that is unknown is an error when the file is read, never when the engine starts.

use crate::name::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How to run a kind of engine, as its file in `engines.d` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineTemplate {
    /// The program: an absolute path, or a name that is looked up in `PATH` when the engine starts.
    pub program: String,
    /// Its arguments; `{model}`, `{host}` and `{port}` are replaced.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables of every engine of this kind.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Arguments that make the program print its version and exit; empty: the version stays unknown.
    #[serde(default)]
    pub version_args: Vec<String>,
    /// How to see that it is ready.
    pub health: HealthRecipe,
    /// What the sandbox must allow beyond the strict default.
    #[serde(default)]
    pub sandbox: Sandbox,
}

/// How the prober sees that an engine is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthRecipe {
    /// The path that answers 200 once the engine serves, for instance `/health`.
    pub path: String,
}

/// The lines of the sandbox that a template may loosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// `MemoryDenyWriteExecute=`; engines that compile at run time need it off.
    pub memory_deny_write_execute: bool,
    /// System calls allowed beyond `@system-service`.
    pub system_calls: Vec<String>,
    /// `RestrictAddressFamilies=`.
    pub address_families: Vec<String>,
    /// `ProcSubset=pid`; breaks readers of `/proc/meminfo`.
    pub proc_subset_pid: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox {
            memory_deny_write_execute: true,
            system_calls: Vec::new(),
            address_families: ["AF_UNIX", "AF_INET", "AF_INET6"].map(str::to_owned).to_vec(),
            proc_subset_pid: false,
        }
    }
}

/// What is wrong with a placeholder in an argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// The name is not one of the design's.
    #[error("unknown placeholder {{{0}}}; expected one of {{model}}, {{host}}, {{port}}")]
    Unknown(String),
    /// The name is known but this version cannot fill it.
    #[error("placeholder {{{0}}} is known but not supported by this version")]
    Unsupported(String),
}

const SUPPORTED: [&str; 3] = ["model", "host", "port"];

/// The placeholders of `text`: `{word}` or `{word:name}` in lower case. Other braces (JSON, say) are plain text.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| {
        let (inside, _) = rest.split_once('}')?;
        let word = inside.split(':').next().unwrap_or_default();
        let named = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        named.then_some(inside)
    })
}

/// Whether every placeholder of an argument can be filled.
///
/// # Errors
/// The first that cannot.
pub fn check_placeholders(text: &str) -> Result<(), PlaceholderError> {
    placeholders(text).try_for_each(|inside| match inside.split(':').next().unwrap_or_default() {
        word if SUPPORTED.contains(&word) && word == inside => Ok(()),
        "devices" | "file" | "socket" => Err(PlaceholderError::Unsupported(inside.to_owned())),
        _ => Err(PlaceholderError::Unknown(inside.to_owned())),
    })
}

/// One argument with its placeholders filled. A value is never searched for placeholders again.
#[must_use]
pub fn fill(text: &str, model: &str, endpoint: &Endpoint) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let port = endpoint.port.to_string();
        let values = [("model}", model), ("host}", endpoint.host.as_str()), ("port}", port.as_str())];
        match values.iter().find_map(|(word, value)| Some((after.strip_prefix(word)?, value))) {
            Some((tail, value)) => {
                filled.push_str(value);
                rest = tail;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint { host: "127.0.0.1".into(), port: 20000 }
    }

    #[test]
    fn placeholders_are_filled_once() {
        assert_eq!(fill("{host}:{port}", "", &endpoint()), "127.0.0.1:20000");
        assert_eq!(fill("-m={model}", "/srv/{port}.gguf", &endpoint()), "-m=/srv/{port}.gguf");
        assert_eq!(fill(r#"{"a":{"b":1}}"#, "m", &endpoint()), r#"{"a":{"b":1}}"#);
    }

    #[test]
    fn a_placeholder_that_cannot_be_filled_is_named() {
        assert_eq!(check_placeholders("{modle}"), Err(PlaceholderError::Unknown("modle".into())));
        assert_eq!(check_placeholders("{file:sql}"), Err(PlaceholderError::Unsupported("file:sql".into())));
        assert_eq!(check_placeholders("{model:x}"), Err(PlaceholderError::Unknown("model:x".into())));
        assert_eq!(check_placeholders(r#"{"model": 1} {host}"#), Ok(()));
    }
}
