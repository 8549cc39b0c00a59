//! Errors by name: the one place where a refusal becomes a D-Bus error.

use crate::supervisor::Refused;
use pool_core::Denied;
use pool_core::registry::ExternalRefused;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

/// An error as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    name: &'static str,
    text: String,
}

macro_rules! name {
    ($name:literal) => {
        concat!("org.llamaorch.PoolManager.Error.", $name)
    };
}

impl Error {
    pub(super) fn invalid_args(text: String) -> Self {
        Error { name: "org.freedesktop.DBus.Error.InvalidArgs", text }
    }

    pub(super) fn access_denied(text: impl Into<String>) -> Self {
        Error { name: "org.freedesktop.DBus.Error.AccessDenied", text: text.into() }
    }

    pub(super) fn interactive_authorization_required(text: String) -> Self {
        Error { name: "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", text }
    }

    pub(super) fn limits_exceeded(text: String) -> Self {
        Error { name: "org.freedesktop.DBus.Error.LimitsExceeded", text }
    }

    /// An answer that does not belong to its question.
    pub(super) fn internal(text: &str) -> Self {
        Error { name: name!("Internal"), text: format!("{text}; this is a bug in pool-managerd") }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        let name = match &denied {
            Denied::NoSuchPool(_) => name!("NoSuchPool"),
            Denied::NoSuchDevice(_) => name!("NoSuchDevice"),
            Denied::NoSuchJob(_) => name!("NoSuchJob"),
            Denied::Leaving(_) => name!("TransitionInProgress"),
            Denied::NotReady { .. } => name!("NotReady"),
            Denied::Timeout { .. } => name!("Timeout"),
            Denied::Draining(_) => name!("Draining"),
            Denied::AtCapacity { .. } => name!("AtCapacity"),
            Denied::NoSuchLease(_) => name!("NoSuchLease"),
            Denied::InvalidSpec(_) => name!("InvalidSpec"),
            Denied::TransitionInProgress { .. } | Denied::NotCancelable(..) => name!("TransitionInProgress"),
            Denied::LeaseNotOpened(_) => name!("Internal"),
            Denied::NoLeaseInTime { .. } => name!("Timeout"),
            Denied::External(_) => name!("External"),
            Denied::NotTheHolder { .. } | Denied::Refused(ExternalRefused::NotOwner { .. }) => {
                "org.freedesktop.DBus.Error.AccessDenied"
            }
            Denied::Refused(ExternalRefused::UnknownPool(_)) => name!("NoSuchPool"),
            Denied::Refused(ExternalRefused::AlreadyExists(_)) => name!("AlreadyExists"),
            Denied::Refused(ExternalRefused::NotExternal(_)) => name!("NotExternal"),
            Denied::InvalidArgument(_) => "org.freedesktop.DBus.Error.InvalidArgs",
            Denied::TooManyLeases(_)
            | Denied::TooManyWaiters
            | Denied::TooManyExternals(_)
            | Denied::TooManyOfAUser { .. } => "org.freedesktop.DBus.Error.LimitsExceeded",
        };
        Error { name, text: denied.to_string() }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let name = match refused {
            Refused::Full => "org.freedesktop.DBus.Error.LimitsExceeded",
            Refused::ShuttingDown => name!("ShuttingDown"),
        };
        Error { name, text: refused.to_string() }
    }
}

impl zbus::DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name).build(&(self.text.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}
