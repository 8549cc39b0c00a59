//! Which devices an engine is given, and that systemd lets it open their nodes for as long as it runs.

use crate::config::PoolSpec;
use crate::device::Part;
use crate::host::{Effect, LogKind, Turn};
use crate::name::{UnitKind, UnitName};
use crate::pool::Pool;
use crate::replica::Replica;
use crate::unit::device_allow;
use std::collections::BTreeSet;

/// Gives a replica its part of the devices and of the host's memory, or says why it cannot have that.
pub(super) fn admit(replica: &mut Replica, spec: &PoolSpec, turn: &mut Turn<'_>) -> Result<(), String> {
    // An earlier engine's are not this one's: there may be others by now.
    replica.devices = Part::default();
    let devices = turn.devices.part(&spec.devices, spec.replicas, replica.id.index)?;
    turn.promises.ask(&replica.id, spec, turn.host.memory)?;
    replica.devices = devices;
    Ok(())
}

/// The devices of each engine of a spec that is not in force yet.
///
/// # Errors
/// Why one of them could not have its own.
pub(super) fn could_have(spec: &PoolSpec, turn: &Turn<'_>) -> Result<Vec<Part>, String> {
    (0..spec.replicas).map(|index| turn.devices.part(&spec.devices, spec.replicas, index)).collect()
}

/// What an engine may open is said to systemd once more. When that reads its units again it drops the rule of a node that
/// is missing at that moment; it does not say so, and the node stays closed once it is back.
pub(crate) fn open_nodes_again(replica: &Replica, turn: &mut Turn<'_>) {
    let name = replica.unit_name(UnitKind::Engine);
    if replica.engine_runs() && replica.taken.contains_key(&name) && !replica.devices.is_empty() {
        turn.effects.push(Effect::ChangeUnit(name, device_allow(&replica.devices)));
    }
}

/// systemd has read its units again, and lets a unit open these nodes.
pub(crate) fn units_read(
    pool: &mut Pool,
    index: usize,
    name: &UnitName,
    allowed: &BTreeSet<String>,
    turn: &mut Turn<'_>,
) {
    let Some(replica) = pool.replicas.get(index) else { return };
    if !replica.engine_runs() || !replica.in_use(name) {
        return;
    }
    open_nodes_again(replica, turn);
    let nodes = replica.devices.nodes().iter().map(String::as_str);
    let lost: Vec<&str> = nodes.filter(|node| !allowed.contains(*node)).collect();
    if !lost.is_empty() {
        let text = format!("its unit no longer let it open {}; that is mended", lost.join(", "));
        turn.log(pool, Some(index), LogKind::Anomaly, text);
    }
}
