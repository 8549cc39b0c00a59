//! The system calls that no crate at hand wraps, one small function each.
//!
//! The only place with `unsafe`: a call is an act of an attack, and its number and arguments stand here. Every pointer is
//! to a value that lives over the call, and no call keeps one.

#![allow(unsafe_code, reason = "system calls that nix does not have")]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_ulong, c_void};

type Call = Result<(), Errno>;

fn done(result: c_long) -> Call {
    Errno::result(result).map(drop)
}

/// A descriptor that a call returned, closed when it goes.
fn descriptor(result: c_long) -> Result<OwnedFd, Errno> {
    let number = Errno::result(result)?;
    let number = RawFd::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn path(text: &str) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

pub(super) fn mknod(at: &str, major: u32, minor: u32) -> Call {
    let at = path(at)?;
    done(unsafe { libc::mknod(at.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)) }.into())
}

pub(super) fn socket(family: c_int, kind: c_int, protocol: c_int) -> Call {
    descriptor(unsafe { libc::socket(family, kind, protocol) }.into()).map(drop)
}

fn pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

pub(super) fn pidfd_signal(pid: i32) -> Call {
    let process = pidfd(pid)?;
    let (no_signal, no_info) = (0, ptr::null::<c_void>());
    done(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), no_signal, no_info, 0) })
}

pub(super) fn take_descriptor(pid: i32) -> Call {
    descriptor_of(pid, 0).map(drop)
}

/// A copy of another process's descriptor.
pub(super) fn descriptor_of(pid: i32, number: RawFd) -> Result<OwnedFd, Errno> {
    let process = pidfd(pid)?;
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// Without stopping it; it is let go when this process ends.
pub(super) fn trace(pid: i32) -> Call {
    done(unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, pid, ptr::null_mut::<c_void>(), ptr::null_mut::<c_void>())
    })
}

pub(super) fn read_memory(pid: i32) -> Call {
    let mut byte = 0_u8;
    let here = libc::iovec { iov_base: ptr::from_mut(&mut byte).cast(), iov_len: 1 };
    let there = libc::iovec { iov_base: ptr::without_provenance_mut(0x1000), iov_len: 1 };
    let read = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    Errno::result(read).map(drop)
}

pub(super) fn setuid(user: u32) -> Call {
    done(unsafe { libc::setuid(user) }.into())
}

pub(super) fn setpriority(nice: c_int) -> Call {
    done(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }.into())
}

pub(super) fn realtime() -> Call {
    let parameters = libc::sched_param { sched_priority: 1 };
    done(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) }.into())
}

pub(super) fn unshare(kind: c_int) -> Call {
    done(unsafe { libc::unshare(kind) }.into())
}

pub(super) fn setns(namespace: &File) -> Call {
    done(unsafe { libc::setns(namespace.as_raw_fd(), 0) }.into())
}

/// A file system of one's own over that folder, taken away again.
pub(super) fn mount_tmpfs(at: &str) -> Call {
    let (at, kind) = (path(at)?, path("tmpfs")?);
    let (flags, no_data): (c_ulong, _) = (0, ptr::null::<c_void>());
    done(unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, no_data) }.into())?;
    done(unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) }.into())
}

/// The newer way to a mount, as far as its first step.
pub(super) fn fsopen() -> Call {
    let kind = path("tmpfs")?;
    descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 0) }).map(drop)
}

pub(super) fn chroot(to: &str) -> Call {
    let to = path(to)?;
    done(unsafe { libc::chroot(to.as_ptr()) }.into())
}

pub(super) fn load_module(file: &File) -> Call {
    let parameters = path("")?;
    done(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) })
}

pub(super) fn unload_module(name: &str) -> Call {
    let name = path(name)?;
    done(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), 0) })
}

/// Reads the kernel's log, all that is in its buffer.
pub(super) fn kernel_log() -> Call {
    const READ_ALL: c_int = 3;
    let mut buffer = [0_u8; 4096];
    done(unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), 4096) }.into())
}

pub(super) fn set_host_name(name: &str) -> Call {
    done(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())
}

/// Sets the clock to what it says.
pub(super) fn set_clock() -> Call {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    done(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) }.into())?;
    done(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) }.into())
}

/// What ctrl-alt-del does: a matter of whoever may reboot.
pub(super) fn disable_reboot_key() -> Call {
    done(unsafe { libc::reboot(libc::RB_DISABLE_CAD) }.into())
}

/// Makes a map for programs that run in the kernel.
pub(super) fn bpf() -> Call {
    const MAP_CREATE: c_int = 0;
    const ARRAY: u32 = 2;
    // Kind of map, size of a key, size of a value, entries; the kernel takes a shorter request than it knows.
    let request: [u32; 4] = [ARRAY, 4, 4, 1];
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, request.as_ptr(), size_of_val(&request)) })
        .map(drop)
}

/// Watches what all of the first CPU does.
pub(super) fn perf() -> Call {
    const SIZE: usize = 64;
    const SOFTWARE: u32 = 1;
    // Kind and size of the oldest form of the request; all else is 0: the CPU's clock.
    let mut request = [0_u32; SIZE / 4];
    let [kind, size, ..] = &mut request;
    (*kind, *size) = (SOFTWARE, 64);
    let (all, first_cpu, no_group, no_flags) = (-1, 0, -1, 0);
    descriptor(unsafe {
        libc::syscall(libc::SYS_perf_event_open, request.as_ptr(), all, first_cpu, no_group, no_flags)
    })
    .map(drop)
}

/// Speaks to a device past the kernel.
pub(super) fn ports() -> Call {
    done(unsafe { libc::ioperm(0x80, 1, 1) }.into())
}

/// Switches off that addresses are random.
pub(super) fn personality() -> Call {
    done(unsafe { libc::personality(0x0004_0000) }.into())
}

/// Memory that is written and run.
pub(super) fn writable_code() -> Call {
    const SIZE: usize = 4096;
    let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let at = unsafe { libc::mmap(ptr::null_mut(), SIZE, rights, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    done(unsafe { libc::munmap(at, SIZE) }.into())
}

pub(super) fn credentials(pid: i32, uid: u32, gid: u32) -> libc::ucred {
    libc::ucred { pid, uid, gid }
}
