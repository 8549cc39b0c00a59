//! Owns who may come to an engine's socket: the group of the operators and of the HTTP bridge, beside the engine's own
//! user and root.
//!
//! The group is no group of the engine's: what is said to it would count as an operator's then, and each engine could
//! come to all others. So the socket's folder gets an access list, which the socket inherits when it is made.

use std::io;
use std::path::Path;

use nix::unistd::Group;
use pool_core::refusal::Refusal;
use rustix::fs::{XattrFlags, setxattr};

use crate::endpoint::Endpoint;
use crate::notify::shown;
use crate::refused::Refused;

/// The group of the operators, which the package makes.
const GROUP: &str = "llamaorch";

// What <linux/posix_acl_xattr.h> says.
const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const GROUP_BY_ID: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

const ALL: u16 = 7;
const PASS: u16 = 1;
const NONE: u16 = 0;

/// Lets the group into the folder of the engine's socket, and to what is made in it. An address has no folder.
pub(crate) fn open_to_operators(listen: &Endpoint) -> Result<(), Refused> {
    let Endpoint::Unix(path) = listen else { return Ok(()) };
    let Some(folder) = path.parent() else { return Ok(()) };
    let group = Group::from_name(GROUP).ok().flatten().ok_or_else(|| {
        refused(
            folder,
            "it does not exist on this host",
            "make it: systemd-sysusers, or groupadd --system llamaorch",
        )
    })?;
    let group = group.gid.as_raw();
    let grant = |name: &str, permissions: u16| {
        setxattr(folder, name, &list(group, permissions), XattrFlags::empty()).map_err(|errno| {
            let remedy = "/run has to be a file system with access lists, as the usual tmpfs is";
            refused(folder, io::Error::from(errno), remedy)
        })
    };
    grant("system.posix_acl_access", PASS)?;
    grant("system.posix_acl_default", ALL)
}

/// An access list: all for the owner, that for the group, nothing for anybody else.
fn list(group: u32, permissions: u16) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (USER_OBJ, ALL, NO_ID),
        (GROUP_OBJ, NONE, NO_ID),
        (GROUP_BY_ID, permissions, group),
        (MASK, permissions, NO_ID),
        (OTHER, NONE, NO_ID),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn refused(folder: &Path, cause: impl std::fmt::Display, remedy: &str) -> Refused {
    let folder = shown(folder);
    Refused::new(
        Refusal::Preflight,
        format!("group {GROUP} cannot be let in to the socket's folder {folder}: {cause}; {remedy}"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_kernel_takes_the_list_and_a_socket_inherits_it() {
        let folder = std::env::temp_dir().join(format!("access-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let set = |name: &str, permissions| {
            setxattr(&folder, name, &list(12_345, permissions), XattrFlags::empty()).expect("taken")
        };
        set("system.posix_acl_access", PASS);
        set("system.posix_acl_default", ALL);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let listener = UnixListener::bind(folder.join("x.sock")).expect("a socket");
        let (of_folder, of_socket) = (mode(&folder), mode(&folder.join("x.sock")));
        drop(listener);
        fs::remove_dir_all(&folder).expect("removed");
        // Where there is a list, the group's bits are its mask.
        assert_eq!(of_folder, 0o710);
        assert_eq!(of_socket & 0o007, 0);
    }

    #[test]
    fn an_address_needs_no_folder() {
        open_to_operators(&Endpoint::parse("127.0.0.1:1").expect("an endpoint")).expect("nothing to do");
    }
}
