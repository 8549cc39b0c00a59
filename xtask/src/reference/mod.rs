//! `docs/dbus.md`: the reference page of the D-Bus API, made of the XML in `dbus/` and of the examples beside it.
//!
//! The XML is the contract and holds every word; nothing is said here that it does not say. `dbus/busctl.txt` has the
//! examples: the page shows them, and a test of the bus level runs each. It fails where a file cannot be read, is no
//! XML, or says nothing of a member.

mod contract;
mod example;
mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host;

pub use contract::{Access, Argument, Interface, Member, interfaces};
pub use example::{Example, examples};

/// Where the page is, below the workspace.
const PAGE: &str = "docs/dbus.md";

/// Why there is no page, or not the right one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file is no XML.
    #[error("{} is not valid", .path.display())]
    Xml {
        /// Which.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: roxmltree::Error,
    },
    /// A file says too little.
    #[error("{}: {what}", .path.display())]
    Lacks {
        /// Which.
        path: PathBuf,
        /// What it lacks.
        what: String,
    },
    /// The page is not what it would be now.
    #[error("{PAGE} is not what dbus/ says now: run `cargo xtask reference` and commit it with the change")]
    Stale,
}

/// Writes the page; gives its path.
pub fn write() -> Result<PathBuf, Error> {
    let workspace = host::workspace();
    let (path, text) = (workspace.join(PAGE), made(workspace)?);
    fs::write(&path, text).map_err(|source| Error::Io { action: "write", path: path.clone(), source })?;
    Ok(path)
}

/// Whether the page is what it would be now.
pub fn check() -> Result<(), Error> {
    let workspace = host::workspace();
    let is = read(&workspace.join(PAGE))?;
    if is == made(workspace)? { Ok(()) } else { Err(Error::Stale) }
}

/// The examples of this workspace.
pub fn examples_here() -> Result<Vec<Example>, Error> {
    let path = host::workspace().join("dbus/busctl.txt");
    examples(&read(&path)?).map_err(|what| Error::Lacks { path, what })
}

/// The interfaces of this workspace, the manager's first.
pub fn interfaces_here() -> Result<Vec<Interface>, Error> {
    read_interfaces(&host::workspace().join("dbus"))
}

/// The interfaces of the XML files of a folder: the shortest name first, which is what the others belong to, then in
/// the order in which one leads to the next.
pub fn read_interfaces(folder: &Path) -> Result<Vec<Interface>, Error> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "xml") {
            found.extend(interfaces(&path, &read(&path)?)?);
        }
    }
    let order = |interface: &Interface| {
        let last = interface.name.rsplit('.').next().unwrap_or_default().to_owned();
        let place = ["PoolManager", "Pool", "Replica", "Device", "Job"].iter().position(|name| *name == last);
        (place.unwrap_or(usize::MAX), interface.name.clone())
    };
    found.sort_by_key(order);
    Ok(found)
}

fn made(workspace: &Path) -> Result<String, Error> {
    Ok(page::page(&read_interfaces(&workspace.join("dbus"))?, &examples_here()?))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_contract_says() {
        if let Err(error) = super::check() {
            panic!("{error}");
        }
    }
}
