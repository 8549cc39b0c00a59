//! Owns what a machine boots before its disk: the kernel, the few modules that reach the disk and the port, and the
//! initial file system that holds them.
//!
//! One kernel for all releases: Debian 12's, the oldest that systemd 252 to 262 meet in the field, so what is refused
//! there is refused by systemd and by what any later kernel has too. Its packages are unpacked once and kept beside the
//! trees. The initial file system is written here, in the kernel's own format (cpio, `newc`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::image::{self, Recipe};

/// Modules in the order in which they are loaded: the bus, the disk, the port.
const MODULES: [&str; 7] = [
    "virtio/virtio_ring",
    "virtio/virtio",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "block/virtio_blk",
    "char/virtio_console",
];

/// A module that a machine has on its disk and does not load: what tries to load one finds a real one.
const SPARE_MODULE: &str = "net/dummy";
/// Where that one lies in the machine.
pub const SPARE_MODULE_PATH: &str = "/usr/lib/modules/spare/dummy.ko";

/// Mounts what a kernel offers, loads the modules, and hands over to the disk's init.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in $($b cat /modules); do $b insmod /lib/$module.ko; done
i=0
while [ ! -b /dev/vda ] && [ $i -lt 400 ]; do $b usleep 50000; i=$((i+1)); done
$b mount -t ext4 /dev/vda /root || { echo "no disk"; $b poweroff -f; }
$b umount /proc /sys
$b mount --move /dev /root/dev
exec $b switch_root /root /sbin/init
"#;

/// A kernel and the first file system.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The kernel.
    pub image: PathBuf,
    tree: PathBuf,
    drivers: PathBuf,
}

impl Kernel {
    /// From the cache, or downloaded now.
    pub fn ensure() -> Result<Self, Error> {
        let tree = image::ensure(Recipe::Kernel)?.tree;
        let image = only(&tree.join("boot"), "vmlinuz-")?;
        let modules = ["lib/modules", "usr/lib/modules"].map(|folder| tree.join(folder));
        let modules = modules.iter().find(|folder| folder.is_dir()).unwrap_or(&tree);
        let drivers = only(modules, "")?.join("kernel/drivers");
        Ok(Kernel { image, tree, drivers })
    }

    /// The initial file system as bytes, which qemu loads as they are.
    pub(super) fn initial(&self) -> Result<Vec<u8>, Error> {
        let busybox = ["bin/busybox", "usr/bin/busybox"].map(|file| self.tree.join(file));
        let busybox = busybox.iter().find(|file| file.is_file()).unwrap_or(&self.tree);
        let mut archive = Archive::default();
        for folder in ["bin", "lib", "proc", "sys", "dev", "root"] {
            archive.folder(folder);
        }
        archive.file("bin/busybox", &read(busybox)?, 0o755);
        archive.file("init", INIT.as_bytes(), 0o755);
        let mut names = Vec::new();
        for module in MODULES {
            let name = module.rsplit('/').next().unwrap_or(module);
            archive.file(
                &format!("lib/{name}.ko"),
                &read(&self.drivers.join(format!("{module}.ko")))?,
                0o644,
            );
            names.push(name);
        }
        archive.file("modules", names.join("\n").as_bytes(), 0o644);
        Ok(archive.finish())
    }

    /// The module that a machine has and does not load.
    pub(super) fn spare_module(&self) -> PathBuf {
        self.drivers.join(format!("{SPARE_MODULE}.ko"))
    }
}

/// The one entry of a folder whose name begins like that.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let found = fs::read_dir(folder)
        .map_err(|source| Error::Io { action: "list", path: folder.to_owned(), source })?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path()).ok_or_else(|| Error::Io {
        action: "find the kernel in",
        path: folder.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
}

/// A cpio archive in the form `newc`.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, &[], 0o040_755);
    }

    fn file(&mut self, name: &str, contents: &[u8], mode: u32) {
        self.entry(name, contents, 0o100_000 | mode);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", &[], 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, contents: &[u8], mode: u32) {
        self.count += 1;
        // Inode, mode, owner, group, links, time, size, device and its file's device (two numbers each), name, checksum.
        let fields = [self.count, mode, 0, 0, 1, 0];
        let (size, name_size) = (contents.len(), name.len() + 1);
        let mut head = "070701".to_owned();
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(&format!("{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}", 0, 0, 0, 0, 0));
        self.bytes.extend(head.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/x", b"hello", 0o755);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let heads: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(heads.len(), 3, "{text}");
        assert!(heads.iter().all(|at| at % 4 == 0), "{heads:?}");
        let field = |entry: usize, index: usize| {
            let begin = heads[entry] + 6 + index * 8;
            u32::from_str_radix(&text[begin..begin + 8], 16).expect("a number")
        };
        assert_eq!((field(1, 1), field(1, 6), field(1, 11)), (0o100_755, 5, 6));
        assert_eq!(&text[heads[1] + 110..heads[1] + 115], "bin/x");
        // Head and name are padded together.
        assert_eq!(&bytes[heads[1] + 116..heads[1] + 121], b"hello");
        assert_eq!(field(2, 11), 11);
    }
}
