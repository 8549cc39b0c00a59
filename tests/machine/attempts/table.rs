//! Every way out that is tried: the one list of them, for an engine on TCP, and a short one for an engine on a unix socket.
//!
//! What stands in braces is filled in: `{victim}` and `{daemon}` are process ids, `{own}` is the hostile engine's cache.
//! What is the engine's own is tried too: where all of it were refused, nothing would be proved about the rest.

use xtask::image::Suite;

/// Who shows that the act succeeds outside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Root.
    Root,
    /// A user without any rights, so that what refuses the engine is its sandbox and not that it is nobody.
    Nobody,
}

/// What comes of it in the sandbox.
#[derive(Debug, Clone, Copy)]
pub enum Ends {
    /// It is refused with one of these: an errno, the signal that ended the process, or the act's own word.
    Refused(&'static [&'static str]),
    /// It succeeds, and why that is known and not mended here.
    Open(&'static str),
    /// It succeeds, for it is the engine's own.
    Given,
}

/// One way.
pub struct Attempt {
    pub name: &'static str,
    /// The act and its arguments, as the hostile engine takes them.
    pub act: &'static [&'static str],
    pub control: Control,
    pub ends: Ends,
    /// Releases on which it cannot be run, and why.
    pub left_out: &'static [(Suite, &'static str)],
}

const fn row(
    name: &'static str,
    act: &'static [&'static str],
    control: Control,
    refused: &'static [&'static str],
) -> Attempt {
    Attempt { name, act, control, ends: Ends::Refused(refused), left_out: &[] }
}

const fn open(
    name: &'static str,
    act: &'static [&'static str],
    control: Control,
    why: &'static str,
) -> Attempt {
    Attempt { name, act, control, ends: Ends::Open(why), left_out: &[] }
}

const fn given(name: &'static str, act: &'static [&'static str], control: Control) -> Attempt {
    Attempt { name, act, control, ends: Ends::Given, left_out: &[] }
}

use Control::{Nobody, Root};

/// A path that is not there, or may not be entered: which one is a matter of how it is hidden.
const HIDDEN: &[&str] = &["ENOENT", "EACCES"];
/// The filter of system calls ends the process.
const FILTERED: &[&str] = &["SIGSYS"];
const DENIED: &[&str] = &["DENIED"];
/// Not even the family of addresses is there.
const NO_NETWORK: &[&str] = &["EAFNOSUPPORT"];

/// The list.
pub const ATTEMPTS: &[Attempt] = &[
    // Other pools.
    row("another pool's model that only its group reads", &["read", "/srv/models/group.gguf"], Root, HIDDEN),
    row("another pool's model that everybody reads", &["read", "/srv/models/others.gguf"], Nobody, HIDDEN),
    row("another pool's cache", &["list", "/var/cache/llamaorch/victim/."], Root, HIDDEN),
    row(
        "a file of another pool's cache",
        &["read", "/var/cache/private/llamaorch/victim/secret"],
        Root,
        HIDDEN,
    ),
    row("another pool's socket", &["connect-unix", "{mute-socket}"], Root, HIDDEN),
    row("another pool's credential", &["read", "/run/credentials/{victim-unit}/others"], Root, HIDDEN),
    given("its own credential", &["read", "/run/credentials/{own-unit}/own"], Root),
    row("the store of credentials", &["read", "/etc/credstore/own"], Root, HIDDEN),
    row("another's shared memory", &["read", "/dev/shm/others"], Nobody, HIDDEN),
    row(
        "another engine's shared memory, by its process",
        &["list", "/proc/{victim}/root/dev/shm"],
        Root,
        HIDDEN,
    ),
    // The host's files.
    row("the passwords", &["read", "/etc/shadow"], Root, HIDDEN),
    row("the pools' files", &["list", "/etc/llamaorch/pools.d"], Nobody, HIDDEN),
    row("the homes", &["list", "/home"], Nobody, &["EMPTY"]),
    row("a file of a home", &["read", "/home/alice/secret"], Nobody, HIDDEN),
    row("root's home", &["read", "/root/secret"], Root, HIDDEN),
    row("what operators wished", &["read", "/var/lib/llamaorch/wishes.json"], Root, HIDDEN),
    row("the record of the daemon's inputs", &["read", "/run/pool-managerd/record.jsonl"], Root, HIDDEN),
    row("a file in the daemon's folder", &["create", "/run/pool-managerd/made"], Root, &["EROFS", "EACCES"]),
    row(
        "a file anywhere outside its own folders",
        &["walk-folders", "/", "{own}", "{runtime}", "/tmp", "/var/tmp", "/dev/shm"],
        Root,
        &["ALL-REFUSED"],
    ),
    row("a setting of the kernel", &["walk-files", "/proc/sys"], Root, &["ALL-REFUSED"]),
    // systemd lets a unit ask to be told of its own pressure, and of nothing else.
    row(
        "a switch of the kernel's devices",
        &["walk-files", "/sys", "{own-cgroup}/memory.pressure"],
        Root,
        &["ALL-REFUSED"],
    ),
    given("a file in its cache", &["create", "{own}/made"], Root),
    given("its model", &["read", "/srv/models/tiny.gguf"], Nobody),
    // Other processes.
    row("tracing another engine", &["trace", "{victim}"], Root, FILTERED),
    row("another engine's memory", &["read-memory", "{victim}"], Root, &["EPERM", "SIGSYS"]),
    row("another engine's descriptors", &["take-descriptor", "{victim}"], Root, FILTERED),
    row("a signal to another engine", &["signal", "{victim}", "SIGCONT"], Root, &["EPERM"]),
    row("a signal to another engine by descriptor", &["pidfd-signal", "{victim}"], Root, &["EPERM"]),
    row("a signal to the daemon", &["signal", "{daemon}", "SIGCONT"], Root, &["EPERM"]),
    row("a signal to PID 1", &["signal", "1", "SIGCONT"], Root, &["EPERM"]),
    row("another engine's environment", &["read", "/proc/{victim}/environ"], Root, HIDDEN),
    row("the daemon's descriptors", &["list", "/proc/{daemon}/fd"], Root, HIDDEN),
    row("PID 1's command line", &["read", "/proc/1/cmdline"], Nobody, HIDDEN),
    // Rights.
    row("becoming root", &["set-uid"], Root, &["EPERM"]),
    row("a program that runs as root", &["run-set-uid", "/usr/local/bin/id-as-root"], Nobody, &["UNCHANGED"]),
    row("a program of its own that runs as its owner", &["set-uid-bit", "{own}/tool"], Root, &["EPERM"]),
    row("a user namespace", &["new-namespace", "user"], Root, &["EPERM"]),
    row("a mount namespace", &["new-namespace", "mount"], Root, &["EPERM"]),
    row("a network namespace", &["new-namespace", "network"], Root, &["EPERM"]),
    row("a process namespace", &["new-namespace", "process"], Root, &["EPERM"]),
    row("PID 1's mount namespace", &["enter-namespace", "/proc/1/ns/mnt"], Root, HIDDEN),
    row(
        "its own mount namespace once more",
        &["enter-namespace", "/proc/self/ns/mnt"],
        Root,
        &["EPERM", "SIGSYS"],
    ),
    row("a mount", &["mount", "/tmp"], Root, FILTERED),
    row("a mount by the newer calls", &["new-mount"], Root, FILTERED),
    row("another root folder", &["change-root", "/tmp"], Root, FILTERED),
    row("a realtime task", &["realtime"], Root, &["EPERM"]),
    row("a higher priority", &["priority"], Root, &["EPERM", "EACCES"]),
    row("addresses that are not random", &["personality"], Nobody, &["EPERM"]),
    row("memory that is written and run", &["write-and-execute"], Nobody, &["EPERM"]),
    // The kernel.
    row("loading a module", &["load-module", "{module}", "dummy"], Root, HIDDEN),
    row("loading a module from elsewhere", &["load-module", "/opt/dummy.ko", "dummy"], Root, FILTERED),
    row("the kernel's log", &["kernel-log"], Root, &["EPERM", "SIGSYS"]),
    row("the kernel's log by its device", &["device", "/dev/kmsg"], Root, &["EPERM", "EACCES", "ENOENT"]),
    row("the host's name", &["host-name", "tests"], Root, &["EPERM", "SIGSYS"]),
    row("the clock", &["clock"], Root, &["EPERM", "SIGSYS"]),
    row("what ctrl-alt-del does", &["reboot-key"], Root, FILTERED),
    row("a program in the kernel", &["bpf"], Root, FILTERED),
    row("watching a CPU", &["perf"], Root, FILTERED),
    row("a device past the kernel", &["ports"], Root, FILTERED),
    // Devices.
    given("its own card", &["device", "/dev/nvidia0"], Nobody),
    given("the node that all cards share", &["device", "/dev/nvidiactl"], Nobody),
    row("a card outside its mask", &["device", "/dev/nvidia1"], Nobody, &["EPERM"]),
    row("a disk that everybody may open", &["device", "/dev/disk-of-all"], Nobody, &["EPERM"]),
    row("a node of a card that it makes itself", &["mknod", "{own}/nvidia1", "195", "1"], Root, &["EPERM"]),
    row("a node of memory that it makes itself", &["mknod", "{own}/mem", "1", "1"], Root, &["EPERM"]),
    // The network.
    row("a connection beyond loopback", &["connect", "10.9.0.1:9000"], Nobody, &["ETIMEDOUT", "EPERM"]),
    row("a datagram beyond loopback", &["send", "10.9.0.1:9000"], Nobody, &["EPERM"]),
    row(
        "a connection beyond loopback, IPv6",
        &["connect", "[fd09::1]:9000"],
        Nobody,
        &["ETIMEDOUT", "EPERM"],
    ),
    row("a datagram beyond loopback, IPv6", &["send", "[fd09::1]:9000"], Nobody, &["EPERM"]),
    given("a connection that its pool allows", &["connect", "10.9.0.2:9000"], Nobody),
    given("a datagram that its pool allows", &["send", "10.9.0.2:9000"], Nobody),
    row("a raw socket", &["socket", "raw"], Root, &["EPERM"]),
    row("a socket below the protocols", &["socket", "packet"], Root, &["EAFNOSUPPORT"]),
    row("the kernel's tables of the network", &["socket", "netlink"], Nobody, &["EAFNOSUPPORT"]),
    open(
        "another engine's port on loopback",
        &["connect", "{victim-port}"],
        Nobody,
        "engines that listen on TCP share the loopback network",
    ),
    // The system bus.
    row(
        "stopping a unit",
        &[
            "run",
            "busctl",
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "StopUnit",
            "ss",
            "spare.service",
            "replace",
        ],
        Root,
        DENIED,
    ),
    row(
        "starting a unit",
        &["run", "systemd-run", "--quiet", "--no-ask-password", "--wait", "/bin/true"],
        Root,
        DENIED,
    ),
    row(
        "lifting its own limits",
        &[
            "run",
            "busctl",
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "SetUnitProperties",
            "sba(sv)",
            "{own-unit}",
            "true",
            "1",
            "TasksMax",
            "t",
            "100",
        ],
        Root,
        DENIED,
    ),
    row(
        "systemd's environment",
        &[
            "run",
            "busctl",
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "SetEnvironment",
            "as",
            "1",
            "OF_AN_ENGINE=1",
        ],
        Root,
        DENIED,
    ),
    row(
        "reloading systemd",
        &[
            "run",
            "busctl",
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "Reload",
        ],
        Root,
        DENIED,
    ),
    row("stopping another pool", &["run", "poolctl", "stop", "--no-wait", "spare"], Root, DENIED),
    row("reading the pools' files anew", &["run", "poolctl", "reload"], Root, DENIED),
    row("a lease of another pool", &["run", "poolctl", "lease", "victim", "--", "/bin/true"], Root, DENIED),
    row("a pool of its own", &["run", "poolctl", "register", "of-an-engine"], Root, DENIED),
    // What it may use.
    row("a CPU outside its set", &["cpu", "1"], Nobody, &["EINVAL"]),
    given("a CPU of its set", &["cpu", "0"], Nobody),
    row("more tasks than it may have", &["threads", "150"], Nobody, &["EAGAIN"]),
    given("as many tasks as it may have", &["threads", "50"], Nobody),
    row("more shared memory than it may have", &["fill", "/dev/shm/much", "32"], Nobody, &["ENOSPC"]),
    given("as much shared memory as it may have", &["fill", "/dev/shm/some", "8"], Nobody),
];

/// What an engine on a unix socket tries: it has no network at all.
pub const ON_A_SOCKET: &[Attempt] = &[
    row("an engine's port from a unix socket", &["connect", "{victim-port}"], Nobody, NO_NETWORK),
    row("a datagram from a unix socket", &["send", "{victim-port}"], Nobody, NO_NETWORK),
    row("an address beyond loopback from a unix socket", &["connect", "10.9.0.2:9000"], Nobody, NO_NETWORK),
    row("the network's tables from a unix socket", &["socket", "netlink"], Nobody, NO_NETWORK),
    given("its own socket", &["connect-unix", "{mute-socket}"], Root),
];
