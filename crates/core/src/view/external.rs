//! How a pool is published that somebody else runs: what its owner says, and nothing of engines and units.

use super::{DEVICE_MASK_NONE, PoolView, ReasonView};
use crate::host::{State, external_phase};
use crate::name::PoolId;
use crate::registry::External;

pub(super) fn view(id: &PoolId, external: &External, state: &State) -> PoolView {
    let registry = &state.registry;
    let health = registry.get_health(id).unwrap_or_default();
    let error = registry.get_last_error(id).unwrap_or_default().to_owned();
    let version = registry.get_version(id).unwrap_or_default().to_owned();
    let since = state.since.get(id).copied().unwrap_or_default();
    let phase = external_phase(health, &error);
    let owner = external.owner_uid;
    let detail = match phase {
        "ready" => format!("uid {owner}, who runs it, says that it is ready"),
        "starting" => format!("uid {owner}, who runs it, says that it lives but is not ready"),
        "failed" => error.clone(),
        _ => format!("uid {owner}, who runs it, has not said that it lives"),
    };
    let endpoint = external.endpoint.as_ref().filter(|_| health.ready);
    let reason = ReasonView {
        code: "external",
        text: detail.clone(),
        remedy: format!(
            "ask uid {owner}; report its health with SetHealth (poolctl report {id} as that user)"
        ),
        since: since.phase,
        ..ReasonView::default()
    };
    PoolView {
        id: id.to_string(),
        external: true,
        activation: "",
        phase,
        live: health.live,
        ready: health.ready,
        engine: external.engine.clone(),
        engine_version: version.clone(),
        version,
        device_mask: DEVICE_MASK_NONE.to_owned(),
        endpoints: endpoint.iter().map(ToString::to_string).collect(),
        last_error_timestamp: if error.is_empty() { crate::name::Usec(0) } else { since.error },
        last_error: error,
        last_heartbeat: registry.get_heartbeat(id).unwrap_or_default(),
        state_change_timestamp: since.phase,
        active_leases: registry.get_active_leases(id).unwrap_or(0),
        breaker: "closed",
        detail,
        reasons: if health.ready { Vec::new() } else { vec![reason] },
        ..PoolView::default()
    }
}
