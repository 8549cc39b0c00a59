//! How the devices stand.

use super::error::Error;
use super::proxy::DeviceProxy;
use super::status::{DEVICE, Properties};
use super::{Client, ROOT};
use serde::Serialize;
use zbus::OwnedObjectPath;
use zbus::fdo::{ManagedObjects, ObjectManagerProxy};

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
    objects.into_iter().filter_map(|(path, interfaces)| {
        let mut interfaces = interfaces.into_iter();
        let (_, properties) = interfaces.find(|(interface, _)| interface.as_str() == DEVICE)?;
        Some((path, status(Properties(properties))))
    })
}

fn status(mut of: Properties) -> DeviceStatus {
    DeviceStatus {
        uuid: of.take("Uuid"),
        kind: of.take("Kind"),
        index: of.take("Index"),
        name: of.take("Name"),
        pci_address: of.take("PciAddress"),
        memory_total: of.take("MemoryTotal"),
        memory_free: of.take("MemoryFree"),
        memory_reserved: of.take("MemoryReserved"),
        utilization: of.take("Utilization"),
        temperature: of.take("Temperature"),
        health: of.take("Health"),
        health_reason: of.take("HealthReason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use zbus::names::OwnedInterfaceName;
    use zbus::{OwnedVariant, Variant};

    #[test]
    fn a_device_is_found_among_the_objects() {
        let value = |value: Variant<'static>| OwnedVariant::try_from(value).expect("no descriptor is in it");
        let properties = HashMap::from([
            ("Uuid".to_owned(), value("GPU-1".into())),
            ("Index".to_owned(), value(1_u32.into())),
            ("MemoryTotal".to_owned(), value(80_u64.into())),
        ]);
        let named = |name: &str| OwnedInterfaceName::try_from(name.to_owned()).expect("a name");
        let path = |path: &str| OwnedObjectPath::try_from(path).expect("a path");
        let objects = HashMap::from([
            (path("/d/1"), HashMap::from([(named(DEVICE), properties)])),
            (path("/p/1"), HashMap::from([(named("org.llamaorch.PoolManager.Pool"), HashMap::new())])),
        ]);
        let found: Vec<_> = devices(objects).collect();
        let expected =
            DeviceStatus { uuid: "GPU-1".into(), index: 1, memory_total: 80, ..DeviceStatus::default() };
        assert_eq!(found, [(path("/d/1"), expected)]);
    }
}
