//! Owns what the helper's tests stand on: a folder, systemd's end of the notify socket, and a health endpoint.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One test's own folder, notify socket and loopback address.
pub(crate) struct Stand {
    pub(crate) folder: PathBuf,
    socket: UnixDatagram,
    address: String,
}

impl Stand {
    pub(crate) fn new() -> Stand {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pool-helper-{}-{count}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        open(&folder, 0o755);
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        open(&path, 0o777);
        let address = format!("127.77.{}.{}", std::process::id() % 250, count + 1);
        Stand { folder, socket, address }
    }

    /// An address that nothing else of this test run uses.
    pub(crate) fn free_address(&self) -> String {
        let listener = TcpListener::bind((self.address.as_str(), 0)).expect("a port");
        listener.local_addr().expect("its address").to_string()
    }

    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, content).expect("a file");
        open(&path, mode);
        path
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.file("model.gguf", "abc", 0o644)
    }

    pub(crate) fn helper(&self, arguments: &[&str]) -> Command {
        self.with_socket(Command::new(env!("CARGO_BIN_EXE_pool-helper")), arguments)
    }

    /// The helper as a user to whom permissions mean something.
    pub(crate) fn helper_without_privilege(&self, arguments: &[&str]) -> Command {
        let copy = self.folder.join("pool-helper");
        if !copy.exists() {
            fs::copy(env!("CARGO_BIN_EXE_pool-helper"), &copy).expect("a copy");
            open(&copy, 0o755);
        }
        let mut command = self.with_socket(Command::new(copy), arguments);
        if is_root() {
            command.uid(65534).gid(65534);
        }
        command
    }

    fn with_socket(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).env("NOTIFY_SOCKET", self.folder.join("notify")).stdin(Stdio::null());
        command
    }

    /// The next notification, as lines.
    pub(crate) fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("a timeout");
        let mut buffer = [0; 8192];
        match self.socket.recv(&mut buffer) {
            Ok(count) => {
                let text = buffer.get(..count).expect("what was received").to_vec();
                Some(String::from_utf8(text).expect("text").trim_end().to_owned())
            }
            Err(_) => None,
        }
    }

    /// Every notification until the time is over, with the time at which it came.
    pub(crate) fn all(&self, within: Duration) -> Vec<(Duration, String)> {
        let started = Instant::now();
        let mut messages = Vec::new();
        while let Some(left) = within.checked_sub(started.elapsed()) {
            if let Some(message) = self.next(left) {
                messages.push((started.elapsed(), message));
            }
        }
        messages
    }

    /// Runs it to its refusal; the text behind the class.
    pub(crate) fn refusal(&self, command: &mut Command, status: i32, class: &str) -> String {
        let output = command.output().expect("the helper runs");
        let said = self.next(Duration::from_millis(100)).expect("a status");
        let printed = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(status), "{said}\n{printed}");
        let line = said.strip_prefix("STATUS=").expect("a status").to_owned();
        assert!(!line.contains('\n') && line.len() <= 512, "{line}");
        assert!(printed.contains(&line), "{printed}");
        assert_eq!(self.next(Duration::from_millis(20)), None);
        let text = line.strip_prefix(class).and_then(|rest| rest.strip_prefix(": "));
        assert!(text.is_some(), "{line} is not {class}");
        text.unwrap_or_default().to_owned()
    }

    /// Runs it to its success; what it said.
    pub(crate) fn success(&self, command: &mut Command) -> String {
        let Output { status, stderr, .. } = command.output().expect("the helper runs");
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
        self.next(Duration::from_millis(100)).expect("a status")
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

pub(crate) fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").expect("this process").uid() == 0
}

/// An engine's endpoints, in the test's hands: /health answers 503 until it is told otherwise.
pub(crate) struct Health {
    pub(crate) url: String,
    shared: Arc<Shared>,
    /// Questions so far, to all paths.
    pub(crate) asked: Arc<AtomicU64>,
}

#[derive(Default)]
struct Shared {
    status: AtomicU16,
    silent: AtomicBool,
    closed: AtomicBool,
    in_flight: AtomicU64,
    steps: AtomicU64,
    /// What was asked and gets no answer.
    unanswered: Mutex<Vec<TcpStream>>,
}

impl Health {
    pub(crate) fn loading() -> Health {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address: SocketAddr = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { status: AtomicU16::new(503), ..Shared::default() });
        let asked = Arc::new(AtomicU64::new(0));
        let (server, count) = (Arc::clone(&shared), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.closed.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("a connection");
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap_or(0);
                count.fetch_add(1, Ordering::SeqCst);
                if server.silent.load(Ordering::SeqCst) {
                    server.unanswered.lock().expect("the list").push(stream);
                    continue;
                }
                let (status, body) = server.answer(request.get(..length).unwrap_or_default());
                let length = body.len();
                drop(write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                ));
            }
        });
        Health { url: format!("http://{address}/health"), shared, asked }
    }

    /// The same engine's other path.
    pub(crate) fn at(&self, path: &str) -> String {
        self.url.replace("/health", path)
    }

    /// From now on it answers 200.
    pub(crate) fn recover(&self) -> Instant {
        let now = Instant::now();
        self.set_status(200);
        now
    }

    pub(crate) fn set_status(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    /// What its metrics say.
    pub(crate) fn set_work(&self, in_flight: u64, steps: u64) {
        self.shared.in_flight.store(in_flight, Ordering::SeqCst);
        self.shared.steps.store(steps, Ordering::SeqCst);
    }

    /// From now on it accepts every question and answers none.
    pub(crate) fn fall_silent(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    /// Answers all that it owes with 200, and goes on answering.
    pub(crate) fn speak(&self) {
        self.shared.silent.store(false, Ordering::SeqCst);
        for mut stream in self.shared.unanswered.lock().expect("the list").drain(..) {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        }
    }

    /// From now on nobody listens.
    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let address = self.url.trim_start_matches("http://").trim_end_matches("/health");
        drop(TcpStream::connect(address));
    }
}

impl Shared {
    fn answer(&self, request: &[u8]) -> (u16, String) {
        let path = str::from_utf8(request).ok().and_then(|text| text.split(' ').nth(1)).unwrap_or_default();
        match path {
            "/health" => (self.status.load(Ordering::SeqCst), String::new()),
            "/metrics" => {
                let (in_flight, steps) = (&self.in_flight, &self.steps);
                let (in_flight, steps) = (in_flight.load(Ordering::SeqCst), steps.load(Ordering::SeqCst));
                (200, format!("x:running{{engine=\"0\"}} {in_flight}.0\nx:steps_total {steps}\n"))
            }
            "/props" => (200, "{\"total_slots\": 4}".to_owned()),
            "/version" => (200, "{\"version\": \"0.11.0\"}".to_owned()),
            _ => (404, String::new()),
        }
    }
}

/// An engine that was launched; killed when the test is over.
pub(crate) struct Launched(pub(crate) Child);

impl Drop for Launched {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The probers that ask this URL: process id and parent.
pub(crate) fn probers(url: &str) -> Vec<(u32, u32)> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    processes
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<&[u8]> = command.split(|&byte| byte == 0).collect();
            let is_prober = words.get(1) == Some(&b"probe".as_slice()) && words.contains(&url.as_bytes());
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut fields = stat.rsplit_once(") ")?.1.split(' ');
            let ended = fields.next()? == "Z";
            (is_prober && !ended).then_some((pid, fields.next()?.parse().ok()?))
        })
        .collect()
}

/// Waits until it holds, for a limited time.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
