//! Owns the check that the engine's address is free and can be bound by this user.

use std::io;
use std::net::TcpListener;

use pool_core::refusal::Refusal;

use crate::endpoint::Endpoint;
use crate::refused::Refused;

/// Binds the address and lets go of it at once.
///
/// Like any server's, the bind takes over an address whose connections are in TIME_WAIT, but not one that listens.
pub(crate) fn check(listen: &Endpoint) -> Result<(), Refused> {
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

fn in_use(listen: &Endpoint) -> Refused {
    Refused::new(
        Refusal::PortInUse,
        format!(
            "something else listens on {listen}; see who with `ss -ltnp sport = :{}`, stop it, or give the pool another \
             port in `listen`",
            listen.port()
        ),
    )
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
    fn an_address_that_is_not_this_hosts_is_a_preflight_refusal() {
        let refused = refusal("192.0.2.1:8000");
        assert_eq!(refused.refusal(), Refusal::Preflight);
        assert!(refused.text().contains("no interface"), "{}", refused.text());
    }
}
