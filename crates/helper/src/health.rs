//! Owns what an answer of an engine's health endpoint means.

use std::fmt;
use std::io;

use crate::cgroup::Cgroup;
use crate::endpoint::{Endpoint, Url};
use crate::listener;
use crate::stream::Peer;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// Nothing listens on the address.
    NotListening,
    /// Something listens and says nothing in time.
    Silent,
    /// The connection ended, or carried something that is no HTTP status line.
    NotHttp,
    /// The address cannot be reached.
    Unreachable(io::ErrorKind),
    /// A 200, but the one who listens is no process of this unit.
    Outsider,
}

impl Answer {
    /// The answer in words, for a status text.
    pub(crate) fn describe<'a>(&self, url: &'a Url) -> impl fmt::Display + use<'a> {
        let path = &url.path;
        match self {
            Answer::Status(code) => format!("{code} from {path}"),
            Answer::NotListening => "not listening yet".to_owned(),
            Answer::Silent => format!("no answer from {path}"),
            Answer::NotHttp => format!("no HTTP from {path}"),
            Answer::Unreachable(kind) => format!("cannot connect: {kind}"),
            Answer::Outsider => format!("{} is answered by a process outside this unit", url.endpoint),
        }
    }

    /// The answer as it counts: a 200 from a process that is none of this unit's is no good one. `peer`: who listens,
    /// where the connection told.
    pub(crate) fn of_unit(self, url: &Url, peer: Option<Peer>, cgroup: Option<&Cgroup>) -> Answer {
        let outsider = |cgroup| match &url.endpoint {
            Endpoint::Tcp { port, .. } => listener::is_outsider(*port, cgroup),
            Endpoint::Unix(_) => peer.is_some_and(|peer| listener::is_stranger(peer, cgroup)),
        };
        if self == Answer::Status(200) && cgroup.is_some_and(outsider) { Answer::Outsider } else { self }
    }
}
