//! What is to be sent: handed over at once and in order, written beside whoever hands it over, as much as possible at a
//! time.
//!
//! So to send never waits, and what is said in one go reaches the bus in that order, whatever else goes on. It cannot
//! grow without end either: nothing new is taken in from the bus, and nothing published, while there is no [`room`](
//! Outbox::room).

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use zbus::Message;

/// From so many bytes on there is no room.
const ROOM: usize = 1 << 20;
/// At most so many messages in a write.
const MESSAGES: usize = 64;
/// So many messages are written at once. If all that can be said were said in one go, the bus would have nothing to do
/// until then, and we nothing after that.
const AT_ONCE: usize = 4;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(in super::super) struct Outbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: Arc<AsyncFd<UnixStream>>,
    queue: Mutex<Queue>,
    more: Notify,
    less: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// How much of the first one is written.
    written: usize,
    /// The bus takes nothing any more.
    broken: bool,
}

impl Outbox {
    pub(super) fn new(stream: Arc<AsyncFd<UnixStream>>) -> Self {
        Outbox(Arc::new(Inner { stream, queue: Mutex::default(), more: Notify::new(), less: Notify::new() }))
    }

    /// Takes a message.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn push(&self, message: Message) -> io::Result<()> {
        let mut queue = self.queue();
        if queue.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        queue.bytes += message.data().len();
        queue.messages.push_back(message);
        // What the bus does not take now, the writer waits for.
        if queue.messages.len() == AT_ONCE && queue.write(self.0.stream.get_ref()).is_ok() {
            self.0.less.notify_waiters();
        }
        drop(queue);
        self.0.more.notify_one();
        Ok(())
    }

    /// Waits until there is room. Room for one waiter is room for all of them: each looks again after it has waited.
    pub(in super::super) async fn room(&self) {
        self.at_most(ROOM).await;
    }

    /// Waits until everything is written.
    pub(in super::super) async fn written(&self) {
        self.at_most(0).await;
    }

    async fn at_most(&self, bytes: usize) {
        loop {
            let less = self.0.less.notified();
            let mut less = std::pin::pin!(less);
            less.as_mut().enable();
            {
                let queue = self.queue();
                if queue.bytes <= bytes || queue.broken {
                    return;
                }
            }
            less.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what there is, until the bus is gone.
    pub(super) async fn write(self) {
        loop {
            if self.queue().messages.is_empty() {
                self.0.more.notified().await;
                continue;
            }
            let wrote = self.0.stream.async_io(Interest::WRITABLE, |stream| self.queue().write(stream)).await;
            if let Err(error) = &wrote {
                tracing::debug!("the bus takes nothing any more: {error}");
                *self.queue() = Queue { broken: true, ..Queue::default() };
            }
            self.0.less.notify_waiters();
            if wrote.is_err() {
                return;
            }
        }
    }
}

impl Queue {
    /// Writes as much as the bus takes with one write: one message with descriptors, which belong to its first byte, or
    /// some without any.
    fn write(&mut self, stream: &UnixStream) -> io::Result<()> {
        let with_descriptors = |message: &Message| !message.data().fds().is_empty();
        let mut descriptors: Vec<RawFd> = Vec::new();
        let mut parts = Vec::new();
        for message in self.messages.iter().take(MESSAGES) {
            let bytes = message.data().bytes();
            if parts.is_empty() {
                if self.written == 0 {
                    descriptors.extend(message.data().fds().iter().map(|fd| fd.as_fd().as_raw_fd()));
                }
                parts.push(IoSlice::new(bytes.get(self.written..).unwrap_or_default()));
                if with_descriptors(message) {
                    break;
                }
            } else if with_descriptors(message) {
                break;
            } else {
                parts.push(IoSlice::new(bytes));
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        let control = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &control[..0] } else { &control[..] };
        let wrote = sendmsg::<()>(stream.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
        self.advance(wrote);
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.written += bytes;
        while let Some(first) = self.messages.front() {
            let length = first.data().len();
            if self.written < length {
                return;
            }
            self.written -= length;
            self.messages.pop_front();
        }
    }
}
