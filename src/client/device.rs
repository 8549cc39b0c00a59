//! How the devices stand.

use super::error::Error;
use super::proxy::DeviceProxy;
use super::status::{DEVICE, POOL, Properties};
use super::{Client, ROOT};
use serde::Serialize;
use std::collections::HashMap;
use zbus::fdo::{ManagedObjects, ObjectManagerProxy};
use zbus::names::OwnedInterfaceName;
use zbus::{OwnedObjectPath, OwnedVariant};

/// How a device stands. Sizes are bytes; what is absent is 0, "" or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// What names it for good.
    pub uuid: String,
    /// "gpu" or "mig".
    pub kind: String,
    /// Its index in this boot.
    pub index: u32,
    /// Its model.
    pub name: String,
    /// Its address on the PCI bus.
    pub pci_address: String,
    /// The NUMA node that it is near to; -1: the host does not say.
    pub numa_node: i32,
    /// The CPUs that are near to it, as a list of ranges.
    pub local_cpus: String,
    /// Its memory.
    pub memory_total: u64,
    /// What is free of it.
    pub memory_free: u64,
    /// What pools have reserved of it.
    pub memory_reserved: u64,
    /// How much it works, in percent.
    pub utilization: u32,
    /// In degrees Celsius.
    pub temperature: u32,
    /// "ok", "degraded", "quarantined", "wedged", "lost", or a later version's word.
    pub health: String,
    /// Why, in words.
    pub health_reason: String,
    /// The ids of the pools that may use it.
    pub pools: Vec<String>,
}

impl Client {
    /// How all devices stand, by their indices. One call.
    ///
    /// # Errors
    /// The daemon cannot be asked.
    pub async fn devices(&self) -> Result<Vec<DeviceStatus>, Error> {
        let objects: ObjectManagerProxy<'_> = self.proxy(ROOT).await?;
        let mut found: Vec<_> = devices(objects.get_managed_objects().await?).collect();
        found.sort_by(|(_, a), (_, b)| (a.index, &a.uuid).cmp(&(b.index, &b.uuid)));
        Ok(found.into_iter().map(|(_, device)| device).collect())
    }

    /// Takes a device out of use, for a reason in words.
    ///
    /// # Errors
    /// There is no such device, or the daemon cannot be asked.
    pub async fn quarantine(&self, uuid: &str, reason: &str) -> Result<(), Error> {
        Ok(self.device(uuid).await?.quarantine(reason).await?)
    }

    /// Takes a device into use again.
    ///
    /// # Errors
    /// There is no such device, or the daemon cannot be asked.
    pub async fn readmit(&self, uuid: &str) -> Result<(), Error> {
        Ok(self.device(uuid).await?.readmit().await?)
    }

    /// A device by its object, member by member.
    ///
    /// # Errors
    /// None that is expected: nobody is asked.
    pub async fn device_at(&self, path: OwnedObjectPath) -> Result<DeviceProxy<'static>, Error> {
        self.proxy(path).await
    }

    async fn device(&self, uuid: &str) -> Result<DeviceProxy<'static>, Error> {
        let objects: ObjectManagerProxy<'_> = self.proxy(ROOT).await?;
        let mut all = devices(objects.get_managed_objects().await?);
        match all.find(|(_, device)| device.uuid == uuid) {
            Some((path, _)) => self.device_at(path).await,
            None => Err(Error::NoSuchDevice(format!("no device \"{uuid}\""))),
        }
    }
}

fn devices(objects: ManagedObjects) -> impl Iterator<Item = (OwnedObjectPath, DeviceStatus)> {
    let id = |(path, interfaces): (&OwnedObjectPath, &HashMap<OwnedInterfaceName, _>)| {
        let mut interfaces = interfaces.iter();
        let (_, properties): (_, &HashMap<String, OwnedVariant>) =
            interfaces.find(|(interface, _)| interface.as_str() == POOL)?;
        let id = properties.get("Id")?.try_clone().ok()?;
        Some((path.clone(), String::try_from(id).ok()?))
    };
    let pools: HashMap<OwnedObjectPath, String> = objects.iter().filter_map(id).collect();
    objects.into_iter().filter_map(move |(path, interfaces)| {
        let mut interfaces = interfaces.into_iter();
        let (_, properties) = interfaces.find(|(interface, _)| interface.as_str() == DEVICE)?;
        Some((path, status(Properties(properties), &pools)))
    })
}

/// `pools`: the id of the pool that has a path.
fn status(mut of: Properties, pools: &HashMap<OwnedObjectPath, String>) -> DeviceStatus {
    let paths: Vec<OwnedObjectPath> = of.take("Pools");
    let ids = paths.iter().map(|path| pools.get(path).cloned());
    DeviceStatus {
        uuid: of.take("Uuid"),
        kind: of.take("Kind"),
        index: of.take("Index"),
        name: of.take("Name"),
        pci_address: of.take("PciAddress"),
        numa_node: of.take("NumaNode"),
        local_cpus: of.take("LocalCpus"),
        memory_total: of.take("MemoryTotal"),
        memory_free: of.take("MemoryFree"),
        memory_reserved: of.take("MemoryReserved"),
        utilization: of.take("Utilization"),
        temperature: of.take("Temperature"),
        health: of.take("Health"),
        health_reason: of.take("HealthReason"),
        pools: ids.into_iter().flatten().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Variant;

    #[test]
    fn a_device_is_found_among_the_objects() {
        let value = |value: Variant<'static>| OwnedVariant::try_from(value).expect("no descriptor is in it");
        let properties = HashMap::from([
            ("Uuid".to_owned(), value("GPU-1".into())),
            ("Index".to_owned(), value(1_u32.into())),
            ("MemoryTotal".to_owned(), value(80_u64.into())),
            (
                "Pools".to_owned(),
                value(Variant::new(vec![zbus::ObjectPath::try_from("/p/1").expect("a path")])),
            ),
        ]);
        let named = |name: &str| OwnedInterfaceName::try_from(name.to_owned()).expect("a name");
        let path = |path: &str| OwnedObjectPath::try_from(path).expect("a path");
        let objects = HashMap::from([
            (path("/d/1"), HashMap::from([(named(DEVICE), properties)])),
            (
                path("/p/1"),
                HashMap::from([(named(POOL), HashMap::from([("Id".to_owned(), value("chat".into()))]))]),
            ),
        ]);
        let found: Vec<_> = devices(objects).collect();
        let expected = DeviceStatus {
            uuid: "GPU-1".into(),
            index: 1,
            memory_total: 80,
            pools: vec!["chat".into()],
            ..DeviceStatus::default()
        };
        assert_eq!(found, [(path("/d/1"), expected)]);
    }
}
