//! Owns acts on the network and on sockets of others.

use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use nix::libc;

use super::{Done, Refusal, raw, text};

/// What is dropped on its way is never answered.
const ANSWER: Duration = Duration::from_secs(3);

pub(super) fn act(way: &str, arguments: &[String]) -> Option<Done> {
    Some(match way {
        "connect" => connect(arguments),
        "send" => send(arguments),
        "connect-unix" => connect_unix(arguments),
        "socket" => socket(arguments),
        _ => return None,
    })
}

fn address(arguments: &[String]) -> Result<std::net::SocketAddr, Refusal> {
    let mut found = text(arguments, 0)?.to_socket_addrs()?;
    found.next().ok_or_else(|| Refusal::Word("USAGE", "no address".to_owned()))
}

fn connect(arguments: &[String]) -> Done {
    TcpStream::connect_timeout(&address(arguments)?, ANSWER)?;
    Ok("connected".to_owned())
}

/// Sends a datagram; nobody has to take it.
fn send(arguments: &[String]) -> Done {
    let to = address(arguments)?;
    let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(from)?.send_to(b"x", to)?;
    Ok("sent".to_owned())
}

fn connect_unix(arguments: &[String]) -> Done {
    let path = text(arguments, 0)?;
    match UnixStream::connect(path) {
        // One for datagrams.
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            UnixDatagram::unbound()?.connect(path)?;
        }
        connected => drop(connected?),
    }
    Ok("connected".to_owned())
}

/// A socket of a kind that reaches below connections.
fn socket(arguments: &[String]) -> Done {
    let (family, kind, protocol) = match text(arguments, 0)? {
        "raw" => (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        "packet" => (libc::AF_PACKET, libc::SOCK_RAW, 0),
        "netlink" => (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        other => return Err(Refusal::Word("USAGE", format!("{other:?} is no kind of socket"))),
    };
    raw::socket(family, kind, protocol)?;
    Ok("has one".to_owned())
}
