//! What can go wrong for a client, by the names of the bus, and how a command ends because of it: each in one place.

use std::process::ExitCode;
use zbus::DBusError;

/// Why the daemon did not do what was asked.
///
/// The texts are the daemon's own sentences where it gave one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No pool has this id.
    #[error("{0}")]
    NoSuchPool(String),
    /// There is no such job: it ended more than 60 s ago, or the daemon was restarted.
    #[error("{0}")]
    NoSuchJob(String),
    /// There is no such lease, or no longer.
    #[error("{0}")]
    NoSuchLease(String),
    /// No device has this UUID.
    #[error("{0}")]
    NoSuchDevice(String),
    /// Something with this name is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// A file is not valid.
    #[error("{0}")]
    InvalidSpec(String),
    /// An argument is out of its range, or an option is unknown.
    #[error("{0}")]
    InvalidArgs(String),
    /// The host has not enough of something.
    #[error("{0}")]
    InsufficientResources(String),
    /// A device that is needed cannot be used.
    #[error("{0}")]
    GpuUnavailable(String),
    /// The pool is the daemon's own: nobody else reports of it.
    #[error("{0}")]
    NotExternal(String),
    /// The pool is somebody else's: the daemon runs nothing of it.
    #[error("{0}")]
    External(String),
    /// The pool cannot become ready as it is.
    #[error("{0}")]
    NotReady(String),
    /// The pool is being emptied and gives no leases.
    #[error("{0}")]
    Draining(String),
    /// The pool gives no more leases.
    #[error("{0}")]
    AtCapacity(String),
    /// The pool is changing in a way that has to end first.
    #[error("{0}")]
    TransitionInProgress(String),
    /// The time that the caller gave is over, or that of a job.
    #[error("{0}")]
    Timeout(String),
    /// A job failed.
    #[error("{0}")]
    JobFailed(String),
    /// Somebody called a job off.
    #[error("{0}")]
    JobCanceled(String),
    /// A newer request, or the pool's removal, took a job's place.
    #[error("superseded by a newer request, or by the pool's removal")]
    JobSuperseded,
    /// A job ended in a way that this version does not know.
    #[error("the job ended with the result \"{0}\"")]
    JobEnded(String),
    /// Too many calls wait, of this caller or in all.
    #[error("{0}")]
    LimitsExceeded(String),
    /// The caller may not do this; the text is the daemon's or the bus's.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// The caller may do this once somebody has authorized it, and there was nobody to ask.
    #[error("access denied, nobody could be asked to authorize it: {0}")]
    AuthorizationRequired(String),
    /// The daemon is not there, could not be activated, or left without an answer.
    #[error("pool-managerd does not run, or does not answer ({0}); see: systemctl status pool-managerd")]
    DaemonAway(String),
    /// The daemon is stopping.
    #[error("{0}; see: systemctl status pool-managerd")]
    ShuttingDown(String),
    /// systemd does not answer the daemon.
    #[error("{0}")]
    SystemdUnavailable(String),
    /// systemd refused or failed to do something with a unit.
    #[error("{0}")]
    UnitFailed(String),
    /// The system bus cannot be reached, or closed the connection.
    #[error("cannot use the system bus")]
    Bus(#[source] zbus::Error),
    /// An error of a name that this version does not know.
    #[error("{name}: {text}")]
    Other {
        /// Its name on the bus.
        name: String,
        /// What was said.
        text: String,
    },
    /// An error of the daemon.
    #[error("pool-managerd failed: {0}")]
    Internal(String),
    /// An answer that does not read as the interface says.
    #[error("the answer is not what the interface promises")]
    Reply(#[source] zbus::Error),
}

/// How a command ends. The numbers are part of `poolctl`'s interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// As asked.
    Success = 0,
    /// Wrong usage, or a file that is not valid.
    Usage = 2,
    /// No such pool, job or lease.
    NoSuch = 4,
    /// It exists already.
    Exists = 5,
    /// Not enough of something.
    Resources = 6,
    /// The pool's state does not allow it: it failed, is not ready, or the time is over.
    State = 7,
    /// Too much at once.
    Limits = 8,
    /// The bus, the daemon or systemd cannot be reached or failed.
    System = 9,
    /// A mistake in this software.
    Bug = 70,
    /// Not allowed.
    Access = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Error {
    /// How a command that met this error ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Error::InvalidSpec(_) | Error::InvalidArgs(_) => Exit::Usage,
            Error::NoSuchPool(_) | Error::NoSuchJob(_) | Error::NoSuchLease(_) | Error::NoSuchDevice(_) => {
                Exit::NoSuch
            }
            Error::AlreadyExists(_) => Exit::Exists,
            Error::InsufficientResources(_) | Error::GpuUnavailable(_) => Exit::Resources,
            Error::NotReady(_)
            | Error::NotExternal(_)
            | Error::External(_)
            | Error::Draining(_)
            | Error::TransitionInProgress(_)
            | Error::Timeout(_)
            | Error::JobFailed(_)
            | Error::JobCanceled(_)
            | Error::JobSuperseded
            | Error::JobEnded(_) => Exit::State,
            Error::LimitsExceeded(_) | Error::AtCapacity(_) => Exit::Limits,
            Error::DaemonAway(_)
            | Error::ShuttingDown(_)
            | Error::SystemdUnavailable(_)
            | Error::UnitFailed(_)
            | Error::Bus(_)
            | Error::Other { .. } => Exit::System,
            Error::Internal(_) | Error::Reply(_) => Exit::Bug,
            Error::AccessDenied(_) | Error::AuthorizationRequired(_) => Exit::Access,
        }
    }

    /// The error in one word, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Error::NoSuchPool(_) => "no-such-pool",
            Error::NoSuchJob(_) => "no-such-job",
            Error::NoSuchLease(_) => "no-such-lease",
            Error::NoSuchDevice(_) => "no-such-device",
            Error::AlreadyExists(_) => "already-exists",
            Error::InvalidSpec(_) => "invalid-spec",
            Error::InvalidArgs(_) => "invalid-args",
            Error::InsufficientResources(_) => "insufficient-resources",
            Error::GpuUnavailable(_) => "gpu-unavailable",
            Error::NotExternal(_) => "not-external",
            Error::External(_) => "external",
            Error::NotReady(_) => "not-ready",
            Error::Draining(_) => "draining",
            Error::AtCapacity(_) => "at-capacity",
            Error::TransitionInProgress(_) => "transition-in-progress",
            Error::Timeout(_) => "timeout",
            Error::JobFailed(_) => "job-failed",
            Error::JobCanceled(_) => "job-canceled",
            Error::JobSuperseded => "job-superseded",
            Error::JobEnded(_) => "job-ended",
            Error::LimitsExceeded(_) => "limits-exceeded",
            Error::AccessDenied(_) => "access-denied",
            Error::AuthorizationRequired(_) => "authorization-required",
            Error::DaemonAway(_) => "daemon-away",
            Error::ShuttingDown(_) => "shutting-down",
            Error::SystemdUnavailable(_) => "systemd-unavailable",
            Error::UnitFailed(_) => "unit-failed",
            Error::Bus(_) => "bus",
            Error::Other { .. } => "other",
            Error::Internal(_) => "internal",
            Error::Reply(_) => "reply",
        }
    }

    /// An error reply.
    fn named(name: &str, text: String) -> Self {
        if let Some(ours) = name.strip_prefix("org.llamaorch.PoolManager.Error.") {
            match ours {
                "NoSuchPool" => return Error::NoSuchPool(text),
                "NoSuchJob" => return Error::NoSuchJob(text),
                "AlreadyExists" => return Error::AlreadyExists(text),
                "InvalidSpec" => return Error::InvalidSpec(text),
                "InsufficientResources" => return Error::InsufficientResources(text),
                "NoSuchLease" => return Error::NoSuchLease(text),
                "NoSuchDevice" => return Error::NoSuchDevice(text),
                "GpuUnavailable" => return Error::GpuUnavailable(text),
                "NotExternal" => return Error::NotExternal(text),
                "External" => return Error::External(text),
                "Draining" => return Error::Draining(text),
                "AtCapacity" => return Error::AtCapacity(text),
                "NotReady" => return Error::NotReady(text),
                "TransitionInProgress" => return Error::TransitionInProgress(text),
                "Timeout" => return Error::Timeout(text),
                "ShuttingDown" => return Error::ShuttingDown(text),
                "SystemdUnavailable" => return Error::SystemdUnavailable(text),
                "UnitFailed" => return Error::UnitFailed(text),
                "Internal" => return Error::Internal(text),
                _ => {}
            }
        }
        match name.strip_prefix("org.freedesktop.DBus.Error.") {
            Some("InvalidArgs") => return Error::InvalidArgs(text),
            Some("LimitsExceeded") => return Error::LimitsExceeded(text),
            Some("AccessDenied") => return Error::AccessDenied(text),
            Some("InteractiveAuthorizationRequired") => return Error::AuthorizationRequired(text),
            // The bus's own: the daemon could not be activated, or was lost before it answered.
            Some(
                "ServiceUnknown" | "NameHasNoOwner" | "NoReply" | "TimedOut" | "Timeout" | "Disconnected",
            ) => {
                return Error::DaemonAway(text);
            }
            Some(spawn) if spawn.starts_with("Spawn.") => return Error::DaemonAway(text),
            _ => {}
        }
        // systemd's, where the bus asked it to start the daemon: the unit is masked, missing or refused.
        if name.starts_with("org.freedesktop.systemd1.") {
            return Error::DaemonAway(text);
        }
        Error::Other { name: name.to_owned(), text }
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => Error::named(name.as_str(), text.unwrap_or_default()),
            zbus::Error::FDO(error) => {
                Error::named(error.name().as_str(), error.description().unwrap_or_default().to_owned())
            }
            zbus::Error::InputOutput(_) | zbus::Error::Connection(..) => Error::Bus(error),
            other => Error::Reply(other),
        }
    }
}

impl From<zbus::fdo::Error> for Error {
    fn from(error: zbus::fdo::Error) -> Self {
        Error::from(zbus::Error::from(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::message::Message;

    fn reply(name: &str) -> Error {
        let call = Message::method_call("/", "Call").destination(":1.2").build(&()).unwrap();
        Error::from(zbus::Error::from(Message::error(&call.header(), name).build(&"why").unwrap()))
    }

    #[test]
    fn each_name_of_the_daemon_has_its_error_and_its_exit_code() {
        let why = || "why".to_owned();
        let table = [
            ("NoSuchPool", Error::NoSuchPool(why()), 4),
            ("NoSuchJob", Error::NoSuchJob(why()), 4),
            ("AlreadyExists", Error::AlreadyExists(why()), 5),
            ("InvalidSpec", Error::InvalidSpec(why()), 2),
            ("InsufficientResources", Error::InsufficientResources(why()), 6),
            ("NoSuchLease", Error::NoSuchLease(why()), 4),
            ("NoSuchDevice", Error::NoSuchDevice(why()), 4),
            ("GpuUnavailable", Error::GpuUnavailable(why()), 6),
            ("NotExternal", Error::NotExternal(why()), 7),
            ("External", Error::External(why()), 7),
            ("Draining", Error::Draining(why()), 7),
            ("AtCapacity", Error::AtCapacity(why()), 8),
            ("NotReady", Error::NotReady(why()), 7),
            ("TransitionInProgress", Error::TransitionInProgress(why()), 7),
            ("Timeout", Error::Timeout(why()), 7),
            ("ShuttingDown", Error::ShuttingDown(why()), 9),
            ("SystemdUnavailable", Error::SystemdUnavailable(why()), 9),
            ("UnitFailed", Error::UnitFailed(why()), 9),
            ("Internal", Error::Internal(why()), 70),
        ];
        for (name, error, code) in table {
            assert_eq!(reply(&format!("org.llamaorch.PoolManager.Error.{name}")), error);
            assert_eq!(error.exit() as u8, code, "{name}");
            assert_eq!(error.code().replace('-', ""), name.to_ascii_lowercase());
        }
    }

    #[test]
    fn every_error_of_the_contract_is_known() {
        let xml = include_str!("../../dbus/org.llamaorch.PoolManager.xml");
        let (_, list) = xml.split_once("Errors, below the prefix").expect("a list");
        let (list, _) = list.split_once("\n\n    And of the bus").expect("its end");
        let names: Vec<&str> =
            list.lines().filter_map(|line| line.trim().strip_prefix("- ")?.split(':').next()).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            let error = reply(&format!("org.llamaorch.PoolManager.Error.{name}"));
            assert!(!matches!(error, Error::Other { .. }), "{name}");
        }
    }

    #[test]
    fn each_name_of_the_bus_has_its_error_and_its_exit_code() {
        let why = || "why".to_owned();
        let table = [
            ("DBus.Error.InvalidArgs", Error::InvalidArgs(why()), 2),
            ("DBus.Error.LimitsExceeded", Error::LimitsExceeded(why()), 8),
            ("DBus.Error.AccessDenied", Error::AccessDenied(why()), 77),
            ("DBus.Error.InteractiveAuthorizationRequired", Error::AuthorizationRequired(why()), 77),
            ("DBus.Error.ServiceUnknown", Error::DaemonAway(why()), 9),
            ("DBus.Error.NameHasNoOwner", Error::DaemonAway(why()), 9),
            ("DBus.Error.NoReply", Error::DaemonAway(why()), 9),
            ("DBus.Error.TimedOut", Error::DaemonAway(why()), 9),
            ("DBus.Error.Spawn.ChildExited", Error::DaemonAway(why()), 9),
            ("systemd1.UnitMasked", Error::DaemonAway(why()), 9),
        ];
        for (name, error, code) in table {
            assert_eq!(reply(&format!("org.freedesktop.{name}")), error);
            assert_eq!(error.exit() as u8, code, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_kept() {
        for name in ["org.llamaorch.PoolManager.Error.Later", "org.freedesktop.DBus.Error.UnknownMethod"] {
            let error = reply(name);
            assert_eq!(error, Error::Other { name: name.to_owned(), text: "why".to_owned() });
            assert_eq!(error.exit(), Exit::System);
        }
    }

    #[test]
    fn a_job_that_ended_otherwise_is_a_matter_of_state() {
        for error in [
            Error::JobFailed(String::new()),
            Error::JobCanceled(String::new()),
            Error::JobSuperseded,
            Error::JobEnded("later".to_owned()),
        ] {
            assert_eq!(error.exit() as u8, 7);
        }
    }

    #[test]
    fn a_lost_bus_and_an_odd_answer_differ() {
        let lost = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Error::from(zbus::Error::from(lost)).exit() as u8, 9);
        assert_eq!(Error::from(zbus::Error::IncorrectType).exit() as u8, 70);
    }
}
