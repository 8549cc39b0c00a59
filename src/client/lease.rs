//! Leases.

use std::os::fd::OwnedFd;

/// Permission to send work to one engine. It lasts until this is dropped, with every copy of its descriptor: a child
/// that inherits one holds the lease too. It ends before that where its engine no longer serves, which the signal
/// [`LeaseRevoked`](super::proxy::LeaseRevoked) tells.
#[derive(Debug)]
pub struct Lease {
    /// Its id.
    pub id: String,
    /// Where its engine answers, for instance `http://127.0.0.1:20000`.
    pub endpoint: String,
    /// What it lives by. Nothing is read from it; it is closed when a program is executed.
    pub descriptor: OwnedFd,
}
