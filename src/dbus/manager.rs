//! `org.llamaorch.PoolManager`.

use super::error::Error;
use super::{job_path, pool};
use crate::supervisor::Handle;
use pool_core::Request;
use pool_core::host::{Answer, Denied};
use pool_core::name::{PoolId, Usec};
use pool_core::view::{ManagerView, PoolView, View};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use zbus::object_server::SignalEmitter;
use zbus::{OwnedObjectPath, OwnedVariant, Variant, interface};

pub(super) const INTERFACE: &str = "org.llamaorch.PoolManager";

/// What is said once and for all.
#[derive(Debug, Clone)]
pub(super) struct Constants {
    pub(super) systemd_version: String,
    pub(super) tainted: Vec<String>,
}

pub(super) struct ManagerObject {
    pub(super) view: watch::Receiver<(u64, Arc<View>)>,
    pub(super) constants: Constants,
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
        let leases = 0;
        let row = |(id, pool): (&PoolId, &Arc<PoolView>)| {
            (pool.id.clone(), pool::object_path(id), pool.phase.to_owned(), pool.live, pool.ready, leases)
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

    async fn wait_ready(&self, id: String, timeout_usec: u64) -> Result<(), Error> {
        match self.handle.ask(Request::WaitReady { pool: id, timeout: Usec(timeout_usec) }).await? {
            Answer::Ready => Ok(()),
            Answer::Denied(denied) => Err(denied.into()),
            _ => Err(Error::internal("waiting for a pool was answered with something else")),
        }
    }

    #[zbus(out_args("job"))]
    async fn start_pool(
        &self,
        id: String,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(&options)?;
        started(self.handle.ask(Request::Start { pool: id }).await?)
    }

    #[zbus(out_args("job"))]
    async fn stop_pool(
        &self,
        id: String,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(&options)?;
        started(self.handle.ask(Request::Stop { pool: id }).await?)
    }

    #[zbus(out_args("added", "changed", "removed"))]
    async fn reload_configuration(&self) -> Result<(Vec<String>, Vec<String>, Vec<String>), Error> {
        let texts = |ids: Vec<PoolId>| ids.into_iter().map(String::from).collect();
        match self.handle.reload().await? {
            Answer::Reloaded { added, changed, removed } => {
                Ok((texts(added), texts(changed), texts(removed)))
            }
            Answer::Denied(denied) => Err(denied.into()),
            _ => Err(Error::internal("a reload was answered with something else")),
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
        self.constants.tainted.clone()
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
}

/// The properties in which two views differ, with their new values.
pub(super) fn changes<'a>(old: &ManagerView, new: &'a ManagerView) -> HashMap<&'static str, Variant<'a>> {
    changed! { old, new;
        "PoolCount": pool_count => new.pool_count,
        "ReadyPoolCount": ready_pool_count => new.ready_pool_count,
        "ReplicaCount": replica_count => new.replica_count,
        "ConfigurationErrors": configuration_errors => new.configuration_errors.clone(),
    }
}

/// This version knows no options, so each is a mistake of the caller.
pub(super) fn no_options(options: &HashMap<String, OwnedVariant>) -> Result<(), Error> {
    match options.keys().min() {
        None => Ok(()),
        Some(key) => Err(Error::invalid_args(format!("unknown option \"{key}\"; this version takes none"))),
    }
}

/// The job of a start or stop.
pub(super) fn started(answer: Answer) -> Result<OwnedObjectPath, Error> {
    match answer {
        Answer::Job(job) => Ok(super::path(job_path(job.0))),
        Answer::Denied(denied) => Err(denied.into()),
        _ => Err(Error::internal("an operation was answered with something else")),
    }
}
