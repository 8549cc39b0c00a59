//! Owns the check that the engine's address is free and can be bound by this user, or that nobody listens on its socket.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use pool_core::refusal::Refusal;

use crate::endpoint::Endpoint;
use crate::refused::Refused;
use crate::stream::{Stream, is_late};

/// Binds the address and lets go of it at once.
///
/// Like any server's, the bind takes over an address whose connections are in TIME_WAIT, but not one that listens.
pub(crate) fn check(listen: &Endpoint) -> Result<(), Refused> {
    if let Endpoint::Unix(path) = listen {
        return socket(listen, path).map(drop);
    }
    let addresses = listen.resolve().map_err(|error| {
        preflight(listen, error, "correct the host in `listen`, or write the address itself")
    })?;
    let mut failed = None;
    let mut bound = false;
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(_) => bound = true,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(in_use(listen)),
            Err(error) => failed = Some(error),
        }
    }
    // A name may have an address of a family that this host does not speak: one that can be bound is enough.
    match failed {
        Some(error) if !bound => Err(cannot_bind(listen, error)),
        _ => Ok(()),
    }
}

/// The same, and a socket that an earlier engine left is removed: one whose file is there cannot be bound.
pub(crate) fn prepare(listen: &Endpoint) -> Result<(), Refused> {
    let Endpoint::Unix(path) = listen else { return check(listen) };
    if socket(listen, path)? == Socket::Left {
        fs::remove_file(path).map_err(|error| {
            preflight(listen, error, "a socket of an earlier engine is in the way: remove its file")
        })?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Socket {
    Absent,
    /// Its file is there, and nobody listens any more.
    Left,
}

fn socket(listen: &Endpoint, path: &Path) -> Result<Socket, Refused> {
    // A queue that is full is somebody's who listens.
    match Stream::connect(listen, Instant::now(), &mut || {}) {
        Ok(_) => Err(in_use(listen)),
        Err(error) if is_late(&error) => Err(in_use(listen)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(Socket::Absent),
            io::ErrorKind::ConnectionRefused if fs::symlink_metadata(path).is_ok() => Ok(Socket::Left),
            io::ErrorKind::ConnectionRefused => Ok(Socket::Absent),
            _ => Err(preflight(listen, error, "see what is at this path, and remove it")),
        },
    }
}

fn in_use(listen: &Endpoint) -> Refused {
    let remedy = match listen {
        Endpoint::Tcp { port, .. } => {
            format!(
                "see who with `ss -ltnp sport = :{port}`, stop it, or give the pool another port in `listen`"
            )
        }
        Endpoint::Unix(path) => format!("see who with `ss -lxp src {}`, and stop it", path.display()),
    };
    Refused::new(Refusal::PortInUse, format!("something else listens on {listen}; {remedy}"))
}

fn cannot_bind(listen: &Endpoint, error: io::Error) -> Refused {
    let remedy = match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this host has the address: correct `listen`, see `ip address`"
        }
        io::ErrorKind::PermissionDenied => {
            "engines have no privilege for ports below 1024: give the pool a higher one"
        }
        _ => "correct `listen` in the pool file",
    };
    preflight(listen, error, remedy)
}

fn preflight(listen: &Endpoint, error: io::Error, remedy: &str) -> Refused {
    Refused::new(Refusal::Preflight, format!("cannot listen on {listen}: {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn refusal(text: &str) -> Refused {
        check(&Endpoint::parse(text).expect("an endpoint")).expect_err(text)
    }

    #[test]
    fn a_listening_port_is_told_from_a_free_one() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        assert_eq!(refusal(&address).refusal(), Refusal::PortInUse);
        drop(listener);
        check(&Endpoint::parse(&address).expect("an endpoint")).expect("free again");
    }

    #[test]
    fn a_listener_on_every_address_is_in_the_way_too() {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        assert_eq!(refusal(&format!("127.0.0.1:{port}")).refusal(), Refusal::PortInUse);
    }

    #[test]
    fn a_socket_that_was_left_is_not_in_use_and_is_cleared_away() {
        let path = std::env::temp_dir().join(format!("listen-{}.sock", std::process::id()));
        let endpoint = Endpoint::parse(&format!("unix:{}", path.display())).expect("an endpoint");
        prepare(&endpoint).expect("nothing there");
        let listener = UnixListener::bind(&path).expect("a socket");
        for refused in [check(&endpoint), prepare(&endpoint)] {
            let refused = refused.expect_err("somebody listens");
            assert_eq!(refused.refusal(), Refusal::PortInUse);
            assert!(refused.text().contains("ss -lxp"), "{}", refused.text());
        }
        drop(listener);
        check(&endpoint).expect("nobody listens");
        assert!(path.exists(), "a check changes nothing");
        prepare(&endpoint).expect("nobody listens");
        assert!(!path.exists());
        fs::write(&path, "").expect("a file");
        prepare(&endpoint).expect("no socket, and nobody listens");
        assert!(!path.exists());
    }

    #[test]
    fn an_address_that_is_not_this_hosts_is_a_preflight_refusal() {
        let refused = refusal("192.0.2.1:8000");
        assert_eq!(refused.refusal(), Refusal::Preflight);
        assert!(refused.text().contains("no interface"), "{}", refused.text());
    }
}
