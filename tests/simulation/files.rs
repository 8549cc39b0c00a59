//! Owns the configuration below a temporary root: what the files say, and what goes wrong with them.

use crate::dice::Dice;
use pool_core::lease::Given;
use pool_core::name::PoolId;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Pools that files may be of.
pub const POOLS: [&str; 4] = ["a", "b", "c", "d"];

const TEMPLATE: &str = "program = \"server\"\n[health]\npath = \"/health\"\n";

/// More than all engines together want for themselves.
const CPUS: &str = "0-15\n";

/// Devices that a host has: fewer than some files ask for.
const DEVICES: [usize; 3] = [3, 4, 2];

/// A root with configuration, and a folder for what the daemon saves; it goes away with its owner.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    /// Pools whose file was removed at any time.
    pub ever_removed: BTreeSet<PoolId>,
    /// Pools whose file was at any time one that is put into force at once.
    pub ever_applied: BTreeSet<PoolId>,
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
        fs::create_dir_all(root.join("sys/devices/system/cpu")).expect("a folder of the test's own");
        fs::write(root.join("sys/devices/system/cpu/online"), CPUS).expect("a file of the test's own");
        write_devices(&root, DEVICES[0]);
        let mut files = Files { root, ever_removed: BTreeSet::new(), ever_applied: BTreeSet::new() };
        for id in POOLS.iter().take(1 + dice.roll(POOLS.len())) {
            files.write(id, dice);
        }
        files
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The leases whose descriptors lie in the daemon's folder.
    pub fn leases(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.root.join("saved/leases")).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // One that is no lease's name is compared as it is, and so found.
        names.map(|name| name.parse().map_or(name, |given: Given| given.id.to_string())).collect()
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

    fn write(&mut self, id: &str, dice: &mut Dice) {
        let replicas = 1 + dice.roll(3);
        let model = dice.roll(3);
        let activation = if dice.chance(75) { "resident" } else { "manual" };
        let policy = dice.weighed(&[(6, "on-failure"), (1, "always"), (1, "never")]);
        let place = POOLS.iter().position(|known| *known == id).unwrap();
        let port = if dice.chance(80) { "auto".to_owned() } else { (30_000 + 10 * place).to_string() };
        let on_change = if dice.chance(75) { "hold" } else { "drain-first" };
        if on_change == "drain-first" {
            self.ever_applied.insert(id.parse().unwrap());
        }
        let numbers = numbers(dice);
        let cpus = dice.weighed(&[(4, "numa"), (2, "exclusive:1"), (1, "12-14")]);
        let devices = match dice.roll(5) {
            0 => "[\"all\"]\ndevices_per_replica = 1",
            1 => "[\"2\", \"GPU-0a\", \"1\"]\ndevices_per_replica = 1",
            _ => "[\"none\"]",
        };
        let text = format!(
            "engine = \"test\"\nmodel = \"file:/srv/{model}\"\ndevices = {devices}\nreplicas = {replicas}\n\
             activation = \"{activation}\"\non_change = \"{on_change}\"\n[network]\n\
             listen = \"127.0.0.1:{port}\"\n[resources]\ncpus = \"{cpus}\"\n[restart]\npolicy = \"{policy}\"\n{numbers}"
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
        match dice.roll(14) {
            12 => {
                let count = *dice.pick(&DEVICES);
                write_devices(&self.root, count);
                format!("there are {count} devices")
            }
            13 => {
                fs::write(self.root.join(INVENTORY), "color = 1\n").expect("a file of the test's own");
                "the file of the devices is broken".to_owned()
            }
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
    pub fn mend(&mut self, dice: &mut Dice) {
        self.restore();
        write_devices(&self.root, DEVICES[0]);
        for id in POOLS {
            if fs::read_to_string(self.file(id)).is_ok_and(|text| text.contains("modell")) {
                self.write(id, dice);
            }
        }
    }
}

const INVENTORY: &str = "etc/llamaorch/devices.toml";

/// States that there are so many devices, each near to two CPUs.
fn write_devices(root: &Path, count: usize) {
    let device = |index| {
        format!(
            "[[device]]\nuuid = \"GPU-{index}a\"\nindex = {index}\nnodes = [\"/dev/nvidia{index}\"]\n\
             local_cpus = \"{}-{}\"\n",
            index * 2,
            index * 2 + 1
        )
    };
    let all: String = (0..count).map(device).collect();
    fs::write(root.join(INVENTORY), format!("common = [\"/dev/nvidiactl\"]\n{all}"))
        .expect("a file of the test's own");
}

/// Numbers so small that all they are for happens within a script; or none, for what holds without.
fn numbers(dice: &mut Dice) -> String {
    let mut text = String::new();
    if dice.chance(50) {
        text +=
            "initial_delay = \"1s\"\nmax_delay = \"4s\"\nreset_after = \"5s\"\ncount_reset_after = \"9s\"\n";
    }
    if dice.chance(65) {
        let (failures, open_for) = (1 + dice.roll(3), 2 + dice.roll(40));
        let (most, close_after) = (open_for * (1 + dice.roll(3)), 1 + dice.roll(20));
        text += &format!(
            "[restart.breaker]\nfailures = {failures}\nopen_for = \"{open_for}s\"\n\
             max_open_for = \"{most}s\"\nclose_after = \"{close_after}s\"\n"
        );
    }
    if dice.chance(20) {
        let wait_after = 1 + dice.roll(3);
        text += &format!(
            "[restart.storm]\nwarn_after = 1\nwait_after = {wait_after}\ntrip_after = {}\noom_after = 2\n",
            wait_after + dice.roll(3)
        );
    }
    if dice.chance(80) {
        let settle = 3 + dice.roll(8);
        text += &format!("[drain]\nsettle = \"{settle}s\"\ndeadline = \"{}s\"\n", settle + dice.roll(60));
    }
    if dice.chance(30) {
        text += &format!("[leases]\ncapacity = {}\n", 1 + dice.roll(3));
    }
    text
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}
