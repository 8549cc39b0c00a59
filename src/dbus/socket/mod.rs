//! The daemon's sockets to the bus, above all that of the serving connection: it reads and writes much at a time, is fair to callers, and bounded.
//!
//! zbus by itself makes three calls of the kernel for a method call, hands calls on in the order in which they come, so
//! that one caller's ten thousand come before another's one, and may wait while it sends. Here it finds a socket that has
//! read what there is, gives every caller his turn ([`inbox`]), and takes what is to be sent at once ([`outbox`]).
//!
//! No method takes a descriptor: those that a caller sends are closed as they come.

mod inbox;
mod outbox;

use super::error::Error as CallError;
use super::raw;
pub(in crate::dbus) use inbox::Order;
use inbox::{CALLS, Inbox, Refused};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
pub(super) use outbox::Outbox;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::socket::{BoxedSplit, ReadHalf, Split, WriteHalf};
use zbus::{Address, DBusError, Message};

/// How much is read at a time.
const CHUNK: usize = 1 << 16;
/// At most so many descriptors come with a read: the kernel's own limit.
const DESCRIPTORS: usize = 253;
/// How often it is read before what came is handed on: as much as a flood has ready, because whoever calls meanwhile
/// stands behind it.
const CHUNKS: u32 = 32;
/// So many calls are refused at a time; each costs nearly as much as an answer.
const REFUSALS: usize = 16;
/// Nothing is read while so many are to be refused.
const TO_REFUSE: usize = 1 << 16;
/// So many messages are handed on before it is looked whether others have come: one caller's many must not be the only
/// ones that there are.
const LOOK: u32 = 16;

/// Connects and starts writing. What comes back beside the socket is the way to know how much is still to be written.
///
/// # Errors
/// There is nobody at the address, or it is no unix socket, which alone passes descriptors.
pub(super) fn connect(address: &Address, order: Order) -> zbus::Result<(BoxedSplit, Outbox)> {
    let Transport::Unix(unix) = address.transport() else {
        return Err(zbus::Error::Address(format!("{address} is no unix socket")));
    };
    let place = match unix.path() {
        UnixSocket::File(path) => SocketAddr::from_pathname(path)?,
        UnixSocket::Abstract(name) => SocketAddr::from_abstract_name(name.as_encoded_bytes())?,
        _ => return Err(zbus::Error::Address(format!("{address} names no socket"))),
    };
    let stream = UnixStream::connect_addr(&place)?;
    stream.set_nonblocking(true)?;
    #[allow(deprecated, reason = "an owned socket keeps what its successor leaves to the caller")]
    let stream = Arc::new(AsyncFd::new(stream)?);
    let outbox = Outbox::new(stream.clone());
    #[allow(clippy::disallowed_methods, reason = "the one task that writes")]
    tokio::spawn(outbox.clone().write());
    let read = Reader {
        stream: stream.clone(),
        greeting: Some(Vec::new()),
        chunk: vec![0; CHUNK],
        inbox: Inbox::new(order),
        current: None,
        at: 0,
        since_look: LOOK,
        outbox: outbox.clone(),
    };
    let write = Writer { stream, outbox: outbox.clone() };
    let split = Split::new(Box::new(read) as Box<dyn ReadHalf>, Box::new(write) as Box<dyn WriteHalf>);
    Ok((split, outbox))
}

#[derive(Debug)]
struct Reader {
    stream: Arc<AsyncFd<UnixStream>>,
    /// The line of the handshake that is being read, while that goes on.
    greeting: Option<Vec<u8>>,
    chunk: Vec<u8>,
    inbox: Inbox,
    /// The message that is being handed on, and how much of it was.
    current: Option<Message>,
    at: usize,
    since_look: u32,
    outbox: Outbox,
}

impl Reader {
    /// A byte of the handshake. What comes after its last line is messages, which must not be read with it.
    async fn greeted(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(byte) = buffer.get_mut(..1) else { return Ok(0) };
        let read = self.stream.async_io(Interest::READABLE, |mut stream| stream.read(byte)).await?;
        if let Some(line) = &mut self.greeting {
            line.extend_from_slice(byte.get(..read).unwrap_or_default());
            if line.ends_with(b"\r\n") {
                // It answers the last thing that is asked: whether descriptors may be passed.
                let last = line.starts_with(b"AGREE_UNIX_FD") || line.starts_with(b"ERROR");
                self.greeting = (!last).then(Vec::new);
            }
        }
        Ok(read)
    }

    /// Chooses the message that is handed on next. While answers pile up, none is.
    async fn choose(&mut self) -> io::Result<()> {
        self.outbox.room().await;
        if self.since_look >= LOOK {
            self.look()?;
            self.refuse_some()?;
        }
        loop {
            if let Some(message) = self.inbox.next() {
                self.since_look += 1;
                match raw::message(message) {
                    Ok(message) => {
                        (self.current, self.at) = (Some(message), 0);
                        return Ok(());
                    }
                    // zbus would not read on after it.
                    Err(error) => {
                        tracing::debug!(
                            "something came over the bus that zbus takes for no message: {error}"
                        );
                        continue;
                    }
                }
            }
            if self.inbox.to_refuse() > 0 {
                self.refuse_some()?;
                // Those whose calls were handed on get on meanwhile.
                tokio::task::yield_now().await;
                self.outbox.room().await;
                self.look()?;
                continue;
            }
            let stream = self.stream.clone();
            let mut ready = stream.readable().await?;
            if self.look()? {
                ready.clear_ready();
            }
        }
    }

    /// Takes in what has come; whether that was all.
    fn look(&mut self) -> io::Result<bool> {
        self.since_look = 0;
        for _ in 0..CHUNKS {
            if self.inbox.to_refuse() >= TO_REFUSE {
                return Ok(false);
            }
            let mut control = nix::cmsg_space!([i32; DESCRIPTORS]);
            let mut parts = [IoSliceMut::new(&mut self.chunk)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let (length, descriptors) =
                match recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                    Ok(received) => {
                        let mut descriptors = Vec::new();
                        for message in received.cmsgs()? {
                            if let ControlMessageOwned::ScmRights(rights) = message {
                                descriptors.extend(rights.into_iter().map(raw::descriptor));
                            }
                        }
                        (received.bytes, descriptors)
                    }
                    Err(nix::Error::EAGAIN) => return Ok(true),
                    Err(nix::Error::EINTR) => continue,
                    Err(errno) => return Err(errno.into()),
                };
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.inbox.take_in(self.chunk.get(..length).unwrap_or_default(), descriptors);
        }
        Ok(false)
    }

    fn refuse_some(&mut self) -> io::Result<()> {
        for _ in 0..REFUSALS {
            let Some(call) = self.inbox.refused() else { return Ok(()) };
            self.refuse(call)?;
        }
        Ok(())
    }

    fn refuse(&self, Refused { caller, serial }: Refused) -> io::Result<()> {
        let text = format!("{CALLS} calls of this connection wait to be looked at; wait for answers first");
        // Of the call, what an answer is made of.
        let call = Message::method_call("/", "Refused").sender(&*caller).serial(serial).build(&());
        let refusal = call.and_then(|call| CallError::limits_exceeded(text).create_reply(&call.header()));
        self.outbox.push(refusal.map_err(io::Error::other)?)
    }
}

#[async_trait::async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if self.greeting.is_some() {
            return Ok((self.greeted(buffer).await?, Vec::new()));
        }
        let over = |message: &Message| self.at >= message.data().len();
        if self.current.as_ref().is_none_or(over) {
            self.choose().await?;
        }
        let bytes = self.current.as_ref().map(|message| message.data().bytes()).unwrap_or_default();
        let left = bytes.get(self.at..).unwrap_or_default();
        let length = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), left.get(..length)) {
            to.copy_from_slice(from);
        }
        self.at += length;
        Ok((length, Vec::new()))
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Writer {
    stream: Arc<AsyncFd<UnixStream>>,
    outbox: Outbox,
}

#[async_trait::async_trait]
impl WriteHalf for Writer {
    async fn send_message(&mut self, message: &Message) -> zbus::Result<()> {
        Ok(self.outbox.push(message.clone())?)
    }

    async fn send_messages(&mut self, messages: &[Message]) -> zbus::Result<()> {
        for message in messages {
            self.outbox.push(message.clone())?;
        }
        Ok(())
    }

    /// The handshake alone comes this way, when nothing else has been sent; it has no descriptors.
    async fn sendmsg(&mut self, bytes: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.stream.async_io(Interest::WRITABLE, |mut stream| stream.write(bytes)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.outbox.written().await;
        self.stream.get_ref().shutdown(std::net::Shutdown::Both)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}
