//! `poolctl bugreport`: one JSON file with everything that a report of a bug needs, and no secrets: versions, how pools
//! stand and why, the configuration, and the record of what the daemon took in, which `cargo xtask replay` steps through.

use super::output::Failure;
use pool_managerd::client::Client;
use pool_managerd::config::{Folders, files};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the daemon records; see pool-managerd(8).
const RECORDS: [(&str, &str); 2] = [
    ("record", "/run/pool-managerd/record.jsonl"),
    ("record_previous", "/run/pool-managerd/record.previous.jsonl"),
];

/// In the place of what is nobody's business.
const REDACTED: &str = "[redacted]";

/// Writes a report; says where it is.
pub(crate) async fn write(file: Option<PathBuf>) -> Result<String, Failure> {
    let report = collect().await;
    let file = file.unwrap_or_else(|| PathBuf::from(format!("pool-bugreport-{}.json", std::process::id())));
    let failed = |error: io::Error| Failure::File(file.display().to_string(), error);
    let text = serde_json::to_string_pretty(&report).map_err(Failure::Json)?;
    // It tells much of the host: it is for whoever asked for it.
    let mut out = File::options().write(true).create_new(true).mode(0o600).open(&file).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(failed)?;
    Ok(format!(
        "{}\nValues that look like secrets were left out; read it before you give it away.\n",
        file.display()
    ))
}

async fn collect() -> Value {
    let mut report = Map::new();
    report.insert("format".to_owned(), json!(1));
    report.insert("poolctl".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    match daemon().await {
        Ok(said) => report.extend(said),
        Err(error) => drop(report.insert("daemon_error".to_owned(), json!(error.to_string()))),
    }
    report.insert("configuration".to_owned(), configuration());
    for (name, path) in RECORDS {
        report.insert(name.to_owned(), record(Path::new(path)));
    }
    let mut report = Value::Object(report);
    redact(&mut report);
    report
}

/// What the daemon says of itself and of every pool.
async fn daemon() -> Result<Map<String, Value>, pool_managerd::client::Error> {
    let client = Client::connect().await?;
    let manager = client.manager().await?;
    let host = json!({
        "version": manager.version().await?,
        "systemd": manager.systemd_version().await?,
        "features": manager.features().await?,
        "tainted": manager.tainted().await?,
        "started": manager.start_timestamp().await?,
    });
    let pools = client.list().await?;
    let mut explained = Map::new();
    for pool in &pools {
        let told = match client.explain(&pool.id).await {
            Ok(told) => value(&told),
            Err(error) => json!(error.to_string()),
        };
        explained.insert(pool.id.clone(), told);
    }
    let errors = client.configuration_errors().await?;
    Ok(Map::from_iter([
        ("daemon".to_owned(), host),
        ("pools".to_owned(), value(&pools)),
        ("explained".to_owned(), Value::Object(explained)),
        ("configuration_errors".to_owned(), value(&errors)),
    ]))
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_else(|error| json!(error.to_string()))
}

/// Every configuration file, parsed: a comment may hold anything.
fn configuration() -> Value {
    let read = |path: &Path| match fs::read_to_string(path) {
        Ok(text) => {
            toml::from_str::<Value>(&text).unwrap_or_else(|error| json!({ "unreadable": error.message() }))
        }
        Err(error) => json!({ "unreadable": error.to_string() }),
    };
    let files = files(&Folders::default());
    Value::Object(files.into_iter().map(|path| (path.display().to_string(), read(&path))).collect())
}

/// A record, line by line; what is no JSON is left out.
fn record(path: &Path) -> Value {
    match fs::read_to_string(path) {
        Ok(text) => text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Value::Null,
        Err(error) => json!({ "unreadable": error.to_string() }),
    }
}

/// Takes out what looks like a secret: the value behind a name or an option that says so.
fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if is_secret(name) && member.is_string() {
                    *member = json!(REDACTED);
                } else {
                    redact(member);
                }
            }
        }
        Value::Array(items) => {
            let mut behind = false;
            for item in items {
                match item {
                    Value::String(text) => {
                        let option = text.starts_with('-').then(|| text.split('=').next()).flatten();
                        let secret = option.is_some_and(is_secret);
                        if behind {
                            *text = REDACTED.to_owned();
                            behind = false;
                        } else if let (true, Some((name, _))) = (secret, text.split_once('=')) {
                            *text = format!("{name}={REDACTED}");
                        } else {
                            behind = secret;
                        }
                    }
                    other => {
                        behind = false;
                        redact(other);
                    }
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a name is one of something secret: one of its words says so.
fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| {
        matches!(
            word,
            "key" | "token" | "secret" | "password" | "passwd" | "apikey" | "credential" | "credentials"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_left_out_wherever_it_stands() {
        let mut report = json!({
            "env": { "HF_TOKEN": "hf_x", "MODE": "fast", "AWS_SECRET_ACCESS_KEY": "y" },
            "args": ["--api-key", "sk-1", "--ctx-size", "512", "--auth-token=sk-2", "--keys-file", "/k"],
            "record": [{ "event": { "spec": { "args": ["--api-key", "sk-3"], "env": { "MY_PASSWORD": "z" } } } }],
            "monkey": "business",
        });
        redact(&mut report);
        let text = report.to_string();
        for secret in ["hf_x", "\"y\"", "sk-1", "sk-2", "sk-3", "\"z\""] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for kept in ["fast", "512", "--api-key", "--auth-token=[redacted]", "/k", "business"] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
    }

    #[test]
    fn a_number_or_a_list_under_a_secret_name_is_looked_into_rather_than_dropped() {
        let mut report = json!({ "pointer_key": 5, "keys": ["a"], "token": null });
        redact(&mut report);
        assert_eq!(report, json!({ "pointer_key": 5, "keys": ["a"], "token": null }));
    }
}
