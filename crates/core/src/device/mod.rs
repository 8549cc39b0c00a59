//! Owns the devices of this host as an inventory found them, how they stand, and which of them an engine is given. A
//! device is known by its UUID, never by its index: an index is another device's after a reboot.
//!
//! What a pool file says of devices becomes devices when an engine is about to be started, for the inventory may have
//! changed since; what an engine has been given it keeps until it ends.

mod mask;
mod part;
mod stated;

pub use mask::{DeviceMask, DeviceWish, Selector};
pub use part::{DEVICE_MASK_NONE, Part};
pub use stated::{Inventory, StatedDevice, StatedDevices, StatedError, check as check_stated};

use crate::cpu::{CpuSet, Topology};
use crate::name::{NameError, Usec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A device's UUID as its driver writes it: `GPU-…` or `MIG-…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceUuid(String);

impl DeviceUuid {
    /// The UUID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a MIG instance's.
    #[must_use]
    pub fn is_mig(&self) -> bool {
        self.0.starts_with("MIG-")
    }

    /// Whether it is as AMD's driver writes one: 16 hexadecimal digits, where NVIDIA's has dashes between them.
    #[must_use]
    pub fn is_amd(&self) -> bool {
        let digits = self.0.strip_prefix("GPU-").unwrap_or_default();
        digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl FromStr for DeviceUuid {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let rest = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-"));
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/');
        match rest {
            Some(rest) if !rest.is_empty() && text.len() <= 96 && rest.chars().all(inner) => {
                Ok(DeviceUuid(text.to_owned()))
            }
            _ => Err(NameError::new("device", text, "\"GPU-\" or \"MIG-\" and a UUID")),
        }
    }
}

impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DeviceUuid {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<DeviceUuid> for String {
    fn from(uuid: DeviceUuid) -> String {
        uuid.0
    }
}

/// What a device is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A whole GPU.
    #[default]
    Gpu,
    /// A MIG instance, a part of one.
    Mig,
}

impl DeviceKind {
    /// As it is published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DeviceKind::Gpu => "gpu",
            DeviceKind::Mig => "mig",
        }
    }
}

/// A device as an inventory found it. Sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// What it is.
    pub kind: DeviceKind,
    /// The device that it is a part of.
    pub parent: Option<DeviceUuid>,
    /// Its index in this boot.
    pub index: u32,
    /// The nodes that a program opens to use it, besides those that are common to all devices.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// The minor number of its node.
    pub minor: u32,
    /// Its model.
    pub name: String,
    /// Its address on the PCI bus.
    pub pci_address: String,
    /// The NUMA node that it is near to; none: the host does not say.
    pub numa_node: Option<u16>,
    /// The CPUs that are near to it, as a list of ranges.
    pub local_cpus: String,
    /// What it can compute, for instance "9.0".
    pub compute_capability: String,
    /// Its memory.
    pub memory_total: u64,
    /// What is free of it.
    pub memory_free: u64,
    /// How much it works, in percent.
    pub utilization: u32,
    /// In degrees Celsius.
    pub temperature: u32,
    /// The last error that its driver told of; 0: none.
    pub last_xid: u32,
    /// When, realtime.
    pub last_xid_at: Usec,
}

/// Why a device is out of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Why, in the words of who wanted it.
    pub reason: String,
}

/// All devices, and which of them are out of use. One that is out of use stays so while it is away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    found: BTreeMap<DeviceUuid, DeviceFacts>,
    /// Nodes that a program opens whichever device it uses.
    #[serde(default)]
    common: Vec<String>,
    quarantined: BTreeMap<DeviceUuid, Quarantine>,
}

impl Devices {
    /// Those that an earlier run kept out of use.
    #[must_use]
    pub fn keeping(quarantined: BTreeMap<DeviceUuid, Quarantine>) -> Self {
        Devices { quarantined, ..Devices::default() }
    }

    /// Takes in what an inventory found: all that there is now.
    pub fn find(&mut self, found: Inventory) {
        (self.common, self.found) = (found.common, found.devices);
    }

    /// What an inventory found last.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        Inventory { common: self.common.clone(), devices: self.found.clone() }
    }

    /// The CPUs that are near to the devices of an engine; none, where the host does not say.
    #[must_use]
    pub fn near(&self, part: &Part, topology: &Topology) -> CpuSet {
        let near = |facts: &DeviceFacts| {
            let local: CpuSet = facts.local_cpus.parse().unwrap_or_default();
            let of_node = || topology.nodes.get(&facts.numa_node?).cloned();
            if local.is_empty() { of_node().unwrap_or_default() } else { local }
        };
        let facts = part.uuids().filter_map(|uuid| self.found.get(uuid));
        facts.flat_map(|facts| near(facts).iter().collect::<Vec<_>>()).collect()
    }

    /// All that there are, sorted by UUID.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceUuid, &DeviceFacts)> {
        self.found.iter()
    }

    /// Whether there is such a device.
    #[must_use]
    pub fn contains(&self, uuid: &DeviceUuid) -> bool {
        self.found.contains_key(uuid)
    }

    /// Why a device is out of use; `None`: it is not.
    #[must_use]
    pub fn quarantine(&self, uuid: &DeviceUuid) -> Option<&Quarantine> {
        self.quarantined.get(uuid)
    }

    /// Those that are out of use, which survives a reboot.
    #[must_use]
    pub fn quarantined(&self) -> &BTreeMap<DeviceUuid, Quarantine> {
        &self.quarantined
    }

    /// Takes a device out of use.
    pub fn take_out(&mut self, uuid: DeviceUuid, reason: String) {
        self.quarantined.insert(uuid, Quarantine { reason });
    }

    /// Takes it into use again; false where it was in use.
    pub fn readmit(&mut self, uuid: &DeviceUuid) -> bool {
        self.quarantined.remove(uuid).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_the_driver_s_word() {
        for text in [
            "GPU-8f6f1b2c-4d5e-6f70-8192-a3b4c5d6e7f8",
            "MIG-8f6f1b2c-4d5e-6f70-8192-a3b4c5d6e7f8",
            "MIG-GPU-8f6f1b2c-4d5e-6f70-8192-a3b4c5d6e7f8/1/0",
        ] {
            let uuid: DeviceUuid = text.parse().expect("a UUID");
            assert_eq!((uuid.to_string().as_str(), uuid.as_str()), (text, text));
            let json = serde_json::to_string(&uuid).expect("a text");
            assert_eq!(serde_json::from_str::<DeviceUuid>(&json).expect("a UUID"), uuid);
        }
        for text in
            ["", "0", "GPU-", "gpu-8f6f", "GPU-8f 6f", "GPU-\u{e9}", &format!("GPU-{}", "a".repeat(93))]
        {
            assert!(text.parse::<DeviceUuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_near_to_devices_is_as_the_kernel_says_else_all_of_their_nodes() {
        let set = |text: &str| text.parse::<CpuSet>().expect("a list");
        let topology =
            Topology { online: set("0-15"), nodes: BTreeMap::from([(0, set("0-7")), (1, set("8-15"))]) };
        let device = |index, local: &str, node| DeviceFacts {
            index,
            local_cpus: local.to_owned(),
            numa_node: node,
            nodes: vec![format!("/dev/nvidia{index}")],
            ..DeviceFacts::default()
        };
        let named = |facts: DeviceFacts| (format!("GPU-{}", facts.index).parse().expect("a UUID"), facts);
        let found = [device(0, "0-3", Some(0)), device(1, "", Some(1)), device(2, "", None)];
        let mut devices = Devices::default();
        devices.find(Inventory { devices: found.into_iter().map(named).collect(), ..Inventory::default() });
        let near = |marks: &str| devices.near(&Part::of_marks(marks, ""), &topology).to_string();
        assert_eq!(near("0=GPU-0"), "0-3");
        assert_eq!(near("0=GPU-0,1=GPU-1"), "0-3,8-15");
        assert_eq!((near("2=GPU-2"), near("9=GPU-9"), near("")), ("".into(), "".into(), "".into()));
    }

    #[test]
    fn a_uuid_tells_whose_driver_wrote_it() {
        let uuid = |text: &str| text.parse::<DeviceUuid>().expect("a UUID");
        assert!(uuid("GPU-00112233aabbccdd").is_amd());
        for nvidia in ["GPU-8f6f1b2c-4d5e-6f70-8192-a3b4c5d6e7f8", "MIG-00112233aabbccdd", "GPU-0"] {
            assert!(!uuid(nvidia).is_amd(), "{nvidia}");
        }
    }

    #[test]
    fn what_is_out_of_use_stays_so_while_it_is_away() {
        let uuid: DeviceUuid = "GPU-1".parse().expect("a UUID");
        let found = Inventory {
            devices: BTreeMap::from([(uuid.clone(), DeviceFacts::default())]),
            ..Inventory::default()
        };
        let mut devices = Devices::default();
        devices.find(found.clone());
        devices.take_out(uuid.clone(), "it smells".to_owned());
        devices.find(Inventory::default());
        assert!(!devices.contains(&uuid));
        let mut later = Devices::keeping(devices.quarantined().clone());
        later.find(found);
        assert_eq!(later.quarantine(&uuid).map(|quarantine| quarantine.reason.as_str()), Some("it smells"));
        assert!(later.readmit(&uuid) && !later.readmit(&uuid));
        assert_eq!(later.quarantine(&uuid), None);
    }
}
