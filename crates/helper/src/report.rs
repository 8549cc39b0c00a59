//! Owns the way of a report to the daemon: one datagram, and nobody waits for it. The daemon may be away.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use pool_core::name::InvocationId;
use pool_core::replica::Report;

/// systemd's variable for the run of the unit.
pub(crate) const INVOCATION: &str = "INVOCATION_ID";

/// The end at which reports are sent.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    socket: Option<UnixDatagram>,
    path: &'a Path,
    invocation: InvocationId,
}

impl<'a> Reporter<'a> {
    /// `None` outside a unit: there is no run to report of.
    pub(crate) fn new(path: &'a Path) -> Option<Self> {
        let invocation = std::env::var(INVOCATION).ok()?.parse().ok()?;
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Some(Reporter { socket: socket.ok(), path, invocation })
    }

    pub(crate) fn invocation(&self) -> InvocationId {
        self.invocation
    }

    /// Sends it if somebody listens and has room. The next round's report replaces one that got lost.
    pub(crate) fn send(&self, report: &Report) {
        if let Some(socket) = &self.socket {
            drop(socket.send_to(report.to_string().as_bytes(), self.path));
        }
    }
}
