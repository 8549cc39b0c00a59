//! Owns the placeholders in arguments: which may stand where, and what they become.

use crate::name::Endpoint;
use std::collections::BTreeMap;

/// What is wrong with a placeholder in an argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// The name is not one of the design's.
    #[error(
        "unknown placeholder {{{0}}}; expected one of {{model}}, {{devices}}, {{host}}, {{port}}, {{socket}}, {{file:name}}"
    )]
    Unknown(String),
    /// A file of a pool, in a template.
    #[error("{{{0}}} is a file of a pool; only the args of a pool's file can name it")]
    File(String),
    /// An address, where the engine has a socket.
    #[error(
        "{{{0}}} is part of an address, and here the engine listens on a unix socket; its path is {{socket}}"
    )]
    Address(String),
    /// A socket, where the engine has an address.
    #[error(
        "{{socket}} is the path of a unix socket, and here the engine listens on an address: {{host}}, {{port}}"
    )]
    Socket,
}

/// What may stand in an argument besides `{model}` and `{devices}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// `{file:name}`
    pub files: bool,
    /// `{host}` and `{port}`
    pub address: bool,
    /// `{socket}`
    pub socket: bool,
}

/// The placeholders of `text`: `{word}` or `{word:name}` in lower case. Other braces (JSON, say) are plain text.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| {
        let (inside, _) = rest.split_once('}')?;
        let word = inside.split(':').next().unwrap_or_default();
        let named = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        named.then_some(inside)
    })
}

/// The names of the files that an argument asks for.
pub fn files_in(text: &str) -> impl Iterator<Item = &str> {
    placeholders(text).filter_map(|inside| inside.strip_prefix("file:"))
}

/// Whether every placeholder of an argument can be filled. The names of files are not looked at.
///
/// # Errors
/// The first that cannot.
pub fn check_placeholders(text: &str, scope: Scope) -> Result<(), PlaceholderError> {
    let named = |inside: &str| inside.to_owned();
    placeholders(text).try_for_each(|inside| match inside {
        "model" | "devices" => Ok(()),
        "host" | "port" if scope.address => Ok(()),
        "host" | "port" => Err(PlaceholderError::Address(named(inside))),
        "socket" if scope.socket => Ok(()),
        "socket" => Err(PlaceholderError::Socket),
        _ if inside.starts_with("file:") && scope.files => Ok(()),
        _ if inside.starts_with("file:") => Err(PlaceholderError::File(named(inside))),
        _ => Err(PlaceholderError::Unknown(named(inside))),
    })
}

/// What placeholders become.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// The model's path.
    pub model: &'a str,
    /// Paths by the names of files.
    pub files: &'a BTreeMap<String, String>,
    /// How many devices the engine has.
    pub devices: usize,
    /// Where the engine listens.
    pub endpoint: &'a Endpoint,
}

impl Filling<'_> {
    /// One argument with its placeholders filled. A value is never searched for placeholders again.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let value = after.split_once('}').and_then(|(inside, tail)| Some((self.value(inside)?, tail)));
            match value {
                Some((value, tail)) => {
                    filled.push_str(&value);
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

    fn value(&self, inside: &str) -> Option<String> {
        match (inside, self.endpoint) {
            ("model", _) => Some(self.model.to_owned()),
            ("devices", _) => Some(self.devices.to_string()),
            ("host", Endpoint::Tcp { host, .. }) => Some(host.clone()),
            ("port", Endpoint::Tcp { port, .. }) => Some(port.to_string()),
            ("socket", Endpoint::Unix { path }) => Some(path.clone()),
            _ => self.files.get(inside.strip_prefix("file:")?).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Scope = Scope { files: true, address: true, socket: false };

    fn filled(text: &str, model: &str) -> String {
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: 20000 };
        let files = BTreeMap::from([("sql".to_owned(), "/mnt/{model}".to_owned())]);
        Filling { model, files: &files, devices: 4, endpoint: &endpoint }.fill(text)
    }

    #[test]
    fn placeholders_are_filled_once() {
        assert_eq!(filled("{host}:{port}", ""), "127.0.0.1:20000");
        assert_eq!(filled("--tensor-parallel-size={devices}", ""), "--tensor-parallel-size=4");
        assert_eq!(filled("-m={model}", "/srv/{port}.gguf"), "-m=/srv/{port}.gguf");
        assert_eq!(filled("sql={file:sql},{file:sq}", ""), "sql=/mnt/{model},{file:sq}");
        for plain in [r#"{"a":{"b":1}}"#, "{", "}{", "{{"] {
            assert_eq!(filled(plain, "m"), plain);
        }
        assert_eq!(filled("{{port}", "m"), "{20000");
        let endpoint = Endpoint::Unix { path: "/run/a.sock".into() };
        let filling = Filling { model: "m", files: &BTreeMap::new(), devices: 0, endpoint: &endpoint };
        assert_eq!(filling.fill("--host={socket}"), "--host=/run/a.sock");
    }

    #[test]
    fn a_placeholder_that_cannot_be_filled_is_named() {
        let check = |text| check_placeholders(text, POOL);
        assert_eq!(check("{modle}"), Err(PlaceholderError::Unknown("modle".into())));
        assert_eq!(check("{devices:x}"), Err(PlaceholderError::Unknown("devices:x".into())));
        assert_eq!(check("{model:x}"), Err(PlaceholderError::Unknown("model:x".into())));
        assert_eq!(check("{socket}"), Err(PlaceholderError::Socket));
        assert_eq!(check(r#"{"model": 1} {host} {file:sql}"#), Ok(()));
        let template = Scope { files: false, address: false, socket: true };
        assert_eq!(check_placeholders("{file:a}", template), Err(PlaceholderError::File("file:a".into())));
        assert_eq!(check_placeholders("{port}", template), Err(PlaceholderError::Address("port".into())));
        assert_eq!(check_placeholders("{socket}", template), Ok(()));
    }

    #[test]
    fn the_files_of_an_argument_are_found() {
        assert_eq!(files_in("a={file:a},{model},{file:b}").collect::<Vec<_>>(), ["a", "b"]);
    }
}
