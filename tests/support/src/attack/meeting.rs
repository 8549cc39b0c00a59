//! Owns acts of two processes of one engine that meet as the workers of an engine on several cards do: by NCCL's
//! rendezvous, by its shared memory, and by descriptors, as PyTorch passes memory of a card on.
//!
//! No way out: where these fail in the sandbox of an engine that needs them, the sandbox is too tight.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Done, Refusal, number, raw, text};

/// How long one waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
const WORD: &[u8] = b"met";

pub(super) fn act(way: &str, arguments: &[String]) -> Option<Done> {
    Some(match way {
        "meet-on-the-network" => on_the_network(),
        "meet-in-shared-memory" => in_shared_memory(arguments),
        "meet-by-descriptor" => by_descriptor(),
        "call-on" => call_on(arguments),
        "sign" => sign(arguments),
        "hold-memory" => hold_memory(),
        _ => return None,
    })
}

/// The other process of a meeting. It ends when its standard input does.
fn other(words: &[&str]) -> Result<Child, Refusal> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("attempt").args(words);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// Waits for the other one, which has to have succeeded.
fn parted(other: Child) -> Result<(), Refusal> {
    let output = other.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.contains("succeeded") { Ok(()) } else { Err(Refusal::Word("OTHER", said)) }
}

/// NCCL's rendezvous: the first listens on the address of an interface, the others are told it and connect. The interface
/// is the one that `NCCL_SOCKET_IFNAME` begins the name of, else one that is not loopback.
fn on_the_network() -> Done {
    let wanted = env::var("NCCL_SOCKET_IFNAME").unwrap_or_default();
    let fits = |name: &str, flags: InterfaceFlags| {
        let up = flags.contains(InterfaceFlags::IFF_UP);
        let named = if wanted.is_empty() {
            !flags.contains(InterfaceFlags::IFF_LOOPBACK)
        } else {
            name.starts_with(&wanted)
        };
        up && named
    };
    let address = getifaddrs()?.find_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        fits(&interface.interface_name, interface.flags).then_some(address)
    });
    let address = address.ok_or(Refusal::Word("NO-INTERFACE", wanted))?;
    let listener = TcpListener::bind(SocketAddr::new(IpAddr::V4(address), 0))?;
    listener.set_nonblocking(true)?;
    let mut other = other(&["call-on", &listener.local_addr()?.to_string()])?;
    // What the other one is refused is this one's too; what it is not it has said before it is heard here.
    let mut said = String::new();
    if let Some(stdout) = other.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    other.wait()?;
    if !said.contains("succeeded") {
        let errno = ["ETIMEDOUT", "EPERM", "ECONNREFUSED"].into_iter().find(|errno| said.contains(errno));
        return Err(Refusal::Word(errno.unwrap_or("OTHER"), said));
    }
    let (mut caller, _) = listener.accept()?;
    let mut word = [0; WORD.len()];
    caller.read_exact(&mut word)?;
    Ok(format!("met on {address}"))
}

fn call_on(arguments: &[String]) -> Done {
    let address = text(arguments, 0)?.parse().map_err(|_| Refusal::Word("USAGE", "no address".to_owned()))?;
    TcpStream::connect_timeout(&address, PATIENCE)?.write_all(WORD)?;
    Ok("called".to_owned())
}

/// A segment of that many MiB in `/dev/shm`, which the other one signs at its end.
fn in_shared_memory(arguments: &[String]) -> Done {
    let size = number::<i64>(arguments, 0)? << 20;
    let path = format!("/dev/shm/nccl-{}", std::process::id());
    let segment = File::options().read(true).write(true).create_new(true).open(&path)?;
    let met = reserve(&segment, size).and_then(|()| parted(other(&["sign", &path, &size.to_string()])?));
    fs::remove_file(&path)?;
    met?;
    let mut word = [0; WORD.len()];
    segment.read_exact_at(&mut word, end(size)?)?;
    if word == *WORD {
        Ok("met in it".to_owned())
    } else {
        Err(Refusal::Word("NOT-SIGNED", format!("{word:?}")))
    }
}

/// Takes the memory now, as NCCL does, so that there is none missing later.
fn reserve(segment: &File, size: i64) -> Result<(), Refusal> {
    Ok(fallocate(segment, FallocateFlags::empty(), 0, size)?)
}

fn sign(arguments: &[String]) -> Done {
    let segment = File::options().write(true).open(Path::new(text(arguments, 0)?))?;
    segment.write_all_at(WORD, end(number(arguments, 1)?)?)?;
    Ok("signed".to_owned())
}

/// Where the word stands in a segment of that size.
fn end(size: i64) -> Result<u64, Refusal> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    Ok(size.saturating_sub(WORD.len() as u64))
}

/// Takes a descriptor of the other one's memory out of the other one, and reads it.
fn by_descriptor() -> Done {
    let mut other = other(&["hold-memory"])?;
    let pid = i32::try_from(other.id()).map_err(|_| Errno::ESRCH)?;
    let mut line = String::new();
    let mut stdout = other.stdout.take().map(BufReader::new).ok_or(Errno::EPIPE)?;
    stdout.read_line(&mut line)?;
    let held = line.trim().parse().map_err(|_| Refusal::Word("OTHER", line));
    let taken = held.and_then(|held| Ok(raw::descriptor_of(pid, held)?));
    // It ends with its standard input.
    drop(other.stdin.take());
    other.wait()?;
    let mut word = [0; WORD.len()];
    File::from(taken?).read_exact_at(&mut word, 0)?;
    Ok(format!("has its memory: {}", String::from_utf8_lossy(&word)))
}

/// Has memory, says which descriptor it is, and waits until nobody needs it.
fn hold_memory() -> Done {
    let memory = memfd_create("", MFdFlags::MFD_CLOEXEC).map(File::from)?;
    memory.write_all_at(WORD, 0)?;
    println!("{}", memory.as_raw_fd());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok("held it".to_owned())
}
