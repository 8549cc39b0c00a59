//! The only code that touches the object server. It compares the last view with the latest, adds and removes objects,
//! sends one `PropertiesChanged` for each object and interface that differs, and answers callers after that.

use super::access::Access;
use super::device::{self, DeviceObject};
use super::job::{self, JobObject};
use super::manager::{self, Constants, ManagerObject};
use super::objects::Served;
use super::pool::{self, PoolObject};
use super::replica::{self, ReplicaObject};
use super::socket::Outbox;
use super::{ROOT, device_path, job_path, path, pool_path, replica_path};
use crate::supervisor::{Handle, Publication, answer};
use pool_core::device::DeviceUuid;
use pool_core::lease::LeaseId;
use pool_core::name::{PoolId, ReplicaId};
use pool_core::view::{DeviceView, JobView, PoolView, ReplicaView, View};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::watch;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, Variant};

/// Where it is published.
pub(super) struct Bus {
    pub(super) connection: Connection,
    /// What is still to be written: while there is no room, nothing is published.
    pub(super) outbox: Outbox,
    /// The objects as one answer has them.
    pub(super) served: Served,
}

/// The objects that are served, and what each says.
pub(super) struct Publisher {
    bus: Bus,
    access: Access,
    handle: Handle,
    constants: Constants,
    /// What the manager says of it.
    polkit_missing: watch::Sender<bool>,
    last: Arc<View>,
    manager: watch::Sender<(u64, Arc<View>)>,
    pools: BTreeMap<PoolId, watch::Sender<Arc<PoolView>>>,
    replicas: BTreeMap<ReplicaId, watch::Sender<Arc<ReplicaView>>>,
    jobs: BTreeMap<u32, watch::Sender<Arc<JobView>>>,
    devices: BTreeMap<DeviceUuid, watch::Sender<Arc<DeviceView>>>,
}

impl Publisher {
    pub(super) fn new(
        bus: Bus,
        access: Access,
        handle: Handle,
        constants: Constants,
        polkit_missing: watch::Sender<bool>,
        manager: watch::Sender<(u64, Arc<View>)>,
    ) -> Self {
        Publisher {
            bus,
            access,
            handle,
            constants,
            polkit_missing,
            last: Arc::new(View::default()),
            manager,
            pools: BTreeMap::new(),
            replicas: BTreeMap::new(),
            jobs: BTreeMap::new(),
            devices: BTreeMap::new(),
        }
    }

    /// Publishes a view and gives the answers that belong to it.
    pub(super) async fn publish(&mut self, publication: Publication) -> zbus::Result<()> {
        self.bus.outbox.room().await;
        let new = publication.view;
        if *new != *self.last {
            self.manager.send_modify(|(generation, view)| {
                *generation += 1;
                *view = new.clone();
            });
            let old = std::mem::replace(&mut self.last, new.clone());
            self.objects(&old, &new).await?;
            self.signals(&old, &new).await?;
        }
        self.revoked(&publication.revoked).await?;
        for (caller, reply) in publication.replies {
            answer(caller, reply);
        }
        if publication.alive {
            crate::notify::alive();
        }
        Ok(())
    }

    /// Publishes whether polkit is missing.
    pub(super) async fn publish_polkit(&mut self, missing: bool) -> zbus::Result<()> {
        if self.polkit_missing.send_replace(missing) == missing {
            return Ok(());
        }
        self.manager.send_modify(|(generation, _)| *generation += 1);
        let tainted = self.constants.tainted(&self.last.manager, missing);
        let changes = HashMap::from([("Tainted", Variant::new(tainted))]);
        self.changed(ROOT.to_owned(), manager::INTERFACE, changes).await
    }

    /// Objects that came, changed or went. A pool's replicas come before it and go after it, so that the paths that
    /// it names are always there.
    async fn objects(&mut self, old: &View, new: &View) -> zbus::Result<()> {
        for (id, view) in &new.replicas {
            match old.replicas.get(id) {
                None => {
                    let (sender, view) = watch::channel(view.clone());
                    self.replicas.insert(id.clone(), sender);
                    let (handle, manager) = (self.handle.clone(), self.manager.subscribe());
                    self.add(replica_path(id), ReplicaObject { view, handle, manager }).await?;
                }
                Some(before) if before != view => {
                    replace(self.replicas.get(id), view);
                    self.bus.served.changed(&replica_path(id));
                    self.changed(replica_path(id), replica::INTERFACE, replica::changes(before, view))
                        .await?;
                }
                Some(_) => {}
            }
        }
        for (id, view) in &new.pools {
            match old.pools.get(id) {
                None => {
                    let (sender, view) = watch::channel(view.clone());
                    self.pools.insert(id.clone(), sender);
                    self.add(
                        pool_path(id),
                        PoolObject { view, access: self.access.clone(), handle: self.handle.clone() },
                    )
                    .await?;
                }
                Some(before) if before != view => {
                    replace(self.pools.get(id), view);
                    self.bus.served.changed(&pool_path(id));
                    self.changed(pool_path(id), pool::INTERFACE, pool::changes(before, view)).await?;
                }
                Some(_) => {}
            }
        }
        for (uuid, view) in &new.devices {
            match old.devices.get(uuid) {
                None => {
                    let (sender, view) = watch::channel(view.clone());
                    self.devices.insert(uuid.clone(), sender);
                    let (access, handle) = (self.access.clone(), self.handle.clone());
                    self.add(device_path(uuid), DeviceObject { view, access, handle }).await?;
                }
                Some(before) if before != view => {
                    replace(self.devices.get(uuid), view);
                    self.bus.served.changed(&device_path(uuid));
                    self.changed(device_path(uuid), device::INTERFACE, device::changes(before, view)).await?;
                }
                Some(_) => {}
            }
        }
        for (id, view) in &new.jobs {
            match old.jobs.get(id) {
                None => {
                    let (sender, view) = watch::channel(view.clone());
                    self.jobs.insert(*id, sender);
                    self.add(
                        job_path(*id),
                        JobObject { view, access: self.access.clone(), handle: self.handle.clone() },
                    )
                    .await?;
                }
                Some(before) if before != view => {
                    replace(self.jobs.get(id), view);
                    self.bus.served.changed(&job_path(*id));
                    self.changed(job_path(*id), job::INTERFACE, job::changes(before, view)).await?;
                }
                Some(_) => {}
            }
        }
        for id in old.jobs.keys().filter(|id| !new.jobs.contains_key(id)) {
            self.jobs.remove(id);
            self.remove::<JobObject>(job_path(*id)).await?;
        }
        for uuid in old.devices.keys().filter(|uuid| !new.devices.contains_key(uuid)) {
            self.devices.remove(uuid);
            self.remove::<DeviceObject>(device_path(uuid)).await?;
        }
        for id in old.pools.keys().filter(|id| !new.pools.contains_key(id)) {
            self.pools.remove(id);
            self.remove::<PoolObject>(pool_path(id)).await?;
        }
        for id in old.replicas.keys().filter(|id| !new.replicas.contains_key(id)) {
            self.replicas.remove(id);
            self.remove::<ReplicaObject>(replica_path(id)).await?;
        }
        let polkit_missing = *self.polkit_missing.borrow();
        let changes = manager::changes(&old.manager, &new.manager, &self.constants, polkit_missing);
        self.changed(ROOT.to_owned(), manager::INTERFACE, changes).await
    }

    /// The manager's own signals.
    async fn signals(&self, old: &View, new: &View) -> zbus::Result<()> {
        let emitter = SignalEmitter::new(&self.bus.connection, ROOT)?;
        for (id, view) in &new.pools {
            let before = old.pools.get(id);
            if before.is_none() {
                ManagerObject::pool_added(&emitter, id.as_str(), pool::object_path(id)).await?;
            }
            let (live, ready) = before.map_or((false, false), |before| (before.live, before.ready));
            if (live, ready) != (view.live, view.ready) {
                ManagerObject::health_changed(&emitter, id.as_str(), view.live, view.ready, &view.detail)
                    .await?;
            }
        }
        for (id, before) in old.pools.iter().filter(|(id, _)| !new.pools.contains_key(id)) {
            if before.live || before.ready {
                ManagerObject::health_changed(&emitter, id.as_str(), false, false, "the pool was removed")
                    .await?;
            }
            ManagerObject::pool_removed(&emitter, id.as_str(), pool::object_path(id)).await?;
        }
        for (id, view) in &new.jobs {
            let before = old.jobs.get(id);
            let job = path(job_path(*id));
            if before.is_none() {
                ManagerObject::job_new(&emitter, *id, job.clone(), view.pool.as_str(), view.operation)
                    .await?;
            }
            if view.state == "done" && before.is_none_or(|before| before.state != "done") {
                ManagerObject::job_removed(&emitter, *id, job, view.pool.as_str(), view.result).await?;
            }
        }
        for (uuid, view) in &new.devices {
            let before = old.devices.get(uuid).map_or("ok", |before| before.health);
            if before != view.health {
                let (uuid, reason) = (uuid.as_str(), view.health_reason.as_str());
                ManagerObject::device_health_changed(&emitter, uuid, view.health, reason).await?;
            }
        }
        Ok(())
    }

    /// Tells holders that their leases are over; what their engines are now was told before.
    async fn revoked(&self, leases: &[(LeaseId, String)]) -> zbus::Result<()> {
        let emitter = SignalEmitter::new(&self.bus.connection, ROOT)?;
        for (lease, reason) in leases {
            let pool = lease.replica.pool.as_str();
            ManagerObject::lease_revoked(&emitter, &lease.to_string(), pool, reason).await?;
        }
        Ok(())
    }

    async fn add<I: Interface>(&self, at: String, object: I) -> zbus::Result<()> {
        if self.bus.connection.object_server().at(at.as_str(), object).await?.is_some() {
            tracing::error!("{at} was served already; this is a bug in pool-managerd");
        }
        self.bus.served.added::<I>(&at);
        Ok(())
    }

    async fn remove<I: Interface>(&self, at: String) -> zbus::Result<()> {
        self.bus.served.removed(&at);
        self.bus.connection.object_server().remove::<I, _>(at).await?;
        Ok(())
    }

    async fn changed(
        &self,
        at: String,
        interface: &str,
        changes: HashMap<&'static str, Variant<'_>>,
    ) -> zbus::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let invalidated: &[&str] = &[];
        SignalEmitter::new(&self.bus.connection, at)?
            .emit("org.freedesktop.DBus.Properties", "PropertiesChanged", &(interface, changes, invalidated))
            .await
    }
}

fn replace<T>(sender: Option<&watch::Sender<Arc<T>>>, view: &Arc<T>) {
    if let Some(sender) = sender {
        sender.send_replace(view.clone());
    }
}
