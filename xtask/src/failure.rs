//! Why a command failed, and the exit code that says so.

use crate::{dist, host, image, machine, reference, sandbox};

/// The end of a command that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// About this machine.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// About a Debian tree.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// About a sandbox.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// About a virtual machine.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// About the package.
    #[error(transparent)]
    Dist(#[from] dist::Error),
    /// A file or a terminal.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// About the reference page.
    #[error(transparent)]
    Reference(#[from] reference::Error),
    /// A record that cannot be stepped through.
    #[error("no record that this version understands: {0}")]
    Record(String),
    /// Something promised did not hold.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    /// [`host::EXIT_CANNOT_RUN`] where this machine lacks something and nothing was changed, else 1.
    pub fn exit_code(&self) -> u8 {
        match self.host() {
            Some(host::Error::NeedsRoot(_) | host::Error::NoApt(_)) => host::EXIT_CANNOT_RUN,
            _ => 1,
        }
    }

    fn host(&self) -> Option<&host::Error> {
        match self {
            Self::Host(host)
            | Self::Image(image::Error::Host(host))
            | Self::Dist(dist::Error::Host(host) | dist::Error::Image(image::Error::Host(host)))
            | Self::Machine(machine::Error::Host(host) | machine::Error::Image(image::Error::Host(host)))
            | Self::Sandbox(sandbox::Error::Host(host) | sandbox::Error::Image(image::Error::Host(host))) => {
                Some(host)
            }
            Self::Image(_)
            | Self::Sandbox(_)
            | Self::Machine(_)
            | Self::Dist(_)
            | Self::Io(_)
            | Self::Reference(_)
            | Self::Record(_)
            | Self::Broken(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_lacks_something_has_an_exit_code_of_its_own() {
        let lacks = || host::Error::NoApt(vec![host::Tool::new("a", "b")]);
        assert_eq!(Failure::from(lacks()).exit_code(), 77);
        assert_eq!(Failure::from(sandbox::Error::Image(image::Error::Host(lacks()))).exit_code(), 77);
        assert_eq!(Failure::from(dist::Error::Host(lacks())).exit_code(), 77);
        assert_eq!(Failure::Broken("no".to_owned()).exit_code(), 1);
    }
}
