//! `org.llamaorch.PoolManager.Pool`.

use super::access::{Access, Action, Admitted};
use super::calls::{self, Options};
use super::error::Error;
use super::{pool_path, replica_path};
use crate::supervisor::Handle;
use pool_core::view::PoolView;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use zbus::message::Header;
use zbus::{OwnedFd, OwnedObjectPath, Variant, interface};

pub(super) const INTERFACE: &str = "org.llamaorch.PoolManager.Pool";

pub(super) struct PoolObject {
    pub(super) view: watch::Receiver<Arc<PoolView>>,
    pub(super) access: Access,
    pub(super) handle: Handle,
}

impl PoolObject {
    fn view(&self) -> Arc<PoolView> {
        self.view.borrow().clone()
    }

    async fn admit(&self, header: &Header<'_>, action: Action) -> Result<Admitted, Error> {
        let id = self.view().id.clone();
        self.access.admit(header, action, &id).await
    }
}

#[interface(name = "org.llamaorch.PoolManager.Pool", introspection_docs = false)]
impl PoolObject {
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.admit(&header, Action::Manage).await?;
        calls::start(&self.handle, &caller, self.id(), options).await
    }

    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.admit(&header, Action::Manage).await?;
        calls::stop(&self.handle, &caller, self.id(), options).await
    }

    #[zbus(out_args("job"))]
    async fn drain(
        &self,
        #[zbus(header)] header: Header<'_>,
        deadline_usec: u64,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.admit(&header, Action::Manage).await?;
        calls::drain(&self.handle, &caller, self.id(), deadline_usec, options).await
    }

    #[zbus(out_args("job"))]
    async fn reload(
        &self,
        #[zbus(header)] header: Header<'_>,
        model: String,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.admit(&header, Action::Manage).await?;
        calls::reload(&self.handle, &caller, self.id(), model, options).await
    }

    async fn reset(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        let caller = self.admit(&header, Action::Manage).await?;
        calls::reset(&self.handle, &caller, self.id()).await
    }

    #[zbus(out_args("lease", "endpoint", "descriptor"))]
    async fn allocate_lease(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Options,
    ) -> Result<(String, String, OwnedFd), Error> {
        let caller = self.admit(&header, Action::Lease).await?;
        calls::allocate_lease(&self.handle, &caller, self.id(), options).await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.view().id.clone()
    }

    #[zbus(property)]
    fn external(&self) -> bool {
        self.view().external
    }

    #[zbus(property)]
    fn activation(&self) -> String {
        self.view().activation.to_owned()
    }

    #[zbus(property)]
    fn config_path(&self) -> String {
        self.view().config_path.clone()
    }

    #[zbus(property)]
    fn phase(&self) -> String {
        self.view().phase.to_owned()
    }

    #[zbus(property)]
    fn live(&self) -> bool {
        self.view().live
    }

    #[zbus(property)]
    fn ready(&self) -> bool {
        self.view().ready
    }

    #[zbus(property)]
    fn draining(&self) -> bool {
        self.view().draining
    }

    #[zbus(property)]
    fn engine(&self) -> String {
        self.view().engine.clone()
    }

    #[zbus(property)]
    fn engine_version(&self) -> String {
        self.view().engine_version.clone()
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.view().version.clone()
    }

    #[zbus(property)]
    fn model_id(&self) -> String {
        self.view().model_id.clone()
    }

    #[zbus(property)]
    fn model_path(&self) -> String {
        self.view().model_path.clone()
    }

    #[zbus(property)]
    fn model_digest(&self) -> String {
        self.view().model_digest.clone()
    }

    #[zbus(property)]
    fn device_mask(&self) -> String {
        self.view().device_mask.clone()
    }

    #[zbus(property)]
    fn devices(&self) -> Vec<String> {
        self.view().devices.clone()
    }

    #[zbus(property)]
    fn replicas(&self) -> u32 {
        self.view().replicas
    }

    #[zbus(property)]
    fn ready_replicas(&self) -> u32 {
        self.view().ready_replicas
    }

    #[zbus(property)]
    fn replica_objects(&self) -> Vec<OwnedObjectPath> {
        replica_objects(&self.view())
    }

    #[zbus(property)]
    fn endpoints(&self) -> Vec<String> {
        self.view().endpoints.clone()
    }

    #[zbus(property)]
    fn lease_capacity(&self) -> u32 {
        self.view().lease_capacity
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn active_leases(&self) -> u32 {
        self.view().active_leases
    }

    #[zbus(property)]
    fn slots_total(&self) -> u32 {
        self.view().slots_total
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn slots_free(&self) -> u32 {
        self.view().slots_free
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn in_flight(&self) -> u32 {
        self.view().in_flight
    }

    #[zbus(property)]
    fn last_error(&self) -> String {
        self.view().last_error.clone()
    }

    #[zbus(property)]
    fn last_error_class(&self) -> String {
        self.view().last_error_class.clone()
    }

    #[zbus(property)]
    fn last_error_timestamp(&self) -> u64 {
        self.view().last_error_timestamp.0
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn last_heartbeat(&self) -> u64 {
        self.view().last_heartbeat.0
    }

    #[zbus(property)]
    fn restart_count(&self) -> u32 {
        self.view().restart_count
    }

    #[zbus(property, name = "BackoffUSec")]
    fn backoff_usec(&self) -> u64 {
        self.view().backoff.0
    }

    #[zbus(property)]
    fn next_restart_timestamp(&self) -> u64 {
        self.view().next_restart_timestamp.0
    }

    #[zbus(property)]
    fn breaker(&self) -> String {
        self.view().breaker.to_owned()
    }

    #[zbus(property)]
    fn vram_reserved(&self) -> u64 {
        self.view().vram_reserved
    }

    #[zbus(property)]
    fn spec_digest(&self) -> String {
        self.view().spec_digest.clone()
    }

    #[zbus(property)]
    fn state_change_timestamp(&self) -> u64 {
        self.view().state_change_timestamp.0
    }

    #[zbus(property)]
    fn needs_reload(&self) -> bool {
        self.view().needs_reload
    }

    #[zbus(property)]
    fn pending(&self) -> Vec<String> {
        self.view().pending.clone()
    }

    #[zbus(property)]
    fn detail(&self) -> String {
        self.view().detail.clone()
    }
}

fn replica_objects(view: &PoolView) -> Vec<OwnedObjectPath> {
    view.replica_ids.iter().map(|id| super::path(replica_path(id))).collect()
}

/// The properties in which two views differ, with their new values.
pub(super) fn changes<'a>(old: &PoolView, new: &'a PoolView) -> HashMap<&'static str, Variant<'a>> {
    changed! { old, new;
        "External": external => new.external,
        "Activation": activation => new.activation,
        "ConfigPath": config_path => new.config_path.as_str(),
        "Phase": phase => new.phase,
        "Live": live => new.live,
        "Ready": ready => new.ready,
        "Draining": draining => new.draining,
        "Engine": engine => new.engine.as_str(),
        "EngineVersion": engine_version => new.engine_version.as_str(),
        "Version": version => new.version.as_str(),
        "VramReserved": vram_reserved => new.vram_reserved,
        "ModelId": model_id => new.model_id.as_str(),
        "ModelPath": model_path => new.model_path.as_str(),
        "ModelDigest": model_digest => new.model_digest.as_str(),
        "DeviceMask": device_mask => new.device_mask.as_str(),
        "Devices": devices => new.devices.clone(),
        "Replicas": replicas => new.replicas,
        "ReadyReplicas": ready_replicas => new.ready_replicas,
        "ReplicaObjects": replica_ids => replica_objects(new),
        "Endpoints": endpoints => new.endpoints.clone(),
        "LeaseCapacity": lease_capacity => new.lease_capacity,
        "SlotsTotal": slots_total => new.slots_total,
        "LastError": last_error => new.last_error.as_str(),
        "LastErrorClass": last_error_class => new.last_error_class.as_str(),
        "LastErrorTimestamp": last_error_timestamp => new.last_error_timestamp.0,
        "RestartCount": restart_count => new.restart_count,
        "BackoffUSec": backoff => new.backoff.0,
        "NextRestartTimestamp": next_restart_timestamp => new.next_restart_timestamp.0,
        "Breaker": breaker => new.breaker,
        "SpecDigest": spec_digest => new.spec_digest.as_str(),
        "StateChangeTimestamp": state_change_timestamp => new.state_change_timestamp.0,
        "NeedsReload": needs_reload => new.needs_reload,
        "Pending": pending => new.pending.clone(),
        "Detail": detail => new.detail.as_str(),
    }
}

pub(super) fn object_path(id: &pool_core::name::PoolId) -> OwnedObjectPath {
    super::path(pool_path(id))
}
