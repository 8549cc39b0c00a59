//! Reads which CPUs this host has and which of them are of which NUMA node, from `/sys/devices/system`. What cannot be read
//! counts as not said: then nothing is restricted.

use crate::ports::Processors;
use pool_core::cpu::{CpuSet, Topology};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel says it.
#[derive(Debug, Clone)]
pub struct Sysfs(PathBuf);

impl Sysfs {
    /// The kernel's files below a folder, `/` for those of this host.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Sysfs(root.join("sys/devices/system"))
    }

    /// How many are online; 0: the kernel does not say.
    #[must_use]
    pub fn count(&self) -> usize {
        self.online().len()
    }

    fn online(&self) -> CpuSet {
        self.list("cpu/online").unwrap_or_default()
    }

    fn list(&self, file: impl AsRef<Path>) -> Option<CpuSet> {
        fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok()
    }
}

impl Processors for Sysfs {
    fn read(&mut self) -> Topology {
        let nodes = self.list("node/online").unwrap_or_default();
        let of_node = |node: u16| Some((node, self.list(format!("node/node{node}/cpulist"))?));
        Topology {
            online: self.online(),
            nodes: nodes.iter().filter_map(of_node).collect::<BTreeMap<_, _>>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("pool-processors-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = root.join("sys/devices/system").join(file);
            fs::create_dir_all(file.parent().expect("it is below a folder"))
                .expect("a folder of the test's own");
            fs::write(file, text).expect("a file of the test's own");
        }
        root
    }

    #[test]
    fn cpus_and_nodes_are_read_as_the_kernel_lists_them() {
        let files = [
            ("cpu/online", "0-3,6\n"),
            ("node/online", "0-1,3\n"),
            ("node/node0/cpulist", "0-1\n"),
            ("node/node1/cpulist", "2-3,6\n"),
            // A node of memory alone.
            ("node/node3/cpulist", "\n"),
        ];
        let root = folder("two", &files);
        let read = Sysfs::below(&root).read();
        let set = |text: &str| text.parse::<CpuSet>().expect("a list");
        let nodes = BTreeMap::from([(0, set("0-1")), (1, set("2-3,6")), (3, set(""))]);
        assert_eq!(Sysfs::below(&root).count(), 5);
        assert_eq!(read, Topology { online: set("0-3,6"), nodes });
        fs::remove_dir_all(root).expect("a folder of the test's own");
    }

    #[test]
    fn what_is_not_there_is_not_said() {
        assert_eq!(Sysfs::below(Path::new("/nonexistent")).read(), Topology::default());
        assert!(!Sysfs::below(Path::new("/")).read().online.is_empty(), "this host has some");
    }
}
