//! Owns the secrets of an engine: where systemd has put each one, and the variable that it becomes.
//!
//! What always holds: a value is in this process's memory and in the engine's environment, and in no text.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use pool_core::config::Credential;
use pool_core::refusal::Refusal;

use crate::refused::Refused;

/// systemd's variable for the folder with a unit's credentials.
pub(crate) const FOLDER: &str = "CREDENTIALS_DIRECTORY";

/// A variable of the engine's and the credential that holds its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    variable: String,
    credential: Credential,
}

impl Secret {
    /// Reads `VARIABLE=NAME` or `VARIABLE=encrypted:NAME`.
    pub(crate) fn parse(text: &str) -> Option<Secret> {
        let (variable, credential) = text.split_once('=')?;
        let credential = Credential::try_from(credential.to_owned()).ok()?;
        (!variable.is_empty()).then(|| Secret { variable: variable.to_owned(), credential })
    }

    /// Variable and value, from the folder that systemd names. One line break at the end is no part of the value:
    /// editors and `echo` leave one.
    pub(crate) fn read(&self, folder: Option<&OsStr>) -> Result<(OsString, OsString), Refused> {
        let name = &self.credential.name;
        let Some(folder) = folder else { return Err(self.missing()) };
        let mut value = fs::read(Path::new(folder).join(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(),
            _ => self.refused(format_args!("cannot be read: {error}; see the unit's journal")),
        })?;
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        if value.is_empty() {
            return Err(self.refused(format_args!("is empty; {}", self.remedy())));
        }
        if value.contains(&0) {
            return Err(self.refused("holds a zero byte, and no variable can; it has to be a text"));
        }
        Ok((self.variable.clone().into(), OsString::from_vec(value)))
    }

    fn missing(&self) -> Refused {
        self.refused(format_args!("is not there; {}", self.remedy()))
    }

    fn remedy(&self) -> String {
        let name = &self.credential.name;
        if self.credential.encrypted {
            format!("make it: systemd-creds encrypt --name={name} FILE /etc/credstore.encrypted/{name}")
        } else {
            format!("write its value to /etc/credstore/{name}, a file of root's with mode 0600")
        }
    }

    fn refused(&self, what: impl std::fmt::Display) -> Refused {
        let Secret { variable, credential } = self;
        Refused::new(
            Refusal::Preflight,
            format!("credential {} (`credentials`, for {variable}) {what}", credential.name),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::parse("API_KEY=key").expect("a secret")
    }

    /// What is read where the credential holds that.
    fn read(test: &str, content: &[u8]) -> Result<(OsString, OsString), Refused> {
        let folder = std::env::temp_dir().join(format!("credential-{test}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("key"), content).expect("a file");
        let read = secret().read(Some(folder.as_os_str()));
        fs::remove_dir_all(&folder).expect("removed");
        read
    }

    #[test]
    fn a_value_loses_one_line_break_and_nothing_else() {
        for (test, content, value) in [
            ("plain", &b"s3cret"[..], &b"s3cret"[..]),
            ("line", b"s3cret\n", b"s3cret"),
            ("lines", b" a\nb\n\n", b" a\nb\n"),
            ("bytes", b"\xff\n", b"\xff"),
        ] {
            let (variable, found) = read(test, content).expect(test);
            assert_eq!(variable, "API_KEY", "{test}");
            assert_eq!(found.into_vec(), value, "{test}");
        }
    }

    #[test]
    fn what_cannot_be_a_value_is_refused_without_telling_it() {
        for (test, content, cause) in [
            ("zero", &b"s3\0cret"[..], "zero byte"),
            ("empty", b"", "is empty"),
            ("blank", b"\n", "is empty"),
        ] {
            let refused = read(test, content).expect_err(test);
            assert_eq!(refused.refusal(), Refusal::Preflight);
            assert!(refused.text().contains(cause) && !refused.text().contains("cret"), "{}", refused.text());
        }
    }

    #[test]
    fn a_missing_one_is_refused_with_the_place_where_it_belongs() {
        for folder in [None, Some(OsStr::new("/no/such/folder"))] {
            let refused = secret().read(folder).expect_err("none there");
            assert!(refused.text().contains("write its value to /etc/credstore/key,"), "{}", refused.text());
        }
        let encrypted = Secret::parse("A=encrypted:key").expect("a secret").read(None).expect_err("none");
        assert!(
            encrypted.text().contains("--name=key FILE /etc/credstore.encrypted/key"),
            "{}",
            encrypted.text()
        );
    }

    #[test]
    fn only_names_are_taken() {
        for text in ["", "A", "=key", "A=", "A=../key", "A=/key", "A=a b"] {
            assert_eq!(Secret::parse(text), None, "{text}");
        }
    }
}
