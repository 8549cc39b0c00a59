//! `[network]` of a pool file: where its engines listen, and which networks they reach.

use super::check::Findings;
use super::fragment::NetworkFragment;
use super::spec::{Listen, Port};
use super::subnet::Subnet;
use crate::engine::EngineTemplate;
use std::net::IpAddr;

/// Both, every mistake at its key.
pub(super) fn check(
    fragment: &NetworkFragment,
    replicas: Option<u16>,
    engine: Option<&(String, EngineTemplate)>,
    found: &mut Findings,
) -> (Option<Listen>, Vec<Subnet>) {
    let mut allow = Vec::new();
    for text in fragment.allow.iter().flatten() {
        allow.extend(found.keep(&["network", "allow"], text.parse::<Subnet>()));
    }
    let listen = found.keep(&["network", "listen"], listen(fragment.listen.as_deref()));
    let stated = fragment.allow.as_ref().is_some_and(|list| !list.is_empty());
    match &listen {
        Some(Listen::Tcp { host, port }) => {
            if let (Port::Fixed(port), Some(replicas)) = (port, replicas)
                && port.checked_add(replicas - 1).is_none()
            {
                found.add(
                    &["network", "listen"],
                    format!("port {port} + {replicas} replicas goes beyond 65535"),
                );
            }
            if !stated && !is_loopback(host) {
                found.add(
                    &["network", "listen"],
                    format!(
                        "nobody could reach {host}: engines speak with this host alone; name the networks of the \
                         clients, for instance allow = [\"10.20.0.0/16\"]"
                    ),
                );
            }
        }
        Some(Listen::Unix) => {
            if stated {
                found.add(
                    &["network", "allow"],
                    "an engine that listens on a unix socket has no network; remove it, or give listen an address",
                );
            }
            if let Some((name, template)) = engine
                && template.listen.unix.is_none()
            {
                found.add(
                    &["network", "listen"],
                    format!(
                        "\"unix\": engine template \"{name}\" does not say how to; where its engine can, add \
                         [listen.unix] with args to engines.d/{name}.toml, else give an address"
                    ),
                );
            }
        }
        None => {}
    }
    (listen, allow)
}

/// Whether only this host can connect to it.
#[must_use]
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn listen(text: Option<&str>) -> Result<Listen, String> {
    let text = text.unwrap_or("127.0.0.1:auto");
    if text == "unix" {
        return Ok(Listen::Unix);
    }
    let expected =
        || format!("\"{text}\": expected host:port, host:auto or unix, for instance \"127.0.0.1:8000\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let host = match host.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').ok_or_else(expected)?,
        None if host.contains(':') => return Err(expected()),
        None => host,
    };
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            return Err(format!(
                "\"{text}\": clients are told this address, so it has to be one of this host's; see ip address"
            ));
        }
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            return Err(format!("\"{text}\": such packets are IPv4; write the address as that"));
        }
        Ok(_) => {}
        Err(_) if host == "localhost" => {}
        Err(_) if host.is_empty() => return Err(expected()),
        Err(_) => {
            return Err(format!(
                "\"{text}\": expected an address of this host instead of the name, or localhost: which one a name \
                 stands for may change"
            ));
        }
    }
    let port = match port {
        "auto" => Port::Auto,
        number => Port::Fixed(number.parse().ok().filter(|port| *port > 0).ok_or_else(expected)?),
    };
    Ok(Listen::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{HealthRecipe, UnixWay, Ways};

    fn template(unix: bool) -> EngineTemplate {
        let unix = unix.then(|| UnixWay { args: vec!["{socket}".into()], ..UnixWay::default() });
        EngineTemplate {
            program: "x".into(),
            args: vec![],
            env: Default::default(),
            version_args: vec![],
            listen: Ways { unix, ..Ways::default() },
            health: HealthRecipe { path: "/health".into() },
            progress: None,
            slots: None,
            version: None,
            sandbox: Default::default(),
        }
    }

    fn run(listen: &str, allow: &[&str], replicas: u16) -> Result<(Listen, Vec<Subnet>), String> {
        run_of(listen, allow, replicas, true)
    }

    fn run_of(
        listen: &str,
        allow: &[&str],
        replicas: u16,
        unix: bool,
    ) -> Result<(Listen, Vec<Subnet>), String> {
        let engine = ("kind".to_owned(), template(unix));
        let allow = Some(allow.iter().map(|&text| text.to_owned()).collect());
        let fragment = NetworkFragment { listen: Some(listen.into()), allow };
        let mut found = Findings::default();
        let (listen, allow) = check(&fragment, Some(replicas), Some(&engine), &mut found);
        match (listen, found.0.as_slice()) {
            (Some(listen), []) => Ok((listen, allow)),
            (_, errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    }

    #[test]
    fn an_address_is_taken_as_it_is() {
        for (text, host, port) in [
            ("127.0.0.1:auto", "127.0.0.1", Port::Auto),
            ("[::1]:8000", "::1", Port::Fixed(8000)),
            ("localhost:1", "localhost", Port::Fixed(1)),
            ("127.5.0.1:65535", "127.5.0.1", Port::Fixed(65535)),
        ] {
            assert_eq!(run(text, &[], 1), Ok((Listen::Tcp { host: host.into(), port }, vec![])), "{text}");
        }
    }

    #[test]
    fn an_address_beyond_loopback_needs_somebody_who_may_reach_it() {
        for text in ["10.20.1.7:8000", "[fd00::7]:auto"] {
            let refused = run(text, &[], 1).expect_err("nobody");
            assert!(refused.starts_with("network.listen: nobody could reach"), "{refused}");
            let (_, allow) = run(text, &["10.20.0.0/16", "fd00::/64"], 1).expect("somebody");
            assert_eq!(allow.len(), 2);
        }
        let (_, allow) = run("127.0.0.1:auto", &["10.20.0.0/16"], 1).expect("an engine that asks others");
        assert_eq!(allow, ["10.20.0.0/16".parse().expect("a network")]);
    }

    #[test]
    fn a_unix_socket_has_no_network_and_a_template_that_knows_it() {
        assert_eq!(run("unix", &[], 64), Ok((Listen::Unix, vec![])));
        let refused = run("unix", &["10.20.0.0/16"], 1).expect_err("a network");
        assert!(refused.starts_with("network.allow: "), "{refused}");
        let refused = run_of("unix", &[], 1, false).expect_err("no way");
        assert!(refused.starts_with("network.listen: \"unix\": engine template \"kind\""), "{refused}");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for (text, said) in [
            ("localhost", "expected host:port,"),
            (":8000", "expected host:port,"),
            ("::1:8000", "expected host:port,"),
            ("[::1:8000", "expected host:port,"),
            ("127.0.0.1:0", "expected host:port,"),
            ("127.0.0.1:65536", "expected host:port,"),
            ("127.0.0.1:some", "expected host:port,"),
            ("0.0.0.0:8000", "clients are told this address"),
            ("[::]:8000", "clients are told this address"),
            ("[::ffff:10.0.0.7]:8000", "such packets are IPv4"),
            ("gpu-3.example.org:8000", "instead of the name"),
        ] {
            let refused = run(text, &["10.0.0.0/8"], 1).expect_err(text);
            assert!(refused.starts_with("network.listen: ") && refused.contains(said), "{refused}");
        }
        let refused = run("127.0.0.1:65535", &[], 2).expect_err("beyond");
        assert!(refused.contains("beyond 65535"), "{refused}");
        let refused = run("127.0.0.1:1", &["10.0.0.0"], 1).expect_err("no network");
        assert!(refused.starts_with("network.allow: "), "{refused}");
    }
}
