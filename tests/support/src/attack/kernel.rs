//! Owns acts on the kernel: namespaces, mounts, modules, its log, its clock, and interfaces that reach far into it.

use super::{Done, raw, text};
use nix::libc;

pub(super) fn act(way: &str, arguments: &[String]) -> Option<Done> {
    let done = match way {
        "new-namespace" => namespace(arguments),
        "enter-namespace" => return Some(enter_namespace(arguments)),
        "mount" => return Some(mount(arguments)),
        "new-mount" => raw::fsopen(),
        "change-root" => return Some(change_root(arguments)),
        "load-module" => return Some(load_module(arguments)),
        "kernel-log" => raw::kernel_log(),
        "host-name" => return Some(host_name(arguments)),
        "clock" => raw::set_clock(),
        "reboot-key" => raw::disable_reboot_key(),
        "bpf" => raw::bpf(),
        "perf" => raw::perf(),
        "ports" => raw::ports(),
        "personality" => raw::personality(),
        "write-and-execute" => raw::writable_code(),
        _ => return None,
    };
    Some(done.map(|()| "done".to_owned()).map_err(Into::into))
}

/// A namespace of one's own; inside one of users everything looks allowed.
fn namespace(arguments: &[String]) -> Result<(), nix::errno::Errno> {
    let kind = match arguments.first().map(String::as_str) {
        Some("user") => libc::CLONE_NEWUSER,
        Some("mount") => libc::CLONE_NEWNS,
        Some("network") => libc::CLONE_NEWNET,
        Some("process") => libc::CLONE_NEWPID,
        _ => 0,
    };
    raw::unshare(kind)
}

fn enter_namespace(arguments: &[String]) -> Done {
    raw::setns(&std::fs::File::open(text(arguments, 0)?)?)?;
    Ok("entered it".to_owned())
}

fn mount(arguments: &[String]) -> Done {
    raw::mount_tmpfs(text(arguments, 0)?)?;
    Ok("mounted there".to_owned())
}

fn change_root(arguments: &[String]) -> Done {
    raw::chroot(text(arguments, 0)?)?;
    Ok("moved there".to_owned())
}

/// Loads a module, and unloads it: `load-module FILE NAME`.
fn load_module(arguments: &[String]) -> Done {
    let name = text(arguments, 1)?;
    raw::load_module(&std::fs::File::open(text(arguments, 0)?)?)?;
    raw::unload_module(name)?;
    Ok("loaded it".to_owned())
}

/// Gives the host the name that it has.
fn host_name(arguments: &[String]) -> Done {
    raw::set_host_name(text(arguments, 0)?)?;
    Ok("set it".to_owned())
}
