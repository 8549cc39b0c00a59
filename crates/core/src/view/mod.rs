//! Owns what is published: plain data derived from the state, in the types of the bus. What changed is found by
//! comparing two views, so a property can neither be forgotten nor signalled twice.

mod device;
mod external;
mod progress;
mod unit;

pub use device::DeviceView;
pub use progress::Share;
pub use unit::{UnitLine, unit_lines};

use crate::cpu::Cpus;
use crate::device::{DeviceUuid, Devices, Part};
use crate::host::State;
use crate::job::{Details, Job, JobId, JobState};
use crate::name::{PoolId, ReplicaId, Usec};
use crate::pool::{Cause, Pool, Reason};
use crate::replica::{Phase, Replica};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use crate::device::DEVICE_MASK_NONE;

/// Everything that is published. What did not change is shared with the view before: to clone and to compare two views
/// costs what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The manager.
    pub manager: ManagerView,
    /// The pools.
    pub pools: BTreeMap<PoolId, Arc<PoolView>>,
    /// Their replicas.
    pub replicas: BTreeMap<ReplicaId, Arc<ReplicaView>>,
    /// Jobs that run or are readable.
    pub jobs: BTreeMap<u32, Arc<JobView>>,
    /// The devices.
    pub devices: BTreeMap<DeviceUuid, Arc<DeviceView>>,
}

/// The manager object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ManagerView {
    /// Pools.
    pub pool_count: u32,
    /// Pools that serve.
    pub ready_pool_count: u32,
    /// Replicas.
    pub replica_count: u32,
    /// File and error.
    pub configuration_errors: Vec<(String, String)>,
    /// When the daemon started, realtime.
    pub start_timestamp: Usec,
    /// Leases that are held.
    pub active_leases: u32,
    /// Why what operators asked for could not be saved; "": it was.
    pub unsaved: String,
    /// What the host cannot do for engines, each one word.
    pub host_lacks: Vec<String>,
    /// Control group controllers that the host does not have.
    pub missing_controllers: Vec<String>,
}

/// A pool object; names and units as in its D-Bus interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct PoolView {
    pub id: String,
    pub activation: &'static str,
    pub config_path: String,
    pub phase: &'static str,
    pub live: bool,
    pub ready: bool,
    pub engine: String,
    pub engine_version: String,
    pub model_id: String,
    pub model_path: String,
    pub model_digest: String,
    pub device_mask: String,
    pub devices: Vec<String>,
    pub replicas: u32,
    pub ready_replicas: u32,
    pub replica_ids: Vec<ReplicaId>,
    pub endpoints: Vec<String>,
    pub last_error: String,
    pub last_error_class: String,
    pub last_error_timestamp: Usec,
    pub restart_count: u32,
    pub backoff: Usec,
    pub next_restart_timestamp: Usec,
    pub spec_digest: String,
    pub state_change_timestamp: Usec,
    pub needs_reload: bool,
    pub pending: Vec<String>,
    pub detail: String,
    pub draining: bool,
    pub breaker: &'static str,
    pub active_leases: u32,
    pub lease_capacity: u32,
    pub slots_total: u32,
    pub slots_free: u32,
    pub in_flight: u32,
    pub external: bool,
    pub version: String,
    pub last_heartbeat: Usec,
    pub vram_reserved: u64,
    /// Why it is as it is, newest first.
    pub reasons: Vec<ReasonView>,
}

/// One reason of a pool's `Explain`; names and units as there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct ReasonView {
    pub code: &'static str,
    pub class: String,
    pub replica: String,
    pub text: String,
    pub remedy: String,
    pub since: Usec,
    pub until: Usec,
}

/// A replica object; names and units as in its D-Bus interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct ReplicaView {
    pub id: String,
    pub pool: Option<PoolId>,
    pub unit: String,
    pub invocation_id: Vec<u8>,
    pub main_pid: u32,
    pub phase: &'static str,
    pub live: bool,
    pub ready: bool,
    pub endpoint: String,
    pub devices: Vec<String>,
    pub status_text: String,
    pub exit_class: String,
    pub start_timestamp: Usec,
    pub ready_timestamp: Usec,
    pub active_leases: u32,
    pub in_flight: u32,
    pub allowed_cpus: String,
}

/// A job object; names and units as in its D-Bus interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct JobView {
    pub id: u32,
    pub pool: PoolId,
    pub operation: &'static str,
    pub state: &'static str,
    pub result: &'static str,
    pub error: String,
    pub progress: Share,
    pub detail: String,
    pub details: Details,
}

impl View {
    /// What is to be published of a state.
    #[must_use]
    pub fn of(state: &State) -> View {
        let mut view = View::default();
        let externals = state.registry.externals().map(|(id, _)| id);
        view.update(state, &state.pools.keys().chain(externals).cloned().collect());
        view
    }

    /// Brings it up to date with a state of which only these pools may have changed.
    pub fn update(&mut self, state: &State, touched: &BTreeSet<PoolId>) {
        for id in touched {
            let kept = state.pools.get(id);
            let replicas = kept.map_or(&[][..], |pool| &pool.replicas);
            self.replicas
                .retain(|replica, _| replica.pool != *id || replicas.iter().any(|kept| kept.id == *replica));
            for replica in replicas {
                refresh(&mut self.replicas, replica.id.clone(), replica_view(replica, &state.cpus));
            }
            match kept {
                Some(pool) => {
                    let heartbeat = state.registry.get_heartbeat(id).unwrap_or_default();
                    let view = pool_view(pool, state.unsaved.as_deref(), heartbeat, &state.devices);
                    refresh(&mut self.pools, id.clone(), view);
                }
                None => match state.registry.get_external(id) {
                    Some(external) => {
                        refresh(&mut self.pools, id.clone(), external::view(id, external, state));
                    }
                    None => drop(self.pools.remove(id)),
                },
            }
        }
        self.jobs.retain(|id, _| state.jobs.all.contains_key(&JobId(*id)));
        // What is told of a job follows from its pool, and it ends with something that happens to that.
        let stale = |id: &JobId, job: &Job| touched.contains(&job.pool) || !self.jobs.contains_key(&id.0);
        let stale: Vec<_> = state.jobs.all.iter().filter(|(id, job)| stale(id, job)).collect();
        for (id, job) in stale {
            let id = *id;
            refresh(&mut self.jobs, id.0, job_view(id, job, state));
        }
        self.devices.retain(|uuid, _| state.devices.contains(uuid));
        let mut users = device::users(&self.pools);
        for (uuid, facts) in state.devices.iter() {
            let pools = users.remove(uuid.as_str()).unwrap_or_default();
            refresh(&mut self.devices, uuid.clone(), device::view(uuid, facts, &state.devices, pools));
        }
        self.manager = ManagerView {
            pool_count: count(self.pools.len()),
            ready_pool_count: count(self.pools.values().filter(|pool| pool.ready).count()),
            replica_count: count(self.replicas.len()),
            configuration_errors: state
                .errors
                .iter()
                .map(|error| (error.file.clone(), error.error.clone()))
                .collect(),
            start_timestamp: state.started,
            active_leases: count(state.leases.len()),
            unsaved: state.unsaved.clone().unwrap_or_default(),
            host_lacks: state.host_lacks(),
            missing_controllers: state.host.missing_controllers.iter().cloned().collect(),
        };
    }
}

/// Replaces a view only where it differs, so that equal ones stay shared.
fn refresh<K: Ord, V: PartialEq>(views: &mut BTreeMap<K, Arc<V>>, key: K, view: V) {
    if views.get(&key).is_none_or(|known| **known != view) {
        views.insert(key, Arc::new(view));
    }
}

fn job_view(id: JobId, job: &Job, state: &State) -> JobView {
    let (word, result, error) = match &job.state {
        JobState::Running => ("running", "", String::new()),
        JobState::Ended { result, error } => ("done", result.as_str(), error.clone()),
    };
    let detail = match job.state {
        JobState::Running => state.pools.get(&job.pool).map_or(String::new(), |pool| {
            pool.reload.as_ref().map_or_else(|| pool.detail(), |reload| reload.stage.as_str().to_owned())
        }),
        JobState::Ended { .. } => error.clone(),
    };
    let (pool, operation) = (job.pool.clone(), job.operation.as_str());
    let progress = progress::of(job, state.pools.get(&job.pool));
    JobView { id: id.0, pool, operation, state: word, result, error, progress, detail, details: job.details }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The devices of a pool as a mask, and which they are: those of its engines, and where none has any, those that its mask
/// comes to now.
fn masked(pool: &Pool, devices: &Devices) -> (String, Vec<String>) {
    let told = |parts: &[&Part]| {
        let uuids = Part::together(parts.iter().copied()).map(|(_, uuid)| uuid.to_string()).collect();
        (Part::mask(parts.iter().copied()), uuids)
    };
    let parts: Vec<&Part> = pool.parts().collect();
    if !parts.is_empty() {
        return told(&parts);
    }
    devices.whole(&pool.in_force().spec.devices).map_or_else(Default::default, |whole| told(&[&whole]))
}

fn pool_view(pool: &Pool, unsaved: Option<&str>, last_heartbeat: Usec, devices: &Devices) -> PoolView {
    let (device_mask, devices) = masked(pool, devices);
    // What is told of engine and model is what runs; the file may be newer.
    let spec = pool
        .replicas
        .iter()
        .filter(|replica| !matches!(replica.phase, Phase::Stopped | Phase::Failed))
        .find_map(|replica| replica.revision.as_ref())
        .unwrap_or(&pool.revision);
    let (digest, spec) = (&spec.digest, &spec.spec);
    let pauses = pool.replicas.iter().filter_map(Replica::pause);
    let next = pauses.map(|(pause, _)| (pause.until, pause.delay)).min();
    let (next_restart_timestamp, backoff) = next.unwrap_or_default();
    let error = pool.last_error.as_ref();
    let reports = pool.replicas.iter().filter(|replica| replica.ready()).filter_map(|r| r.report.as_ref());
    let slots = reports.filter_map(|report| report.slots).fold(0, u32::saturating_add);
    let unsaved = unsaved.map(|error| Reason {
        cause: Cause::NotSaved(error.to_owned()),
        replica: None,
        since: Usec(0),
        until: Usec(0),
    });
    let pending: Vec<String> = pool.pending().into_iter().map(str::to_owned).collect();
    PoolView {
        id: pool.id().to_string(),
        activation: pool.revision.spec.activation.as_str(),
        config_path: pool.revision.spec.path.clone(),
        phase: pool.phase().as_str(),
        live: pool.live(),
        ready: pool.ready(),
        engine: spec.engine.clone(),
        engine_version: pool.engine_version().to_owned(),
        model_id: spec.model_id().to_owned(),
        model_path: spec.model.clone(),
        model_digest: spec.digest.as_ref().map_or(String::new(), |hex| format!("sha256:{hex}")),
        device_mask,
        devices,
        replicas: count(pool.replicas.len()),
        ready_replicas: count(pool.replicas.iter().filter(|replica| replica.ready()).count()),
        replica_ids: pool.replicas.iter().map(|replica| replica.id.clone()).collect(),
        endpoints: pool.endpoints().into_iter().map(ToString::to_string).collect(),
        last_error: error.map_or(String::new(), |error| error.text.clone()),
        last_error_class: error.map_or(String::new(), |error| error.class.to_string()),
        last_error_timestamp: error.map_or(Usec(0), |error| error.at),
        restart_count: pool.restart_count,
        backoff,
        next_restart_timestamp,
        spec_digest: digest.clone(),
        state_change_timestamp: pool.changed,
        needs_reload: !pending.is_empty(),
        pending,
        detail: pool.detail(),
        draining: pool.drain.is_some(),
        breaker: pool.breaker().as_str(),
        active_leases: pool.active_leases(),
        lease_capacity: pool.capacity().unwrap_or(0),
        slots_total: slots,
        slots_free: slots.saturating_sub(pool.in_flight()),
        in_flight: pool.in_flight(),
        external: false,
        version: pool.engine_version().to_owned(),
        last_heartbeat,
        vram_reserved: 0,
        reasons: pool.reasons().into_iter().chain(unsaved).map(|reason| reason_view(pool, reason)).collect(),
    }
}

fn reason_view(pool: &Pool, reason: Reason) -> ReasonView {
    ReasonView {
        code: reason.cause.code(),
        class: reason.cause.class().map_or(String::new(), ToString::to_string),
        replica: reason.replica.as_ref().map_or(String::new(), ToString::to_string),
        text: reason.cause.text(),
        remedy: reason.cause.remedy(pool.id()),
        since: reason.since,
        until: reason.until,
    }
}

fn replica_view(replica: &Replica, cpus: &Cpus) -> ReplicaView {
    let kind = match replica.phase {
        Phase::Staging => crate::name::UnitKind::Stage,
        Phase::Stopped
        | Phase::WaitingForName
        | Phase::Starting
        | Phase::Ready { .. }
        | Phase::Ending
        | Phase::Stopping
        | Phase::Backoff { .. }
        | Phase::Tripped
        | Phase::Failed => crate::name::UnitKind::Engine,
    };
    let unit = replica.unit_name(kind);
    let running = replica.taken.contains_key(&unit);
    ReplicaView {
        id: replica.id.to_string(),
        pool: Some(replica.id.pool.clone()),
        unit: if running { unit.to_string() } else { String::new() },
        invocation_id: if replica.unit.invocation.is_none() {
            Vec::new()
        } else {
            replica.unit.invocation.0.to_vec()
        },
        main_pid: replica.unit.main_pid,
        phase: replica.phase.as_str(),
        live: replica.live(),
        ready: replica.ready(),
        endpoint: replica.endpoint.as_ref().map_or(String::new(), ToString::to_string),
        devices: replica.devices.uuids().map(ToString::to_string).collect(),
        status_text: replica.unit.status_text.clone(),
        exit_class: replica.last_exit.as_ref().map_or(String::new(), ToString::to_string),
        start_timestamp: replica.unit.started,
        ready_timestamp: replica.unit.became_ready,
        active_leases: replica.leases,
        in_flight: replica.in_flight().unwrap_or(0),
        // No limit is set by this version: all of them.
        allowed_cpus: cpus.allowed(&replica.id).map_or(String::new(), |cpus| cpus.to_string()),
    }
}
