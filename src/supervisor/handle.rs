//! How the D-Bus side reaches the loop.

use crate::ports::Usage;
use pool_core::Request;
use pool_core::host::{Answer, Caller};
use pool_core::name::{ReplicaId, Usec};
use pool_core::view::UnitLine;
use std::os::fd::OwnedFd;
use tokio::sync::{mpsc, oneshot};

/// What a caller wants.
#[derive(Debug)]
pub(super) enum Wanted {
    Request(Request),
    Reload,
    ReloadPool(ReloadPool),
}

/// A pool is to be given another spec, drain-first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadPool {
    /// Which pool.
    pub pool: String,
    /// Its model from now on, as a pool file names it; "": the one that it has.
    pub model: String,
    /// How long its drain may take; 0: what its file says.
    pub deadline: Usec,
    /// Whether what does not end by then is stopped, and a reload that runs gives way.
    pub force: bool,
}

/// What a caller is told, and a descriptor where there is one.
#[derive(Debug)]
pub struct Told {
    /// The answer.
    pub answer: Answer,
    /// The writing end of a lease.
    pub descriptor: Option<OwnedFd>,
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Told {
        Told { answer, descriptor: None }
    }
}

/// What comes from the bus.
#[derive(Debug)]
pub enum Call {
    /// A caller's question and where its answer goes.
    Asked(Asked),
    /// A caller left the bus, by its unique name.
    Left(String),
    /// What a replica's engine may use and what it uses; nothing is known of one that does not run.
    Usage(ReplicaId, oneshot::Sender<Usage>),
    /// The lines of its unit.
    UnitLines(ReplicaId, oneshot::Sender<Vec<UnitLine>>),
}

/// A caller's question and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    pub(super) caller: Caller,
    pub(super) wanted: Wanted,
    pub(super) reply: oneshot::Sender<Told>,
}

/// Why the loop did not take a question, or has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many questions wait.
    #[error("too many calls wait for the daemon; try again")]
    Full,
    /// The loop is ending.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// The way to the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Call>);

/// A handle and the loop's end of it.
#[must_use]
pub fn calls() -> (Handle, mpsc::Receiver<Call>) {
    let (sender, receiver) = mpsc::channel(256);
    (Handle(sender), receiver)
}

impl Handle {
    /// Asks, and waits for the answer, which comes after the signals of what it says.
    ///
    /// # Errors
    /// The loop did not take the question.
    pub async fn ask(&self, caller: &Caller, request: Request) -> Result<Answer, Refused> {
        self.send(caller, Wanted::Request(request)).await.map(|told| told.answer)
    }

    /// Asks for something that a descriptor may come with.
    ///
    /// # Errors
    /// The loop did not take the question.
    pub async fn ask_with_descriptor(&self, caller: &Caller, request: Request) -> Result<Told, Refused> {
        self.send(caller, Wanted::Request(request)).await
    }

    /// Has a pool given another spec.
    ///
    /// # Errors
    /// The loop did not take the question.
    pub async fn reload_pool(&self, caller: &Caller, wanted: ReloadPool) -> Result<Answer, Refused> {
        self.send(caller, Wanted::ReloadPool(wanted)).await.map(|told| told.answer)
    }

    /// Has the configuration read again.
    ///
    /// # Errors
    /// The loop did not take the question.
    pub async fn reload(&self, caller: &Caller) -> Result<Answer, Refused> {
        self.send(caller, Wanted::Reload).await.map(|told| told.answer)
    }

    /// What a replica's engine may use and what it uses; systemd is asked for it.
    ///
    /// # Errors
    /// The loop did not take the question.
    pub async fn usage(&self, replica: ReplicaId) -> Result<Usage, Refused> {
        self.look(|reply| Call::Usage(replica, reply)).await
    }

    /// The lines of a replica's unit.
    ///
    /// # Errors
    /// The loop did not take the question.
    pub async fn unit_lines(&self, replica: ReplicaId) -> Result<Vec<UnitLine>, Refused> {
        self.look(|reply| Call::UnitLines(replica, reply)).await
    }

    /// Tells that a caller left the bus: nothing waits for its answers any more. Waits where the loop is behind, since
    /// this must not be lost.
    pub async fn caller_left(&self, name: String) {
        if self.0.send(Call::Left(name)).await.is_err() {
            tracing::debug!("the loop has ended; nothing waits for a caller that left");
        }
    }

    async fn send(&self, caller: &Caller, wanted: Wanted) -> Result<Told, Refused> {
        self.look(|reply| Call::Asked(Asked { caller: caller.clone(), wanted, reply })).await
    }

    async fn look<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(call(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::ShuttingDown,
        })?;
        answer.await.map_err(|_| Refused::ShuttingDown)
    }
}

/// Answers; a caller that went away is not missed.
pub fn answer(reply: oneshot::Sender<Told>, told: impl Into<Told>) {
    // The lease of a caller that is gone ends with its descriptor.
    if reply.send(told.into()).is_err() {
        tracing::debug!("a caller did not wait for its answer");
    }
}
