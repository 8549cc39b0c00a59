//! Owns what a pool names besides its model: files that have to be readable, secrets that have to be there, and the nodes
//! of its devices.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::arguments::Given;
use crate::credential::{self, Secret};
use crate::model::{self, Depth, Subject};
use crate::node;
use crate::refused::Refused;

/// The options that `stage` and `launch` share.
pub(crate) const OPTIONS: [&str; 3] = ["--file", "--credential", "--node"];

/// What was named.
#[derive(Debug)]
pub(crate) struct Reached {
    files: Vec<(String, PathBuf)>,
    secrets: Vec<Secret>,
    nodes: Vec<PathBuf>,
}

impl Reached {
    pub(crate) fn take(given: &mut Given) -> Result<Reached, Refused> {
        let file = |text: &str| {
            let (name, path) = text.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), PathBuf::from(path)))
        };
        Ok(Reached {
            files: given.each("--file", "NAME=PATH", file)?,
            secrets: given.each("--credential", "VARIABLE=NAME", Secret::parse)?,
            nodes: given.every("--node").into_iter().map(PathBuf::from).collect(),
        })
    }

    /// Refuses where one of them cannot be read; else the variables that the secrets become.
    pub(crate) fn check(&self, depth: Depth) -> Result<Vec<(OsString, OsString)>, Refused> {
        for (name, path) in &self.files {
            model::check(Subject::file(name, path), depth)?;
        }
        self.nodes.iter().try_for_each(|path| node::check(path))?;
        let folder = std::env::var_os(credential::FOLDER);
        self.secrets.iter().map(|secret| secret.read(folder.as_deref())).collect()
    }
}
