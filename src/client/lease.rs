//! Leases.

use super::error::Error;
use super::{Client, usec};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;
use zbus::Variant;

/// Permission to send work to one engine. It lasts until this is dropped, with every copy of its descriptor: a child
/// that inherits one holds the lease too. It ends before that where its time is over, where its engine no longer
/// serves, and where somebody else releases it, which the signal [`LeaseRevoked`](super::proxy::LeaseRevoked) and
/// [`Event::LeaseRevoked`](super::Event::LeaseRevoked) tell: what is sent after that may meet another engine, or none.
#[derive(Debug)]
pub struct Lease {
    /// Its id.
    pub id: String,
    /// Where its engine answers, for instance `http://127.0.0.1:20000`.
    pub endpoint: String,
    /// What it lives by. Nothing is read from it; it is closed when a program is executed.
    pub descriptor: OwnedFd,
}

/// How a lease is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leasing {
    /// How long to wait for one where none can be had now; `None`: not at all, [`Duration::MAX`]: without limit.
    pub wait: Option<Duration>,
    /// How long it lasts unless it is renewed; `None`: as long as its descriptor.
    pub ttl: Option<Duration>,
    /// Who has it, in words, for those who look for what keeps a pool busy: at most 64 bytes, without "/" and control
    /// characters.
    pub holder: Option<String>,
}

impl Client {
    /// Takes a lease of a pool's least loaded engine, at once or not at all.
    ///
    /// # Errors
    /// The pool is not ready, drains or gives no more, or the daemon cannot be asked.
    pub async fn allocate_lease(&self, id: &str) -> Result<Lease, Error> {
        self.allocate_lease_with(id, &Leasing::default()).await
    }

    /// Takes a lease of a pool's least loaded engine, as it is asked for.
    ///
    /// # Errors
    /// The pool is not ready, drains or gives no more, the time to wait is over, or the daemon cannot be asked.
    pub async fn allocate_lease_with(&self, id: &str, how: &Leasing) -> Result<Lease, Error> {
        let mut options: HashMap<&str, Variant<'_>> = HashMap::new();
        if how.wait.is_some() {
            options.insert("wait_usec", usec(how.wait).into());
        }
        if how.ttl.is_some() {
            options.insert("ttl_usec", usec(how.ttl).into());
        }
        if let Some(holder) = &how.holder {
            options.insert("holder", holder.as_str().into());
        }
        let (id, endpoint, descriptor) = self.manager().await?.allocate_lease(id, options).await?;
        Ok(Lease { id, endpoint, descriptor: descriptor.into() })
    }

    /// Lets a lease last for this time from now, whatever it was before.
    ///
    /// # Errors
    /// There is no such lease, or no longer, or the daemon cannot be asked.
    pub async fn renew_lease(&self, id: &str, ttl: Duration) -> Result<(), Error> {
        Ok(self.manager().await?.renew_lease(id, usec(Some(ttl))).await?)
    }

    /// Ends a lease by its id. To drop it does the same.
    ///
    /// # Errors
    /// There is no such lease, or the daemon cannot be asked.
    pub async fn release_lease(&self, id: &str) -> Result<(), Error> {
        Ok(self.manager().await?.release_lease(id).await?)
    }
}
