//! Debian trees to boot, made with mmdebstrap and kept in a cache that all clones of this repository share.
//!
//! A tree is made under a temporary name and renamed when it is whole, so a half tree is never seen. Its folder's name
//! carries a hash of the recipe, so a changed recipe makes a new tree and leaves those who use the old one alone. One
//! lock file per tree: makers hold it alone, sandboxes share it, and [`prune`] removes only what nobody holds.

mod recipe;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::resume_unwind;
use std::path::{self, Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::host::{self, Tool};

pub use recipe::{NoSuchSuite, Recipe, Suite};

/// What making a tree needs.
pub const TOOLS: [Tool; 3] = [
    Tool::new("mmdebstrap", "mmdebstrap"),
    Tool::new("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    Tool::new("unshare", "util-linux"),
];

/// Below this much free space a tree is not even begun.
const SPACE_NEEDED: u64 = 1 << 30;

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine lacks root or a program.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// Neither variable is set, so there is no place for the cache.
    #[error("no place for Debian trees: set POOL_IMAGE_DIR, XDG_CACHE_HOME or HOME")]
    NoCache,
    /// The cache's file system cannot hold a system tree.
    #[error("{} cannot hold a Debian tree: {reason}; set POOL_IMAGE_DIR to a folder that can", .folder.display())]
    Unsuitable {
        /// The cache.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
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
    /// mmdebstrap failed.
    #[error(
        "mmdebstrap could not make {tree} ({status}):\n{tail}\nThe whole output is in {}. It needs a Debian mirror that this \
         machine can reach; http_proxy is honoured",
        .log.display()
    )]
    Mmdebstrap {
        /// Which tree.
        tree: Recipe,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines it printed.
        tail: String,
        /// Where the rest is.
        log: PathBuf,
    },
    /// mmdebstrap said that it succeeded and the tree has no systemd.
    #[error("{tree} was made without {missing}; this is a bug in xtask's recipe")]
    Incomplete {
        /// Which tree.
        tree: Recipe,
        /// The file that should be there.
        missing: &'static str,
    },
}

/// A tree, ready to be booted or entered. Nobody may write to it: sandboxes lay their own layer over it.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it was made of.
    pub recipe: Recipe,
    /// The tree's root.
    pub tree: PathBuf,
    /// Held in common by all who use the tree.
    pub lock: PathBuf,
}

/// Where trees are kept: `POOL_IMAGE_DIR`, else `pool-managerd/images` in the user's cache folder.
pub fn cache_dir() -> Result<PathBuf, Error> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("POOL_IMAGE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("pool-managerd/images")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/pool-managerd/images")))
        .ok_or(Error::NoCache)?;
    // The guard of a sandbox has another working folder.
    path::absolute(&cache).map_err(|source| io_error("find", &cache, source))
}

/// The tree of `recipe`, made now if it isn't there. Waits for another process that is making it.
pub fn ensure(recipe: Recipe) -> Result<Image, Error> {
    let image = locate(recipe)?;
    if !image.tree.is_dir() {
        prepare(&[&image])?;
        make_locked(&image)?;
    }
    Ok(image)
}

/// The trees of several recipes, made at the same time.
pub fn ensure_all(recipes: &[Recipe]) -> Result<Vec<Image>, Error> {
    let images = recipes.iter().map(|&recipe| locate(recipe)).collect::<Result<Vec<_>, _>>()?;
    let missing: Vec<_> = images.iter().filter(|image| !image.tree.is_dir()).collect();
    prepare(&missing)?;
    thread::scope(|scope| {
        let makers: Vec<_> = missing.iter().map(|image| scope.spawn(|| make_locked(image))).collect();
        makers.into_iter().try_for_each(|maker| maker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    Ok(images)
}

fn locate(recipe: Recipe) -> Result<Image, Error> {
    let cache = cache_dir()?;
    let folder = recipe.folder();
    Ok(Image { recipe, tree: cache.join(&folder), lock: cache.join(format!("{folder}.lock")) })
}

fn prepare(missing: &[&Image]) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    let makes: Vec<_> =
        missing.iter().map(|image| format!("{} (about 250 MB)", image.tree.display())).collect();
    let names: Vec<_> = missing.iter().map(|image| image.recipe.to_string()).collect();
    host::prepare(&format!("cargo xtask image {}", names.join(" ")), NEEDS, &TOOLS, &makes)?;
    let cache = cache_dir()?;
    create_dir(&cache)?;
    check_place(&cache)
}

fn make_locked(image: &Image) -> Result<(), Error> {
    let lock = open_lock(&image.lock)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("xtask: another process is making {}; waiting for it", image.recipe);
            lock.lock().map_err(|source| io_error("lock", &image.lock, source))?;
        }
        Err(TryLockError::Error(source)) => return Err(io_error("lock", &image.lock, source)),
    }
    if !image.tree.is_dir() {
        make(image)?;
    }
    Ok(())
}

/// What making a tree needs, in words.
pub const NEEDS: &[&str] = &[
    "root (mmdebstrap unpacks packages with their owners and runs their scripts)",
    "a Debian mirror that this machine can reach",
    "about 250 MB of disk per release in the cache (POOL_IMAGE_DIR moves it)",
];

/// Raised when [`finish`] changes, so that trees are made anew.
const FINISH_VERSION: &str = "finish 3";

fn make(image: &Image) -> Result<(), Error> {
    let begun = Instant::now();
    let recipe = image.recipe;
    let part = image.tree.with_extension("part");
    let log = image.tree.with_extension("log");
    remove_tree(&part)?;
    eprintln!("xtask: making {recipe} in {} with mmdebstrap (half a minute or more)", image.tree.display());
    let output = File::create(&log).map_err(|source| io_error("create", &log, source))?;
    let errors = output.try_clone().map_err(|source| io_error("open", &log, source))?;
    // A mount and a process namespace of its own: an interrupted mmdebstrap leaves neither mounts nor processes.
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "mmdebstrap",
        ])
        .args(recipe.arguments())
        .arg(&part)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let status =
        command.status().map_err(|source| host::Error::Spawn { command: host::typed(&command), source })?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let tail = last_lines(&text, 12);
        remove_tree(&part)?;
        return Err(Error::Mmdebstrap { tree: recipe, status, tail, log });
    }
    if recipe != Recipe::Kernel {
        finish(&part)?;
    }
    let missing = recipe.witness();
    if !part.join(missing).exists() {
        return Err(Error::Incomplete { tree: recipe, missing });
    }
    fs::rename(&part, &image.tree).map_err(|source| io_error("rename", &part, source))?;
    eprintln!("xtask: {recipe} is ready after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Takes out of a fresh tree what belongs to the machine that made it.
fn finish(tree: &Path) -> Result<(), Error> {
    // Empty, so that each boot makes its own.
    let machine_id = tree.join("etc/machine-id");
    fs::write(&machine_id, "").map_err(|source| io_error("empty", &machine_id, source))?;
    for copied in ["etc/hostname", "etc/resolv.conf"] {
        let file = tree.join(copied);
        match fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &file, source));
            }
            _ => {}
        }
    }
    // As systemd-update-done leaves it: no first boot rebuilds linker cache, users and catalog, which a fresh tree has.
    for updated in ["etc/.updated", "var/.updated"] {
        let file = tree.join(updated);
        fs::write(&file, "").map_err(|source| io_error("create", &file, source))?;
    }
    // A container has no say about kernel modules, and this unit fails where it has all capabilities.
    let masked = tree.join("etc/systemd/system/systemd-modules-load.service");
    if tree.join("usr/bin/systemctl").exists() {
        symlink("/dev/null", &masked).map_err(|source| io_error("mask", &masked, source))?;
    }
    // mmdebstrap makes the root 0755 only if the umask lets it.
    fs::set_permissions(tree, fs::Permissions::from_mode(0o755))
        .map_err(|source| io_error("set the mode of", tree, source))
}

/// Removes trees of other recipes, and what interrupted makers left, unless somebody uses them. Says what it removed.
pub fn prune() -> Result<Vec<PathBuf>, Error> {
    let cache = cache_dir()?;
    let current = Suite::ALL.map(|suite| Recipe::System(suite).folder());
    let current =
        current.into_iter().chain([Recipe::Build.folder(), Recipe::Kernel.folder()]).collect::<Vec<_>>();
    let mut removed = Vec::new();
    for file in list(&cache)? {
        let (Some(stem), Some(extension)) = (file.file_stem().and_then(OsStr::to_str), file.extension())
        else {
            continue;
        };
        if extension != "lock" || current.iter().any(|folder| folder == stem) {
            continue;
        }
        let lock = open_lock(&file)?;
        if lock.try_lock().is_err() {
            continue;
        }
        for leftover in [file.with_extension(""), file.with_extension("part")] {
            if leftover.is_dir() {
                remove_tree(&leftover)?;
                removed.push(leftover);
            }
        }
        for leftover in [file.with_extension("log"), file.clone()] {
            if leftover.exists() {
                fs::remove_file(&leftover).map_err(|source| io_error("remove", &leftover, source))?;
            }
        }
    }
    Ok(removed)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(io_error("list", folder, source)),
    }
}

/// A cache where mmdebstrap would fail late is refused early, with the reason.
fn check_place(cache: &Path) -> Result<(), Error> {
    let unsuitable = |reason: String| Error::Unsuitable { folder: cache.to_owned(), reason };
    if cache.as_os_str().as_encoded_bytes().iter().any(|byte| b":,\\\" \n".contains(byte)) {
        return Err(unsuitable(
            "an overlay's lower folder has no spaces, quotes, colons or commas in its path".to_owned(),
        ));
    }
    let stat = nix::sys::statvfs::statvfs(cache).map_err(|errno| io_error("look at", cache, errno.into()))?;
    let flags = stat.flags();
    for (flag, name) in [
        (nix::sys::statvfs::FsFlags::ST_NODEV, "nodev"),
        (nix::sys::statvfs::FsFlags::ST_NOEXEC, "noexec"),
        (nix::sys::statvfs::FsFlags::ST_NOSUID, "nosuid"),
        (nix::sys::statvfs::FsFlags::ST_RDONLY, "read-only"),
    ] {
        if flags.contains(flag) {
            return Err(unsuitable(format!("its file system is mounted {name}")));
        }
    }
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free < SPACE_NEEDED {
        return Err(unsuitable(format!("{} MiB are free and {} are needed", free >> 20, SPACE_NEEDED >> 20)));
    }
    Ok(())
}

/// rm and not `remove_dir_all`: it must not walk into another file system.
fn remove_tree(tree: &Path) -> Result<(), Error> {
    if tree.exists() {
        host::run(Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(tree))?;
    }
    Ok(())
}

fn create_dir(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| io_error("create", folder, source))
}

fn open_lock(path: &Path) -> Result<File, Error> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|source| io_error("open", path, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// The last `count` lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_room_or_rights_is_refused_with_the_remedy() {
        let refused = check_place(Path::new("/proc")).expect_err("proc holds no tree").to_string();
        assert!(refused.contains("POOL_IMAGE_DIR"), "{refused}");
    }

    #[test]
    fn last_lines_of_short_and_long_texts() {
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
    }
}
