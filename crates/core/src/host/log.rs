//! Lines for the journal, as data: one kind for each transition, each with a message id and a catalog entry.

use super::Caller;
use crate::name::{UnitKind, Usec};
use crate::pool::Pool;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks into something; not written unless asked for.
    Debug,
    /// Worth knowing.
    Info,
    /// Somebody should look.
    Warning,
    /// Something failed.
    Error,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogKind {
    /// The daemon is up.
    DaemonStarted,
    /// Files were read.
    ConfigurationLoaded,
    /// A file is wrong.
    ConfigurationError,
    /// Checks before a start.
    PoolStaging,
    /// An engine was started.
    EngineStarting,
    /// An engine serves.
    EngineReady,
    /// An engine failed.
    EngineFailed,
    /// A start was refused.
    EngineRefused,
    /// A restart is due.
    EngineRestarting,
    /// An engine was asked to stop.
    EngineStopping,
    /// An engine has stopped.
    EngineStopped,
    /// An engine of an earlier run was taken up.
    EngineAdopted,
    /// A pool's breaker is open.
    BreakerOpened,
    /// It is closed again.
    BreakerClosed,
    /// Too many restarts.
    RestartStorm,
    /// A pool is being emptied.
    PoolDraining,
    /// What a drain left at its deadline is stopped by force.
    DrainForced,
    /// A pool is being given another spec.
    PoolReloading,
    /// It has it, or its old one back.
    PoolReloaded,
    /// It could not be given it.
    ReloadFailed,
    /// Its failures are forgotten.
    PoolReset,
    /// Somebody asked for something.
    Asked,
    /// A lease was given.
    LeaseGiven,
    /// A lease ended.
    LeaseEnded,
    /// Leases ended with their engine.
    LeasesRevoked,
    /// Who runs an external pool says how it stands.
    ExternalHealth,
    /// Who runs an external pool says nothing any more.
    ExternalSilent,
    /// What operators asked for could not be saved.
    NotSaved,
    /// CPUs went offline or came online.
    CpusChanged,
    /// This host cannot do something for engines.
    HostLacks,
    /// Something that should not be.
    Anomaly,
}

impl LogKind {
    /// Every kind.
    pub const ALL: [LogKind; 31] = [
        LogKind::DaemonStarted,
        LogKind::ConfigurationLoaded,
        LogKind::ConfigurationError,
        LogKind::PoolStaging,
        LogKind::EngineStarting,
        LogKind::EngineReady,
        LogKind::EngineFailed,
        LogKind::EngineRefused,
        LogKind::EngineRestarting,
        LogKind::EngineStopping,
        LogKind::EngineStopped,
        LogKind::EngineAdopted,
        LogKind::BreakerOpened,
        LogKind::BreakerClosed,
        LogKind::RestartStorm,
        LogKind::PoolDraining,
        LogKind::DrainForced,
        LogKind::PoolReloading,
        LogKind::PoolReloaded,
        LogKind::ReloadFailed,
        LogKind::PoolReset,
        LogKind::Asked,
        LogKind::LeaseGiven,
        LogKind::LeaseEnded,
        LogKind::LeasesRevoked,
        LogKind::ExternalHealth,
        LogKind::ExternalSilent,
        LogKind::NotSaved,
        LogKind::CpusChanged,
        LogKind::HostLacks,
        LogKind::Anomaly,
    ];

    /// How much it matters.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            LogKind::ConfigurationError
            | LogKind::EngineFailed
            | LogKind::EngineRefused
            | LogKind::BreakerOpened
            | LogKind::ReloadFailed
            | LogKind::NotSaved => Level::Error,
            LogKind::EngineRestarting
            | LogKind::RestartStorm
            | LogKind::DrainForced
            | LogKind::LeasesRevoked
            | LogKind::ExternalSilent
            | LogKind::CpusChanged
            | LogKind::HostLacks
            | LogKind::Anomaly => Level::Warning,
            LogKind::LeaseGiven | LogKind::LeaseEnded => Level::Debug,
            LogKind::DaemonStarted
            | LogKind::Asked
            | LogKind::ExternalHealth
            | LogKind::ConfigurationLoaded
            | LogKind::PoolStaging
            | LogKind::EngineStarting
            | LogKind::EngineReady
            | LogKind::EngineStopping
            | LogKind::EngineStopped
            | LogKind::EngineAdopted
            | LogKind::BreakerClosed
            | LogKind::PoolDraining
            | LogKind::PoolReloading
            | LogKind::PoolReloaded
            | LogKind::PoolReset => Level::Info,
        }
    }
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// What it is about.
    pub kind: LogKind,
    /// Its text.
    pub message: String,
    /// Its fields, in lower case as tracing wants them; the journal has them in upper case.
    pub fields: Vec<(&'static str, String)>,
}

impl LogLine {
    /// A line about no pool.
    #[must_use]
    pub fn plain(kind: LogKind, message: String) -> Self {
        LogLine { kind, message, fields: Vec::new() }
    }

    /// A line about what somebody asked for.
    #[must_use]
    pub fn asked(caller: &Caller, what: &str, fields: Vec<(&'static str, String)>) -> Self {
        let mut line =
            LogLine { kind: LogKind::Asked, message: format!("{what} asked for by {caller}"), fields };
        line.fields.push(("caller_uid", caller.uid.to_string()));
        line.fields.push(("caller_pid", caller.pid.to_string()));
        line.fields.push(("caller_unit", caller.unit.clone()));
        line
    }

    /// A line about a pool or about one of its replicas.
    pub(crate) fn of(
        pool: &Pool,
        replica: Option<usize>,
        kind: LogKind,
        message: String,
        real: Usec,
    ) -> Self {
        let replica = replica.and_then(|index| pool.replicas.get(index));
        let spec = replica
            .and_then(|replica| replica.revision.as_ref())
            .map_or(&pool.revision.spec, |revision| &revision.spec);
        let mask = match replica {
            Some(replica) => replica.device_mask(spec),
            None => pool.device_mask(),
        };
        let mut fields = vec![
            ("pool_id", spec.id.to_string()),
            ("engine", spec.engine.clone()),
            ("model_id", spec.model_id().to_owned()),
            ("device_mask", mask),
            ("restart_count", pool.restart_count.to_string()),
        ];
        let tells_error = matches!(
            kind,
            LogKind::EngineFailed
                | LogKind::EngineRefused
                | LogKind::EngineRestarting
                | LogKind::BreakerOpened
                | LogKind::DrainForced
                | LogKind::ReloadFailed
        );
        if let Some(error) = pool.last_error.as_ref().filter(|_| tells_error) {
            fields.push(("last_error", error.text.clone()));
            fields.push(("exit_class", error.class.to_string()));
        }
        if let Some((job, _)) = pool.job {
            fields.push(("job_id", job.0.to_string()));
        }
        let mut subject = format!("pool {}", spec.id);
        if let Some(replica) = replica {
            subject = format!("engine {}", replica.id);
            fields.push(("engine_id", replica.id.to_string()));
            let unit = if kind == LogKind::PoolStaging { UnitKind::Stage } else { UnitKind::Engine };
            fields.push(("unit", replica.unit_name(unit).to_string()));
            if !replica.engine_version.is_empty() {
                fields.push(("engine_version", replica.engine_version.clone()));
            }
            if !replica.unit.invocation.is_none() && kind != LogKind::PoolStaging {
                fields.push(("invocation_id", replica.unit.invocation.to_string()));
            }
            if matches!(kind, LogKind::EngineFailed | LogKind::EngineStopped | LogKind::EngineAdopted)
                && replica.unit.started.0 != 0
            {
                let uptime = real.since(replica.unit.started);
                fields.push(("uptime_seconds", (uptime.0 / 1_000_000).to_string()));
            }
            if let Some((pause, _)) = replica.pause() {
                fields.push(("backoff_ms", pause.delay.as_millis().to_string()));
            }
        }
        LogLine { kind, message: format!("{subject}: {message}"), fields }
    }

    /// A field's value.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|(key, value)| (*key == name).then_some(value.as_str()))
    }
}
