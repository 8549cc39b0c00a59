//! Owns the daemon's lines: into the journal with the design's fields where systemd runs the daemon, else to standard
//! error in the same words. How much is said can be changed while it runs.

use pool_core::host::{Caller, Level, LogKind, LogLine};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// What lines are called in the journal.
pub const IDENTIFIER: &str = "pool-managerd";

/// How much is logged, and where: both as `org.freedesktop.LogControl1` says it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    filter: reload::Handle<LevelFilter, Registry>,
    level: Arc<Mutex<&'static str>>,
    target: &'static str,
}

/// syslog's levels, and which lines each lets pass. Ours are errors, warnings, information and details; there is
/// nothing graver than an error, and nothing between a warning and information.
const LEVELS: [(&str, LevelFilter); 8] = [
    ("emerg", LevelFilter::OFF),
    ("alert", LevelFilter::OFF),
    ("crit", LevelFilter::OFF),
    ("err", LevelFilter::ERROR),
    ("warning", LevelFilter::WARN),
    ("notice", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
];

/// A level that there is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown level \"{0}\"; there are: emerg, alert, crit, err, warning, notice, info, debug")]
pub struct UnknownLevel(String);

impl Log {
    /// The least level that is logged, in syslog's words.
    #[must_use]
    pub fn level(&self) -> &'static str {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs from that level on.
    ///
    /// # Errors
    /// It is none of syslog's.
    pub fn set_level(&self, word: &str) -> Result<(), UnknownLevel> {
        let known = LEVELS.iter().find(|(known, _)| *known == word);
        let (level, filter) = known.ok_or_else(|| UnknownLevel(word.to_owned()))?;
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        if self.filter.reload(*filter).is_err() {
            tracing::error!("the level of the log cannot be set; this is a bug in pool-managerd");
        }
        Ok(())
    }

    /// Where lines go: `journal`, or `console` for standard error.
    #[must_use]
    pub fn target(&self) -> &'static str {
        self.target
    }
}

/// Starts logging.
pub fn start() -> Log {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let journal = in_journal.then(tracing_journald::layer).and_then(Result::ok);
    let target = if journal.is_some() { "journal" } else { "console" };
    let started = match journal {
        // Without the prefix, or every field would be called F_….
        Some(layer) => {
            let layer = layer
                .with_field_prefix(None)
                .with_syslog_identifier(IDENTIFIER.to_owned())
                .with_priority_mappings(PriorityMappings {
                    info: Priority::Informational,
                    debug: Priority::Debug,
                    ..PriorityMappings::new()
                });
            registry.with(layer).try_init()
        }
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .with_ansi(false)
                .without_time();
            registry.with(layer).try_init()
        }
    };
    if let Err(error) = started {
        eprintln!("pool-managerd: logging was set up twice: {error}");
    }
    Log { filter: handle, level: Arc::new(Mutex::new("info")), target }
}

/// Writes a line of the core.
pub fn write(line: &LogLine) {
    macro_rules! emit {
        ($level:ident) => {
            tracing::$level!(
                message_id = message_id(line.kind),
                pool_id = line.field("pool_id"),
                engine = line.field("engine"),
                engine_id = line.field("engine_id"),
                engine_version = line.field("engine_version"),
                device_mask = line.field("device_mask"),
                model_id = line.field("model_id"),
                restart_count = line.field("restart_count"),
                backoff_ms = line.field("backoff_ms"),
                last_error = line.field("last_error"),
                exit_class = line.field("exit_class"),
                unit = line.field("unit"),
                invocation_id = line.field("invocation_id"),
                uptime_seconds = line.field("uptime_seconds"),
                job_id = line.field("job_id"),
                lease_id = line.field("lease_id"),
                caller_uid = line.field("caller_uid"),
                caller_pid = line.field("caller_pid"),
                caller_unit = line.field("caller_unit"),
                config_path = line.field("config_path"),
                "{}",
                line.message
            )
        };
    }
    match line.kind.level() {
        Level::Debug => emit!(debug),
        Level::Info => emit!(info),
        Level::Warning => emit!(warn),
        Level::Error => emit!(error),
    }
}

/// The message id of a refusal.
const REFUSED: &str = "5607b3fb88104be08580691907d62d50";

/// Writes that a caller was refused something, and how many such lines of its user were left out before this one.
pub fn refused(caller: &Caller, action: &str, pool: &str, why: &str, left_out: u64) {
    let others =
        if left_out > 0 { format!(" ({left_out} more of this user were not logged)") } else { String::new() };
    tracing::warn!(
        message_id = REFUSED,
        pool_id = (!pool.is_empty()).then_some(pool),
        caller_uid = caller.uid,
        caller_pid = caller.pid,
        caller_unit = (!caller.unit.is_empty()).then_some(caller.unit.as_str()),
        action,
        "refused to user {} (process {}{}{}): {why}{others}",
        caller.uid,
        caller.pid,
        if caller.unit.is_empty() { "" } else { " of " },
        caller.unit,
    );
}

/// The journal's message id of a kind of line; the catalog explains each.
#[must_use]
pub const fn message_id(kind: LogKind) -> &'static str {
    match kind {
        LogKind::PoolStaging => "b745cb0e621b5a270e9ae6d6ea166384",
        LogKind::EngineStarting => "f66bbd69590ea88f706fa702ee46acc8",
        LogKind::EngineReady => "d18281f2077823e86077bf628f7fb4a5",
        LogKind::EngineFailed => "55bc6a3ef2370afddfeeabbc3a1378de",
        LogKind::EngineRefused => "328f609e2a01318ca6db6526b2b7dd9a",
        LogKind::EngineRestarting => "1fbbb2bba3fa72fc21bd5faacf233a24",
        LogKind::EngineStopping => "ad2f7b1a9a20c974fd4e58a79c092621",
        LogKind::EngineStopped => "2bbaad6bf3ba7a0dcb37ed5ec38dd2c3",
        LogKind::EngineAdopted => "0e83c246dd532b669a9359e3142894a9",
        LogKind::DaemonStarted => "55c58263edce27d9dedccce0b34de250",
        LogKind::ConfigurationLoaded => "2744156154be956b5733ad4e2e3267ab",
        LogKind::ConfigurationError => "469f84019a52236999d926463b0f008f",
        LogKind::BreakerOpened => "32243b3aedaead4242674d3a8ad7c358",
        LogKind::BreakerClosed => "716742b166ef0d15fd300c5d72808431",
        LogKind::RestartStorm => "99715d61b3451b8fe8c4a48a5ebba7ad",
        LogKind::PoolDraining => "39300eb3a2b03ee368f798b7d1404c8e",
        LogKind::DrainForced => "f21b7caade146960f9f65ff25c879f6b",
        LogKind::PoolReloading => "30f2cc6fe25f633e00fe5ac23ecfed13",
        LogKind::PoolReloaded => "a590d482932f2717d6bd0c49473a6c75",
        LogKind::ReloadFailed => "24badf7097e33ff5f713f1f62b8eb9ed",
        LogKind::PoolReset => "9316799b4c2e26ffddb4c2b1d6b7cb9f",
        LogKind::Asked => "d6e3371e913a463ca39a108430a62ab4",
        LogKind::LeaseGiven => "a008dd6f5f9f40ab914c93f12763d5d5",
        LogKind::LeaseEnded => "6c51794537cd4563962186dc2806ec76",
        LogKind::ExternalHealth => "a9e789e6db8447ae86a2ecd1925798d5",
        LogKind::ExternalSilent => "fad98204f36243dd87c4de7719359939",
        LogKind::LeasesRevoked => "0da0dcf24f09049a73dc7c2db97729e7",
        LogKind::NotSaved => "fbfb6dd399df883af886c25e9128b87e",
        LogKind::CpusChanged => "5d0f4a9be1c54b1fa8c1d1f6e7a3b842",
        LogKind::HostLacks => "4cab04b3c9eeb60370e604109f3289b6",
        LogKind::Anomaly => "68f08174d4b45566af49aa495b6b5a9e",
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_syslogs_and_stay_as_they_were_asked_for() {
        let (_filter, handle) = reload::Layer::new(LevelFilter::INFO);
        let log = Log { filter: handle, level: Arc::new(Mutex::new("info")), target: "console" };
        for (word, _) in LEVELS {
            assert_eq!(log.set_level(word), Ok(()));
            assert_eq!(log.level(), word);
        }
        assert_eq!(log.set_level("trace"), Err(UnknownLevel("trace".to_owned())));
        assert_eq!(log.level(), "debug");
    }

    #[test]
    fn every_kind_of_line_has_a_catalog_entry_of_its_own() {
        let catalog = include_str!("../packaging/catalog/pool-managerd.catalog");
        for kind in LogKind::ALL {
            assert_eq!(catalog.matches(&format!("-- {}\n", message_id(kind))).count(), 1, "{kind:?}");
        }
        assert_eq!(catalog.matches(&format!("-- {REFUSED}\n")).count(), 1);
    }
}
