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

/// Writes a report; gives the file.
pub(crate) async fn write(file: Option<PathBuf>) -> Result<String, Failure> {
    let report = collect().await;
    let file = file.unwrap_or_else(|| PathBuf::from(format!("pool-bugreport-{}.json", std::process::id())));
    let failed = |error: io::Error| Failure::File(file.display().to_string(), error);
    let text = serde_json::to_string_pretty(&report).map_err(Failure::Json)?;
    // It tells much of the host: it is for whoever asked for it.
    let mut out = File::options().write(true).create_new(true).mode(0o600).open(&file).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(failed)?;
    Ok(file.display().to_string())
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

/// Takes out what looks like a secret: what stands behind a name or an option that says so, and every value of an
/// environment.
fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if is_secret(name) => *text = REDACTED.to_owned(),
                    Value::Array(items) if is_secret(name) => redact_texts(items.iter_mut()),
                    Value::Object(inner) if is_environment(name) => redact_texts(inner.values_mut()),
                    _ => {}
                }
                redact(member);
            }
        }
        Value::Array(items) => redact_arguments(items),
        Value::String(text) => *text = without_secrets(text, &mut false),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn redact_texts<'a>(values: impl Iterator<Item = &'a mut Value>) {
    for value in values.filter(|value| value.is_string()) {
        *value = json!(REDACTED);
    }
}

/// What may be a command line: the value of an option may be the item behind it.
fn redact_arguments(items: &mut [Value]) {
    let mut behind = false;
    for item in items {
        match item {
            Value::String(text) if behind => {
                *text = REDACTED.to_owned();
                behind = false;
            }
            Value::String(text) => *text = without_secrets(text, &mut behind),
            other => {
                behind = false;
                redact(other);
            }
        }
    }
}

/// A text without the words that look like secrets. `behind`: whether its end announces one.
fn without_secrets(text: &str, behind: &mut bool) -> String {
    let mut left = String::new();
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        // A secret may be several words: it ends with the next option.
        *behind &= !word.starts_with("--");
        if *behind {
            left += if word.is_empty() { "" } else { REDACTED };
        } else if let Some((name, value)) = secret_in(word).map(|at| word.split_at(at)) {
            left += name;
            left += if value.is_empty() { "" } else { REDACTED };
            *behind = value.is_empty();
        } else {
            left += &without_password(word);
        }
        left += piece.strip_prefix(word).unwrap_or_default();
    }
    left
}

/// Where in a word a secret begins; at its end: the secret comes behind it.
fn secret_in(word: &str) -> Option<usize> {
    let mut begin = 0;
    for (at, separator) in word.match_indices(['=', ':']) {
        let name = word.get(begin..at)?;
        begin = at + separator.len();
        // "unknown key: x" is no secret.
        let plain =
            begin == word.len() && separator == ":" && matches!(name, "key" | "keys" | "token" | "tokens");
        if is_secret(name) && !plain {
            return Some(begin);
        }
    }
    let announces = word.starts_with('-') && begin == 0 && is_secret(word);
    (announces || word.eq_ignore_ascii_case("bearer")).then_some(word.len())
}

/// A word without the user and the password of a URL in it.
fn without_password(word: &str) -> String {
    let mut left = String::new();
    let mut rest = word;
    while let Some((before, behind)) = rest.split_once("://") {
        let end = behind.find(['/', '?', '#', '"', '\'', ',']).unwrap_or(behind.len());
        let (authority, path) = behind.split_at(end);
        left += before;
        left += "://";
        match authority.rsplit_once('@') {
            Some((_, host)) => left += &format!("{REDACTED}@{host}"),
            None => left += authority,
        }
        rest = path;
    }
    left + rest
}

/// Whether the values below a name are of an environment, or secrets all of them.
fn is_environment(name: &str) -> bool {
    matches!(name, "env" | "environment" | "credentials")
}

/// Whether a name is one of something secret: one of its words says so.
fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words = || lower.split(|c: char| !c.is_ascii_alphanumeric());
    // How many tokens a model may read or write is none.
    let counts = words().any(|word| matches!(word, "max" | "min" | "n" | "num"));
    words().any(|word| match word {
        "tokens" => !counts,
        "key" | "keys" | "secrets" | "passwords" | "passphrase" | "pass" | "passwd" | "pwd" | "auth"
        | "authorization" | "bearer" | "credential" | "credentials" | "cookie" | "cookies" | "apikeys" => {
            true
        }
        _ => ["token", "secret", "password", "apikey"].iter().any(|end| word.ends_with(end)),
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
        for kept in ["MODE", "512", "--api-key", "--auth-token=[redacted]", "business"] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
    }

    #[test]
    fn of_an_environment_names_alone_are_left() {
        let mut report = json!({ "env": { "HTTPS_PROXY": "http://u:p@host", "MODE": "fast" }, "credentials": { "x": "y" } });
        redact(&mut report);
        let redacted = json!({ "HTTPS_PROXY": REDACTED, "MODE": REDACTED });
        assert_eq!(report, json!({ "env": redacted, "credentials": { "x": REDACTED } }));
    }

    #[test]
    fn secrets_are_found_within_a_text() {
        for (text, expected) in [
            ("--api-key sk", "--api-key [redacted]"),
            ("--api-keys sk-1 sk-2 --ctx-size 512", "--api-keys [redacted] [redacted] --ctx-size 512"),
            ("exec: --password 'a b' --port 1", "exec: --password [redacted] [redacted] --port 1"),
            ("--proxy=http://u:p@h:1/x?y", "--proxy=http://[redacted]@h:1/x?y"),
            ("see https://me@host/a@b and http://h/", "see https://[redacted]@host/a@b and http://h/"),
            ("HF_TOKEN=hf_x MODE=fast", "HF_TOKEN=[redacted] MODE=fast"),
            ("--header=Authorization: Bearer sk", "--header=Authorization: [redacted] [redacted]"),
            ("Bearer sk", "Bearer [redacted]"),
            ("X-Api-Key:sk", "X-Api-Key:[redacted]"),
            ("{\"mode\":1,\"api_key\":\"sk\"}", "{\"mode\":1,\"api_key\":[redacted]"),
            ("{\"db_pwd\": \"sk\"}", "{\"db_pwd\": [redacted]"),
            ("--max-tokens 512 --ctx-size 1", "--max-tokens 512 --ctx-size 1"),
            ("unknown key: modell, see file:/srv/m", "unknown key: modell, see file:/srv/m"),
            ("2 in flight,  no answer", "2 in flight,  no answer"),
        ] {
            let mut report = json!([text]);
            redact(&mut report);
            assert_eq!(report, json!([expected]));
        }
    }

    #[test]
    fn names_say_in_many_ways_that_they_are_secret() {
        for name in [
            "--api-keys",
            "proxy_auth",
            "DB_PASS",
            "pwd",
            "bearer",
            "authToken",
            "apiKey",
            "X-Cookie",
            "--tokens",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["monkey", "--max-tokens", "num_predict_tokens", "compass", "author", "path", "--bypass"]
        {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn what_is_under_a_secret_name_and_no_text_stays() {
        let mut report = json!({ "pointer_key": 5, "keys": ["a", 1], "token": null });
        redact(&mut report);
        assert_eq!(report, json!({ "pointer_key": 5, "keys": [REDACTED, 1], "token": null }));
    }
}
