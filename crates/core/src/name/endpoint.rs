//! Where an engine answers, and how that is written: `http://<host>:<port>`, or `unix:<path>` for HTTP over a socket in the
//! file system.

use super::NameError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where an engine answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Endpoint {
    /// On an address.
    Tcp {
        /// A host name or an address, without brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// On a unix socket.
    Unix {
        /// Its absolute path.
        path: String,
    },
}

impl Endpoint {
    /// What a server is told to listen on: `<host>:<port>`, an IPv6 address in brackets, or `unix:<path>`.
    #[must_use]
    pub fn listen(&self) -> String {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port } => format!("{host}:{port}"),
            Endpoint::Unix { path } => format!("unix:{path}"),
        }
    }

    /// One path of the server's, as the helper reads it: `http://<host>:<port>/<path>` or `unix:<socket>:/<path>`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        match self {
            Endpoint::Tcp { .. } => format!("{self}{path}"),
            Endpoint::Unix { .. } => format!("{self}:{path}"),
        }
    }

    /// Its TCP port, where it has one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Endpoint::Tcp { port, .. } => Some(*port),
            Endpoint::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.port().is_some() { "http://" } else { "" };
        write!(f, "{scheme}{}", self.listen())
    }
}

/// The longest path that fits a socket's address.
const LONGEST_PATH: usize = 107;

impl FromStr for Endpoint {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let plain = |c: char| c.is_ascii_graphic() && c != ':';
            let is_path = path.starts_with('/') && path.len() <= LONGEST_PATH && path.chars().all(plain);
            return if is_path && path.split('/').all(|part| part != "..") {
                Ok(Endpoint::Unix { path: path.to_owned() })
            } else {
                let expected = "unix: and an absolute path of at most 107 plain characters, without \"..\"";
                Err(NameError::new("endpoint", text, expected))
            };
        }
        let parse = || {
            let (host, port) = text.strip_prefix("http://").unwrap_or(text).rsplit_once(':')?;
            let host = match host.strip_prefix('[') {
                Some(rest) => rest.strip_suffix(']').filter(|host| host.parse::<Ipv6Addr>().is_ok())?,
                None => Some(host).filter(|host| is_host(host))?,
            };
            // "+80" parses as a number too.
            let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??;
            (port != 0).then(|| Endpoint::Tcp { host: host.to_owned(), port })
        };
        parse().ok_or_else(|| {
            NameError::new(
                "endpoint",
                text,
                "http://<host>:<port>, where http is the only scheme, the port is 1 to 65535 and the host is a host name, \
                 an IPv4 address, or an IPv6 address in brackets",
            )
        })
    }
}

/// Whether it is a host name or an IPv4 address. One that ends in a number is meant for an address.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_back() {
        for text in [
            "http://127.0.0.1:20000",
            "http://[::1]:80",
            "http://localhost:1",
            "http://gpu-3.lab_2.example.com:65535",
            "http://gpu.example.com.:80",
            "unix:/run/llamaorch/chat-r0/engine.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>().expect("an endpoint").to_string(), text);
        }
        let Endpoint::Tcp { host, .. } = "[fe80::1]:80".parse().expect("one") else { panic!("no address") };
        assert_eq!(host, "fe80::1");
    }

    #[test]
    fn what_is_no_endpoint_is_told_from_one() {
        for text in [
            "",
            "http://:80",
            "http://a",
            "http://a:",
            "http://a:0",
            "http://a:+80",
            "http://a:65536",
            "https://10.0.0.7:8443",
            "http://http://a:80",
            "http://a/b:80",
            "http://a:80/",
            "http://a b:80",
            " http://a:80",
            "http://a\n:80",
            "http://\u{e4}:80",
            "http://me@a:80",
            "http://::1:80",
            "http://[::1:80",
            "http://::1]:80",
            "http://[[::1]]:80",
            "http://[a]:80",
            "http://[127.0.0.1]:80",
            "http://10.0.0.256:80",
            "http://10.0.0:80",
            "http://a..b:80",
            "http://.:80",
            &format!("http://{}:80", "a".repeat(64)),
            &format!("http://{}:80", "a.".repeat(128)),
        ] {
            let refused = text.parse::<Endpoint>().expect_err(text);
            assert!(refused.to_string().contains("only scheme"), "{refused}");
        }
    }

    #[test]
    fn what_is_no_sockets_path_is_told_from_one() {
        let long = format!("unix:/{}", "a".repeat(LONGEST_PATH));
        for text in [
            "unix:",
            "unix:run/a.sock",
            "unix:/run/../a.sock",
            "unix:/a b",
            "unix:/a:/b",
            "unix:/a\nb",
            &long,
        ] {
            let refused = text.parse::<Endpoint>().expect_err(text);
            assert!(refused.to_string().contains("an absolute path"), "{refused}");
        }
        assert_eq!(long.get(..long.len() - 1).map(|text| text.parse::<Endpoint>().is_ok()), Some(true));
    }

    #[test]
    fn a_servers_path_is_part_of_its_url() {
        let url = |text: &str| text.parse::<Endpoint>().expect("an endpoint").url("/health");
        assert_eq!(url("http://[::1]:80"), "http://[::1]:80/health");
        assert_eq!(url("unix:/run/a.sock"), "unix:/run/a.sock:/health");
    }
}
