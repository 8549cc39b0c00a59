//! Owns the engine's program: where it is, and whether this user may run it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use pool_core::refusal::Refusal;

use crate::notify::shown;
use crate::obstacle::Obstacle;
use crate::refused::Refused;

const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Finds the program: an absolute path as it is, a bare name in `PATH`.
pub(crate) fn find(program: &OsStr, search_path: Option<&OsStr>) -> Result<PathBuf, Refused> {
    let path = Path::new(program);
    if path.is_absolute() {
        return executable(path).map(|()| path.to_owned());
    }
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return Err(missing(
            path,
            "it is neither a name nor an absolute path",
            "write it from the root (/) on",
        ));
    }
    let search_path = search_path.filter(|given| !given.is_empty()).unwrap_or(OsStr::new(DEFAULT_PATH));
    // A file of that name that may not be run is not the program, but it is the better explanation.
    let mut near_miss = None;
    for folder in std::env::split_paths(search_path).filter(|folder| folder.is_absolute()) {
        let candidate = folder.join(path);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(refused) if candidate.is_file() => {
                near_miss.get_or_insert(refused);
            }
            Err(_) => {}
        }
    }
    Err(near_miss.unwrap_or_else(|| {
        missing(
            path,
            format_args!("it is not in {}", shown(Path::new(search_path))),
            "install it, or set `program` in the pool file to its absolute path",
        )
    }))
}

/// The refusal for a program whose execution ended with `error`.
pub(crate) fn not_run(program: &Path, error: io::Error) -> Refused {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        // The file is there, else it would not have been found: the kernel misses what it needs to run it.
        Some(nix::errno::Errno::ENOENT) if program.exists() => missing(
            program,
            "its interpreter does not exist",
            "see its first line, or `ldd` on it, and install what is missing",
        ),
        Some(nix::errno::Errno::ENOEXEC | nix::errno::Errno::ELIBBAD) => missing(
            program,
            "it is no program for this machine",
            "install the build for this CPU architecture; a script needs #! in its first line",
        ),
        Some(nix::errno::Errno::ENOENT | nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => {
            unusable(program, error)
        }
        _ => Refused::new(
            Refusal::Preflight,
            format!(
                "program {} could not be executed: {error}; check the unit's limits (memory, tasks) and the length of \
                 `args` and `env`",
                shown(program)
            ),
        ),
    }
}

fn executable(program: &Path) -> Result<(), Refused> {
    let found = std::fs::metadata(program).map_err(|error| unusable(program, error))?;
    if !found.is_file() {
        return Err(missing(
            program,
            "it is not a file",
            "set `program` in the pool file to the program itself",
        ));
    }
    // The kernel's own answer: it knows of access lists and of file systems that are mounted noexec.
    access(program, AccessFlags::X_OK).map_err(|errno| unusable(program, errno.into()))
}

fn unusable(program: &Path, error: io::Error) -> Refused {
    let obstacle = Obstacle::on(program, error);
    let remedy = match obstacle {
        Obstacle::Missing(_) | Obstacle::Dangling { .. } => {
            format!("{}, or install it", obstacle.remedy("o+rx"))
        }
        Obstacle::Itself(_) => {
            format!("{}, and see that its file system is not mounted noexec", obstacle.remedy("o+rx"))
        }
        _ => obstacle.remedy("o+rx"),
    };
    missing(program, obstacle, remedy)
}

fn missing(program: &Path, cause: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Refused {
    Refused::new(Refusal::ProgramMissing, format!("program {}: {cause}; {remedy}", shown(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_searched_in_the_given_path_or_the_usual_one() {
        assert!(find(OsStr::new("sh"), None).expect("sh").ends_with("sh"));
        let refused = find(OsStr::new("sh"), Some(OsStr::new("/proc:/sys"))).expect_err("none there");
        assert_eq!(refused.refusal(), Refusal::ProgramMissing);
        assert!(refused.text().contains("/proc:/sys"), "{}", refused.text());
    }

    #[test]
    fn a_relative_folder_in_the_path_is_not_searched() {
        let refused = find(OsStr::new("Cargo.toml"), Some(OsStr::new(".:"))).expect_err("not absolute");
        assert!(refused.text().contains("it is not in"), "{}", refused.text());
    }

    #[test]
    fn a_relative_path_is_no_name() {
        let refused = find(OsStr::new("bin/engine"), None).expect_err("relative");
        assert!(refused.text().contains("neither a name"), "{}", refused.text());
    }

    #[test]
    fn a_file_that_may_not_be_run_is_named() {
        let refused = find(OsStr::new("/proc/self/comm"), None).expect_err("not executable");
        assert!(refused.text().contains("no permission for /proc/self/comm"), "{}", refused.text());
        let refused = find(OsStr::new("/usr"), None).expect_err("a folder");
        assert!(refused.text().contains("not a file"), "{}", refused.text());
    }

    #[test]
    fn what_the_kernel_says_of_a_program_has_a_class() {
        let refused = not_run(Path::new("/bin/sh"), io::Error::from_raw_os_error(8));
        assert_eq!(refused.refusal(), Refusal::ProgramMissing);
        let refused = not_run(Path::new("/bin/sh"), io::Error::from_raw_os_error(7));
        assert_eq!(refused.refusal(), Refusal::Preflight);
    }
}
