//! Release binaries and the Debian package, in `target/dist`.
//!
//! What is built must run on Debian 12, whose libc is 2.36. The host builds first; if its libc is newer and the
//! binaries ask for that, they are built again inside a Debian 12 tree.

mod deb;
mod elf;
mod layout;
mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use deb::with_version;
pub use elf::{LibcVersion, Needs, OLDEST_LIBC};

use crate::host::{self, Tool};
use crate::image;

/// What packing needs; building needs cargo and a C linker.
pub const TOOLS: [Tool; 4] = [
    Tool::new("cc", "build-essential"),
    Tool::new("dpkg-deb", "dpkg"),
    Tool::new("readelf", "binutils"),
    Tool::new("gzip", "gzip"),
];

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine lacks root or a program.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The Debian 12 tree to build in could not be made.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A file operation failed.
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
    /// The package's most important file is not in the repository.
    #[error("{} is missing: there is no package without the daemon's unit", .0.display())]
    NoDaemonUnit(PathBuf),
    /// A binary links a library that no dependency is known for.
    #[error("a binary links {0}, and xtask does not know which package that is; add it to dist/elf.rs")]
    UnknownLibrary(String),
    /// Even the tree's binaries ask for a newer libc.
    #[error("binaries built in the Debian 12 tree ask for libc {found}; it has {OLDEST_LIBC}")]
    LibcTooNew {
        /// What they ask for.
        found: LibcVersion,
    },
    /// The compiler cannot be mounted into the tree.
    #[error(
        "the Rust toolchain in {} cannot be used inside the Debian 12 tree; use one from rustup, whose folder holds all of it",
        .0.display()
    )]
    NoPortableToolchain(PathBuf),
    /// Cargo's home is nowhere.
    #[error("cannot find cargo's registry: set CARGO_HOME or HOME")]
    NoCargoHome,
}

impl Error {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// Where binaries are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// On the host, and in the tree only if the host's libc is too new.
    #[default]
    HostFirst,
    /// In the Debian 12 tree.
    Tree,
}

/// Builds the product and packs it. Returns the package.
pub fn package(place: Place) -> Result<PathBuf, Error> {
    host::ensure(&TOOLS)?;
    let workspace = host::workspace();
    let folder = host::target_dir().join("dist");
    deb::create_dir(&folder)?;
    let names: Vec<&str> = layout::BINARIES.iter().map(|(name, _)| *name).collect();
    // Before minutes of building: a package without its unit is refused at once.
    layout::files(workspace, Path::new(""))?;
    let arguments = ["-p", "pool-managerd", "-p", "pool-helper", "--bins"];
    let (built, needs) = build(place, &arguments, &names)?;
    let placed = layout::files(workspace, &built)?;
    let version = env!("CARGO_PKG_VERSION");
    deb::pack(&folder, &placed, &needs, version, env!("CARGO_PKG_REPOSITORY"))
}

/// Builds the conformance engine so that it runs on every release. Returns its path in `target/dist`.
pub fn conformance_engine(place: Place) -> Result<PathBuf, Error> {
    program(place, "pool-test-support", "conformance-engine")
}

/// Builds the engine that tries to get out of its unit. Returns its path in `target/dist`.
pub fn hostile_engine(place: Place) -> Result<PathBuf, Error> {
    program(place, "pool-test-support", "hostile-engine")
}

/// Builds what runs commands in a virtual machine. Returns its path in `target/dist`.
pub fn machine_agent(place: Place) -> Result<PathBuf, Error> {
    program(place, "pool-test-support", "machine-agent")
}

/// Builds what `cargo xtask bench bus` runs in its container. Returns its path in `target/dist`.
pub fn bus_bench(place: Place) -> Result<PathBuf, Error> {
    program(place, "pool-bus-bench", "bus-bench")
}

/// Builds a program of the workspace that is not part of the package.
fn program(place: Place, package: &str, name: &str) -> Result<PathBuf, Error> {
    host::ensure(&TOOLS)?;
    let folder = host::target_dir().join("dist");
    deb::create_dir(&folder)?;
    let (built, _) = build(place, &["-p", package, "--bin", name], &[name])?;
    let (from, to) = (built.join(name), folder.join(name));
    fs::copy(&from, &to).map_err(|source| Error::io("copy", &from, source))?;
    Ok(to)
}

/// Runs `cargo build --release` and returns the folder of the binaries, and what they need.
fn build(place: Place, arguments: &[&str], names: &[&str]) -> Result<(PathBuf, Needs), Error> {
    let needs = |folder: &Path| {
        let binaries: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
        Needs::of(&binaries)
    };
    if place == Place::HostFirst {
        host::run(host::cargo().args(["build", "--release"]).args(arguments))?;
        let folder = host::target_dir().join("release");
        let found = needs(&folder)?;
        if found.runs_on_the_oldest() {
            return Ok((folder, found));
        }
        if let Some(libc) = found.libc {
            eprintln!("xtask: this host's binaries ask for libc {libc}, and Debian 12 has {OLDEST_LIBC}");
        }
    }
    let folder = tree::cargo_build(arguments)?;
    let found = needs(&folder)?;
    match found.libc {
        Some(libc) if !found.runs_on_the_oldest() => Err(Error::LibcTooNew { found: libc }),
        _ => Ok((folder, found)),
    }
}
