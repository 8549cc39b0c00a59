//! Owns one question to an engine: a request, and the wait for its answer, which never takes longer than its limit by much.
//!
//! A question that is not answered in time stays open, and the next round goes on waiting for it: an engine that is slow
//! never has two questions of ours to one path. Only one that is very late is given up for a new one.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::endpoint::Url;
use crate::health::Answer;
use crate::response::parse;
use crate::stream::{Peer, SLICE, Stream, is_late};

/// How long the rest of an answer is waited for, so that closing does not reset the engine's side while it still writes.
const DRAIN: Duration = Duration::from_millis(10);
const DRAINED: usize = 64 * 1024;
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
    /// Who listens, where the socket tells.
    pub(crate) peer: Option<Peer>,
    rest: Option<Stream>,
}

impl Reply {
    fn none(answer: Answer) -> Reply {
        Reply { answer, body: Vec::new(), peer: None, rest: None }
    }

    /// Reads to the end of an answer whose body nobody wants, for a short time.
    pub(crate) fn finish(self) {
        let Some(mut stream) = self.rest else { return };
        let until = Instant::now() + DRAIN;
        let mut buffer = [0; 4096];
        let mut total = 0;
        while total < DRAINED {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stream.set_read_timeout(left).is_err() {
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
    message: Vec<u8>,
    want: Want,
    open: Option<Exchange>,
}

impl<'a> Question<'a> {
    /// A GET.
    pub(crate) fn new(url: &'a Url, want: Want) -> Self {
        Question::of(url, "GET", None, want)
    }

    /// Another request; `body`: its type and itself.
    pub(crate) fn of(url: &'a Url, method: &str, body: Option<(&str, &[u8])>, want: Want) -> Self {
        let (host, path) = (url.endpoint.host(), &url.path);
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pool-helper\r\nAccept: */*\r\nConnection: close\r\n"
        );
        if let Some((kind, body)) = body {
            head.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()));
        } else if method != "GET" {
            head.push_str("Content-Length: 0\r\n");
        }
        head.push_str("\r\n");
        let message = [head.as_bytes(), body.map_or(&[][..], |(_, body)| body)].concat();
        Question { url, message, want, open: None }
    }

    /// Asks, or goes on waiting for what was asked before. `tick` is called once a second at least.
    pub(crate) fn ask(&mut self, limit: Duration, tick: &mut dyn FnMut()) -> Reply {
        let until = Instant::now() + limit;
        let lost = LOST.max(limit * LOST_LIMITS);
        let mut exchange = match self.open.take().filter(|open| open.since.elapsed() < lost) {
            Some(open) => open,
            None => match Exchange::begin(self.url, &self.message, until, tick) {
                Ok(begun) => begun,
                Err(error) => return Reply::none(of_error(&error, true)),
            },
        };
        match exchange.wait(self.want, until, tick) {
            Ok(Some((status, body))) => {
                let peer = exchange.stream.peer();
                let rest = (self.want == Want::Status).then_some(exchange.stream);
                Reply { answer: Answer::Status(status), body, peer, rest }
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
    stream: Stream,
    since: Instant,
    received: Vec<u8>,
}

impl Exchange {
    fn begin(url: &Url, message: &[u8], until: Instant, tick: &mut dyn FnMut()) -> io::Result<Exchange> {
        let since = Instant::now();
        let mut stream = Stream::connect(&url.endpoint, until, tick)?;
        stream.set_write_timeout(SLICE)?;
        let mut rest = message;
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A long one goes out as fast as it is read.
                Err(error) if is_late(&error) && Instant::now() < until => tick(),
                Err(error) => return Err(error),
            }
        }
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
            self.stream.set_read_timeout(left.min(SLICE))?;
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

fn of_error(error: &io::Error, connecting: bool) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::NotListening,
        // A socket's file comes with the one who listens.
        io::ErrorKind::NotFound if connecting => Answer::NotListening,
        _ if is_late(error) => Answer::Silent,
        kind if connecting => Answer::Unreachable(kind),
        _ => Answer::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::response::LINE;

    const SOON: Duration = Duration::from_secs(1);

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
    fn a_unix_socket_is_asked_like_an_address_and_tells_who_listens() {
        let path = std::env::temp_dir().join(format!("http-{}.sock", std::process::id()));
        let url = Url::parse(&format!("unix:{}:/health", path.display())).expect("a URL");
        let ask = || Question::new(&url, Want::Status).ask(SOON, &mut || {});
        assert_eq!(ask().answer, Answer::NotListening);
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).expect("a request");
            assert!(buffer[..count].starts_with(b"GET /health HTTP/1.1\r\nHost: localhost\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("a reply");
        });
        let reply = ask();
        assert_eq!(reply.answer, Answer::Status(200));
        assert_eq!(reply.peer.map(|peer| peer.pid), Some(std::process::id()));
        server.join().expect("the server's end");
        assert_eq!(ask().answer, Answer::NotListening);
        std::fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_body_goes_behind_its_length() {
        let url = Url::parse("http://h:1/v1").expect("a URL");
        let message = |method, body| {
            let question = Question::of(&url, method, body, Want::Body);
            String::from_utf8(question.message).expect("text")
        };
        let posted = message("POST", Some(("application/json", b"{}".as_slice())));
        assert!(posted.starts_with("POST /v1 HTTP/1.1\r\nHost: h:1\r\n"), "{posted}");
        assert!(
            posted.ends_with("Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"),
            "{posted}"
        );
        assert!(message("POST", None).ends_with("Content-Length: 0\r\n\r\n"));
        assert!(!message("GET", None).contains("Content-Length"));
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
