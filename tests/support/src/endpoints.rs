//! Owns what each endpoint answers.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{getgid, getuid};
use serde_json::{Value, json};

use crate::ending::Ending;
use crate::http::{Request, Response, Server};
use crate::options;

/// The time that a token takes while a completion is delayed: its counters move all the time.
const TOKEN: Duration = Duration::from_millis(10);

/// `None`: the request is never answered.
pub fn answer(server: &Server, request: &Request) -> Option<Response> {
    let parameter = |name: &str| request.query.get(name).map(String::as_str);
    Some(match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health") => health(server),
        ("GET", "/metrics") => metrics(server),
        ("POST", "/completion") => completion(server, &request.body),
        ("GET", "/env") => environment(),
        ("GET", "/status") => match std::fs::read_to_string("/proc/self/status") {
            Ok(status) => Response::text(200, status),
            Err(error) => refusal(&error),
        },
        ("POST", "/write") => match parameter("path") {
            Some(path) => write(path),
            None => Response::text(400, "path is missing\n"),
        },
        ("POST", "/exit") => match parameter("code").unwrap_or("0").parse() {
            Ok(code) => ending(server, Ending::Exit(code)),
            Err(error) => Response::text(400, format!("code: {error}\n")),
        },
        ("POST", "/signal") => match options::signal(parameter("name").unwrap_or("SIGKILL")) {
            Ok(signal) => ending(server, Ending::Signal(signal)),
            Err(error) => Response::text(400, format!("name: {error}\n")),
        },
        ("POST", "/hang") => {
            server.state.hang();
            Response::text(200, "hanging\n")
        }
        _ => Response::text(404, "not found\n"),
    })
}

fn health(server: &Server) -> Response {
    if server.state.is_loaded() {
        Response::json(200, &json!({"status": "ok"}))
    } else {
        let error = json!({"code": 503, "message": "Loading model", "type": "unavailable_error"});
        Response::json(503, &json!({ "error": error }))
    }
}

fn metrics(server: &Server) -> Response {
    let predicted = server.state.predicted.load(Ordering::SeqCst);
    let mut text = String::new();
    for (name, kind, value) in [
        ("requests_processing", "gauge", server.state.processing.load(Ordering::SeqCst)),
        ("requests_deferred", "gauge", 0),
        ("n_decode_total", "counter", predicted),
        ("tokens_predicted_total", "counter", predicted),
    ] {
        // Writing to a string cannot fail.
        writeln!(text, "# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}").unwrap_or_default();
    }
    Response { status: 200, kind: "text/plain; version=0.0.4", body: text }
}

/// Counts a request as being at work for as long as it lives.
struct AtWork<'a>(&'a AtomicU64);

impl<'a> AtWork<'a> {
    fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        AtWork(count)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn completion(server: &Server, body: &[u8]) -> Response {
    if !server.state.is_loaded() {
        return health(server);
    }
    let asked: Value = if body.is_empty() {
        Value::Null
    } else {
        match serde_json::from_slice(body) {
            Ok(asked) => asked,
            Err(error) => {
                return Response::json(400, &json!({"error": {"code": 400, "message": error.to_string()}}));
            }
        }
    };
    let _at_work = AtWork::begin(&server.state.processing);
    let delay = Duration::from_millis(asked.get("delay_ms").and_then(Value::as_u64).unwrap_or(0));
    let started = Instant::now();
    loop {
        server.state.predicted.fetch_add(1, Ordering::SeqCst);
        match delay.checked_sub(started.elapsed()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(TOKEN)),
            _ => break,
        }
    }
    Response::json(200, &json!({"content": "conformance", "stop": true, "pid": std::process::id()}))
}

fn environment() -> Response {
    let mut text = format!("uid={}\ngid={}\n", getuid(), getgid());
    for (name, value) in std::env::vars_os() {
        writeln!(text, "{}={}", name.display(), value.display()).unwrap_or_default();
    }
    Response::text(200, text)
}

fn write(path: &str) -> Response {
    match OpenOptions::new().write(true).create(true).truncate(false).open(path) {
        Ok(_) => Response::text(200, "ok"),
        Err(error) => refusal(&error),
    }
}

/// 403 and the errno's name, for instance `EROFS`.
fn refusal(error: &std::io::Error) -> Response {
    Response::text(403, format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0))))
}

/// Answers before it ends: the caller should know that it was heard.
fn ending(server: &Server, ending: Ending) -> Response {
    server.ender.end_after(Duration::from_millis(50), ending);
    Response::text(200, "ending\n")
}
