//! The keys of the files, as they are written. Every key of the design is known here; whether this version can
//! honour it is decided in the check, with a sentence of its own, so that "unknown" always means a typo.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolFragment {
    /// Name of the engine template.
    pub engine: Option<String>,
    /// Program to run instead of the template's.
    pub program: Option<String>,
    /// `file:` and an absolute path.
    pub model: Option<String>,
    /// `sha256:` and 64 hex digits.
    pub digest: Option<String>,
    /// The device mask.
    pub devices: Option<Vec<String>>,
    /// So many of them for each engine.
    pub devices_per_replica: Option<i64>,
    /// `file:` and an absolute path, by name.
    pub files: Option<BTreeMap<String, String>>,
    /// Supplementary groups.
    pub groups: Option<Vec<String>>,
    /// Arguments after the template's.
    pub args: Option<Vec<String>>,
    /// Environment variables after the template's.
    pub env: Option<BTreeMap<String, String>>,
    /// Names of credentials, by variable.
    pub credentials: Option<BTreeMap<String, String>>,
    /// How many engines.
    pub replicas: Option<i64>,
    /// `resident` or `manual`.
    pub activation: Option<String>,
    /// `hold` or `drain-first`.
    pub on_change: Option<String>,
    /// Where it listens.
    pub network: Option<NetworkFragment>,
    /// What each engine may use.
    pub resources: Option<ResourcesFragment>,
    /// Readiness and liveness.
    pub health: Option<HealthFragment>,
    /// What follows a failure.
    pub restart: Option<RestartFragment>,
    /// How it drains.
    pub drain: Option<DrainFragment>,
    /// How many leases it gives.
    pub leases: Option<LeasesFragment>,
}

/// `[network]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFragment {
    /// `host:port` or `host:auto`.
    pub listen: Option<String>,
    /// Networks.
    pub allow: Option<Vec<String>>,
}

/// `[resources]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourcesFragment {
    /// Not yet supported.
    pub vram: Option<String>,
    /// Beyond it an engine is slowed down.
    pub memory_high: Option<String>,
    /// Beyond it an engine is killed.
    pub memory_max: Option<String>,
    /// The size of its `/dev/shm`.
    pub shm: Option<String>,
    /// `numa`, a list, or `exclusive:` and a number.
    pub cpus: Option<String>,
    /// Processes and threads.
    pub tasks_max: Option<i64>,
    /// Its part of CPUs that are fought for.
    pub cpu_weight: Option<i64>,
    /// Percent of one CPU.
    pub cpu_quota: Option<String>,
}

/// `[health]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthFragment {
    /// Longest time from start to ready.
    pub start_limit: Option<String>,
    /// Longest time without progress before ready.
    pub start_timeout: Option<String>,
    /// The file of a request.
    pub warmup: Option<String>,
    /// The time between two questions to an engine that is ready.
    pub interval: Option<String>,
    /// How long one answer is waited for.
    pub timeout: Option<String>,
    /// After how many refusals or bad answers in a row it is ended.
    pub failures: Option<i64>,
    /// How long it may be busy without progress.
    pub stall_timeout: Option<String>,
}

/// `[restart]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartFragment {
    /// `on-failure`, `always` or `never`.
    pub policy: Option<String>,
    /// Before the first restart in a row.
    pub initial_delay: Option<String>,
    /// The shortest.
    pub min_delay: Option<String>,
    /// The longest.
    pub max_delay: Option<String>,
    /// Percent.
    pub jitter: Option<i64>,
    /// After a GPU error.
    pub gpu_factor: Option<i64>,
    /// So long ready, and the delays begin anew.
    pub reset_after: Option<String>,
    /// So long ready, and the restart count is 0.
    pub count_reset_after: Option<String>,
    /// When restarts are given up.
    pub breaker: Option<BreakerFragment>,
    /// When there are too many.
    pub storm: Option<StormFragment>,
}

/// `[restart.breaker]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerFragment {
    /// Failures in a row.
    pub failures: Option<i64>,
    /// For how long.
    pub open_for: Option<String>,
    /// For how long at most.
    pub max_open_for: Option<String>,
    /// So long ready, and it closes.
    pub close_after: Option<String>,
}

/// `[restart.storm]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StormFragment {
    /// The window for warning and waiting.
    pub window: Option<String>,
    /// Restarts.
    pub warn_after: Option<i64>,
    /// Restarts.
    pub wait_after: Option<i64>,
    /// The window for the breaker.
    pub trip_window: Option<String>,
    /// Restarts.
    pub trip_after: Option<i64>,
    /// The window for running out of memory.
    pub oom_window: Option<String>,
    /// Times.
    pub oom_after: Option<i64>,
}

/// `[drain]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainFragment {
    /// The longest it may take.
    pub deadline: Option<String>,
    /// The shortest.
    pub settle: Option<String>,
}

/// `[leases]` of a pool file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeasesFragment {
    /// Of each engine.
    pub capacity: Option<i64>,
}

/// `pool-managerd.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonFragment {
    /// `[network]`.
    pub network: Option<DaemonNetworkFragment>,
    /// `[sandbox]`.
    pub sandbox: Option<DaemonSandboxFragment>,
}

/// `[network]` of `pool-managerd.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonNetworkFragment {
    /// `"20000-20999"`.
    pub auto_ports: Option<String>,
}

/// `[sandbox]` of `pool-managerd.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonSandboxFragment {
    /// Folders in which models are kept.
    pub model_folders: Option<Vec<String>>,
}
