//! Owns what systemd is told of the daemon itself. Without a notify socket, as when run by hand, nothing is told.

use sd_notify::NotifyState;
use std::time::Duration;

/// The daemon serves.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// How it stands, in words.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// It still makes progress.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// It goes away; engines stay.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping; engines go on")]);
}

/// How often [`alive`] must be said, half of what systemd waits for; `None` without a watchdog.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell systemd how the daemon stands: {error}");
    }
}
