//! Which sandboxes there are on this host: `target/sandbox/<machine>/`, one folder each, held by its guard's lock.
//!
//! A folder whose lock is free belonged to a guard that was killed: its cgroup is emptied and the folder removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, inside};
use crate::host;

/// Where the sandboxes' folders are.
pub(super) fn root() -> PathBuf {
    host::target_dir().join("sandbox")
}

/// Where the journals of sandboxes are kept.
pub(super) fn logs() -> PathBuf {
    root().join("logs")
}

/// A running sandbox that outlives the command that booted it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The name it was booted with.
    pub name: String,
    /// Its host name.
    pub machine: String,
    folder: PathBuf,
    leader: u32,
}

impl Kept {
    /// The command that enters it, ready for the words of the command to run inside.
    pub fn enter(&self) -> Command {
        inside::enter(self.leader, &inside::cgroup_procs(self.leader).unwrap_or_default())
    }
}

/// The kept sandbox of that name, or any if no name is given; the newest first.
pub fn find_kept(name: Option<&str>) -> Result<Kept, Error> {
    let mut kept: Vec<_> = folders().into_iter().filter_map(|folder| read_kept(&folder)).collect();
    kept.retain(|kept| name.is_none_or(|name| kept.name == name || kept.machine == name));
    let newest =
        kept.into_iter().max_by_key(|kept| fs::metadata(&kept.folder).and_then(|data| data.modified()).ok());
    newest.ok_or_else(|| Error::NoneKept(name.map(str::to_owned)))
}

/// Takes down the kept sandboxes of that name, or all of them, and returns their host names.
pub fn stop_kept(name: Option<&str>) -> Result<Vec<String>, Error> {
    let mut stopped = Vec::new();
    while let Ok(kept) = find_kept(name) {
        let stop = kept.folder.join("kept");
        fs::remove_file(&stop).map_err(|source| Error::Io { action: "remove", path: stop, source })?;
        let begun = Instant::now();
        while kept.folder.exists() && begun.elapsed() < Duration::from_secs(15) {
            thread::sleep(Duration::from_millis(20));
        }
        stopped.push(kept.machine);
    }
    Ok(stopped)
}

fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("name").is_file()).collect()
}

fn read_kept(folder: &Path) -> Option<Kept> {
    if !folder.join("kept").exists() || !is_held(folder) {
        return None;
    }
    let name = fs::read_to_string(folder.join("name")).ok()?;
    let leader = fs::read_to_string(folder.join("leader")).ok()?.trim_end().parse().ok()?;
    let machine = folder.file_name()?.to_str()?.to_owned();
    Some(Kept { name, machine, folder: folder.to_owned(), leader })
}

/// Whether a guard holds the folder.
fn is_held(folder: &Path) -> bool {
    File::options().write(true).open(folder.join("lock")).is_ok_and(|lock| lock.try_lock().is_err())
}

/// Removes what killed guards left behind.
pub(super) fn remove_stale() -> Result<(), Error> {
    for folder in folders() {
        // A guard that is just starting has not locked its folder yet.
        let young = fs::metadata(&folder)
            .and_then(|data| data.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < Duration::from_secs(10)));
        if young || is_held(&folder) {
            continue;
        }
        if let Some(machine) = folder.file_name().and_then(|name| name.to_str()) {
            eprintln!("xtask: removing sandbox {machine}, whose guard was killed");
            empty_cgroups(machine);
        }
        let removed = host::run(Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&folder));
        if removed.is_err() && folder.exists() {
            return Err(Error::Io {
                action: "remove",
                path: folder,
                source: io::Error::from(io::ErrorKind::ResourceBusy),
            });
        }
    }
    Ok(())
}

/// Kills what is left in a dead sandbox's cgroup, and removes the cgroup and nspawn's own leftovers.
fn empty_cgroups(machine: &str) {
    // Made by the guard itself, or a scope of the host's systemd.
    let script = r#"
        find /sys/fs/cgroup -maxdepth 5 -type d \( -name "$0" -o -name "$0.scope" \) 2>/dev/null | while read -r group; do
          { echo 1 >"$group/cgroup.kill"; } 2>/dev/null
          for try in 1 2 3 4 5 6 7 8 9 10; do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$group" ] || break
            sleep 0.1
          done
        done
        rm -rf --one-file-system "/run/systemd/nspawn/propagate/$0" "/run/systemd/nspawn/unix-export/$0""#;
    if let Err(error) = Command::new("sh").args(["-c", script, machine]).status() {
        eprintln!("xtask: cannot empty the cgroup of {machine}: {error}");
    }
}
