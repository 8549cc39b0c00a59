//! Fixed ports that two pools claim: found when files are read, not when the second engine fails to start.

use super::{Listen, Port, Revision};
use crate::name::PoolId;
use std::collections::BTreeMap;

/// Pools that cannot listen where they should because another one, earlier in the order of ids, does; with the reason.
#[must_use]
pub fn port_conflicts(pools: &BTreeMap<PoolId, Revision>) -> Vec<(PoolId, String)> {
    let mut claimed: BTreeMap<u16, Vec<(&str, &PoolId)>> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for (id, revision) in pools {
        let Listen::Tcp { host, port: Port::Fixed(first) } = &revision.spec.listen else { continue };
        let first = *first;
        let ports = first..=first.saturating_add(revision.spec.replicas.saturating_sub(1));
        let other = ports.clone().find_map(|port| {
            let holders = claimed.get(&port)?;
            holders.iter().find(|(other, _)| overlap(other, host)).map(|(_, holder)| (port, *holder))
        });
        match other {
            Some((port, holder)) => {
                conflicts.push((
                    id.clone(),
                    format!("port {port} of {host} is pool {holder}'s already; choose another one, or auto"),
                ));
            }
            None => ports.for_each(|port| claimed.entry(port).or_default().push((host, id))),
        }
    }
    conflicts
}

/// Whether two hosts may be the same address.
fn overlap(a: &str, b: &str) -> bool {
    let any = |host: &str| matches!(host, "0.0.0.0" | "::");
    a == b || any(a) || any(b)
}
