//! How the D-Bus side reaches the loop.

use pool_core::Request;
use pool_core::host::Answer;
use tokio::sync::{mpsc, oneshot};

/// What a caller wants.
#[derive(Debug)]
pub(super) enum Wanted {
    Request(Request),
    Reload,
}

/// A caller's question and where its answer goes.
#[derive(Debug)]
pub struct Call {
    pub(super) wanted: Wanted,
    pub(super) reply: oneshot::Sender<Answer>,
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
    pub async fn ask(&self, request: Request) -> Result<Answer, Refused> {
        self.send(Wanted::Request(request)).await
    }

    /// Has the configuration read again.
    ///
    /// # Errors
    /// The loop did not take the question.
    pub async fn reload(&self) -> Result<Answer, Refused> {
        self.send(Wanted::Reload).await
    }

    async fn send(&self, wanted: Wanted) -> Result<Answer, Refused> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Call { wanted, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::ShuttingDown,
        })?;
        answer.await.map_err(|_| Refused::ShuttingDown)
    }
}

/// Answers; a caller that went away is not missed.
pub fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    if reply.send(answer).is_err() {
        tracing::debug!("a caller did not wait for its answer");
    }
}
