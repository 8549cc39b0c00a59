//! The unit of an engine, line by line, with the reasons that its template gives for the lines that it loosens.

use crate::host::State;
use crate::name::{ReplicaId, UnitKind};
use crate::unit::{Launch, engine_unit};

/// A line of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitLine {
    /// systemd's name of the property on the bus.
    pub name: &'static str,
    /// Its value, as a unit file would say it.
    pub value: String,
    /// Why it is looser than for other engines; "": it is not.
    pub reason: String,
}

/// The lines of a replica's engine as it runs, or as it would be started, without those that this host's systemd does not
/// take. `None`: there is no such replica, or it has had no address yet.
#[must_use]
pub fn unit_lines(state: &State, id: &ReplicaId) -> Option<Vec<UnitLine>> {
    let pool = state.pools.get(&id.pool)?;
    let replica = pool.replicas.iter().find(|replica| replica.id == *id)?;
    let revision = replica.revision.as_ref().unwrap_or(&pool.revision);
    let spec = &revision.spec;
    let would = || state.devices.part(&spec.devices, spec.replicas, id.index).unwrap_or_default();
    let devices = if replica.devices.is_empty() { would() } else { replica.devices.clone() };
    let launch = Launch {
        spec: &revision.spec,
        spec_digest: &revision.digest,
        endpoint: replica.endpoint.as_ref()?,
        engine_version: &replica.engine_version,
        share: &state.cpus.known(id),
        devices: &devices,
        host: &state.host,
        model_folders: &state.settings.model_folders,
    };
    let unit = engine_unit(&replica.unit_name(UnitKind::Engine), &launch);
    let sent = unit.properties.iter().filter(|property| !state.left_out.contains(property.name()));
    let sandbox = &revision.spec.template.sandbox;
    let line = |property: &crate::unit::Property| UnitLine {
        name: property.name(),
        value: property.value().to_string(),
        reason: sandbox.reason(property.name()).unwrap_or_default().to_owned(),
    };
    Some(sent.map(line).collect())
}
