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

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Outbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
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
    pub(super) async fn write_to(self, stream: Arc<AsyncFd<UnixStream>>) {
        loop {
            let (messages, written) = self.next_batch();
            if messages.is_empty() {
                self.0.more.notified().await;
                continue;
            }
            let wrote =
                stream.async_io(Interest::WRITABLE, |stream| Ok(write(stream, &messages, written)?)).await;
            match wrote {
                Ok(bytes) => self.queue().advance(bytes),
                Err(error) => {
                    tracing::debug!("the bus takes nothing any more: {error}");
                    let mut queue = self.queue();
                    *queue = Queue { broken: true, ..Queue::default() };
                }
            }
            self.0.less.notify_waiters();
            if self.queue().broken {
                return;
            }
        }
    }

    /// What goes with one write: one message with descriptors, which belong to its first byte, or some without any.
    fn next_batch(&self) -> (Vec<Message>, usize) {
        let queue = self.queue();
        let with_descriptors = |message: &Message| !message.data().fds().is_empty();
        let alone = queue.messages.front().is_some_and(with_descriptors);
        let batch = queue.messages.iter().take(if alone { 1 } else { MESSAGES });
        (batch.take_while(|message| alone || !with_descriptors(message)).cloned().collect(), queue.written)
    }
}

impl Queue {
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

fn write(stream: &UnixStream, messages: &[Message], written: usize) -> nix::Result<usize> {
    let bytes = |message: &'_ Message| -> usize { message.data().len() };
    let mut left = written;
    let mut parts = Vec::with_capacity(messages.len());
    for message in messages {
        let skipped = left.min(bytes(message));
        left -= skipped;
        parts.push(IoSlice::new(message.data().bytes().get(skipped..).unwrap_or_default()));
    }
    let descriptors: Vec<RawFd> = match messages.first() {
        Some(first) if written == 0 => first.data().fds().iter().map(|fd| fd.as_fd().as_raw_fd()).collect(),
        _ => Vec::new(),
    };
    let control = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &control[..0] } else { &control[..] };
    sendmsg::<()>(stream.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)
}
