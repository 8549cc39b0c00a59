//! `org.llamaorch.PoolManager.Device`.

use super::access::{Access, Action};
use super::error::Error;
use super::{calls, device_path, pool};
use crate::supervisor::Handle;
use pool_core::Request;
use pool_core::view::DeviceView;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use zbus::message::Header;
use zbus::{OwnedObjectPath, Variant, interface};

pub(super) const INTERFACE: &str = "org.llamaorch.PoolManager.Device";

pub(super) struct DeviceObject {
    pub(super) view: watch::Receiver<Arc<DeviceView>>,
    pub(super) access: Access,
    pub(super) handle: Handle,
}

impl DeviceObject {
    fn view(&self) -> Arc<DeviceView> {
        self.view.borrow().clone()
    }
}

#[interface(name = "org.llamaorch.PoolManager.Device", introspection_docs = false)]
impl DeviceObject {
    async fn quarantine(&self, #[zbus(header)] header: Header<'_>, reason: String) -> Result<(), Error> {
        let device = self.uuid();
        let caller = self.access.admit(&header, Action::Manage, &device).await?;
        calls::done(self.handle.ask(&caller, Request::QuarantineDevice { device, reason }).await?)
    }

    async fn readmit(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        let device = self.uuid();
        let caller = self.access.admit(&header, Action::Manage, &device).await?;
        calls::done(self.handle.ask(&caller, Request::ReadmitDevice { device }).await?)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn uuid(&self) -> String {
        self.view().uuid.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> String {
        self.view().kind.to_owned()
    }

    #[zbus(property)]
    fn parent(&self) -> OwnedObjectPath {
        parent(&self.view())
    }

    #[zbus(property)]
    fn index(&self) -> u32 {
        self.view().index
    }

    #[zbus(property)]
    fn minor(&self) -> u32 {
        self.view().minor
    }

    #[zbus(property)]
    fn name(&self) -> String {
        self.view().name.clone()
    }

    #[zbus(property)]
    fn pci_address(&self) -> String {
        self.view().pci_address.clone()
    }

    #[zbus(property)]
    fn numa_node(&self) -> i32 {
        self.view().numa_node
    }

    #[zbus(property)]
    fn local_cpus(&self) -> String {
        self.view().local_cpus.clone()
    }

    #[zbus(property)]
    fn compute_capability(&self) -> String {
        self.view().compute_capability.clone()
    }

    #[zbus(property)]
    fn memory_total(&self) -> u64 {
        self.view().memory_total
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_free(&self) -> u64 {
        self.view().memory_free
    }

    #[zbus(property)]
    fn memory_reserved(&self) -> u64 {
        self.view().memory_reserved
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn utilization(&self) -> u32 {
        self.view().utilization
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn temperature(&self) -> u32 {
        self.view().temperature
    }

    #[zbus(property)]
    fn health(&self) -> String {
        self.view().health.to_owned()
    }

    #[zbus(property)]
    fn health_reason(&self) -> String {
        self.view().health_reason.clone()
    }

    #[zbus(property)]
    fn last_xid(&self) -> u32 {
        self.view().last_xid
    }

    #[zbus(property)]
    fn last_xid_timestamp(&self) -> u64 {
        self.view().last_xid_timestamp.0
    }

    #[zbus(property)]
    fn pools(&self) -> Vec<OwnedObjectPath> {
        pools(&self.view())
    }
}

fn parent(view: &DeviceView) -> OwnedObjectPath {
    view.parent.as_ref().map(|uuid| super::path(device_path(uuid))).unwrap_or_default()
}

fn pools(view: &DeviceView) -> Vec<OwnedObjectPath> {
    view.pools.iter().map(pool::object_path).collect()
}

/// The properties in which two views differ, with their new values.
pub(super) fn changes<'a>(old: &DeviceView, new: &'a DeviceView) -> HashMap<&'static str, Variant<'a>> {
    changed! { old, new;
        "Parent": parent => parent(new),
        "Index": index => new.index,
        "Minor": minor => new.minor,
        "Name": name => new.name.as_str(),
        "PciAddress": pci_address => new.pci_address.as_str(),
        "NumaNode": numa_node => new.numa_node,
        "LocalCpus": local_cpus => new.local_cpus.as_str(),
        "ComputeCapability": compute_capability => new.compute_capability.as_str(),
        "MemoryTotal": memory_total => new.memory_total,
        "MemoryReserved": memory_reserved => new.memory_reserved,
        "Health": health => new.health,
        "HealthReason": health_reason => new.health_reason.as_str(),
        "LastXid": last_xid => new.last_xid,
        "LastXidTimestamp": last_xid_timestamp => new.last_xid_timestamp.0,
        "Pools": pools => pools(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::connection;

    /// Each member with its types, names and annotations.
    fn members(xml: &str) -> std::collections::BTreeSet<String> {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(xml, options).expect("XML");
        let said = |node: roxmltree::Node<'_, '_>| {
            let attributes: std::collections::BTreeMap<_, _> =
                node.attributes().map(|attribute| (attribute.name(), attribute.value())).collect();
            format!("{} {attributes:?}", node.tag_name().name())
        };
        let member = |node: roxmltree::Node<'_, '_>| {
            let parts: Vec<_> = node.children().filter(roxmltree::Node::is_element).map(said).collect();
            // A property that says nothing of signals sends them.
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.contains("\"true\"")).collect();
            format!("{} {parts:?}", said(node))
        };
        let interface = document.descendants().find(|node| node.has_tag_name("interface"));
        interface.expect("an interface").children().filter(roxmltree::Node::is_element).map(member).collect()
    }

    #[tokio::test]
    async fn what_is_served_is_what_the_contract_says() {
        // No host without a device shows one: the interface is asked by itself.
        let (one, _other) = connection::socket::Channel::pair();
        let guid = "0123456789abcdef0123456789abcdef";
        let peer = connection::Builder::authenticated_socket(one, guid).p2p().build();
        let peer = peer.await.expect("nobody is asked");
        let (_sender, view) = watch::channel(Arc::new(DeviceView::default()));
        let (access, handle) = (Access::over(&peer, 0), crate::supervisor::calls().0);
        let object = DeviceObject { view, access, handle };
        let mut served = String::new();
        zbus::object_server::Interface::introspect_to_writer(&object, &mut served, 0);
        let promised = include_str!("../../dbus/org.llamaorch.PoolManager.Device.xml");
        assert_eq!(members(&served), members(promised));
    }

    #[test]
    fn every_property_that_signals_is_told_when_it_changes() {
        let one = DeviceView::default();
        let other = DeviceView {
            parent: Some("GPU-1".parse().expect("a UUID")),
            index: 1,
            minor: 1,
            name: "x".into(),
            pci_address: "x".into(),
            numa_node: 1,
            local_cpus: "x".into(),
            compute_capability: "x".into(),
            memory_total: 1,
            memory_free: 1,
            memory_reserved: 1,
            utilization: 1,
            temperature: 1,
            health: "lost",
            health_reason: "x".into(),
            last_xid: 1,
            last_xid_timestamp: pool_core::name::Usec(1),
            pools: vec!["a".parse().expect("a valid name")],
            ..DeviceView::default()
        };
        let told = changes(&one, &other);
        let promised = include_str!("../../dbus/org.llamaorch.PoolManager.Device.xml");
        let signalled = promised.split("<property name=\"").skip(1).filter_map(|rest| {
            let (name, rest) = rest.split_once('"')?;
            let value = rest.split_once("EmitsChangedSignal\" value=\"")?.1;
            value.starts_with("true").then_some(name)
        });
        let signalled: std::collections::BTreeSet<_> = signalled.collect();
        assert_eq!(told.keys().copied().collect::<std::collections::BTreeSet<_>>(), signalled);
        assert!(changes(&other, &other).is_empty());
    }
}
