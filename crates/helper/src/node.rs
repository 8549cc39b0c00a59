//! Owns the check that the nodes of the engine's devices are there and that this user may open them. systemd leaves out the
//! rule of a node that is missing without a word, and an engine would find no device and compute on the CPU.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use pool_core::refusal::Refusal;

use crate::notify::shown;
use crate::obstacle::Obstacle;
use crate::refused::Refused;

/// Refuses a node that is missing, that is no node, or that this user may not open. It is not opened: that wakes a device.
pub(crate) fn check(node: &Path) -> Result<(), Refused> {
    match fs::metadata(node) {
        Ok(found) if found.file_type().is_char_device() => {}
        Ok(_) => {
            return Err(refused(
                node,
                "it is no character device",
                "correct it in /etc/llamaorch/devices.toml",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refused(node, "it does not exist", missing(node)));
        }
        Err(error) => return Err(refused(node, Obstacle::on(node, error), "see its folder's permissions")),
    }
    match access(node, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => {
            let remedy = "was it made anew while the unit started? then: poolctl start POOL";
            Err(refused(node, "the unit is not let open it", remedy))
        }
        Err(errno) => {
            let obstacle = Obstacle::on(node, errno.into());
            let remedy = format!("name its group in `groups`, or chmod o+rw {}", shown(node));
            Err(refused(node, obstacle, &remedy))
        }
    }
}

/// What makes a missing node. The engine's unit cannot: it has neither the right nor the capability.
fn missing(node: &Path) -> &'static str {
    let text = node.to_string_lossy();
    if text.starts_with("/dev/nvidia-uvm") {
        "make it: nvidia-modprobe -u -c=0"
    } else if text.starts_with("/dev/nvidia") {
        "load the driver, which makes it: nvidia-smi, or nvidia-modprobe -c=N for /dev/nvidiaN"
    } else if text.starts_with("/dev/kfd") || text.starts_with("/dev/dri/") {
        "load the driver, which makes it: modprobe amdgpu"
    } else {
        "load the device's driver, or correct /etc/llamaorch/devices.toml"
    }
}

fn refused(node: &Path, cause: impl std::fmt::Display, remedy: &str) -> Refused {
    Refused::new(Refusal::Preflight, format!("device node {}: {cause}; {remedy}", shown(node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_is_named_with_what_makes_it() {
        for (node, remedy) in [
            ("/dev/nvidia-uvm-none", "nvidia-modprobe -u -c=0"),
            ("/dev/nvidia99", "nvidia-modprobe -c=N"),
            ("/dev/dri/renderD999", "modprobe amdgpu"),
            ("/dev/no-such-node", "load the device's driver"),
        ] {
            let said = check(Path::new(node)).expect_err("it is not there");
            assert_eq!(said.refusal(), Refusal::Preflight);
            let cause = format!("device node {node}: it does not exist; ");
            assert!(said.text().starts_with(&cause) && said.text().contains(remedy), "{}", said.text());
        }
    }

    #[test]
    fn what_is_no_node_is_no_device() {
        let said = check(Path::new("/dev")).expect_err("it is a folder");
        assert!(said.text().contains("it is no character device"), "{}", said.text());
        assert!(check(Path::new("/dev/null")).is_ok());
    }
}
