//! What the bus says of connections, followed by a task that does nothing else: a stream that waits stops the whole
//! connection.

#![allow(clippy::disallowed_methods, reason = "one task that reads a stream, and one that tells the loop")]

use super::Access;
use crate::supervisor::Handle;
use futures_util::StreamExt;
use tokio::sync::mpsc;
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
    let names = MessageStream::for_match_rule(rule, &access.0.connection, None).await?;
    // Not bounded, since the loop may not take anything yet, or be behind: the stream must be read meanwhile.
    let (left, who_left) = mpsc::unbounded_channel();
    tokio::spawn(follow(names, access.clone(), left));
    tokio::spawn(tell(who_left, handle));
    Ok(())
}

async fn follow(mut names: MessageStream, access: Access, left: mpsc::UnboundedSender<String>) {
    while let Some(Ok(message)) = names.next().await {
        let Some((name, new)) = owner_changed(&message) else { continue };
        if name.starts_with(':') && new.is_empty() && access.callers().left(&name) && left.send(name).is_err()
        {
            return;
        }
    }
}

/// A name and its new owner, where the bus itself says so: anybody can send such a signal to us alone.
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
