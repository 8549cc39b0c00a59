//! Owns the answer to "why can this user not get at this path": the one component that is in the way, and what to do.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::notify::shown;

/// Links followed before a path counts as a loop, as the kernel has it.
const MOST_LINKS: u32 = 40;

/// The other way for files that are a group's.
const GROUPS: &str = ", or name its group in `groups`";

/// What is in the way on a path that could not be opened.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// The first component that is not there.
    Missing(PathBuf),
    /// A link whose target is not there.
    Dangling { link: PathBuf, missing: PathBuf },
    /// A parent folder that this user may not enter.
    Folder(PathBuf),
    /// A parent that is no folder.
    NotFolder(PathBuf),
    /// The path itself: it is there, and this user has no permission for it.
    Itself(PathBuf),
    /// The path is there; reading it fails for another reason.
    Other(io::Error),
}

impl Obstacle {
    /// Finds it, for a path whose opening ended with `error`.
    pub(crate) fn on(path: &Path, error: io::Error) -> Obstacle {
        let mut links = MOST_LINKS;
        walk(path, &mut links).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::PermissionDenied => Obstacle::Itself(path.to_owned()),
            io::ErrorKind::NotFound => Obstacle::Missing(path.to_owned()),
            _ => Obstacle::Other(error),
        })
    }

    /// What the operator can do, for a file that this user has to read (`o+r`) or to run (`o+rx`).
    pub(crate) fn remedy(&self, permission: &str) -> String {
        match self {
            Obstacle::Missing(path) | Obstacle::Dangling { missing: path, .. } => {
                format!("check the spelling{}", hidden(path).unwrap_or_default())
            }
            Obstacle::Folder(path) => match hidden(path) {
                Some(hidden) => format!("move it{hidden}"),
                None => format!("chmod o+x {}{GROUPS}", shown(path)),
            },
            Obstacle::NotFolder(_) => "check the spelling".to_owned(),
            Obstacle::Itself(path) => {
                format!("chmod {permission} {}{GROUPS}", shown(path))
            }
            Obstacle::Other(_) => {
                "see the kernel's log for the file system or the device that it is on".to_owned()
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Missing(path) => write!(f, "{} does not exist", shown(path)),
            Obstacle::Dangling { link, missing } => {
                write!(f, "{} is a link, and {} does not exist", shown(link), shown(missing))
            }
            Obstacle::Folder(path) => {
                write!(f, "this user may not enter the folder {}{}", shown(path), Mode(path))
            }
            Obstacle::NotFolder(path) => write!(f, "{} is not a folder", shown(path)),
            Obstacle::Itself(path) => {
                write!(f, "this user has no permission for {}{}", shown(path), Mode(path))
            }
            Obstacle::Other(error) => error.fmt(f),
        }
    }
}

/// Mode and owner, where they can be seen.
struct Mode<'a>(&'a Path);

impl fmt::Display for Mode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match fs::metadata(self.0) {
            Ok(found) => write!(
                f,
                " (mode {:04o}, owner {}, group {})",
                found.mode() & 0o7777,
                found.uid(),
                found.gid()
            ),
            Err(_) => Ok(()),
        }
    }
}

/// Why a path below these folders looks different inside an engine's unit.
fn hidden(path: &Path) -> Option<&'static str> {
    let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    if below(&["/home", "/root", "/run/user"]) {
        Some(
            ": /home, /root and /run/user are hidden from engines, but for what the pool file names; \
             use /srv or /var/lib/llamaorch/models",
        )
    } else if below(&["/tmp", "/var/tmp"]) {
        Some(": /tmp and /var/tmp are private to each engine; use /srv or /var/lib/llamaorch/models")
    } else {
        None
    }
}

/// Whether a folder is in memory, as those are that a unit sees empty but for what is its own. Which part of a path below
/// it is missing on the host cannot be seen then.
fn is_emptied(folder: &Path) -> bool {
    /// From `linux/magic.h`.
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS_MAGIC))
}

/// Goes down the path by what this user can see. `None`: nothing is in the way of its last component.
fn walk(path: &Path, links: &mut u32) -> Option<Obstacle> {
    let mut reached = PathBuf::new();
    for component in path.components() {
        if matches!(component, Component::RootDir | Component::CurDir | Component::Prefix(_)) {
            reached.push(component);
            continue;
        }
        let next = reached.join(component);
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() && *links > 0 => {
                *links -= 1;
                let target = reached.join(fs::read_link(&next).ok()?);
                match walk(&target, links) {
                    Some(Obstacle::Missing(missing)) => {
                        return Some(Obstacle::Dangling { link: next, missing });
                    }
                    Some(obstacle) => return Some(obstacle),
                    None => {}
                }
            }
            Ok(_) => {}
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound if is_emptied(&reached) => {
                        Some(Obstacle::Missing(path.to_owned()))
                    }
                    io::ErrorKind::NotFound => Some(Obstacle::Missing(next)),
                    io::ErrorKind::PermissionDenied => Some(Obstacle::Folder(reached)),
                    io::ErrorKind::NotADirectory => Some(Obstacle::NotFolder(reached)),
                    _ => None,
                };
            }
        }
        reached = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(path: &Path) -> Obstacle {
        Obstacle::on(path, io::Error::from(io::ErrorKind::NotFound))
    }

    #[test]
    fn the_first_missing_component_is_named() {
        let obstacle = missing(Path::new("/usr/no-such-folder/sub/model"));
        assert_eq!(obstacle.to_string(), "/usr/no-such-folder does not exist");
    }

    #[test]
    fn below_a_folder_in_memory_all_of_it_is_named() {
        let obstacle = missing(Path::new("/dev/shm/no-such-folder/model"));
        assert_eq!(obstacle.to_string(), "/dev/shm/no-such-folder/model does not exist");
    }

    #[test]
    fn a_file_where_a_folder_should_be_is_named() {
        let obstacle = missing(Path::new("/proc/self/comm/model"));
        assert_eq!(obstacle.to_string(), "/proc/self/comm is not a folder");
    }

    #[test]
    fn a_dangling_link_names_its_target() {
        let folder = std::env::temp_dir().join(format!("obstacle-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let link = folder.join("link");
        std::os::unix::fs::symlink("gone/model", &link).expect("a link");
        let said = missing(&link).to_string();
        fs::remove_dir_all(&folder).expect("removed");
        let folder = folder.display();
        assert_eq!(said, format!("{folder}/link is a link, and {folder}/gone does not exist"));
    }

    #[test]
    fn a_link_to_itself_ends() {
        let link = std::env::temp_dir().join(format!("obstacle-loop-{}", std::process::id()));
        std::os::unix::fs::symlink(&link, &link).expect("a link");
        let error = fs::File::open(&link).expect_err("a loop");
        let obstacle = Obstacle::on(&link, error);
        fs::remove_file(&link).expect("removed");
        assert!(matches!(obstacle, Obstacle::Other(_)), "{obstacle}");
    }

    #[test]
    fn what_the_sandbox_hides_is_said_in_the_remedy() {
        let obstacle = Obstacle::Folder("/home".into());
        assert!(obstacle.remedy("o+r").contains("hidden from engines"));
        let obstacle = Obstacle::Missing("/tmp/model".into());
        assert!(obstacle.remedy("o+r").contains("private to each engine"));
        let obstacle = Obstacle::Folder("/srv/models".into());
        assert!(obstacle.remedy("o+r").starts_with("chmod o+x /srv/models"));
    }
}
