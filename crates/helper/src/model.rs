//! Owns the check that the engine's user can read the model, a file or a folder of files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use pool_core::refusal::Refusal;

use crate::notify::shown;
use crate::obstacle::Obstacle;
use crate::refused::Refused;

const ELSEWHERE: &str = ", or put the model below /srv or /var/lib/llamaorch/models";

/// How closely a folder is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The listing alone: what a start can afford.
    Listing,
    /// Every file in it is opened.
    EveryFile,
}

/// Refuses a model that is missing, empty, or not readable by this user.
pub(crate) fn check(model: &Path, depth: Depth) -> Result<(), Refused> {
    if !model.is_absolute() {
        return Err(refused(model, "it is not an absolute path", "write it from the root (/) on"));
    }
    let found = fs::metadata(model).map_err(|error| unreadable(model, model, error))?;
    if found.is_dir() {
        folder(model, depth)
    } else if found.is_file() {
        file(model)
    } else {
        // Opening it could wait for ever: a FIFO does.
        Err(refused(model, "it is neither a file nor a folder", "name the model's file or folder"))
    }
}

/// The refusal for a model whose reading ended with `error`.
pub(crate) fn unreadable(model: &Path, at: &Path, error: io::Error) -> Refused {
    let obstacle = Obstacle::on(at, error);
    let remedy = obstacle.remedy("o+r");
    let elsewhere = if remedy.contains("/srv") { "" } else { ELSEWHERE };
    refused(model, obstacle, format_args!("{remedy}{elsewhere}"))
}

fn file(model: &Path) -> Result<(), Refused> {
    let read = File::open(model).and_then(|mut file| file.read(&mut [0; 1]));
    match read.map_err(|error| unreadable(model, model, error))? {
        0 => {
            Err(refused(model, "it is empty", "copy it again: it was truncated or its transfer never began"))
        }
        _ => Ok(()),
    }
}

fn folder(model: &Path, depth: Depth) -> Result<(), Refused> {
    let listing = fs::read_dir(model).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => refused(
            model,
            "this user may not list the folder",
            format_args!("chmod o+rx {}{ELSEWHERE}", shown(model)),
        ),
        _ => unreadable(model, model, error),
    })?;
    let mut names = Vec::new();
    for entry in listing {
        names.push(entry.map_err(|error| unreadable(model, model, error))?.file_name());
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
        let path = model.join(name);
        // Through links: a Hugging Face snapshot is a folder of links into a folder of blobs.
        let found = fs::metadata(&path).map_err(|error| unreadable(model, &path, error))?;
        if found.is_file() {
            File::open(&path).map_err(|error| unreadable(model, &path, error))?;
        }
    }
    Ok(())
}

fn refused(model: &Path, cause: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Refused {
    Refused::new(Refusal::ModelUnreadable, format!("model {}: {cause}; {remedy}", shown(model)))
}
