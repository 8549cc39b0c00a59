//! Owns the configuration below a temporary root: what the files say, and what goes wrong with them.

use crate::dice::Dice;
use pool_core::name::PoolId;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Pools that files may be of.
pub const POOLS: [&str; 4] = ["a", "b", "c", "d"];

const TEMPLATE: &str = "program = \"server\"\n[health]\npath = \"/health\"\n";

/// A root with configuration, and a folder for what the daemon saves; it goes away with its owner.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    /// Pools whose file was removed at any time.
    pub ever_removed: BTreeSet<PoolId>,
}

impl Files {
    pub fn new(dice: &mut Dice) -> Files {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // In memory where there is such a place: a script saves hundreds of times, each time down to the disk.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let root = base.join(format!("pool-simulation-{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("etc/llamaorch/pools.d")).unwrap();
        fs::create_dir_all(root.join("etc/llamaorch/engines.d")).unwrap();
        fs::create_dir_all(root.join("saved")).unwrap();
        fs::write(root.join("etc/llamaorch/engines.d/test.toml"), TEMPLATE).unwrap();
        let files = Files { root, ever_removed: BTreeSet::new() };
        for id in POOLS.iter().take(1 + dice.roll(POOLS.len())) {
            files.write(id, dice);
        }
        files
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self) -> PathBuf {
        self.root.join("etc/llamaorch/pools.d")
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder().join(format!("{id}.toml"))
    }

    /// Pools that have a file.
    pub fn there(&self) -> BTreeSet<PoolId> {
        let there = POOLS.iter().filter(|id| self.file(id).exists());
        there.map(|id| id.parse().unwrap()).collect()
    }

    fn write(&self, id: &str, dice: &mut Dice) {
        let replicas = 1 + dice.roll(3);
        let model = dice.roll(3);
        let activation = if dice.chance(75) { "resident" } else { "manual" };
        let policy = dice.weighed(&[(6, "on-failure"), (1, "always"), (1, "never")]);
        let place = POOLS.iter().position(|known| *known == id).unwrap();
        let port = if dice.chance(80) { "auto".to_owned() } else { (30_000 + 10 * place).to_string() };
        let text = format!(
            "engine = \"test\"\nmodel = \"file:/srv/{model}\"\ndevices = [\"none\"]\nreplicas = {replicas}\n\
             activation = \"{activation}\"\n[network]\nlisten = \"127.0.0.1:{port}\"\n[restart]\npolicy = \"{policy}\"\n"
        );
        fs::write(self.file(id), text).unwrap();
    }

    /// Changes something, and says what.
    pub fn change(&mut self, dice: &mut Dice) -> String {
        if !self.folder().is_dir() {
            self.restore();
            return "the folder can be listed again".to_owned();
        }
        let id = *dice.pick(&POOLS);
        match dice.roll(12) {
            0..=5 => {
                self.write(id, dice);
                format!("the file of {id} is written")
            }
            6..=8 => {
                if self.file(id).exists() {
                    fs::remove_file(self.file(id)).unwrap();
                    self.ever_removed.insert(id.parse().unwrap());
                }
                format!("the file of {id} is removed")
            }
            9 | 10 => {
                fs::write(self.file(id), "engine = \"test\"\nmodell = 1\n").unwrap();
                format!("the file of {id} is broken")
            }
            _ => {
                fs::rename(self.folder(), self.aside()).unwrap();
                fs::write(self.folder(), "").unwrap();
                "the folder cannot be listed".to_owned()
            }
        }
    }

    fn aside(&self) -> PathBuf {
        self.root.join("etc/llamaorch/pools.aside")
    }

    fn restore(&self) {
        if !self.folder().is_dir() {
            fs::remove_file(self.folder()).unwrap();
            fs::rename(self.aside(), self.folder()).unwrap();
        }
    }

    /// Every file that is there can be read again.
    pub fn mend(&self, dice: &mut Dice) {
        self.restore();
        for id in POOLS.iter().filter(|id| self.file(id).exists()) {
            if fs::read_to_string(self.file(id)).unwrap().contains("modell") {
                self.write(id, dice);
            }
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}
