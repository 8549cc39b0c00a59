//! Building in the Debian 12 tree, for hosts whose libc is newer than the oldest that counts.
//!
//! The tree has the linker and the libc; the compiler is the host's own toolchain, mounted at its place, as are the
//! workspace, cargo's registry and the build folder. Crates are fetched on the host first, so the tree needs no network.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use crate::host::{self, Tool};
use crate::image::{self, Recipe};

const TOOLS: [Tool; 3] =
    [Tool::new("unshare", "util-linux"), Tool::new("mount", "mount"), Tool::new("chroot", "coreutils")];

const NEEDS: &[&str] = &["root (the Debian 12 tree is entered with chroot, in a mount namespace of its own)"];

/// bash -c ENTER enter TREE WORK READ-ONLY-COUNT PATH… -- COMMAND…
const ENTER: &str = r#"
set -euo pipefail
tree=$1 work=$2 readonly=$3
shift 3
mkdir -p "$work"
mount -t tmpfs -o mode=0755 build "$work"
mkdir "$work/upper" "$work/workdir" "$work/root"
root=$work/root
mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/workdir" build "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [[ $1 != -- ]]; do
  mkdir -p "$root$1"
  mount --rbind "$1" "$root$1"
  if ((readonly-- > 0)); then mount -o remount,bind,ro "$root$1"; fi
  shift
done
shift
exec chroot "$root" "$@"
"#;

/// `cargo build` with `arguments`, inside the tree. Returns the folder of the release binaries.
pub(super) fn cargo_build(arguments: &[&str]) -> Result<PathBuf, Error> {
    let target = host::target_dir().join("dist-tree");
    let makes = [format!("{} and the bookworm-build tree in the image cache", target.display())];
    host::prepare("build in the Debian 12 tree", NEEDS, &TOOLS, &makes)?;
    let image = image::ensure(Recipe::Build)?;
    let sysroot = sysroot()?;
    let cargo_home = cargo_home()?;
    host::run(host::cargo().args(["fetch", "--quiet"]))?;
    for folder in [&target, &cargo_home] {
        super::deb::create_dir(folder)?;
    }
    let work = target.join("root");
    eprintln!("xtask: building in {} with the toolchain of {}", image.tree.display(), sysroot.display());
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child"])
        .args(["bash", "-c", ENTER, "enter"])
        .arg(&image.tree)
        .arg(&work)
        .arg("2")
        .arg(&sysroot)
        .arg(host::workspace())
        .arg(&cargo_home)
        .arg(&target)
        .arg("--")
        .args(["/usr/bin/env", "-i", "LANG=C.UTF-8"])
        .arg(format!("HOME={}", cargo_home.display()))
        .arg(format!("CARGO_HOME={}", cargo_home.display()))
        .arg(format!("CARGO_TARGET_DIR={}", target.display()))
        .arg(format!("PATH={}/bin:/usr/bin:/bin", sysroot.display()))
        .args(["sh", "-c", r#"cd "$0" && exec cargo build --release --offline "$@""#])
        .arg(host::workspace())
        .args(arguments);
    host::run(&mut command)?;
    Ok(target.join("release"))
}

fn sysroot() -> Result<PathBuf, Error> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--print", "sysroot"]).current_dir(host::workspace());
    let output =
        command.output().map_err(|source| host::Error::Spawn { command: host::typed(&command), source })?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
    // A distribution's compiler is all over /usr, and would need the distribution's libc.
    if sysroot.starts_with("/usr") && !sysroot.starts_with("/usr/local")
        || !sysroot.join("bin/cargo").exists()
    {
        return Err(Error::NoPortableToolchain(sysroot));
    }
    Ok(sysroot)
}

fn cargo_home() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CARGO_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cargo")))
        .filter(|home| home != Path::new("/"))
        .ok_or(Error::NoCargoHome)
}
