//! Owns the host's end of the machine's port: frames out, and a thread that hands what comes to the command it is for.
//!
//! When the port closes, every command that still runs ends with [`Gone`].

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use pool_test_support::agent::frame::{Frame, Kind, LONGEST};

/// The machine is not there any more.
#[derive(Debug)]
pub(super) struct Gone;

/// What a command in the machine does.
#[derive(Debug)]
pub(super) enum Event {
    Output(Vec<u8>),
    Errors(Vec<u8>),
    Exit(ExitStatus),
}

/// Whom what comes is for; `None` once nothing comes any more.
type Calls = Arc<Mutex<Option<BTreeMap<u32, Sender<Event>>>>>;

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    port: Mutex<Port>,
    calls: Calls,
}

#[derive(Debug)]
struct Port {
    stream: UnixStream,
    next: u32,
}

impl Wire {
    /// Over a port that is open, and what says that the guest listens.
    pub(super) fn new(stream: UnixStream) -> io::Result<(Self, Receiver<()>)> {
        let reader = stream.try_clone()?;
        let calls: Calls = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let (hello, heard) = channel();
        let dispatched = Arc::clone(&calls);
        thread::spawn(move || {
            let ended = dispatch(reader, &dispatched, &hello);
            if let Err(error) = ended {
                eprintln!("xtask: the port of a machine is lost: {error}");
            }
            *dispatched.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
        Ok((Wire { port: Mutex::new(Port { stream, next: 1 }), calls }, heard))
    }

    /// Starts a command. What it does comes from the receiver.
    pub(super) fn start(&self, argv: &[&str]) -> Result<(u32, Receiver<Event>), Gone> {
        let body = serde_json::to_vec(argv).map_err(|_| Gone)?;
        let (sender, receiver) = channel();
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        let command = port.next;
        port.next = port.next.wrapping_add(1);
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .ok_or(Gone)?
            .insert(command, sender);
        Frame { command, kind: Kind::Run, body }.write(&mut port.stream).map_err(|_| Gone)?;
        Ok((command, receiver))
    }

    /// Gives a command all of its input.
    pub(super) fn feed(&self, command: u32, input: &[u8]) -> Result<(), Gone> {
        for chunk in input.chunks(LONGEST) {
            self.send(&Frame { command, kind: Kind::Input, body: chunk.to_vec() })?;
        }
        self.send(&Frame::bare(command, Kind::Close))
    }

    /// Kills a command.
    pub(super) fn kill(&self, command: u32) -> Result<(), Gone> {
        self.send(&Frame::bare(command, Kind::Kill))
    }

    fn send(&self, frame: &Frame) -> Result<(), Gone> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        frame.write(&mut port.stream).map_err(|_| Gone)
    }
}

fn dispatch(mut reader: UnixStream, calls: &Calls, hello: &Sender<()>) -> io::Result<()> {
    while let Some(Frame { command, kind, body }) = Frame::read(&mut reader)? {
        let event = match kind {
            Kind::Hello => {
                // Nobody waits for a second one.
                hello.send(()).unwrap_or_default();
                continue;
            }
            Kind::Output => Event::Output(body),
            Kind::Errors => Event::Errors(body),
            Kind::Exit => {
                let status = body.try_into().map(i32::from_le_bytes);
                Event::Exit(ExitStatus::from_raw(
                    status.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?,
                ))
            }
            Kind::Run | Kind::Input | Kind::Close | Kind::Kill => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the guest sent {kind:?}")));
            }
        };
        let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = calls.as_mut() else { return Ok(()) };
        let ended = matches!(event, Event::Exit(_));
        // Whoever ran it may have given up on it.
        let sent = calls.get(&command).is_some_and(|sender| sender.send(event).is_ok());
        if ended || !sent {
            calls.remove(&command);
        }
    }
    Ok(())
}
