//! Owns what is saved: what operators asked for, which survives a reboot, and what the next run of the daemon needs.
//!
//! Files are written beside their place and renamed, carry a version, and a damaged one is set aside rather than fatal.

use pool_core::device::{DeviceUuid, Quarantine};
use pool_core::host::Saved;
use pool_core::name::PoolId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot save {}", file.display())]
pub struct StoreError {
    file: PathBuf,
    #[source]
    source: io::Error,
}

/// Where things are saved.
#[derive(Debug, Clone)]
pub struct Store {
    runtime: PathBuf,
    wishes: PathBuf,
    /// This boot; "": nobody knows.
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    /// The boot that it is of; "": of any.
    #[serde(default)]
    boot: String,
    content: T,
}

/// What operators asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Pools that are to stay stopped.
    pub stopped: BTreeSet<PoolId>,
    /// Devices that are out of use.
    #[serde(default)]
    pub quarantined: BTreeMap<DeviceUuid, Quarantine>,
}

impl Store {
    /// A store in the folders that systemd gives the daemon's unit.
    #[must_use]
    pub fn new(runtime: &Path, state: &Path) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Store {
            runtime: runtime.join("pools.json"),
            wishes: state.join("wishes.json"),
            boot: boot.trim().to_owned(),
        }
    }

    /// What the last run saved, and complaints about what of it could not be used.
    #[must_use]
    pub fn load(&self) -> (Saved, Wishes, Vec<String>) {
        let mut complaints = Vec::new();
        // Times in it are this boot's: breakers and delays of another one mean nothing.
        let saved: Saved = load(&self.runtime, &self.boot, &mut complaints);
        let wishes: Wishes = load(&self.wishes, "", &mut complaints);
        (saved, wishes, complaints)
    }

    /// Saves what the next run needs.
    ///
    /// # Errors
    /// The file could not be written; the old one is still there.
    pub fn save_runtime(&self, saved: &Saved) -> Result<(), StoreError> {
        save(&self.runtime, &self.boot, saved)
    }

    /// Saves what operators asked for.
    ///
    /// # Errors
    /// The file could not be written; the old one is still there.
    pub fn save_wishes(&self, wishes: &Wishes) -> Result<(), StoreError> {
        save(&self.wishes, "", wishes)
    }
}

fn save<T: Serialize>(file: &Path, boot: &str, content: &T) -> Result<(), StoreError> {
    let write = || {
        let bytes = serde_json::to_vec(&Versioned { version: VERSION, boot: boot.to_owned(), content })?;
        let beside = file.with_extension("json.new");
        let mut out = create(&beside)?;
        out.write_all(&bytes)?;
        out.sync_data()?;
        fs::rename(&beside, file)
    };
    write().map_err(|source| StoreError { file: file.to_owned(), source })
}

/// A new file that is nobody else's to read, for what is saved holds pools' arguments and environments; in the place of
/// what was left of one that was not written to its end.
fn create(file: &Path) -> io::Result<File> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(file)
}

fn load<T: DeserializeOwned + Default>(file: &Path, boot: &str, complaints: &mut Vec<String>) -> T {
    let problem = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return T::default(),
        Err(error) => format!("cannot be read: {error}"),
        Ok(bytes) => match serde_json::from_slice::<Versioned<T>>(&bytes) {
            Ok(read) if read.version == VERSION && read.boot == boot => return read.content,
            // That is as it should be after a reboot.
            Ok(read) if read.version == VERSION => return T::default(),
            Ok(read) => format!("has version {}, this daemon reads {VERSION}", read.version),
            Err(error) => format!("is damaged: {error}"),
        },
    };
    let aside = file.with_extension("json.damaged");
    let kept = match fs::rename(file, &aside) {
        Ok(()) => format!("kept as {}", aside.display()),
        Err(error) => format!("and cannot be set aside: {error}"),
    };
    complaints.push(format!("{} {problem}; {kept}, going on without it", file.display()));
    T::default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pool-store-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn wishes() -> Wishes {
        let quarantine = Quarantine { reason: "it smells".to_owned() };
        Wishes {
            stopped: BTreeSet::from(["chat".parse().expect("a valid name")]),
            quarantined: BTreeMap::from([("GPU-1".parse().expect("a UUID"), quarantine)]),
        }
    }

    /// A pool called `chat`.
    pub(crate) fn sample() -> Saved {
        let pool = serde_json::json!({
            "revision": {"digest": "d", "spec": {
                "id": "chat", "path": "", "engine": "e", "program": "p", "model": "m", "digest": null, "args": [], "env": {},
                "template": {"program": "p", "health": {"path": "/"}}, "replicas": 1, "activation": "manual",
                "listen": {"host": "h", "port": {"Fixed": 1}}, "health": {"start_limit": 1, "start_timeout": 1},
                "restart": {"policy": "never"}
            }},
            "run": true, "restart_count": 2, "resting": {"0": {"Signal": 9}, "1": "Stopped"}
        });
        serde_json::from_value(serde_json::json!({"pools": {"chat": pool}})).expect("JSON of ours")
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = folder("back");
        let store = Store::new(&folder, &folder);
        let wishes = wishes();
        store.save_wishes(&wishes).expect("it can be saved");
        let saved = sample();
        assert_eq!(saved.pools.values().next().expect("a pool").ended.len(), 2);
        store.save_runtime(&saved).unwrap();
        assert_eq!(store.load(), (saved, wishes, vec![]));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_saved_is_nobody_elses_to_read() {
        let folder = folder("mode");
        let store = Store::new(&folder, &folder);
        // As an earlier version left it behind.
        fs::write(folder.join("pools.json.new"), "half").expect("a file");
        store.save_runtime(&sample()).expect("it can be saved");
        store.save_wishes(&Wishes::default()).expect("it can be saved");
        for file in [&store.runtime, &store.wishes] {
            let mode = fs::metadata(file).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        fs::remove_dir_all(folder).expect("a folder of the test's own");
    }

    #[test]
    fn what_was_saved_before_a_reboot_is_of_another_time() {
        let folder = folder("reboot");
        let store = Store::new(&folder, &folder);
        let wishes = wishes();
        store.save_wishes(&wishes).expect("it can be saved");
        save(&store.runtime, "another boot", &serde_json::json!({"pools": {"chat": "unreadable by now"}}))
            .expect("it can be saved");
        assert_eq!(store.load().0, Saved::default());
        assert_eq!(store.load().1, wishes, "what operators asked for holds all the same");
        fs::remove_dir_all(folder).expect("a folder of the test's own");
    }

    #[test]
    fn a_damaged_or_foreign_file_is_set_aside() {
        for (name, text) in
            [("damaged", "{\"version\":1,"), ("foreign", "{\"version\":9,\"content\":{\"stopped\":[]}}")]
        {
            let folder = folder(name);
            fs::write(folder.join("wishes.json"), text).unwrap();
            let (_, wishes, complaints) = Store::new(&folder, &folder).load();
            assert_eq!(wishes, Wishes::default());
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert_eq!(fs::read_to_string(folder.join("wishes.json.damaged")).unwrap(), text);
            fs::remove_dir_all(folder).unwrap();
        }
    }
}
