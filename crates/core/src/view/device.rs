//! How a device is published.

use super::PoolView;
use crate::device::{DeviceFacts, DeviceUuid, Devices};
use crate::name::{PoolId, Usec};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A device object; names and units as in its D-Bus interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct DeviceView {
    pub uuid: String,
    pub kind: &'static str,
    pub parent: Option<DeviceUuid>,
    pub index: u32,
    pub minor: u32,
    pub name: String,
    pub pci_address: String,
    pub numa_node: i32,
    pub local_cpus: String,
    pub compute_capability: String,
    pub memory_total: u64,
    pub memory_free: u64,
    pub memory_reserved: u64,
    pub utilization: u32,
    pub temperature: u32,
    pub health: &'static str,
    pub health_reason: String,
    pub last_xid: u32,
    pub last_xid_timestamp: Usec,
    pub pools: Vec<PoolId>,
}

/// The pools that may use each device, by its UUID.
pub(super) fn users(pools: &BTreeMap<PoolId, Arc<PoolView>>) -> BTreeMap<String, Vec<PoolId>> {
    let mut users: BTreeMap<String, Vec<PoolId>> = BTreeMap::new();
    for (id, pool) in pools {
        for uuid in &pool.devices {
            users.entry(uuid.clone()).or_default().push(id.clone());
        }
    }
    users
}

pub(super) fn view(
    uuid: &DeviceUuid,
    facts: &DeviceFacts,
    devices: &Devices,
    pools: Vec<PoolId>,
) -> DeviceView {
    let quarantine = devices.quarantine(uuid);
    DeviceView {
        uuid: uuid.to_string(),
        kind: facts.kind.as_str(),
        parent: facts.parent.clone(),
        index: facts.index,
        minor: facts.minor,
        name: facts.name.clone(),
        pci_address: facts.pci_address.clone(),
        numa_node: facts.numa_node.map_or(-1, i32::from),
        local_cpus: facts.local_cpus.clone(),
        compute_capability: facts.compute_capability.clone(),
        memory_total: facts.memory_total,
        memory_free: facts.memory_free,
        memory_reserved: 0,
        utilization: facts.utilization,
        temperature: facts.temperature,
        health: if quarantine.is_some() { "quarantined" } else { "ok" },
        health_reason: quarantine.map_or(String::new(), |quarantine| quarantine.reason.clone()),
        last_xid: facts.last_xid,
        last_xid_timestamp: facts.last_xid_at,
        pools,
    }
}
