//! Which file of the repository is installed where.
//!
//! The table is by folder and ending, so that a new unit, man page or template is packaged by being there. A folder
//! that isn't there is no error; a package without the daemon's unit is.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;

/// The unit without which there is no package.
pub(super) const DAEMON_UNIT: &str = "systemd/pool-managerd.service";

/// Folders of the package that may be empty.
pub(super) const EMPTY_FOLDERS: &[&str] = &["etc/llamaorch/pools.d", "etc/llamaorch/engines.d"];

/// One file of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) from: PathBuf,
    /// Without a leading slash.
    pub(super) to: PathBuf,
    pub(super) mode: u32,
    pub(super) gzip: bool,
}

/// A folder, endings of file names, and where those files go.
const RULES: &[(&str, &[&str], &str)] = &[
    ("systemd", &["service", "socket", "slice", "target", "timer", "path"], "usr/lib/systemd/system"),
    ("systemd/sysusers.d", &["conf"], "usr/lib/sysusers.d"),
    ("systemd/tmpfiles.d", &["conf"], "usr/lib/tmpfiles.d"),
    ("systemd/system-preset", &["preset"], "usr/lib/systemd/system-preset"),
    ("dbus", &["conf"], "usr/share/dbus-1/system.d"),
    ("dbus", &["service"], "usr/share/dbus-1/system-services"),
    ("dbus", &["xml"], "usr/share/dbus-1/interfaces"),
    ("dbus", &["policy"], "usr/share/polkit-1/actions"),
    ("dbus", &["rules"], "usr/share/polkit-1/rules.d"),
    ("packaging/catalog", &["catalog"], "usr/lib/systemd/catalog"),
    ("packaging/engines.d", &["toml"], "usr/share/llamaorch/engines.d"),
    ("packaging/examples", &[], "usr/share/doc/pool-managerd/examples"),
    ("examples/python", &["py"], "usr/share/doc/pool-managerd/examples"),
    ("docs", &["md"], "usr/share/doc/pool-managerd"),
    ("packaging/etc/llamaorch", &["toml"], "etc/llamaorch"),
];

/// Binaries and where they go.
pub(super) const BINARIES: &[(&str, &str)] = &[
    ("pool-managerd", "usr/libexec/llamaorch/pool-managerd"),
    ("pool-helper", "usr/libexec/llamaorch/pool-helper"),
    ("poolctl", "usr/bin/poolctl"),
];

/// All files of the package; binaries are looked for in `binaries`.
pub(super) fn files(workspace: &Path, binaries: &Path) -> Result<Vec<Placed>, Error> {
    let unit = workspace.join(DAEMON_UNIT);
    if !unit.is_file() {
        return Err(Error::NoDaemonUnit(unit));
    }
    let mut placed: Vec<Placed> = BINARIES
        .iter()
        .map(|(name, to)| Placed { from: binaries.join(name), to: to.into(), mode: 0o755, gzip: false })
        .collect();
    for (folder, endings, to) in RULES {
        for from in sorted_files(&workspace.join(folder))? {
            let wanted = endings.is_empty() || endings.iter().any(|ending| has_ending(&from, ending));
            if let (true, Some(name)) = (wanted, from.file_name()) {
                placed.push(Placed { to: Path::new(to).join(name), from, mode: 0o644, gzip: false });
            }
        }
    }
    for from in sorted_files(&workspace.join("packaging/completions"))? {
        if let Some(to) = file_name(&from).and_then(completion) {
            placed.push(Placed { from, to: to.into(), mode: 0o644, gzip: false });
        }
    }
    for from in sorted_files(&workspace.join("packaging/man"))? {
        if let (Some(name), Some(section)) = (file_name(&from), man_section(&from)) {
            let to = format!("usr/share/man/man{section}/{name}.gz").into();
            placed.push(Placed { from, to, mode: 0o644, gzip: true });
        }
    }
    let licence = workspace.join("LICENSE");
    placed.push(Placed {
        from: licence,
        to: "usr/share/doc/pool-managerd/copyright".into(),
        mode: 0o644,
        gzip: false,
    });
    Ok(placed)
}

/// The names, in order, of files that go to `folder`.
pub(super) fn names_in(placed: &[Placed], folder: &str) -> Vec<String> {
    let inside = placed.iter().filter(|file| file.to.parent() == Some(Path::new(folder)));
    inside.filter_map(|file| file_name(&file.to)).map(str::to_owned).collect()
}

/// Units that have an `[Install]` section: those that are enabled, and started after installation.
pub(super) fn enabled_units(placed: &[Placed]) -> Result<Vec<String>, Error> {
    let mut units = Vec::new();
    for file in placed.iter().filter(|file| file.to.starts_with("usr/lib/systemd/system")) {
        let text = fs::read_to_string(&file.from).map_err(|source| Error::io("read", &file.from, source))?;
        if text.lines().any(|line| line.trim() == "[Install]") {
            units.extend(file_name(&file.to).map(str::to_owned));
        }
    }
    Ok(units)
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().and_then(OsStr::to_str) == Some(ending)
}

/// Each shell wants its own name for the completions of `poolctl`: `poolctl.bash`, `_poolctl` (zsh), `poolctl.fish`.
fn completion(name: &str) -> Option<String> {
    if let Some(command) = name.strip_suffix(".bash") {
        return Some(format!("usr/share/bash-completion/completions/{command}"));
    }
    if name.ends_with(".fish") {
        return Some(format!("usr/share/fish/vendor_completions.d/{name}"));
    }
    name.starts_with('_').then(|| format!("usr/share/zsh/vendor-completions/{name}"))
}

fn man_section(page: &Path) -> Option<&str> {
    let section = page.extension().and_then(OsStr::to_str)?;
    ["1", "5", "7", "8"].contains(&section).then_some(section)
}

/// The plain files of a folder by name; none if there is no folder.
fn sorted_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(|source| Error::io("list", folder, source))?;
    let mut files: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("xtask-layout-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, text).expect("written");
        }
        root
    }

    #[test]
    fn files_go_by_folder_and_ending_and_absent_folders_are_skipped() {
        let root = folder(
            "rules",
            &[
                (DAEMON_UNIT, "[Install]\n"),
                ("systemd/llamaorch.slice", "[Slice]\n"),
                ("systemd/README", ""),
                ("dbus/a.conf", ""),
                ("dbus/a.xml", ""),
                ("packaging/completions/poolctl.bash", ""),
                ("packaging/completions/_poolctl", ""),
                ("packaging/completions/poolctl.fish", ""),
                ("packaging/man/poolctl.1", ""),
                ("LICENSE", ""),
            ],
        );
        let placed = files(&root, Path::new("/built")).expect("a layout");
        let to: Vec<_> = placed.iter().map(|file| file.to.to_str().expect("text")).collect();
        assert_eq!(
            to,
            [
                "usr/libexec/llamaorch/pool-managerd",
                "usr/libexec/llamaorch/pool-helper",
                "usr/bin/poolctl",
                "usr/lib/systemd/system/llamaorch.slice",
                "usr/lib/systemd/system/pool-managerd.service",
                "usr/share/dbus-1/system.d/a.conf",
                "usr/share/dbus-1/interfaces/a.xml",
                "usr/share/zsh/vendor-completions/_poolctl",
                "usr/share/bash-completion/completions/poolctl",
                "usr/share/fish/vendor_completions.d/poolctl.fish",
                "usr/share/man/man1/poolctl.1.gz",
                "usr/share/doc/pool-managerd/copyright",
            ]
        );
        let units: Vec<_> = placed.into_iter().filter(|file| file.from.starts_with(&root)).collect();
        assert_eq!(enabled_units(&units).expect("read"), ["pool-managerd.service"]);
        assert_eq!(names_in(&units, "usr/share/dbus-1/system.d"), ["a.conf"]);
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn without_the_daemons_unit_there_is_no_package() {
        let root = folder("empty", &[("LICENSE", "")]);
        let refused = files(&root, Path::new("/built")).expect_err("refused").to_string();
        assert!(refused.contains(DAEMON_UNIT), "{refused}");
        fs::remove_dir_all(root).expect("removed");
    }
}
