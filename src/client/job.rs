//! Jobs: what somebody asked for that takes its time.

use super::error::Error;
use super::proxy::JobProxy;
use super::status::Properties;
use serde::Serialize;

/// A start, a stop, a drain or a reload that the daemon accepted. It goes on where this is dropped.
#[derive(Debug, Clone)]
pub struct Job {
    proxy: JobProxy<'static>,
}

/// Numbers of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JobDetails {
    /// Something that still worked was stopped at its deadline.
    pub force_stopped: bool,
    /// What ran before runs again.
    pub rolled_back: bool,
    /// Leases that were held when its drain ended.
    pub leases_left: u32,
    /// How long it took, in microseconds; 0 until it ended.
    pub duration_usec: u64,
}

impl Job {
    pub(super) fn new(proxy: JobProxy<'static>) -> Job {
        Job { proxy }
    }

    /// Its object.
    #[must_use]
    pub fn path(&self) -> &str {
        self.proxy.inner().path().as_str()
    }

    /// Waits until it ends, at once if it has.
    ///
    /// # Errors
    /// It failed, was cancelled or superseded, its time was over, or it ended more than 60 s ago, or the daemon cannot be
    /// asked.
    pub async fn wait(&self) -> Result<(), Error> {
        let result = self.proxy.wait().await.map_err(|error| self.gone(error))?;
        match result.as_str() {
            "done" => Ok(()),
            "failed" => Err(Error::JobFailed(self.proxy.error().await?)),
            "canceled" => Err(Error::JobCanceled(self.proxy.error().await?)),
            "timeout" => Err(Error::Timeout(self.proxy.error().await?)),
            "superseded" => Err(Error::JobSuperseded),
            _ => Err(Error::JobEnded(result)),
        }
    }

    /// Calls it off, where it is a drain or a reload that can be undone.
    ///
    /// # Errors
    /// It cannot be called off, it ended more than 60 s ago, or the daemon cannot be asked.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.proxy.cancel().await.map_err(|error| self.gone(error))
    }

    /// Its numbers so far.
    ///
    /// # Errors
    /// It ended more than 60 s ago, or the daemon cannot be asked.
    pub async fn details(&self) -> Result<JobDetails, Error> {
        let mut named = Properties(self.proxy.details().await.map_err(|error| self.gone(error))?);
        Ok(JobDetails {
            force_stopped: named.take("force_stopped"),
            rolled_back: named.take("rolled_back"),
            leases_left: named.take("leases_left"),
            duration_usec: named.take("duration_usec"),
        })
    }

    /// How much of it is done, from 0 to 1.
    ///
    /// # Errors
    /// It ended more than 60 s ago, or the daemon cannot be asked.
    pub async fn progress(&self) -> Result<f64, Error> {
        self.proxy.progress().await.map_err(|error| self.gone(error))
    }

    fn gone(&self, error: zbus::Error) -> Error {
        match error {
            zbus::Error::FDO(error) if matches!(*error, zbus::fdo::Error::UnknownObject(_)) => {
                Error::NoSuchJob(format!("no job {}; jobs are kept for 60 s after their end", self.path()))
            }
            other => other.into(),
        }
    }
}
