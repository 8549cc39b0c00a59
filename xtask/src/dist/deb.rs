//! The Debian package: stages the layout below `target/dist`, fills in control file and maintainer scripts, packs it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Error;
use super::elf::Needs;
use super::layout::{self, Placed};
use crate::host;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// What stands in the control file.
#[derive(Debug)]
pub(super) struct Control<'a> {
    pub(super) version: &'a str,
    pub(super) architecture: &'a str,
    pub(super) homepage: &'a str,
    pub(super) libraries: &'a [String],
    pub(super) installed_kib: u64,
}

impl Control<'_> {
    /// The template with every `@NAME@` filled in.
    fn fill(&self, template: &str) -> String {
        template
            .replace("@VERSION@", self.version)
            .replace("@ARCHITECTURE@", self.architecture)
            .replace("@HOMEPAGE@", self.homepage)
            .replace("@LIBRARIES@", &self.libraries.join(", "))
            .replace("@INSTALLED_SIZE@", &self.installed_kib.to_string())
    }
}

/// Packs `placed` and returns the package's path in `folder`.
pub(super) fn pack(
    folder: &Path,
    placed: &[Placed],
    needs: &Needs,
    version: &str,
    homepage: &str,
) -> Result<PathBuf, Error> {
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let stage = folder.join("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(|source| Error::io("remove", &stage, source))?;
    }
    create_dir(&stage)?;
    let mut bytes = 0;
    for file in placed {
        bytes += install(file, &stage)?;
    }
    for empty in layout::EMPTY_FOLDERS {
        create_dir(&stage.join(empty))?;
    }
    let control = Control {
        version,
        architecture: architecture.trim_end(),
        homepage,
        libraries: &needs.packages()?,
        installed_kib: bytes.div_ceil(1024),
    };
    write_metadata(&stage, placed, &control)?;
    set_folder_modes(&stage)?;
    let deb = folder.join(format!("pool-managerd_{version}_{}.deb", control.architecture));
    build(&stage, &deb)?;
    fs::remove_dir_all(&stage).map_err(|source| Error::io("remove", &stage, source))?;
    Ok(deb)
}

/// Copies a file into the stage and returns its size.
fn install(file: &Placed, stage: &Path) -> Result<u64, Error> {
    let to = stage.join(&file.to);
    if let Some(parent) = to.parent() {
        create_dir(parent)?;
    }
    if file.gzip {
        // Without name and time, so that the same page packs to the same bytes.
        let page = fs::read(&file.from).map_err(|source| Error::io("read", &file.from, source))?;
        let mut child = Command::new("gzip")
            .args(["-n", "-9"])
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&to).map_err(|source| Error::io("create", &to, source))?)
            .spawn()
            .map_err(|source| host::Error::Spawn { command: "gzip -n -9".to_owned(), source })?;
        let written = child.stdin.take().map(|mut stdin| stdin.write_all(&page)).transpose();
        written.map_err(|source| Error::io("compress", &file.from, source))?;
        let status = child.wait().map_err(|source| Error::io("compress", &file.from, source))?;
        if !status.success() {
            return Err(host::Error::Failed { command: "gzip -n -9".to_owned(), status }.into());
        }
    } else {
        fs::copy(&file.from, &to).map_err(|source| Error::io("copy", &file.from, source))?;
    }
    set_mode(&to, file.mode)?;
    Ok(fs::metadata(&to).map_err(|source| Error::io("look at", &to, source))?.len())
}

fn write_metadata(stage: &Path, placed: &[Placed], control: &Control) -> Result<(), Error> {
    let debian = stage.join("DEBIAN");
    create_dir(&debian)?;
    let template = |name: &str| {
        let path = host::workspace().join("packaging/debian").join(name);
        fs::read_to_string(&path).map_err(|source| Error::io("read", &path, source))
    };
    write(&debian.join("control"), &control.fill(&template("control")?), 0o644)?;
    let conffiles: String = placed
        .iter()
        .filter(|file| file.to.starts_with("etc"))
        .map(|file| format!("/{}\n", file.to.display()))
        .collect();
    if !conffiles.is_empty() {
        write(&debian.join("conffiles"), &conffiles, 0o644)?;
    }
    let files: Vec<_> =
        placed.iter().filter(|file| !file.to.starts_with("etc")).map(|file| &file.to).collect();
    let sums = output(Command::new("md5sum").current_dir(stage).arg("--").args(files))?;
    write(&debian.join("md5sums"), &sums, 0o644)?;
    let units = layout::enabled_units(placed)?.join(" ");
    let sysusers = layout::names_in(placed, "usr/lib/sysusers.d").join(" ");
    let tmpfiles = layout::names_in(placed, "usr/lib/tmpfiles.d").join(" ");
    for name in SCRIPTS {
        let script = template(name)?
            .replace("@ENABLED_UNITS@", &units)
            .replace("@SYSUSERS@", &sysusers)
            .replace("@TMPFILES@", &tmpfiles);
        write(&debian.join(name), &script, 0o755)?;
    }
    Ok(())
}

fn build(stage: &Path, deb: &Path) -> Result<(), Error> {
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(stage).arg(deb).stdout(Stdio::null());
    // The commit's time, if there is one: the same commit packs to the same bytes.
    let git = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(host::workspace()).output();
    if let Ok(time) = git
        && time.status.success()
    {
        command.env("SOURCE_DATE_EPOCH", String::from_utf8_lossy(&time.stdout).trim());
    }
    Ok(host::run(&mut command)?)
}

/// The same package under another version, for tests of upgrades; it lies beside the first.
pub fn with_version(deb: &Path, version: &str) -> Result<PathBuf, Error> {
    let folder = deb.parent().unwrap_or(Path::new("."));
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Tests that run at the same time may ask for the same version.
    let turn = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let stage = folder.join(format!("reversion-{turn}"));
    let part = folder.join(format!("reversion-{turn}.deb"));
    let name = deb.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let architecture = name.rsplit_once('_').map_or("all.deb", |(_, end)| end);
    let renamed = folder.join(format!("pool-managerd_{version}_{architecture}"));
    host::run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(&stage))?;
    let path = stage.join("DEBIAN/control");
    let control = fs::read_to_string(&path).map_err(|source| Error::io("read", &path, source))?;
    let lines = control.lines().map(|line| match line.starts_with("Version: ") {
        true => format!("Version: {version}\n"),
        false => format!("{line}\n"),
    });
    write(&path, &lines.collect::<String>(), 0o644)?;
    build(&stage, &part)?;
    fs::rename(&part, &renamed).map_err(|source| Error::io("rename", &part, source))?;
    fs::remove_dir_all(&stage).map_err(|source| Error::io("remove", &stage, source))?;
    Ok(renamed)
}

/// Folders are 0755 whatever the umask says.
fn set_folder_modes(folder: &Path) -> Result<(), Error> {
    set_mode(folder, 0o755)?;
    let entries = fs::read_dir(folder).map_err(|source| Error::io("list", folder, source))?;
    for entry in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        set_folder_modes(&entry)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|source| Error::io("set the mode of", path, source))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::io("write", path, source))?;
    set_mode(path, mode)
}

pub(super) fn create_dir(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))
}

fn output(command: &mut Command) -> Result<String, Error> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| host::Error::Spawn { command: host::typed(command), source })?;
    if !output.status.success() {
        return Err(host::Error::Failed { command: host::typed(command), status: output.status }.into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_has_every_blank_filled() {
        let template =
            fs::read_to_string(host::workspace().join("packaging/debian/control")).expect("the template");
        let control = Control {
            version: "1.2.3",
            architecture: "amd64",
            homepage: "https://example.org",
            libraries: &["libc6 (>= 2.34)".to_owned(), "libgcc-s1".to_owned()],
            installed_kib: 7,
        };
        let filled = control.fill(&template);
        assert!(
            !filled.contains('@') || filled.matches('@').count() == 1,
            "only the address has one: {filled}"
        );
        assert!(filled.contains("\nVersion: 1.2.3\nArchitecture: amd64\n"), "{filled}");
        assert!(filled.contains(
            "systemd (>= 252), dbus | dbus-broker | dbus-system-bus, libc6 (>= 2.34), libgcc-s1\n"
        ));
    }

    #[test]
    fn maintainer_scripts_are_shell_and_know_no_other_blanks() {
        for name in SCRIPTS {
            let script =
                fs::read_to_string(host::workspace().join("packaging/debian").join(name)).expect(name);
            let filled =
                script.replace("@ENABLED_UNITS@", "a").replace("@SYSUSERS@", "").replace("@TMPFILES@", "b");
            assert!(!filled.contains('@'), "{name}");
            let status = Command::new("sh").args(["-n", "-c", &filled]).status().expect("sh runs");
            assert!(status.success(), "{name} is no shell script");
        }
    }
}
