//! Reads `devices.toml`, the inventory that an operator states.

use super::locate::{at_entry, at_key};
use super::{Folders, at, masked, parse, read_text};
use pool_core::config::FileError;
use pool_core::device::{Inventory, StatedDevices, StatedError, check_stated};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The file's name.
pub(super) const NAME: &str = "devices.toml";

/// Whether a file is one: a pool may have that name too, in its own folder.
pub(super) fn is_one(file: &Path) -> bool {
    let parent = file.parent().and_then(Path::file_name);
    file.file_name() == Some(OsStr::new(NAME)) && parent != Some(OsStr::new("pools.d"))
}

/// What is stated in the folders; nothing, where there is no such file. `None`: the file cannot be used.
pub(super) fn read(folders: &Folders, errors: &mut Vec<FileError>) -> Option<Inventory> {
    let Folders(folders) = folders;
    let files: Vec<PathBuf> = folders.iter().map(|folder| folder.join(NAME)).collect();
    let Some(file) = files.into_iter().find(|file| fs::symlink_metadata(file).is_ok()) else {
        return Some(Inventory::default());
    };
    if masked(&file) {
        return Some(Inventory::default());
    }
    read_file(&file).map_err(|found| errors.extend(found)).ok()
}

/// One such file, wherever it is.
pub(super) fn read_file(file: &Path) -> Result<Inventory, Vec<FileError>> {
    let text = read_text(file).map_err(|error| vec![error])?;
    let stated: StatedDevices = parse(file, &text).map_err(|error| vec![error])?;
    let located = |StatedError { device, key, problem }: StatedError| {
        let place = match device {
            Some(device) => at_entry(&text, "device", device, key),
            None => at_key(&text, &[key]),
        };
        let key = device.map_or_else(|| key.to_owned(), |_| format!("device.{key}"));
        at(file, place, &format!("{key}: {problem}"))
    };
    check_stated(stated).map_err(|found| found.into_iter().map(located).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_that_is_shipped_is_right() {
        let read = read_file(Path::new("packaging/examples/devices.toml")).expect("it is right");
        assert_eq!((read.devices.len(), read.common.len()), (2, 3));
    }

    #[test]
    fn a_pool_may_have_the_file_s_name() {
        assert!(is_one(Path::new("/etc/llamaorch/devices.toml")) && is_one(Path::new("devices.toml")));
        assert!(!is_one(Path::new("/etc/llamaorch/pools.d/devices.toml")));
    }

    #[test]
    fn a_mistake_stands_where_it_is_in_the_file() {
        let folder = std::env::temp_dir().join(format!("pool-devices-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder of the test's own");
        let file = folder.join(NAME);
        let problems = |text: &str| {
            fs::write(&file, text).expect("a file of the test's own");
            let found = read_file(&file).err().unwrap_or_default();
            found.into_iter().map(|error| error.error).collect::<Vec<_>>()
        };
        let first = "[[device]]\nuuid = \"GPU-1\"\nindex = 0\nnodes = [\"/dev/nvidia0\"]\n";
        assert_eq!(problems(first), [""; 0]);
        let second = "[[device]]\nuuid = \"GPU-2\"\n  index = 0\nnodes = [\"/dev/nvidia1\"]\n";
        let said = problems(&format!("{first}{second}"));
        assert_eq!(said, ["line 7, column 3: device.index: 0 is GPU-1's already"]);
        let said =
            problems(&format!("common = [\"/etc/x\"]\n{first}[[device]]\nuuid = \"GPU-2\"\nindex = 1\n"));
        assert!(said[0].starts_with("line 1, column 1: common: \"/etc/x\": expected"), "{said:?}");
        assert!(said[1].starts_with("line 6, column 1: device.nodes: missing; expected"), "{said:?}");
        let said = problems(&format!("{first}color = 1\n"));
        assert!(said[0].starts_with("line 5, column 1: unknown field `color`"), "{said:?}");
        fs::remove_dir_all(folder).expect("a folder of the test's own");
    }
}
