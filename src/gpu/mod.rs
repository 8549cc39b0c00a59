//! Reads what the kernel knows of devices: which CPUs and which NUMA node each is near to, from `/sys/bus/pci/devices`. What
//! cannot be read counts as not said. Which devices there are, their owner states in `devices.toml`.

use crate::ports::Gpus;
use pool_core::cpu::CpuSet;
use pool_core::device::{DeviceFacts, Inventory};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel says it.
#[derive(Debug, Clone)]
pub struct Sysfs(PathBuf);

impl Sysfs {
    /// The kernel's files below a folder, `/` for those of this host.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Sysfs(root.join("sys/bus/pci/devices"))
    }

    fn read<T: std::str::FromStr>(&self, facts: &DeviceFacts, file: &str) -> Option<T> {
        let file = self.0.join(&facts.pci_address).join(file);
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

impl Gpus for Sysfs {
    fn complete(&mut self, inventory: &mut Inventory) {
        for facts in inventory.devices.values_mut().filter(|facts| !facts.pci_address.is_empty()) {
            // The kernel writes -1 where the firmware says nothing.
            facts.numa_node = facts.numa_node.or_else(|| self.read(facts, "numa_node"));
            if facts.local_cpus.is_empty() {
                let cpus: CpuSet = self.read(facts, "local_cpulist").unwrap_or_default();
                facts.local_cpus = cpus.to_string();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(pci: &str) -> DeviceFacts {
        DeviceFacts { pci_address: pci.to_owned(), ..DeviceFacts::default() }
    }

    #[test]
    fn what_the_file_does_not_say_the_kernel_does() {
        let root = std::env::temp_dir().join(format!("pool-gpu-{}", std::process::id()));
        for (address, node, cpus) in [("0000:41:00.0", "1\n", "8-15\n"), ("0000:42:00.0", "-1\n", "\n")] {
            let folder = root.join("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&folder).expect("a folder of the test's own");
            fs::write(folder.join("numa_node"), node).expect("a file of the test's own");
            fs::write(folder.join("local_cpulist"), cpus).expect("a file of the test's own");
        }
        let stated = DeviceFacts { numa_node: Some(3), local_cpus: "0".into(), ..device("0000:41:00.0") };
        let all =
            [device("0000:41:00.0"), stated, device("0000:42:00.0"), device("0000:43:00.0"), device("")];
        let named = |(at, facts): (usize, &DeviceFacts)| {
            (format!("GPU-{at}").parse().expect("a UUID"), facts.clone())
        };
        let devices = all.iter().enumerate().map(named).collect();
        let mut inventory = Inventory { devices, ..Inventory::default() };
        Sysfs::below(&root).complete(&mut inventory);
        let known: Vec<_> =
            inventory.devices.values().map(|facts| (facts.numa_node, facts.local_cpus.as_str())).collect();
        assert_eq!(known, [(Some(1), "8-15"), (Some(3), "0"), (None, ""), (None, ""), (None, "")]);
        fs::remove_dir_all(root).expect("a folder of the test's own");
    }
}
