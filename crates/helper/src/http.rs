//! Owns one question to an engine: a GET, and the wait for its answer, which never takes longer than its limit by much.
//!
//! A question that is not answered in time stays open, and the next round goes on waiting for it: an engine that is slow
//! never has two questions of ours to one path. Only one that is very late is given up for a new one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::endpoint::Url;
use crate::health::Answer;

/// The longest status line that is looked at.
const LINE: usize = 512;
/// The longest head of an answer.
const HEAD: usize = 64 * 1024;
/// The longest answer, head and all.
pub(crate) const LONGEST: usize = 1 << 20;
/// How long the rest of an answer is waited for, so that closing does not reset the engine's side while it still writes.
const DRAIN: Duration = Duration::from_millis(10);
const DRAINED: usize = 64 * 1024;
/// The longest wait without a look at something else.
const SLICE: Duration = Duration::from_secs(1);
/// After so many limits without an answer, and this time at least, a question is lost.
const LOST_LIMITS: u32 = 10;
const LOST: Duration = Duration::from_secs(10);

/// How much of an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Status,
    Body,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// Empty unless it was wanted.
    pub(crate) body: Vec<u8>,
    rest: Option<TcpStream>,
}

impl Reply {
    fn none(answer: Answer) -> Reply {
        Reply { answer, body: Vec::new(), rest: None }
    }

    /// Reads to the end of an answer whose body nobody wants, for a short time.
    pub(crate) fn finish(self) {
        let Some(mut stream) = self.rest else { return };
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
}

/// One path of an engine, asked again and again.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    url: &'a Url,
    want: Want,
    open: Option<Exchange>,
}

impl<'a> Question<'a> {
    pub(crate) fn new(url: &'a Url, want: Want) -> Self {
        Question { url, want, open: None }
    }

    /// Asks, or goes on waiting for what was asked before. `tick` is called once a second at least.
    pub(crate) fn ask(&mut self, limit: Duration, tick: &mut dyn FnMut()) -> Reply {
        let until = Instant::now() + limit;
        let lost = LOST.max(limit * LOST_LIMITS);
        let mut exchange = match self.open.take().filter(|open| open.since.elapsed() < lost) {
            Some(open) => open,
            None => match Exchange::begin(self.url, until, tick) {
                Ok(begun) => begun,
                Err(error) => return Reply::none(of_error(&error, true)),
            },
        };
        match exchange.wait(self.want, until, tick) {
            Ok(Some((status, body))) => {
                let rest = (self.want == Want::Status).then_some(exchange.stream);
                Reply { answer: Answer::Status(status), body, rest }
            }
            Ok(None) => {
                self.open = Some(exchange);
                Reply::none(Answer::Silent)
            }
            Err(error) => Reply::none(of_error(&error, false)),
        }
    }
}

/// A request that was sent, and what came back so far.
#[derive(Debug)]
struct Exchange {
    stream: TcpStream,
    since: Instant,
    received: Vec<u8>,
}

impl Exchange {
    fn begin(url: &Url, until: Instant, tick: &mut dyn FnMut()) -> io::Result<Exchange> {
        let since = Instant::now();
        let mut stream = connect(url, until, tick)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SLICE))?;
        let Url { endpoint, path } = url;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nUser-Agent: pool-helper\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        Ok(Exchange { stream, since, received: Vec::new() })
    }

    /// `None`: the answer is not complete in time.
    fn wait(
        &mut self,
        want: Want,
        until: Instant,
        tick: &mut dyn FnMut(),
    ) -> io::Result<Option<(u16, Vec<u8>)>> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left.min(SLICE)))?;
            let count = match self.stream.read(&mut buffer) {
                Err(error) if is_late(&error) || error.kind() == io::ErrorKind::Interrupted => {
                    tick();
                    continue;
                }
                read => read?,
            };
            self.received.extend(buffer.iter().take(count));
            if let Some(answer) = parse(&self.received, count == 0, want)? {
                return Ok(Some(answer));
            }
            tick();
        }
    }
}

fn connect(url: &Url, until: Instant, tick: &mut dyn FnMut()) -> io::Result<TcpStream> {
    let addresses = url.endpoint.resolve()?;
    loop {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &addresses {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(address, left.min(SLICE)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        if !is_late(&last) {
            return Err(last);
        }
        tick();
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn of_error(error: &io::Error, connecting: bool) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::NotListening,
        _ if is_late(error) => Answer::Silent,
        kind if connecting => Answer::Unreachable(kind),
        _ => Answer::NotHttp,
    }
}

/// The answer in what was received; `None` while it is not complete.
fn parse(received: &[u8], ended: bool, want: Want) -> io::Result<Option<(u16, Vec<u8>)>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let more = |limit: usize| if ended || received.len() >= limit { Err(bad()) } else { Ok(None) };
    let Some(line) = received.iter().position(|&byte| byte == b'\n') else { return more(LINE) };
    let status = received.get(..line).and_then(status).ok_or_else(bad)?;
    if want == Want::Status {
        return Ok(Some((status, Vec::new())));
    }
    let Some((head, body)) = split(received, b"\r\n\r\n").or_else(|| split(received, b"\n\n")) else {
        return more(HEAD);
    };
    let header = |wanted: &str| {
        let head = str::from_utf8(head).ok()?;
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        fields
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
            .next()
    };
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return match joined(body).ok_or_else(bad)? {
            Some(body) => Ok(Some((status, body))),
            None => more(LONGEST),
        };
    }
    match header("content-length") {
        Some(length) => {
            let length: usize = length.parse().map_err(|_| bad())?;
            match body.get(..length) {
                Some(body) => Ok(Some((status, body.to_vec()))),
                None => more(LONGEST),
            }
        }
        None if ended => Ok(Some((status, body.to_vec()))),
        None => more(LONGEST),
    }
}

fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + separator.len()..)?))
}

/// The chunks of a body as one: `Some(None)` while the last is not there, `None` for what are no chunks.
fn joined(mut rest: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some((line, after)) = split(rest, b"\r\n") else { return Some(None) };
        let size = str::from_utf8(line).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok().filter(|&size| size <= LONGEST)?;
        if size == 0 {
            return Some(Some(body));
        }
        let (Some(chunk), Some(after)) = (after.get(..size), after.get(size + 2..)) else {
            return Some(None);
        };
        body.extend(chunk);
        rest = after;
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

    const SOON: Duration = Duration::from_secs(1);

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

    fn body(received: &str, ended: bool) -> Option<Option<String>> {
        let parsed = parse(received.as_bytes(), ended, Want::Body).ok()?;
        Some(parsed.map(|(_, body)| String::from_utf8(body).expect("text")))
    }

    #[test]
    fn a_body_ends_by_its_length_its_last_chunk_or_the_end() {
        let whole = |text: &str| Some(Some(text.to_owned()));
        let more = Some(None);
        for (received, open, ended) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", whole("abc"), whole("abc")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", more.clone(), None),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc", None, None),
            ("HTTP/1.0 200 OK\n\nabc", more.clone(), whole("abc")),
            ("HTTP/1.1 200 OK\r\n\r\n", more.clone(), whole("")),
            ("HTTP/1.1 200 OK\r\nX: y\r\n", more.clone(), None),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
                whole("abcd"),
                whole("abcd"),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1", more.clone(), None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", None, None),
        ] {
            assert_eq!(body(received, false), open, "{received:?}");
            assert_eq!(body(received, true), ended, "{received:?}");
        }
    }

    #[test]
    fn an_answer_without_end_is_cut_off() {
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        let long = format!("{head}{}", "x".repeat(LONGEST));
        assert_eq!(body(&long, false), None);
        assert_eq!(body(&format!("HTTP/1.1 200 OK\r\n{}", "x".repeat(HEAD)), false), None);
        let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n{}", "x".repeat(LONGEST));
        assert_eq!(body(&announced, false), None);
    }

    fn url(listener: &TcpListener) -> Url {
        let address = listener.local_addr().expect("its address");
        Url::parse(&format!("http://{address}/health")).expect("a URL")
    }

    fn answer_to(reply: &'static [u8]) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = url(&listener);
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
        let reply = Question::new(&url, Want::Status).ask(SOON, &mut || {});
        let answer = reply.answer;
        reply.finish();
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
        let url = url(&listener);
        let started = Instant::now();
        assert_eq!(Question::new(&url, Want::Status).ask(SOON, &mut || {}).answer, Answer::Silent);
        assert!(started.elapsed() < SOON * 2, "{:?}", started.elapsed());
        drop(listener);
        assert_eq!(Question::new(&url, Want::Status).ask(SOON, &mut || {}).answer, Answer::NotListening);
    }

    #[test]
    fn a_question_that_is_not_answered_in_time_is_not_asked_a_second_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = url(&listener);
        let mut question = Question::new(&url, Want::Body);
        for _ in 0..3 {
            assert_eq!(question.ask(Duration::from_millis(50), &mut || {}).answer, Answer::Silent);
        }
        let (mut stream, _) = listener.accept().expect("the question");
        listener.set_nonblocking(true).expect("a mode");
        assert!(listener.accept().is_err(), "a second question");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nla").expect("a beginning");
        assert_eq!(question.ask(Duration::from_millis(50), &mut || {}).answer, Answer::Silent);
        stream.write_all(b"te").expect("an end");
        let reply = question.ask(SOON, &mut || {});
        assert_eq!((reply.answer, reply.body.as_slice()), (Answer::Status(200), b"late".as_slice()));
        assert_eq!(question.ask(Duration::from_millis(50), &mut || {}).answer, Answer::Silent);
        listener.accept().expect("the next question");
    }
}
