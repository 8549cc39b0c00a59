//! `org.llamaorch.PoolManager.Replica`.

use super::calls::{self, Named};
use super::error::Error;
use super::pool;
use crate::supervisor::Handle;
use pool_core::name::ReplicaId;
use pool_core::view::{ReplicaView, View};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use zbus::{OwnedObjectPath, Variant, interface};

pub(super) const INTERFACE: &str = "org.llamaorch.PoolManager.Replica";

pub(super) struct ReplicaObject {
    pub(super) view: watch::Receiver<Arc<ReplicaView>>,
    pub(super) handle: Handle,
    /// What this host does not have.
    pub(super) manager: watch::Receiver<(u64, Arc<View>)>,
}

impl ReplicaObject {
    fn view(&self) -> Arc<ReplicaView> {
        self.view.borrow().clone()
    }

    fn replica(&self) -> Result<ReplicaId, Error> {
        self.view().id.parse().map_err(|_| Error::internal("a replica has no id"))
    }
}

#[interface(name = "org.llamaorch.PoolManager.Replica", introspection_docs = false)]
impl ReplicaObject {
    #[zbus(out_args("usage"))]
    async fn get_usage(&self) -> Result<Named, Error> {
        let usage = self.handle.usage(self.replica()?).await?;
        let missing = self.manager.borrow().1.manager.missing_controllers.clone();
        Ok(calls::usage(&usage, missing))
    }

    #[zbus(out_args("lines"))]
    async fn get_unit_lines(&self) -> Result<Vec<(String, String, String)>, Error> {
        let lines = self.handle.unit_lines(self.replica()?).await?;
        Ok(lines.into_iter().map(|line| (line.name.to_owned(), line.value, line.reason)).collect())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.view().id.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn pool(&self) -> OwnedObjectPath {
        self.view().pool.as_ref().map(pool::object_path).unwrap_or_default()
    }

    #[zbus(property)]
    fn unit(&self) -> String {
        self.view().unit.clone()
    }

    #[zbus(property)]
    fn invocation_id(&self) -> Vec<u8> {
        self.view().invocation_id.clone()
    }

    #[zbus(property)]
    fn main_pid(&self) -> u32 {
        self.view().main_pid
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
    fn endpoint(&self) -> String {
        self.view().endpoint.clone()
    }

    #[zbus(property)]
    fn devices(&self) -> Vec<String> {
        self.view().devices.clone()
    }

    #[zbus(property)]
    fn allowed_cpus(&self) -> String {
        self.view().allowed_cpus.clone()
    }

    #[zbus(property)]
    fn status_text(&self) -> String {
        self.view().status_text.clone()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn active_leases(&self) -> u32 {
        self.view().active_leases
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn in_flight(&self) -> u32 {
        self.view().in_flight
    }

    #[zbus(property)]
    fn exit_class(&self) -> String {
        self.view().exit_class.clone()
    }

    #[zbus(property)]
    fn start_timestamp(&self) -> u64 {
        self.view().start_timestamp.0
    }

    #[zbus(property)]
    fn ready_timestamp(&self) -> u64 {
        self.view().ready_timestamp.0
    }
}

/// The properties in which two views differ, with their new values.
pub(super) fn changes<'a>(old: &ReplicaView, new: &'a ReplicaView) -> HashMap<&'static str, Variant<'a>> {
    changed! { old, new;
        "Unit": unit => new.unit.as_str(),
        "InvocationId": invocation_id => new.invocation_id.clone(),
        "MainPid": main_pid => new.main_pid,
        "Phase": phase => new.phase,
        "Live": live => new.live,
        "Ready": ready => new.ready,
        "Endpoint": endpoint => new.endpoint.as_str(),
        "Devices": devices => new.devices.clone(),
        "AllowedCpus": allowed_cpus => new.allowed_cpus.as_str(),
        "StatusText": status_text => new.status_text.as_str(),
        "ExitClass": exit_class => new.exit_class.as_str(),
        "StartTimestamp": start_timestamp => new.start_timestamp.0,
        "ReadyTimestamp": ready_timestamp => new.ready_timestamp.0,
    }
}
