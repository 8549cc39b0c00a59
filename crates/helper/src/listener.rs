//! Owns the question who listens on a port or a socket: a process of this unit, or one that was left over and answers for it.
//!
//! `launch` has seen the port free, but an engine that listens late leaves it open to others for as long as it loads.
//! Where the answer cannot be known for certain, nobody is suspected.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use nix::unistd::getuid;

use crate::cgroup::Cgroup;
use crate::stream::Peer;

/// Whether the port is listened on, and by no process of the control group.
pub(crate) fn is_outsider(port: u16, cgroup: &Cgroup) -> bool {
    let sockets = listening(port);
    if sockets.is_empty() || cgroup.is_divided() {
        return false;
    }
    let Some(processes) = cgroup.processes() else { return false };
    // Stops at the first process that holds one, or that does not show what it holds.
    processes.into_iter().all(|pid| holds_none(pid, &sockets).unwrap_or(false))
}

/// Whether the one who listens on a unix socket is no process of the control group.
///
/// A socket remembers who made it listen. Where that one has ended, the socket is with whom it was left to, and only
/// another user's is known to be none of this unit's.
pub(crate) fn is_stranger(peer: Peer, cgroup: &Cgroup) -> bool {
    if cgroup.is_divided() {
        return false;
    }
    cgroup.processes().is_some_and(|processes| stands_outside(peer, &processes))
}

fn stands_outside(peer: Peer, processes: &[u32]) -> bool {
    let lives = || Path::new(&format!("/proc/{}", peer.pid)).exists();
    !processes.contains(&peer.pid) && (peer.uid != getuid().as_raw() || lives())
}

/// The inodes of the sockets that listen on the port, on any address.
fn listening(port: u16) -> BTreeSet<u64> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|path| File::open(path).ok())
        .flat_map(|file| listening_in(BufReader::new(file), port))
        .collect()
}

/// The kernel lists sockets that listen before all others, and a busy host has very many others.
fn listening_in(table: impl BufRead, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .map_while(Result::ok)
        .map_while(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next()?.to_owned();
            (fields.nth(1)? == "0A").then_some(())?;
            let inode: u64 = fields.nth(5)?.parse().ok()?;
            Some((local, inode))
        })
        .filter(|(local, _)| {
            local.rsplit_once(':').is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port))
        })
        .map(|(_, inode)| inode)
        .collect()
}

/// Fails for a process that has ended, as for one that is hidden: the two cannot be told apart.
fn holds_none(pid: u32, sockets: &BTreeSet<u64>) -> io::Result<bool> {
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = match fs::read_link(descriptor?.path()) {
            // Closed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let inode = target
            .to_str()
            .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if inode.is_some_and(|inode| sockets.contains(&inode)) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
   3: 0100007F:1F90 0100007F:CAFE 01 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0 0 10 0
";

    #[test]
    fn only_sockets_that_listen_on_the_port_count() {
        assert_eq!(listening_in(TABLE.as_bytes(), 8080), [111, 222]);
        assert_eq!(listening_in(TABLE.as_bytes(), 22), [333]);
        assert_eq!(listening_in(TABLE.as_bytes(), 0xcafe), [0; 0]);
    }

    #[test]
    fn one_who_listens_is_of_the_unit_a_stranger_or_gone() {
        let (own, uid) = (std::process::id(), getuid().as_raw());
        let another = Peer { pid: own, uid: uid + 1 };
        assert!(!stands_outside(Peer { pid: own, uid }, &[1, own]));
        // Whatever its user: it is in the group.
        assert!(!stands_outside(another, &[1, own]));
        assert!(stands_outside(Peer { pid: own, uid }, &[1]), "it lives, and elsewhere");
        let gone = Peer { pid: u32::MAX, uid };
        assert!(!stands_outside(gone, &[1]));
        assert!(stands_outside(Peer { uid: uid + 1, ..gone }, &[1]));
    }

    #[test]
    fn a_process_is_known_by_the_sockets_that_it_holds() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let sockets = listening(listener.local_addr().expect("its address").port());
        assert_eq!(sockets.len(), 1);
        assert!(!holds_none(std::process::id(), &sockets).expect("this process"));
        let mut other = Command::new("sleep").arg("60").spawn().expect("a process");
        assert!(holds_none(other.id(), &sockets).expect("another process"));
        other.kill().expect("killed");
        other.wait().expect("reaped");
        holds_none(other.id(), &sockets).expect_err("no process");
    }
}
