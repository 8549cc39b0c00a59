//! Owns one question to an engine's health endpoint, and what its answer means. Never takes longer than its limit by much.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::endpoint::HealthUrl;

/// For the connection, and again for the answer.
const LIMIT: Duration = Duration::from_secs(1);
/// The longest status line that is looked at.
const LINE: usize = 512;
/// How long the rest of an answer is waited for, so that closing does not reset the engine's side while it still writes.
const DRAIN: Duration = Duration::from_millis(10);
const DRAINED: usize = 64 * 1024;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// Nothing listens on the address.
    NotListening,
    /// Something listens and says nothing in time.
    Silent,
    /// The connection ended, or carried something that is no HTTP status line.
    NotHttp,
    /// The address cannot be reached.
    Unreachable(io::ErrorKind),
    /// A 200, but the one who listens is no process of this unit.
    Outsider,
}

impl Answer {
    /// The answer in words, for a status text.
    pub(crate) fn describe<'a>(&self, url: &'a HealthUrl) -> impl fmt::Display + use<'a> {
        let path = &url.path;
        match self {
            Answer::Status(code) => format!("{code} from {path}"),
            Answer::NotListening => "not listening yet".to_owned(),
            Answer::Silent => format!("no answer from {path}"),
            Answer::NotHttp => format!("no HTTP from {path}"),
            Answer::Unreachable(kind) => format!("cannot connect: {kind}"),
            Answer::Outsider => format!("{} is answered by a process outside this unit", url.endpoint),
        }
    }
}

/// Asks once. The stream is what is left of a conversation that should be ended by [`drain`].
pub(crate) fn ask(url: &HealthUrl) -> (Answer, Option<TcpStream>) {
    let mut stream = match connect(url) {
        Ok(stream) => stream,
        Err(error) => return (of_error(&error, true), None),
    };
    let answer = converse(&mut stream, url).unwrap_or_else(|error| of_error(&error, false));
    (answer, Some(stream))
}

/// Reads to the end of the answer, for a short time.
pub(crate) fn drain(mut stream: TcpStream) {
    let until = Instant::now() + DRAIN;
    let mut buffer = [0; 4096];
    let mut total = 0;
    while total < DRAINED {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => total += count,
            Ok(0) | Err(_) => return,
        }
    }
}

fn connect(url: &HealthUrl) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in url.endpoint.resolve()? {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn converse(stream: &mut TcpStream, url: &HealthUrl) -> io::Result<Answer> {
    let until = Instant::now() + LIMIT;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(LIMIT))?;
    let HealthUrl { endpoint, path } = url;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nUser-Agent: pool-helper\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::with_capacity(LINE);
    let mut buffer = [0; LINE];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Answer::Silent);
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        line.extend(buffer.iter().take(count));
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            line.truncate(end);
            return Ok(status(&line).map_or(Answer::NotHttp, Answer::Status));
        }
        if count == 0 || line.len() >= LINE {
            return Ok(Answer::NotHttp);
        }
    }
}

fn of_error(error: &io::Error, connecting: bool) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::NotListening,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Answer::Silent,
        kind if connecting => Answer::Unreachable(kind),
        _ => Answer::NotHttp,
    }
}

/// The code of an HTTP/1 status line.
fn status(line: &[u8]) -> Option<u16> {
    let line = str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.split(' ').next()?;
    let digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") || !digits {
        return None;
    }
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_status_line_has_a_code() {
        for (line, code) in [
            ("HTTP/1.1 200 OK\r", 200),
            ("HTTP/1.0 503 Service Unavailable", 503),
            ("HTTP/1.1 200", 200),
            ("HTTP/1.1 200\r", 200),
            ("HTTP/1.1 204 \r", 204),
        ] {
            assert_eq!(status(line.as_bytes()), Some(code), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_status_line_has_none() {
        for line in
            ["", "200 OK", "HTTP/1.1", "HTTP/1.1 2000 OK", "HTTP/1.1 +20 OK", "HTTP/2 200", "SSH-2.0 200 x"]
        {
            assert_eq!(status(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(status(b"HTTP/1.1 200 \xff"), None);
    }

    fn answer_to(reply: &'static [u8]) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).expect("a request");
            assert!(buffer[..count].starts_with(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(reply).expect("a reply");
            // One that never ends its line does not end its answer either.
            if reply.len() > LINE {
                drop(stream.read_to_end(&mut Vec::new()));
            }
        });
        let url = HealthUrl::parse(&format!("http://{address}/health")).expect("a URL");
        let (answer, stream) = ask(&url);
        drain(stream.expect("a conversation"));
        server.join().expect("the server's end");
        answer
    }

    #[test]
    fn an_answer_is_read_off_the_wire() {
        assert_eq!(answer_to(b"HTTP/1.1 503 Service Unavailable\r\nX: y\r\n\r\n{}"), Answer::Status(503));
        assert_eq!(answer_to(b"HTTP/1.1 200 OK\r\n\r\n"), Answer::Status(200));
        assert_eq!(answer_to(b"hello"), Answer::NotHttp);
        assert_eq!(answer_to(b""), Answer::NotHttp);
        assert_eq!(answer_to(&[b'x'; 4096]), Answer::NotHttp);
    }

    #[test]
    fn nobody_there_and_nobody_answering_are_two_things() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = HealthUrl::parse(&format!("http://{}/", listener.local_addr().expect("its address")));
        let url = url.expect("a URL");
        let started = Instant::now();
        assert_eq!(ask(&url).0, Answer::Silent);
        assert!(started.elapsed() < LIMIT * 2, "{:?}", started.elapsed());
        drop(listener);
        assert_eq!(ask(&url).0, Answer::NotListening);
    }
}
