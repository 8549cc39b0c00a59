//! Owns one connection to an engine, over TCP or a unix socket, with a limit on how long it takes to make.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

use crate::endpoint::Endpoint;

/// The longest wait without a look at something else.
pub(crate) const SLICE: Duration = Duration::from_secs(1);
/// The pause before another try where a socket's queue is full: the kernel says no more about it than that.
const QUEUED: Duration = Duration::from_millis(5);

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Who listens at the other end of a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

impl Stream {
    /// Connects by `until`, or fails with `TimedOut`. `tick` is called once a second at least.
    pub(crate) fn connect(endpoint: &Endpoint, until: Instant, tick: &mut dyn FnMut()) -> io::Result<Stream> {
        match endpoint {
            Endpoint::Tcp { .. } => tcp(endpoint, until, tick).map(Stream::Tcp),
            Endpoint::Unix(path) => unix(path, until, tick).map(Stream::Unix),
        }
    }

    pub(crate) fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)),
        }
    }

    pub(crate) fn set_write_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_write_timeout(Some(limit)),
        }
    }

    /// Who listens; known of unix sockets alone.
    pub(crate) fn peer(&self) -> Option<Peer> {
        let Stream::Unix(stream) = self else { return None };
        let known = getsockopt(stream, sockopt::PeerCredentials).ok()?;
        Some(Peer { pid: u32::try_from(known.pid()).ok()?, uid: known.uid() })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buffer),
            Stream::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
}

/// Whether it failed for want of time alone.
pub(crate) fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn tcp(endpoint: &Endpoint, until: Instant, tick: &mut dyn FnMut()) -> io::Result<TcpStream> {
    let addresses = endpoint.resolve()?;
    loop {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &addresses {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(address, left.min(SLICE)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        if !is_late(&last) {
            return Err(last);
        }
        tick();
    }
}

/// Not by std's `connect`: it waits without limit where an engine accepts nothing and its queue is full.
fn unix(path: &Path, until: Instant, tick: &mut dyn FnMut()) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let mut ticked = Instant::now();
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let stream = UnixStream::from(socket(AddressFamily::Unix, SockType::Stream, flags, None)?);
        match connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &address) {
            Ok(()) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(left.min(QUEUED));
        if ticked.elapsed() >= SLICE {
            tick();
            ticked = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn endpoint(name: &str) -> (std::path::PathBuf, Endpoint) {
        let path = std::env::temp_dir().join(format!("stream-{name}-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        let endpoint = Endpoint::parse(&format!("unix:{}", path.display())).expect("an endpoint");
        (path, endpoint)
    }

    #[test]
    fn the_listener_behind_a_socket_is_known() {
        let (path, endpoint) = endpoint("peer");
        let listener = UnixListener::bind(&path).expect("a socket");
        let until = Instant::now() + SLICE;
        let stream = Stream::connect(&endpoint, until, &mut || {}).expect("a connection");
        let expected = Peer { pid: std::process::id(), uid: nix::unistd::getuid().as_raw() };
        assert_eq!(stream.peer(), Some(expected));
        drop(listener);
        let refused = Stream::connect(&endpoint, until, &mut || {}).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).expect("removed");
        let refused = Stream::connect(&endpoint, until, &mut || {}).expect_err("nothing there");
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_full_queue_is_waited_for_as_long_as_is_allowed_and_no_longer() {
        let (path, endpoint) = endpoint("queue");
        let listener = UnixListener::bind(&path).expect("a socket");
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).expect("a backlog"))
            .expect("a queue");
        let connect = || Stream::connect(&endpoint, Instant::now() + Duration::from_millis(50), &mut || {});
        let mut waiting = Vec::new();
        let late = loop {
            match connect() {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "the queue has no end");
        };
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        listener.accept().expect("one of them");
        connect().expect("there is room again");
        std::fs::remove_file(&path).expect("removed");
    }
}
