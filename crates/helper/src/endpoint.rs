//! Owns the ways in which an address is written: `HOST:PORT` and `http://HOST:PORT/PATH`, `unix:SOCKET` and
//! `unix:SOCKET:/PATH`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A host, by name or literal, and a port.
    Tcp { host: String, port: u16 },
    /// A socket's absolute path.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `HOST:PORT`, an IPv6 literal in brackets, or `unix:PATH`.
    pub(crate) fn parse(text: &str) -> Option<Endpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            let plain = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != ':');
            return plain.then(|| Endpoint::Unix(path.into()));
        }
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
        (port != 0).then(|| Endpoint::Tcp { host: host.to_owned(), port })
    }

    /// Every address that the host has; a literal asks nobody, and a socket has none.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Endpoint::Tcp { host, port } => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
            Endpoint::Unix(_) => Ok(Vec::new()),
        }
    }

    /// What the `Host` header of a question to it says.
    pub(crate) fn host(&self) -> String {
        match self {
            Endpoint::Tcp { .. } => self.to_string(),
            Endpoint::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
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
        let (endpoint, path) = match text.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or((rest, "/"), |at| rest.split_at(at)),
            None => {
                let (_, rest) = text.split_once("unix:").filter(|(before, _)| before.is_empty())?;
                let path = rest.split_once(':')?.1;
                (text.get(..text.len() - path.len() - 1)?, path)
            }
        };
        if !path.starts_with('/') || !path.chars().all(|c| c.is_ascii_graphic() && c != '#') {
            return None;
        }
        Some(Url { endpoint: Endpoint::parse(endpoint)?, path: path.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { .. } => write!(f, "http://{}{}", self.endpoint, self.path),
            Endpoint::Unix(_) => write!(f, "{}:{}", self.endpoint, self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_as_it_was_written() {
        for text in
            ["127.0.0.1:8000", "[::1]:8000", "localhost:1", "gpu-3.example.org:65535", "unix:/run/a.sock"]
        {
            assert_eq!(Endpoint::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_not_guessed_at() {
        for text in [
            "",
            "8000",
            ":8000",
            "::1:8000",
            "[::1:80",
            "a:0",
            "a:65536",
            "a:b",
            "a b:80",
            "u@h:80",
            "unix:",
            "unix:a.sock",
            "unix:/a:/b",
            "unix:/a b",
        ] {
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
        let url = Url::parse("unix:/run/a.sock:/health").expect("a URL");
        assert_eq!((url.endpoint.to_string().as_str(), url.path.as_str()), ("unix:/run/a.sock", "/health"));
        assert_eq!(
            (url.to_string().as_str(), url.endpoint.host().as_str()),
            ("unix:/run/a.sock:/health", "localhost")
        );
    }

    #[test]
    fn a_health_url_cannot_carry_a_second_header() {
        for text in [
            "https://h:1/",
            "h:1/health",
            "http://h/health",
            "http://h:1/a b",
            "http://h:1/\r\nX: y",
            "unix:/a.sock",
            "unix:/a.sock:health",
            "unix:/a.sock:/a b",
            "xunix:/a:/b",
        ] {
            assert_eq!(Url::parse(text), None, "{text:?}");
        }
    }
}
