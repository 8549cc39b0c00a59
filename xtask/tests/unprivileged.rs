//! Without root, commands that need it say what they would do, do nothing, and exit with 77.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const NOBODY: u32 = 65534;

/// Runs xtask as nobody (or as whoever runs the tests, if that isn't root), and returns code and errors.
fn run(name: &str, arguments: &[&str]) -> (Option<i32>, String, PathBuf) {
    // A child that another test has between fork and exec holds what this one writes open: it could not be executed.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = std::env::temp_dir().join(format!("xtask-unprivileged-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("everyone may enter");
    // The build folder may be where nobody else may look.
    let xtask = folder.join("xtask");
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &xtask).expect("copied");
    let images = folder.join("images");
    let mut command = Command::new(&xtask);
    command.args(arguments).env("POOL_IMAGE_DIR", &images).env("HOME", "/nonexistent").current_dir("/");
    if xtask::host::is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("runs");
    assert!(!images.exists(), "it made a folder");
    fs::remove_file(xtask).expect("removed");
    fs::remove_dir(&folder).expect("it left something");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), images)
}

#[test]
fn image_says_what_it_would_make() {
    let (code, said, images) = run("image", &["image", "trixie"]);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("Nothing was changed"), "{said}");
    assert!(said.contains(&format!("{}/trixie-", images.display())), "{said}");
}

#[test]
fn demo_says_what_it_needs() {
    let (code, said, _) = run("demo", &["demo"]);
    assert_eq!(code, Some(77), "{said}");
    for part in ["`cargo xtask demo` needs root", "a Debian mirror", "cgroup v2", "Nothing was changed"] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
}

#[test]
fn the_system_level_is_not_passed_over() {
    let (code, said, _) = run("system", &["test", "--level", "system"]);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("system could not run"), "{said}");
    assert!(said.contains("Nothing was changed"), "{said}");
}

#[test]
fn the_machine_level_is_not_passed_over() {
    let (code, said, _) = run("machine", &["test", "--level", "machine"]);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("machine could not run") && said.contains("/dev/kvm"), "{said}");
    assert!(said.contains("Nothing was changed"), "{said}");
}

#[test]
fn shell_needs_root_too() {
    let (code, said, _) = run("shell", &["shell"]);
    assert_eq!(code, Some(77), "{said}");
}
