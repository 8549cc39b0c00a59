//! What an engine reaches beyond its program and its model: groups, more files, secrets, networks, and the
//! request that it has to answer first.
//!
//! What always holds: a file that is named is used, and what is used is named; a secret is known by its name alone.

use super::check::{Findings, is_reserved, is_variable, plain_path};
use super::fragment::PoolFragment;
use super::subnet::Subnet;
use crate::engine::files_in;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What an engine reaches beyond its program and its model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reach {
    /// Supplementary groups of its user.
    pub groups: Vec<String>,
    /// Files and folders besides the model, absolute paths by their names.
    pub files: BTreeMap<String, String>,
    /// Environment variables whose values are secrets, each with where its value is kept.
    pub credentials: BTreeMap<String, Credential>,
    /// Networks that it may speak with beside this host, `[network] allow`.
    pub allow: Vec<Subnet>,
    /// The file of a request that has to succeed before it is ready, `[health] warmup`.
    pub warmup: Option<String>,
}

/// A secret in systemd's credential store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Credential {
    /// Its name there.
    pub name: String,
    /// Whether it is kept encrypted.
    pub encrypted: bool,
}

const ENCRYPTED: &str = "encrypted:";

impl TryFrom<String> for Credential {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (encrypted, name) = match text.strip_prefix(ENCRYPTED) {
            Some(name) => (true, name),
            None => (false, text.as_str()),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(format!(
                "\"{text}\": expected the name of a credential, 1 to 64 of a-z, A-Z, 0-9, '.', '_', '-', not beginning \
                 with '.'; encrypted: before it where it is kept encrypted"
            ));
        }
        Ok(Credential { name: name.to_owned(), encrypted })
    }
}

impl From<Credential> for String {
    fn from(credential: Credential) -> String {
        credential.to_string()
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.encrypted { ENCRYPTED } else { "" }, self.name)
    }
}

/// Reads all but `[network]`; every mistake at its key.
pub(super) fn check(fragment: &PoolFragment, found: &mut Findings) -> Reach {
    let groups = fragment.groups.clone().unwrap_or_default();
    for group in &groups {
        if let Err(problem) = check_group(group) {
            found.add(&["groups"], problem);
        }
    }
    let (files, credentials) = (files(fragment, found), credentials(fragment, found));
    let warmup = fragment.health.as_ref().and_then(|health| health.warmup.clone());
    if let Some(path) = warmup.as_ref().filter(|path| !plain_path(path)) {
        found.add(&["health", "warmup"], format!("\"{path}\": expected an absolute path without \"..\""));
    }
    Reach { groups, files, credentials, allow: Vec::new(), warmup }
}

/// By systemd's own rules for names that it did not make up; a number is a group's id.
fn check_group(group: &str) -> Result<(), String> {
    let trimmed = group.trim();
    let is_name = !group.is_empty()
        && trimmed.len() == group.len()
        && !group.starts_with('-')
        && !matches!(group, "." | "..")
        && !group.contains(|c: char| c.is_control() || matches!(c, '/' | ':'));
    let is_number = group.bytes().all(|byte| byte.is_ascii_digit());
    if !is_name || (is_number && group.parse::<u32>().is_err()) {
        return Err(format!("\"{group}\" is no name of a group"));
    }
    match group {
        "root" => Err("an engine in group root could read what is root's; give the files a group of their own".into()),
        _ if is_number && group.parse() == Ok(0_u32) => {
            Err("group 0 is root's; give the files a group of their own".into())
        }
        "llamaorch" => Err(
            "the members of llamaorch may change pools, and so could an engine; give the files a group of their own"
                .into(),
        ),
        _ => Ok(()),
    }
}

fn files(fragment: &PoolFragment, found: &mut Findings) -> BTreeMap<String, String> {
    let named = fragment.files.clone().unwrap_or_default();
    let args = fragment.args.as_deref().unwrap_or_default();
    let used: BTreeSet<&str> = args.iter().flat_map(|arg| files_in(arg)).collect();
    for name in used.iter().filter(|name| !named.contains_key(**name)) {
        let known: Vec<&str> = named.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "there is none".to_owned()
        } else {
            format!("known: {}", known.join(", "))
        };
        found.add(
            &["args"],
            format!(
                "{{file:{name}}} names no file of files ({known}); add files = {{ {name} = \"file:/…\" }}"
            ),
        );
    }
    let mut files = BTreeMap::new();
    for (name, text) in named {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            found.add(&["files"], format!("\"{name}\": expected a name of a-z, A-Z, 0-9, '_', '-'"));
        } else if !used.contains(name.as_str()) {
            found.add(
                &["files"],
                format!("{name} is not used; write {{file:{name}}} where args should have its path"),
            );
        }
        match text.strip_prefix("file:").filter(|path| plain_path(path)) {
            Some(path) => drop(files.insert(name, path.to_owned())),
            None => found.add(
                &["files"],
                format!("{name}: \"{text}\": expected file: and an absolute path without \"..\""),
            ),
        }
    }
    files
}

fn credentials(fragment: &PoolFragment, found: &mut Findings) -> BTreeMap<String, Credential> {
    let mut credentials = BTreeMap::new();
    let env = fragment.env.clone().unwrap_or_default();
    for (variable, text) in fragment.credentials.clone().unwrap_or_default() {
        if !is_variable(&variable) {
            found.add(&["credentials"], format!("\"{variable}\" is no name of an environment variable"));
        } else if is_reserved(&variable) {
            found.add(&["credentials"], format!("{variable} is the daemon's and systemd's own"));
        } else if env.contains_key(&variable) {
            found.add(&["credentials"], format!("{variable} is set by env already; leave it to one of them"));
        }
        match Credential::try_from(text) {
            Ok(credential) => drop(credentials.insert(variable, credential)),
            Err(problem) => found.add(&["credentials"], format!("{variable}: {problem}")),
        }
    }
    // systemd keeps one of each name.
    let both = |name: &str| {
        let kinds: BTreeSet<bool> = credentials
            .values()
            .filter(|known: &&Credential| known.name == name)
            .map(|known| known.encrypted)
            .collect();
        kinds.len() > 1
    };
    let twice: BTreeSet<&str> =
        credentials.values().map(|known| known.name.as_str()).filter(|name| both(name)).collect();
    for name in twice {
        found.add(
            &["credentials"],
            format!("{name} is named as encrypted and as plain; only one can be right"),
        );
    }
    credentials
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
        Some(entries.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn run(fragment: &PoolFragment) -> Result<Reach, Vec<String>> {
        let mut found = Findings::default();
        let reach = check(fragment, &mut found);
        if found.0.is_empty() { Ok(reach) } else { Err(found.0.iter().map(ToString::to_string).collect()) }
    }

    #[test]
    fn what_a_file_says_is_taken() {
        let fragment = PoolFragment {
            groups: Some(vec!["models".into(), "1234".into(), "domain users".into()]),
            files: map(&[("sql", "file:/mnt/lora/sql"), ("draft", "file:/srv/draft.gguf")]),
            args: Some(vec!["--lora=sql={file:sql}".into(), "{file:draft}".into()]),
            credentials: map(&[("VLLM_API_KEY", "vllm-key"), ("HF_TOKEN", "encrypted:hf")]),
            ..PoolFragment::default()
        };
        let reach = run(&fragment).expect("a valid file");
        assert_eq!(reach.groups, ["models", "1234", "domain users"]);
        assert_eq!(reach.files.get("sql").map(String::as_str), Some("/mnt/lora/sql"));
        let credential = |name: &str| reach.credentials.get(name).map(ToString::to_string);
        assert_eq!(credential("VLLM_API_KEY").as_deref(), Some("vllm-key"));
        assert_eq!(credential("HF_TOKEN").as_deref(), Some("encrypted:hf"));
    }

    #[test]
    fn a_group_that_would_give_away_the_host_is_refused() {
        for group in
            ["root", "0", "00", "llamaorch", "", "a:b", "a/b", " a", "-a", "..", "99999999999", "a\nb"]
        {
            let fragment = PoolFragment { groups: Some(vec![group.into()]), ..PoolFragment::default() };
            let errors = run(&fragment).expect_err(group);
            assert!(errors.iter().all(|error| error.starts_with("groups: ")), "{errors:?}");
        }
    }

    #[test]
    fn a_file_is_named_where_it_is_used_and_used_where_it_is_named() {
        for (files, args, expected) in [
            (map(&[]), "{file:sql}", "args: {file:sql} names no file of files (there is none)"),
            (
                map(&[("a", "file:/a")]),
                "{file:a}{file:b}",
                "args: {file:b} names no file of files (known: a)",
            ),
            (map(&[("a", "file:/a")]), "x", "files: a is not used; write {file:a}"),
            (map(&[("a", "/a")]), "{file:a}", "files: a: \"/a\": expected file:"),
            (map(&[("a", "file:/a/../b")]), "{file:a}", "files: a: \"file:/a/../b\": expected file:"),
            (map(&[("a b", "file:/a")]), "x", "files: \"a b\": expected a name"),
        ] {
            let fragment = PoolFragment { files, args: Some(vec![args.into()]), ..PoolFragment::default() };
            let errors = run(&fragment).expect_err(expected);
            assert!(matches!(errors.as_slice(), [one] if one.starts_with(expected)), "{errors:?}");
        }
    }

    #[test]
    fn a_credential_is_a_name_and_its_variable_is_nobody_elses() {
        for (credentials, expected) in [
            (map(&[("A", "a b")]), "credentials: A: \"a b\": expected the name"),
            (map(&[("A", "/etc/shadow")]), "credentials: A: \"/etc/shadow\": expected the name"),
            (map(&[("A", ".a")]), "credentials: A: \".a\": expected the name"),
            (map(&[("A", "encrypted:")]), "credentials: A: \"encrypted:\": expected the name"),
            (map(&[("A-B", "a")]), "credentials: \"A-B\" is no name"),
            (map(&[("LLAMAORCH_SPEC", "a")]), "credentials: LLAMAORCH_SPEC is the daemon's"),
            (map(&[("TAKEN", "a")]), "credentials: TAKEN is set by env already"),
            (map(&[("A", "a"), ("B", "encrypted:a")]), "credentials: a is named as encrypted and as plain"),
        ] {
            let env = map(&[("TAKEN", "x")]);
            let fragment = PoolFragment { credentials, env, ..PoolFragment::default() };
            let errors = run(&fragment).expect_err(expected);
            assert!(matches!(errors.as_slice(), [one] if one.starts_with(expected)), "{errors:?}");
        }
    }
}
