//! A private dbus-broker, without systemd and without its launcher: that one wants a journal. The broker itself is told
//! where to listen, and who may do what, by its controller: a D-Bus connection over a socket pair. When the controller
//! goes, so does the broker.

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use zbus::{Message, ObjectPath, Variant, wire};

/// A rule of who may send or receive what: allowed, rank, name, path, interface, member, type, broadcast, descriptors.
type Transmission = (bool, u64, &'static str, &'static str, &'static str, &'static str, u32, u32, u64, u64);
/// Who may connect, with the rank of that; own names; send; receive.
type Batch = (bool, u64, Vec<(bool, u64, bool, &'static str)>, Vec<Transmission>, Vec<Transmission>);

/// Starts it, listening at `socket`; the stream is its controller and has to be kept.
pub fn start(socket: &Path) -> (Child, UnixStream) {
    let listener = UnixListener::bind(socket).expect("a socket of the bus");
    fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).expect("everybody may connect");
    // The broker takes callers until there are no more.
    listener.set_nonblocking(true).expect("a socket that does not wait");
    let (mut controller, theirs) = UnixStream::pair().expect("a pair of sockets");
    let spawned = Command::new("dbus-broker")
        .args(["--controller", "0", "--machine-id", "0123456789abcdef0123456789abcdef"])
        // As the launcher has it from the packaged configuration of the system bus: 256 connections for each user.
        .args(["--max-bytes", "536870912", "--max-fds", "16384", "--max-matches", "65536"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn();
    let child = spawned.expect("dbus-broker is needed: apt-get install dbus-broker");
    controller.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a limit");
    greet(&mut controller);
    let message = Message::method_call("/org/bus1/DBus/Broker", "AddListener")
        .interface("org.bus1.DBus.Broker")
        .build(&(
            ObjectPath::from_static_str_unchecked("/org/bus1/DBus/Listener/0"),
            wire::Fd::from(listener.as_fd()),
            policy(),
        ))
        .expect("a message");
    let descriptors = [listener.as_raw_fd()];
    let bytes = message.data().bytes();
    let sent = sendmsg::<()>(
        controller.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::empty(),
        None,
    );
    assert_eq!(sent.expect("the broker listens to its controller"), bytes.len());
    // The second byte of its answer is its type; 2: it is done.
    let mut answer = [0; 16];
    controller.read_exact(&mut answer).expect("the broker answers its controller");
    assert_eq!(answer[1], 2, "dbus-broker does not take its listener");
    (child, controller)
}

fn greet(stream: &mut UnixStream) {
    stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").expect("the broker reads");
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"AGREE_UNIX_FD\r\n") {
        stream.read_exact(&mut byte).expect("the broker greets back");
        said.push(byte[0]);
    }
}

/// Everybody may do everything.
fn policy() -> Variant<'static> {
    let all = || vec![(true, 1, "", "", "", "", 0, 0, 0, u64::MAX)];
    let batch: Batch = (true, 1, vec![(true, 1, true, "")], all(), all());
    let of_groups: Vec<(bool, u32, u32, Batch)> = Vec::new();
    let of_selinux: Vec<(&str, &str)> = Vec::new();
    Variant::new((vec![(u32::MAX, batch)], of_groups, of_selinux, false, "system"))
}
