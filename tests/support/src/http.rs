//! Owns HTTP/1.1 as far as the engine speaks it: one request a connection, a thread each.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::ending::Ender;
use crate::endpoints;
use crate::options::Options;
use crate::state::{Listening, State};

const LONGEST_HEAD: u64 = 64 * 1024;
const LONGEST_BODY: u64 = 16 * 1024 * 1024;

/// A request as it came.
#[derive(Debug)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: String,
    /// Without its query.
    pub path: String,
    /// The query's parameters, decoded.
    pub query: BTreeMap<String, String>,
    /// As many bytes as the request announced.
    pub body: Vec<u8>,
}

/// What is sent back.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// The body.
    pub body: String,
}

impl Response {
    /// A JSON answer.
    pub fn json(status: u16, body: &serde_json::Value) -> Response {
        Response { status, kind: "application/json", body: format!("{body}\n") }
    }

    /// A text answer.
    pub fn text(status: u16, body: impl Into<String>) -> Response {
        Response { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }
}

trait Conversation: Read + Write + Send {}

impl<T: Read + Write + Send> Conversation for T {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Box<dyn Conversation>> {
        Ok(match self {
            Listener::Tcp(listener) => Box::new(listener.accept()?.0),
            Listener::Unix(listener) => Box::new(listener.accept()?.0),
        })
    }
}

/// Answers what the conformance engine does not know; `None` where this is not one of its own either.
pub type Also = fn(&Request) -> Option<Response>;

/// Everything that a connection needs.
#[derive(Debug, Clone)]
pub struct Server {
    /// How to behave.
    pub options: Arc<Options>,
    /// What the engine is doing.
    pub state: Arc<State>,
    /// For the endpoints that end the engine.
    pub ender: Ender,
    /// Endpoints beside its own.
    pub also: Also,
}

impl Server {
    /// A server that does not listen yet.
    #[must_use]
    pub fn new(options: Arc<Options>, state: Arc<State>, ender: Ender, also: Also) -> Server {
        Server { options, state, ender, also }
    }

    /// Binds the address, or the socket where the host is a path, and serves it from a thread.
    ///
    /// # Errors
    ///
    /// Where it cannot be bound.
    pub fn listen(&self) -> io::Result<()> {
        let listener = self.bind()?;
        let server = self.clone();
        thread::spawn(move || {
            loop {
                let stream = listener.accept();
                if server.state.is_closed() {
                    return;
                }
                match stream {
                    Ok(stream) => server.clone().take(stream),
                    Err(error) => {
                        eprintln!("accept: {error}");
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        });
        Ok(())
    }

    fn bind(&self) -> io::Result<Listener> {
        let port = self.options.port.wrapping_add(u16::from(self.options.wrong_port));
        let host = self.options.host.as_str();
        let failed = |at: String| {
            move |error: io::Error| io::Error::new(error.kind(), format!("couldn't bind {at}: {error}"))
        };
        if host.ends_with(".sock") {
            let listener = UnixListener::bind(host).map_err(failed(host.to_owned()))?;
            self.state.set_listening(Listening::Unix(host.into()));
            println!("listening on {host}");
            return Ok(Listener::Unix(listener));
        }
        let listener = TcpListener::bind((host, port)).map_err(failed(format!("{host}:{port}")))?;
        let address = listener.local_addr()?;
        self.state.set_listening(Listening::Tcp(address));
        println!("listening on {address}");
        Ok(Listener::Tcp(listener))
    }

    fn take(self, stream: Box<dyn Conversation>) {
        thread::spawn(move || {
            if let Err(error) = self.converse(stream) {
                eprintln!("connection: {error}");
            }
        });
    }

    fn converse(&self, mut stream: Box<dyn Conversation>) -> io::Result<()> {
        let Some(request) = read(&mut *stream)? else { return Ok(()) };
        let hangs = self.state.is_hanging() || self.options.hang_on.contains(&request.path);
        let answer = match (hangs, (self.also)(&request)) {
            (true, _) => None,
            (false, Some(answer)) => Some(answer),
            (false, None) => endpoints::answer(self, &request),
        };
        let Some(response) = answer else {
            // Held open for ever: closing would be an answer.
            loop {
                thread::park();
            }
        };
        let Response { status, kind, body } = response;
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            reason(status),
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes())
    }
}

/// `None` for a connection that closes without a request, and for one that speaks something else.
fn read(stream: &mut dyn Conversation) -> io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut head = (&mut reader).take(LONGEST_HEAD);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (method, path, query) = (method.to_owned(), path.to_owned(), parameters(query));
    let mut length = 0;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.take(u64::min(length, LONGEST_BODY)).read_to_end(&mut body)?;
    Ok(Some(Request { method, path, query, body }))
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

/// Without percent escapes.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => {
                str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let parameters = parameters("path=%2Fetc%2fx%20y&code=5&flag&odd=%zz%4");
        assert_eq!(parameters["path"], "/etc/x y");
        assert_eq!(parameters["code"], "5");
        assert_eq!(parameters["odd"], "%zz%4");
        assert_eq!(parameters.len(), 3);
    }
}
