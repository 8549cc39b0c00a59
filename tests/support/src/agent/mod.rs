//! Owns the guest's end of a test machine: commands that the host sends on a port are run as root, side by side, and what
//! they print goes back.
//!
//! ```text
//! port ──> run ──> a child in a process group of its own ──> two threads for what it prints, one that waits for it
//!             └──> input ──> a thread a command: one that does not read must not keep the others waiting
//! ```
//!
//! It ends when the port closes. A command that cannot be started ends with status 127 and says why on standard error.

pub mod frame;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use frame::{Frame, Kind, LONGEST};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The port's name, as the machine is started with it.
pub const PORT: &str = "org.llamaorch.agent";
/// How long the port may take to appear.
const PORT_LIMIT: Duration = Duration::from_secs(60);
/// The status of a command that could not be started, as a shell has it.
const NOT_STARTED: i32 = 127;

/// What commands find in their environment.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("SYSTEMD_PAGER", ""),
    ("SYSTEMD_COLORS", "0"),
    ("DEBIAN_FRONTEND", "noninteractive"),
];

/// What is running: the process group, and the way to its input.
struct Running {
    group: Pid,
    input: Option<Sender<Vec<u8>>>,
}

type Commands = Arc<Mutex<BTreeMap<u32, Running>>>;
type Port = Arc<Mutex<File>>;

/// Serves the port until it closes.
///
/// # Errors
///
/// Where there is no such port, or it cannot be read or written.
pub fn serve() -> io::Result<()> {
    let path = find_port()?;
    let mut reader = File::options().read(true).write(true).open(path)?;
    let port = Arc::new(Mutex::new(reader.try_clone()?));
    let commands = Commands::default();
    send(&port, &Frame::bare(0, Kind::Hello))?;
    while let Some(Frame { command, kind, body }) = Frame::read(&mut reader)? {
        match kind {
            Kind::Run => run(command, &body, &port, &commands)?,
            Kind::Input => {
                let input = lock(&commands).get(&command).and_then(|running| running.input.clone());
                // A command that has ended reads no more.
                input.map(|input| input.send(body).unwrap_or_default()).unwrap_or_default();
            }
            Kind::Close => {
                if let Some(running) = lock(&commands).get_mut(&command) {
                    running.input = None;
                }
            }
            Kind::Kill => {
                if let Some(running) = lock(&commands).get(&command) {
                    // Fails only when it has just ended, which is what is wanted.
                    killpg(running.group, Signal::SIGKILL).unwrap_or_default();
                }
            }
            Kind::Hello | Kind::Output | Kind::Errors | Kind::Exit => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the host sent {kind:?}")));
            }
        }
    }
    Ok(())
}

/// The device of the port; without udev nobody links it by its name.
fn find_port() -> io::Result<PathBuf> {
    let begun = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim_end() == PORT {
                return Ok(PathBuf::from("/dev").join(entry.file_name()));
            }
        }
        if begun.elapsed() > PORT_LIMIT {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio port {PORT}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn run(command: u32, words: &[u8], port: &Port, commands: &Commands) -> io::Result<()> {
    let started = serde_json::from_slice::<Vec<String>>(words).map_err(io::Error::from).and_then(|words| {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(ENVIRONMENT)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
    });
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            send(port, &Frame { command, kind: Kind::Errors, body: format!("{error}\n").into_bytes() })?;
            return send(port, &exit(command, NOT_STARTED << 8));
        }
    };
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let (input, chunks) = channel();
    if let Some(stdin) = child.stdin.take() {
        thread::spawn(move || feed(stdin, &chunks));
    }
    lock(commands).insert(command, Running { group, input: Some(input) });
    let (port, commands) = (Arc::clone(port), Arc::clone(commands));
    thread::spawn(move || {
        let status = follow(command, &mut child, &port);
        lock(&commands).remove(&command);
        if let Err(error) = status.and_then(|status| send(&port, &exit(command, status))) {
            eprintln!("command {command} is lost: {error}");
        }
    });
    Ok(())
}

/// Writes what comes to the command; closing is the end of the channel.
fn feed(mut stdin: ChildStdin, chunks: &Receiver<Vec<u8>>) {
    for chunk in chunks {
        if stdin.write_all(&chunk).is_err() {
            return;
        }
    }
}

/// Sends what it prints until it has ended and nobody holds its output any more.
fn follow(command: u32, child: &mut Child, port: &Port) -> io::Result<i32> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let errors = scope.spawn(|| pump(command, Kind::Errors, stderr, port));
        pump(command, Kind::Output, stdout, port)?;
        errors.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })?;
    child.wait().map(ExitStatusExt::into_raw)
}

fn pump(command: u32, kind: Kind, from: Option<impl Read>, port: &Port) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut chunk = vec![0; LONGEST];
    loop {
        let count = from.read(&mut chunk)?;
        let body = chunk.get(..count).unwrap_or_default().to_vec();
        if body.is_empty() {
            return Ok(());
        }
        send(port, &Frame { command, kind, body })?;
    }
}

fn exit(command: u32, status: i32) -> Frame {
    Frame { command, kind: Kind::Exit, body: status.to_le_bytes().to_vec() }
}

fn send(port: &Port, frame: &Frame) -> io::Result<()> {
    frame.write(&mut *port.lock().unwrap_or_else(PoisonError::into_inner))
}

fn lock(commands: &Commands) -> std::sync::MutexGuard<'_, BTreeMap<u32, Running>> {
    commands.lock().unwrap_or_else(PoisonError::into_inner)
}
