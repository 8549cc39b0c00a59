//! Owns acts on files, folders and device nodes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{Done, Refusal, number, raw, text};

/// Folders of kernels, where no file can be made.
const NO_FILES: [&str; 2] = ["/proc", "/sys"];
/// So many ways that are open are enough to know.
const ENOUGH: usize = 8;
/// The name under which files are made and removed again.
const NAME: &str = ".made-by-an-engine";

pub(super) fn act(way: &str, arguments: &[String]) -> Option<Done> {
    Some(match way {
        "read" => read(arguments),
        "list" => list(arguments),
        "create" => create(arguments),
        "open-write" => open_write(arguments),
        "fill" => fill(arguments),
        "device" => device(arguments),
        "mknod" => mknod(arguments),
        "set-uid-bit" => set_uid_bit(arguments),
        "walk-folders" => walk_folders(arguments),
        "walk-files" => walk_files(arguments),
        _ => return None,
    })
}

/// Reads the beginning of a file.
fn read(arguments: &[String]) -> Done {
    let mut bytes = [0; 64];
    let count = File::open(text(arguments, 0)?)?.read(&mut bytes)?;
    if count == 0 { Err(Refusal::Word("EMPTY", String::new())) } else { Ok(format!("read {count} bytes")) }
}

/// Lists a folder that has something in it.
fn list(arguments: &[String]) -> Done {
    let count = fs::read_dir(text(arguments, 0)?)?.count();
    if count == 0 { Err(Refusal::Word("EMPTY", String::new())) } else { Ok(format!("{count} entries")) }
}

/// Makes a file that was not there, and removes it.
fn create(arguments: &[String]) -> Done {
    let path = Path::new(text(arguments, 0)?);
    OpenOptions::new().write(true).create_new(true).open(path)?;
    fs::remove_file(path)?;
    Ok("made it".to_owned())
}

/// Opens a file for writing, and leaves it as it is.
fn open_write(arguments: &[String]) -> Done {
    OpenOptions::new().write(true).open(text(arguments, 0)?)?;
    Ok("opened it".to_owned())
}

/// Writes so many MiB to a file that was not there, and removes it: `fill FILE MIB`.
fn fill(arguments: &[String]) -> Done {
    let (path, size) = (Path::new(text(arguments, 0)?), number::<u32>(arguments, 1)?);
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let block = vec![1; 1 << 20];
    let written = (0..size).try_for_each(|_| file.write_all(&block));
    fs::remove_file(path)?;
    written?;
    Ok(format!("wrote {size} MiB"))
}

/// Opens a device node. One without a driver was allowed, which is what counts.
fn device(arguments: &[String]) -> Done {
    match OpenOptions::new().read(true).write(true).open(text(arguments, 0)?) {
        Ok(_) => Ok("opened it".to_owned()),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(errno @ (Errno::ENXIO | Errno::ENODEV)) => Ok(format!("{errno:?}: allowed, and no driver")),
            _ => Err(error.into()),
        },
    }
}

/// Makes a character device node, opens it, and removes it.
fn mknod(arguments: &[String]) -> Done {
    let path = text(arguments, 0)?;
    raw::mknod(path, number(arguments, 1)?, number(arguments, 2)?)?;
    let opened = device(arguments);
    fs::remove_file(path)?;
    opened.map(|_| "made and opened it".to_owned())
}

/// Makes a program that runs as its owner whoever starts it.
fn set_uid_bit(arguments: &[String]) -> Done {
    let path = Path::new(text(arguments, 0)?);
    File::create(path)?;
    let set = fs::set_permissions(path, fs::Permissions::from_mode(0o4755));
    fs::remove_file(path)?;
    set?;
    Ok("set it".to_owned())
}

/// Makes a file in every folder below the first argument, on all file systems, but not below the others. It succeeds with
/// the names of the first that let it.
fn walk_folders(arguments: &[String]) -> Done {
    let own: Vec<PathBuf> = arguments.iter().skip(1).map(PathBuf::from).collect();
    let mut found = Vec::new();
    let mut tried = 0_u32;
    walk(Path::new(text(arguments, 0)?), &mut |folder| {
        if found.len() >= ENOUGH
            || NO_FILES.iter().chain(&["/dev/pts"]).any(|kernel| folder == Path::new(kernel))
            || own.iter().any(|own| folder == own)
        {
            return false;
        }
        tried += 1;
        let path = folder.join(NAME);
        if OpenOptions::new().write(true).create_new(true).open(&path).is_ok() {
            fs::remove_file(&path).unwrap_or_default();
            found.push(folder.display().to_string());
        }
        true
    });
    ended(tried, found)
}

/// Opens every file below the first argument for writing, but not the others.
fn walk_files(arguments: &[String]) -> Done {
    let own: Vec<PathBuf> = arguments.iter().skip(1).map(PathBuf::from).collect();
    let mut found = Vec::new();
    let mut tried = 0_u32;
    walk(Path::new(text(arguments, 0)?), &mut |folder| {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if found.len() >= ENOUGH {
                return false;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_file()) && !own.contains(&entry.path()) {
                tried += 1;
                if OpenOptions::new().write(true).open(entry.path()).is_ok() {
                    found.push(entry.path().display().to_string());
                }
            }
        }
        true
    });
    ended(tried, found)
}

/// Nothing opened of hundreds is a refusal; nothing tried is none.
fn ended(tried: u32, found: Vec<String>) -> Done {
    match (tried, found.is_empty()) {
        (0, _) => Err(Refusal::Word("NOTHING-TRIED", String::new())),
        (_, true) => Err(Refusal::Word("ALL-REFUSED", format!("{tried} tried"))),
        _ => Ok(format!("{} of {tried}: {}", found.len(), found.join(" "))),
    }
}

/// Every folder that can be entered, once, never by a link; `enter` says whether to go below it.
fn walk(folder: &Path, enter: &mut impl FnMut(&Path) -> bool) {
    if !enter(folder) {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), enter);
        }
    }
}
