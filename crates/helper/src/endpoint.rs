//! Owns the two ways in which an address is written: `HOST:PORT` and `http://HOST:PORT/PATH`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// A host, by name or literal, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `HOST:PORT`; an IPv6 literal stands in brackets.
    pub(crate) fn parse(text: &str) -> Option<Endpoint> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        if host.is_empty() || !host.chars().all(|c| c.is_ascii_graphic() && !"/@?#[]".contains(c)) {
            return None;
        }
        let port: u16 = port.parse().ok()?;
        (port != 0).then(|| Endpoint { host: host.to_owned(), port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Every address that the host has; a literal asks nobody.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where an engine says whether it is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) endpoint: Endpoint,
    /// Begins with `/`, holds neither blanks nor control characters: it goes into a request line as it is.
    pub(crate) path: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Option<Url> {
        let rest = text.strip_prefix("http://")?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if !path.chars().all(|c| c.is_ascii_graphic() && c != '#') {
            return None;
        }
        Some(Url { endpoint: Endpoint::parse(authority)?, path: path.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.endpoint, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_as_it_was_written() {
        for text in ["127.0.0.1:8000", "[::1]:8000", "localhost:1", "gpu-3.example.org:65535"] {
            assert_eq!(Endpoint::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_not_guessed_at() {
        for text in ["", "8000", ":8000", "::1:8000", "[::1:80", "a:0", "a:65536", "a:b", "a b:80", "u@h:80"]
        {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_health_url_has_an_endpoint_and_a_path() {
        let url = Url::parse("http://[::1]:8080/v2/health/ready?x=1").expect("a URL");
        assert_eq!(url.endpoint.to_string(), "[::1]:8080");
        assert_eq!(url.path, "/v2/health/ready?x=1");
        assert_eq!(Url::parse("http://h:1").expect("a URL").path, "/");
        assert_eq!(url.to_string(), "http://[::1]:8080/v2/health/ready?x=1");
    }

    #[test]
    fn a_health_url_cannot_carry_a_second_header() {
        for text in ["https://h:1/", "h:1/health", "http://h/health", "http://h:1/a b", "http://h:1/\r\nX: y"]
        {
            assert_eq!(Url::parse(text), None, "{text:?}");
        }
    }
}
