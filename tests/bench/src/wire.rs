//! A D-Bus connection with nothing between the caller and its socket: what a call costs here is hardly the client's.
//!
//! Calls are made once and sent many times, with another serial each. Only what a bench needs to know of a reply is read
//! from it.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{Endian, to_bytes};
use zbus::{Message, Variant};

use crate::Result;

const SOCKET: &str = "/run/dbus/system_bus_socket";

/// The bus itself.
pub const BUS: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");

/// A call that can be sent any number of times.
#[derive(Debug, Clone)]
pub struct Call(Vec<u8>);

impl Call {
    /// A call of `member` of `(destination, path, interface)`.
    pub fn new<B>((destination, path, interface): (&str, &str, &str), member: &str, body: &B) -> Result<Call>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let message =
            Message::method_call(path, member).destination(destination).interface(interface).build(body)?;
        Ok(Call(message.data().bytes().to_vec()))
    }

    /// The same call with a header field that no specification knows yet. dbus-broker hands it on, dbus-daemon takes it out.
    pub fn with_unknown_field(self) -> Result<Call> {
        let Call(bytes) = self;
        let part = |from: usize, to: usize| bytes.get(from..to).ok_or("the call is too short");
        let length: [u8; 4] = part(12, 16)?.try_into()?;
        let end = 16 + usize::try_from(u32::from_le_bytes(length))?;
        let context = Context::new(Endian::Little, 12);
        let data = Data::new(part(12, end)?, context);
        let (mut fields, _): (Vec<(u8, Variant<'_>)>, usize) = data.deserialize()?;
        fields.push((77, Variant::from(vec!["a", "b"])));
        let mut longer = part(0, 12)?.to_vec();
        longer.extend_from_slice(to_bytes(context, &fields)?.bytes());
        longer.resize(longer.len().next_multiple_of(8), 0);
        longer.extend_from_slice(part(end.next_multiple_of(8), bytes.len())?);
        Ok(Call(longer))
    }

    /// The reading of a property.
    pub fn get((destination, path, interface): (&str, &str, &str), property: &str) -> Result<Call> {
        Call::new((destination, path, "org.freedesktop.DBus.Properties"), "Get", &(interface, property))
    }
}

/// Of a message that came, what matters here.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Its type: 1 a call, 2 a reply, 3 an error, 4 a signal.
    pub kind: u8,
    /// The call that it answers.
    pub answers: u32,
    /// Its own number.
    pub serial: u32,
    /// Who sent it.
    pub sender: String,
    /// The object that it is about.
    pub path: String,
    /// Its member.
    pub member: String,
    /// Its name, where it is an error.
    pub error: String,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Incoming {
    /// The string that its body begins with.
    pub fn text(&self) -> &str {
        let length = number(&self.body, 0) as usize;
        let text = self.body.get(4..length.saturating_add(4)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// A 32-bit number in a variant, as `Get` answers with.
    pub fn value(&self) -> u32 {
        number(&self.body, 4)
    }

    /// A 64-bit number in a variant.
    pub fn long_value(&self) -> u64 {
        u64::from(number(&self.body, 8)) | u64::from(number(&self.body, 12)) << 32
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at.saturating_add(4)).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// A connection to the system bus.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    serial: u32,
    inbox: Vec<u8>,
    /// Where in it the next message begins.
    at: usize,
    chunk: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Wire {
    /// Connects to the system bus.
    pub fn connect() -> Result<Wire> {
        Wire::connect_to(Path::new(SOCKET))
    }

    /// Connects to the bus that listens there.
    pub fn connect_to(socket: &Path) -> Result<Wire> {
        let mut stream = UnixStream::connect(socket)?;
        let uid = nix::unistd::geteuid().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        expect_line(&mut stream, "OK ")?;
        stream.write_all(b"NEGOTIATE_UNIX_FD\r\n")?;
        expect_line(&mut stream, "AGREE_UNIX_FD")?;
        stream.write_all(b"BEGIN\r\n")?;
        let mut wire = Wire {
            stream,
            serial: 0,
            inbox: Vec::new(),
            at: 0,
            chunk: vec![0; 1 << 18],
            descriptors: VecDeque::new(),
        };
        wire.ask(&Call::new(BUS, "Hello", &())?)?;
        Ok(wire)
    }

    /// Sends a call some times, with one write; the serial of the last.
    pub fn send(&mut self, call: &Call, times: usize) -> io::Result<u32> {
        let mut bytes = Vec::with_capacity(call.0.len() * times);
        for _ in 0..times {
            self.serial += 1;
            let from = bytes.len();
            bytes.extend_from_slice(&call.0);
            if let Some(place) = bytes.get_mut(from + 8..from + 12) {
                place.copy_from_slice(&self.serial.to_le_bytes());
            }
        }
        self.stream.write_all(&bytes)?;
        Ok(self.serial)
    }

    /// Sends a call and waits for its answer. What comes before that is dropped.
    pub fn ask(&mut self, call: &Call) -> Result<Incoming> {
        let serial = self.send(call, 1)?;
        loop {
            let incoming = self.message()?;
            match incoming.kind {
                2 if incoming.answers == serial => return Ok(incoming),
                3 if incoming.answers == serial => {
                    return Err(format!("{}: {}", incoming.error, incoming.text()).into());
                }
                _ => {}
            }
        }
    }

    /// Answers a call.
    pub fn answer<B>(&mut self, call: &Incoming, body: &B) -> Result<()>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        // Of the call, what an answer is made of.
        let call = Message::method_call("/", "Answered")
            .sender(call.sender.as_str())
            .serial(call.serial.try_into()?)
            .build(&())?;
        let reply = Message::method_return(&call.header()).build(body)?;
        self.send(&Call(reply.data().bytes().to_vec()), 1)?;
        Ok(())
    }

    /// The next message.
    pub fn message(&mut self) -> Result<Incoming> {
        loop {
            if let Some(length) = whole(self.inbox.get(self.at..).unwrap_or_default()) {
                let message = self.inbox.get(self.at..self.at + length).unwrap_or_default();
                let incoming = parse(message);
                self.at += length;
                return Ok(incoming);
            }
            self.inbox.drain(..self.at);
            self.at = 0;
            self.receive()?;
        }
    }

    /// Whether a whole message is here already.
    pub fn has_next(&self) -> bool {
        whole(self.inbox.get(self.at..).unwrap_or_default()).is_some()
    }

    /// A descriptor that came and has not been taken yet.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    fn receive(&mut self) -> Result<()> {
        let mut control = nix::cmsg_space!([i32; 32]);
        let descriptor = self.stream.as_raw_fd();
        let mut parts = [IoSliceMut::new(&mut self.chunk)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(descriptor, &mut parts, Some(&mut control), flags)?;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors.into_iter().map(own));
            }
        }
        let length = received.bytes;
        if length == 0 {
            return Err("the bus closed the connection".into());
        }
        self.inbox.extend_from_slice(self.chunk.get(..length).unwrap_or_default());
        Ok(())
    }
}

#[allow(
    unsafe_code,
    reason = "the kernel has just given this descriptor to this process, and nobody else knows it"
)]
fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: it came with SCM_RIGHTS a moment ago, so it is open and nobody else's.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn expect_line(stream: &mut UnixStream, begins: &str) -> Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.extend_from_slice(&byte);
    }
    let line = String::from_utf8_lossy(&line);
    if line.starts_with(begins) { Ok(()) } else { Err(format!("the bus said {line}").into()) }
}

/// The length of the message that these bytes begin with, where all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < 16 {
        return None;
    }
    let length = body_at(bytes) + number(bytes, 4) as usize;
    (bytes.len() >= length).then_some(length)
}

fn body_at(message: &[u8]) -> usize {
    (16 + number(message, 12) as usize).next_multiple_of(8)
}

fn parse(message: &[u8]) -> Incoming {
    let mut incoming = Incoming {
        kind: message.get(1).copied().unwrap_or(0),
        serial: number(message, 8),
        ..Incoming::default()
    };
    let end = 16 + number(message, 12) as usize;
    let mut at = 16;
    while at < end {
        let code = message.get(at).copied().unwrap_or(0);
        let kind = message.get(at + 2).copied().unwrap_or(0);
        // Code, a signature of one letter with its length and its end.
        let value = at + 4;
        let text = |length_size: usize| {
            let length = match length_size {
                1 => usize::from(message.get(value).copied().unwrap_or(0)),
                _ => number(message, value) as usize,
            };
            let from = value + length_size;
            let text = message.get(from..from + length).unwrap_or_default();
            (String::from_utf8_lossy(text).into_owned(), from + length + 1)
        };
        let next = match kind {
            b's' | b'o' => {
                let (text, next) = text(4);
                match code {
                    1 => incoming.path = text,
                    3 => incoming.member = text,
                    4 => incoming.error = text,
                    7 => incoming.sender = text,
                    _ => {}
                }
                next
            }
            b'g' => text(1).1,
            _ => {
                if code == 5 {
                    incoming.answers = number(message, value);
                }
                value + 4
            }
        };
        at = next.next_multiple_of(8);
    }
    incoming.body = message.get(body_at(message)..).unwrap_or_default().to_vec();
    incoming
}
