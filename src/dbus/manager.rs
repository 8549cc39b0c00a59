//! `org.llamaorch.PoolManager`.

use super::access::{Access, Action};
use super::calls::{self, Named, Options, odd};
use super::error::Error;
use super::pool;
use crate::supervisor::Handle;
use pool_core::Request;
use pool_core::host::{Answer, Denied};
use pool_core::lease::LeaseId;
use pool_core::name::{PoolId, Usec};
use pool_core::registry::{HealthStatus, Report};
use pool_core::view::{ManagerView, PoolView, View};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{OwnedFd, OwnedObjectPath, Variant, interface};

pub(super) const INTERFACE: &str = "org.llamaorch.PoolManager";

/// What is said once and for all.
#[derive(Debug, Clone)]
pub(super) struct Constants {
    pub(super) systemd_version: String,
    pub(super) driver_version: String,
    pub(super) tainted: Vec<String>,
}

impl Constants {
    /// What limits this host, and what went wrong since.
    pub(super) fn tainted(&self, view: &ManagerView, polkit_missing: bool) -> Vec<String> {
        let polkit = polkit_missing.then(|| "polkit-missing".to_owned());
        let unsaved = (!view.unsaved.is_empty()).then(|| "wishes-not-saved".to_owned());
        self.tainted.iter().chain(&view.host_lacks).cloned().chain(polkit).chain(unsaved).collect()
    }
}

pub(super) struct ManagerObject {
    pub(super) view: watch::Receiver<(u64, Arc<View>)>,
    pub(super) constants: Constants,
    /// Whether there is no polkit.
    pub(super) polkit_missing: watch::Receiver<bool>,
    pub(super) access: Access,
    pub(super) handle: Handle,
}

impl ManagerObject {
    fn view(&self) -> Arc<View> {
        self.view.borrow().1.clone()
    }

    fn pool(&self, id: &str) -> Result<(PoolId, Arc<PoolView>), Error> {
        let unknown = || Error::from(Denied::NoSuchPool(id.to_owned()));
        let parsed: PoolId = id.parse().map_err(|_| unknown())?;
        let view = self.view().pools.get(&parsed).cloned().ok_or_else(unknown)?;
        Ok((parsed, view))
    }
}

#[interface(name = "org.llamaorch.PoolManager", introspection_docs = false)]
impl ManagerObject {
    #[zbus(out_args("pools"))]
    fn list_pools(&self) -> Vec<(String, OwnedObjectPath, String, bool, bool, u32)> {
        let row = |(id, pool): (&PoolId, &Arc<PoolView>)| {
            (
                pool.id.clone(),
                pool::object_path(id),
                pool.phase.to_owned(),
                pool.live,
                pool.ready,
                pool.active_leases,
            )
        };
        self.view().pools.iter().map(row).collect()
    }

    #[zbus(out_args("path"))]
    fn get_pool(&self, id: &str) -> Result<OwnedObjectPath, Error> {
        self.pool(id).map(|(id, _)| pool::object_path(&id))
    }

    #[zbus(out_args("live", "ready"))]
    fn get_health(&self, id: &str) -> Result<(bool, bool), Error> {
        self.pool(id).map(|(_, view)| (view.live, view.ready))
    }

    async fn wait_ready(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        timeout_usec: u64,
    ) -> Result<(), Error> {
        let caller = self.access.identify(&header).await?;
        match self.handle.ask(&caller, Request::WaitReady { pool: id, timeout: Usec(timeout_usec) }).await? {
            Answer::Ready => Ok(()),
            other => Err(odd(other, "a pool's readiness")),
        }
    }

    #[zbus(out_args("job"))]
    async fn start_pool(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.access.admit(&header, Action::Manage, &id).await?;
        calls::start(&self.handle, &caller, id, options).await
    }

    #[zbus(out_args("job"))]
    async fn stop_pool(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.access.admit(&header, Action::Manage, &id).await?;
        calls::stop(&self.handle, &caller, id, options).await
    }

    #[zbus(out_args("job"))]
    async fn drain_pool(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        deadline_usec: u64,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.access.admit(&header, Action::Manage, &id).await?;
        calls::drain(&self.handle, &caller, id, deadline_usec, options).await
    }

    #[zbus(out_args("job"))]
    async fn reload_pool(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        model: String,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.access.admit(&header, Action::Manage, &id).await?;
        calls::reload(&self.handle, &caller, id, model, options).await
    }

    async fn reset_pool(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Manage, &id).await?;
        calls::reset(&self.handle, &caller, id).await
    }

    #[zbus(out_args("lease", "endpoint", "descriptor"))]
    async fn allocate_lease(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        options: Options,
    ) -> Result<(String, String, OwnedFd), Error> {
        let caller = self.access.admit(&header, Action::Lease, &id).await?;
        calls::allocate_lease(&self.handle, &caller, id, options).await
    }

    async fn release_lease(&self, #[zbus(header)] header: Header<'_>, lease: String) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Lease, &pool_of(&lease)).await?;
        calls::done(self.handle.ask(&caller, Request::ReleaseLease { lease }).await?)
    }

    async fn renew_lease(
        &self,
        #[zbus(header)] header: Header<'_>,
        lease: String,
        ttl_usec: u64,
    ) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Lease, &pool_of(&lease)).await?;
        calls::done(self.handle.ask(&caller, Request::RenewLease { lease, ttl: Usec(ttl_usec) }).await?)
    }

    #[zbus(out_args("statistics"))]
    fn get_statistics(&self) -> Vec<(String, Named)> {
        let view = self.view();
        let pools = view.pools.values().map(|pool| (pool.id.clone(), calls::statistics(pool)));
        let devices = view.devices.values();
        pools.chain(devices.map(|device| (device.uuid.clone(), calls::device_statistics(device)))).collect()
    }

    #[zbus(out_args("path"))]
    async fn register_pool(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        options: Options,
    ) -> Result<OwnedObjectPath, Error> {
        let caller = self.access.admit(&header, Action::Configure, &id).await?;
        calls::register(&self.handle, &caller, id, options).await
    }

    async fn unregister_pool(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Configure, &id).await?;
        calls::done(self.handle.ask(&caller, Request::UnregisterPool { pool: id }).await?)
    }

    async fn set_health(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        live: bool,
        ready: bool,
    ) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Report, &id).await?;
        calls::report(&self.handle, &caller, id, Report::Health(HealthStatus { live, ready })).await
    }

    async fn set_heartbeat(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        timestamp: u64,
    ) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Report, &id).await?;
        // 0 is now: whoever has no clock of its own need not read one.
        let at = if timestamp == 0 { Usec(u64::MAX) } else { Usec(timestamp) };
        calls::report(&self.handle, &caller, id, Report::Heartbeat(at)).await
    }

    async fn set_version(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        version: String,
    ) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Report, &id).await?;
        calls::report(&self.handle, &caller, id, Report::Version(version)).await
    }

    async fn set_last_error(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        error: String,
    ) -> Result<(), Error> {
        let caller = self.access.admit(&header, Action::Report, &id).await?;
        let error = (!error.is_empty()).then_some(error);
        calls::report(&self.handle, &caller, id, Report::LastError(error)).await
    }

    #[zbus(out_args("explanation"))]
    fn explain(&self, id: &str) -> Result<Named, Error> {
        self.pool(id).map(|(_, view)| calls::explain(&view))
    }

    #[zbus(out_args("added", "changed", "removed"))]
    async fn reload_configuration(
        &self,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(Vec<String>, Vec<String>, Vec<String>), Error> {
        let texts = |ids: Vec<PoolId>| ids.into_iter().map(String::from).collect();
        let caller = self.access.admit(&header, Action::Configure, "").await?;
        match self.handle.reload(&caller).await? {
            Answer::Reloaded { added, changed, removed } => {
                Ok((texts(added), texts(changed), texts(removed)))
            }
            other => Err(odd(other, "what was read")),
        }
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    #[zbus(property)]
    fn systemd_version(&self) -> String {
        self.constants.systemd_version.clone()
    }

    #[zbus(property)]
    fn driver_version(&self) -> String {
        self.constants.driver_version.clone()
    }

    #[zbus(property)]
    fn nvml_version(&self) -> String {
        // No device is asked by this version.
        String::new()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn generation(&self) -> u64 {
        self.view.borrow().0
    }

    #[zbus(property)]
    fn pool_count(&self) -> u32 {
        self.view().manager.pool_count
    }

    #[zbus(property)]
    fn ready_pool_count(&self) -> u32 {
        self.view().manager.ready_pool_count
    }

    #[zbus(property)]
    fn replica_count(&self) -> u32 {
        self.view().manager.replica_count
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn active_leases(&self) -> u32 {
        self.view().manager.active_leases
    }

    #[zbus(property)]
    fn configuration_errors(&self) -> Vec<(String, String)> {
        self.view().manager.configuration_errors.clone()
    }

    #[zbus(property)]
    fn features(&self) -> Vec<String> {
        Vec::new()
    }

    #[zbus(property)]
    fn tainted(&self) -> Vec<String> {
        self.constants.tainted(&self.view().manager, *self.polkit_missing.borrow())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn start_timestamp(&self) -> u64 {
        self.view().manager.start_timestamp.0
    }

    #[zbus(signal)]
    pub(super) async fn pool_added(
        emitter: &SignalEmitter<'_>,
        id: &str,
        path: OwnedObjectPath,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn pool_removed(
        emitter: &SignalEmitter<'_>,
        id: &str,
        path: OwnedObjectPath,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn health_changed(
        emitter: &SignalEmitter<'_>,
        id: &str,
        live: bool,
        ready: bool,
        reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn job_new(
        emitter: &SignalEmitter<'_>,
        id: u32,
        path: OwnedObjectPath,
        pool: &str,
        operation: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        path: OwnedObjectPath,
        pool: &str,
        result: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn device_health_changed(
        emitter: &SignalEmitter<'_>,
        uuid: &str,
        health: &str,
        reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn lease_revoked(
        emitter: &SignalEmitter<'_>,
        lease: &str,
        pool: &str,
        reason: &str,
    ) -> zbus::Result<()>;
}

/// The pool that a lease is of, which its id says; "" where it is none.
fn pool_of(lease: &str) -> String {
    lease.parse::<LeaseId>().map(|lease| lease.replica.pool.into()).unwrap_or_default()
}

/// The properties in which two views differ, with their new values.
pub(super) fn changes<'a>(
    old: &ManagerView,
    new: &'a ManagerView,
    constants: &Constants,
    polkit_missing: bool,
) -> HashMap<&'static str, Variant<'a>> {
    let mut changes = changed! { old, new;
        "PoolCount": pool_count => new.pool_count,
        "ReadyPoolCount": ready_pool_count => new.ready_pool_count,
        "ReplicaCount": replica_count => new.replica_count,
        "ConfigurationErrors": configuration_errors => new.configuration_errors.clone(),
    };
    let tainted = constants.tainted(new, polkit_missing);
    if tainted != constants.tainted(old, polkit_missing) {
        changes.insert("Tainted", Variant::new(tainted));
    }
    changes
}
