//! Owns what each endpoint answers.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{getgid, getuid};
use serde_json::{Value, json};

use crate::ending::Ending;
use crate::http::{Request, Response, Server};
use crate::loading;
use crate::options;

/// The time that a token takes while a completion is delayed: its counters move all the time.
const TOKEN: Duration = Duration::from_millis(10);

/// `None`: the request is never answered.
pub fn answer(server: &Server, request: &Request) -> Option<Response> {
    let parameter = |name: &str| request.query.get(name).map(String::as_str);
    Some(match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health") => {
            thread::sleep(server.state.slow());
            health(server)
        }
        ("GET", "/metrics") => {
            thread::sleep(server.state.slow());
            metrics(server)
        }
        ("GET", "/props") => Response::json(200, &json!({ "total_slots": server.options.slots() })),
        ("GET", "/version") => Response::json(200, &json!({ "version": env!("CARGO_PKG_VERSION") })),
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
        ("POST", "/stall") => {
            server.state.stall();
            Response::text(200, "stalled\n")
        }
        ("POST", "/close") => {
            server.state.close();
            Response::text(200, "closed\n")
        }
        ("POST", "/health") => match parameter("code").unwrap_or("503").parse() {
            Ok(code) => {
                server.state.set_health(code);
                Response::text(200, "set\n")
            }
            Err(error) => Response::text(400, format!("code: {error}\n")),
        },
        ("POST", "/slow") => match parameter("ms").unwrap_or("0").parse() {
            Ok(milliseconds) => slow(server, milliseconds),
            Err(error) => Response::text(400, format!("ms: {error}\n")),
        },
        _ => Response::text(404, "not found\n"),
    })
}

fn health(server: &Server) -> Response {
    if let (true, Some(status)) = (server.state.is_loaded(), server.state.health()) {
        Response::json(status, &json!({ "error": { "code": status } }))
    } else if server.state.is_loaded() {
        Response::json(200, &json!({"status": "ok"}))
    } else {
        let error = json!({"code": 503, "message": "Loading model", "type": "unavailable_error"});
        Response::json(503, &json!({ "error": error }))
    }
}

/// At work all the time, as an engine is that answers late.
fn slow(server: &Server, milliseconds: u64) -> Response {
    let before = server.state.set_slow(milliseconds);
    if before.is_zero() && milliseconds > 0 {
        let state = Arc::clone(&server.state);
        thread::spawn(move || {
            while !state.slow().is_zero() {
                loading::pass(Duration::from_millis(20), true);
                thread::sleep(Duration::from_millis(20));
            }
        });
    }
    Response::text(200, "slow\n")
}

fn metrics(server: &Server) -> Response {
    let predicted = server.state.predicted.load(Ordering::SeqCst);
    let processing = server.state.processing.load(Ordering::SeqCst);
    let mut text = String::new();
    for (name, kind, value) in [
        ("requests_processing", "gauge", processing),
        ("requests_deferred", "gauge", 0),
        ("n_decode_total", "counter", predicted),
        ("tokens_predicted_total", "counter", predicted),
    ] {
        // Writing to a string cannot fail.
        writeln!(text, "# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}").unwrap_or_default();
    }
    // Once more by names of its own, with labels and floats as other engines have them.
    writeln!(
        text,
        "# TYPE conformance:in_flight gauge\n\
         conformance:in_flight{{kind=\"running\",note=\"a}}b\"}} {processing}.0\n\
         conformance:in_flight{{kind=\"waiting\"}} 0.0\n\
         # TYPE conformance:steps_total counter\n\
         conformance:steps_total{{worker=\"0\"}} {predicted}.0"
    )
    .unwrap_or_default();
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
        while is_stuck(server) {
            thread::sleep(TOKEN);
        }
        server.state.predicted.fetch_add(1, Ordering::SeqCst);
        match delay.checked_sub(started.elapsed()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(TOKEN)),
            _ => break,
        }
    }
    Response::json(200, &json!({"content": "conformance", "stop": true, "pid": std::process::id()}))
}

fn is_stuck(server: &Server) -> bool {
    let state = &server.state;
    state.is_stalled() || (server.options.stall_without_workers && state.has_lost_a_worker())
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
