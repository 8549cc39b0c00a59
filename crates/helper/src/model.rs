//! Owns the check that the engine's user can read the model and what goes with it: a file or a folder of files each.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use pool_core::refusal::Refusal;

use crate::notify::shown;
use crate::obstacle::Obstacle;
use crate::refused::Refused;

const ELSEWHERE: &str = ", or put it below /srv or /var/lib/llamaorch/models";

/// How closely a folder is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The listing alone: what a start can afford.
    Listing,
    /// Every file in it is opened.
    EveryFile,
}

/// What is checked, by the name that an operator gave it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// In `files`; `None`: the model.
    name: Option<&'a str>,
    path: &'a Path,
}

impl<'a> Subject<'a> {
    pub(crate) fn model(path: &'a Path) -> Self {
        Subject { name: None, path }
    }

    pub(crate) fn file(name: &'a str, path: &'a Path) -> Self {
        Subject { name: Some(name), path }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            None => write!(f, "model {}", shown(self.path)),
            Some(name) => write!(f, "`files`, {name}: {}", shown(self.path)),
        }
    }
}

/// Refuses what is missing, empty, or not readable by this user.
pub(crate) fn check(model: Subject<'_>, depth: Depth) -> Result<(), Refused> {
    if !model.path.is_absolute() {
        return Err(refused(model, "it is not an absolute path", "write it from the root (/) on"));
    }
    let found = fs::metadata(model.path).map_err(|error| unreadable(model, model.path, error))?;
    if found.is_dir() {
        folder(model, depth)
    } else if found.is_file() {
        file(model)
    } else {
        // Opening it could wait for ever: a FIFO does.
        Err(refused(model, "it is neither a file nor a folder", "name the model's file or folder"))
    }
}

/// The refusal for one whose reading ended with `error`.
pub(crate) fn unreadable(model: Subject<'_>, at: &Path, error: io::Error) -> Refused {
    let obstacle = Obstacle::on(at, error);
    let remedy = obstacle.remedy("o+r");
    let there = ["/srv", "/var/lib/llamaorch/models"].iter().any(|folder| model.path.starts_with(folder));
    let elsewhere = if there || remedy.contains("/srv") { "" } else { ELSEWHERE };
    refused(model, obstacle, format_args!("{remedy}{elsewhere}"))
}

fn file(model: Subject<'_>) -> Result<(), Refused> {
    let read = File::open(model.path).and_then(|mut file| file.read(&mut [0; 1]));
    match read.map_err(|error| unreadable(model, model.path, error))? {
        0 => {
            Err(refused(model, "it is empty", "copy it again: it was truncated or its transfer never began"))
        }
        _ => Ok(()),
    }
}

fn folder(model: Subject<'_>, depth: Depth) -> Result<(), Refused> {
    let listing = fs::read_dir(model.path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => refused(
            model,
            "this user may not list the folder",
            format_args!("chmod o+rx {}{ELSEWHERE}", shown(model.path)),
        ),
        _ => unreadable(model, model.path, error),
    })?;
    let mut names = Vec::new();
    for entry in listing {
        names.push(entry.map_err(|error| unreadable(model, model.path, error))?.file_name());
        if depth == Depth::Listing {
            break;
        }
    }
    if names.is_empty() {
        return Err(refused(model, "the folder is empty", "copy the model into it, or correct the path"));
    }
    if depth == Depth::Listing {
        return Ok(());
    }
    names.sort();
    for name in names {
        let path = model.path.join(name);
        // Through links: a Hugging Face snapshot is a folder of links into a folder of blobs.
        let found = fs::metadata(&path).map_err(|error| unreadable(model, &path, error))?;
        if found.is_file() {
            File::open(&path).map_err(|error| unreadable(model, &path, error))?;
        }
    }
    Ok(())
}

fn refused(model: Subject<'_>, cause: impl fmt::Display, remedy: impl fmt::Display) -> Refused {
    Refused::new(Refusal::ModelUnreadable, format!("{model}: {cause}; {remedy}"))
}
