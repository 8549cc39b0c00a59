//! `org.freedesktop.LogControl1`: how much the daemon logs, for `systemctl service-log-level`. Everyone may read it; only
//! root may change it, and the target only to what it is: systemd decides where the lines of its services go.

use super::access::Access;
use super::error::Error;
use crate::telemetry::{IDENTIFIER, Log};
use zbus::interface;
use zbus::message::Header;

/// Its object, the same in every service.
pub(super) const PATH: &str = "/org/freedesktop/LogControl1";

pub(super) struct LogControl {
    pub(super) log: Log,
    pub(super) access: Access,
}

impl LogControl {
    async fn admit(&self, header: Option<Header<'_>>) -> Result<(), Error> {
        let header = header.ok_or_else(|| Error::access_denied("the call names no caller"))?;
        self.access.admit_root(&header).await.map(drop)
    }
}

#[interface(name = "org.freedesktop.LogControl1", introspection_docs = false)]
impl LogControl {
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> String {
        self.log.level().to_owned()
    }

    #[zbus(property)]
    async fn set_log_level(
        &self,
        level: String,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<(), Error> {
        self.admit(header).await?;
        self.log.set_level(&level).map_err(|unknown| Error::invalid_args(unknown.to_string()))?;
        tracing::info!("lines are logged from level {level} on");
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn log_target(&self) -> String {
        self.log.target().to_owned()
    }

    #[zbus(property)]
    async fn set_log_target(
        &self,
        target: String,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<(), Error> {
        self.admit(header).await?;
        let ours = self.log.target();
        if target == ours {
            return Ok(());
        }
        Err(Error::invalid_args(format!("target \"{target}\" cannot be had: this daemon logs to \"{ours}\"")))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> String {
        IDENTIFIER.to_owned()
    }
}
