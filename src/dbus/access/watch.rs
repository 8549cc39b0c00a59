//! What the bus says of connections and polkit of itself, followed by a task that does nothing else: a stream that waits
//! stops the whole connection. Each is believed from its sender alone, since anybody can send us such a signal: the bus by
//! its name, which nobody else can have, polkit by the unique name that owns its own.

#![allow(clippy::disallowed_methods, reason = "one task that reads a stream, and one that tells the loop")]

use super::Access;
use super::authority::{INTERFACE, PATH, POLKIT};
use crate::supervisor::Handle;
use futures_util::StreamExt;
use futures_util::stream::{Select, select};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zbus::message::{Message, Type};
use zbus::{MatchRule, MessageStream};

const BUS: &str = "org.freedesktop.DBus";

/// Follows from now on.
pub(super) async fn start(access: &Access, handle: Handle) -> zbus::Result<()> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(BUS)
        .path("/org/freedesktop/DBus")
        .interface(BUS)
        .member("NameOwnerChanged")
        .build()?;
    let connection = &access.0.connection;
    let names = MessageStream::for_match_rule(rule, connection, None).await?;
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(POLKIT)
        .path(PATH)
        .interface(INTERFACE)
        .member("Changed")
        .build()?;
    let changes = MessageStream::for_match_rule(rule, connection, None).await?;
    // Not bounded, since the loop may not take anything yet, or be behind: the stream must be read meanwhile.
    let (left, who_left) = mpsc::unbounded_channel();
    tokio::spawn(follow(select(names, changes), access.clone(), left));
    tokio::spawn(tell(who_left, handle));
    Ok(())
}

async fn follow(
    mut signals: Select<MessageStream, MessageStream>,
    access: Access,
    left: mpsc::UnboundedSender<String>,
) {
    let authority = &access.0.authority;
    let mut changes = Changes::default();
    loop {
        let message = tokio::select! {
            message = signals.next() => message,
            () = changes.due() => {
                changes.told(Instant::now());
                authority.changed();
                continue;
            }
        };
        let Some(Ok(message)) = message else { return };
        if let Some((name, new)) = owner_changed(&message) {
            if name == POLKIT {
                authority.owned_by(&new);
                if new.is_empty() {
                    tokio::spawn(look_for_polkit(access.clone()));
                }
            }
            let is_over = name.starts_with(':') && new.is_empty() && access.callers().left(&name);
            if is_over && left.send(name).is_err() {
                return;
            }
        } else if message.header().sender().is_some_and(|sender| authority.is_owner(sender)) {
            changes.come(Instant::now());
        }
    }
}

async fn look_for_polkit(access: Access) {
    if let Err(error) = access.0.authority.look_for_a_start().await {
        tracing::warn!("cannot see whether polkit can be started: {error}");
    }
}

/// What polkit says of changes: believed at once, and no more often than each [`PACE`]. Any user can make it say so again
/// and again, by agents that come and go, and each time all answers are asked for anew.
#[derive(Default)]
struct Changes {
    last: Option<Instant>,
    due: Option<Instant>,
}

const PACE: Duration = Duration::from_millis(100);

impl Changes {
    fn come(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| last + PACE);
        self.due.get_or_insert(earliest.max(now));
    }

    fn told(&mut self, now: Instant) {
        *self = Changes { last: Some(now), due: None };
    }

    /// Resolves when answers are to be forgotten.
    async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

/// A name and its new owner, where the bus itself says so.
fn owner_changed(message: &Message) -> Option<(String, String)> {
    if message.header().sender()?.as_str() != BUS {
        return None;
    }
    let body = message.body();
    let (name, _, new): (&str, &str, &str) = body.deserialize().ok()?;
    Some((name.to_owned(), new.to_owned()))
}

async fn tell(mut who_left: mpsc::UnboundedReceiver<String>, handle: Handle) {
    while let Some(name) = who_left.recv().await {
        handle.caller_left(name).await;
    }
}
