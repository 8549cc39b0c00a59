//! The inventory that an operator states in `devices.toml`: its keys, and what they come to. Every error names the device
//! and the key, so that whoever reads the file can point at the line.

use super::mask::pci_address;
use super::{DeviceFacts, DeviceKind, DeviceUuid};
use crate::config::{Size, parse_size};
use crate::cpu::CpuSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that an inventory found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Nodes that a program opens whichever device it uses.
    pub common: Vec<String>,
    /// The devices.
    pub devices: BTreeMap<DeviceUuid, DeviceFacts>,
}

/// `devices.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedDevices {
    /// Nodes that each engine with a device gets.
    pub common: Option<Vec<String>>,
    /// `[[device]]`
    pub device: Option<Vec<StatedDevice>>,
}

/// `[[device]]` of `devices.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedDevice {
    /// `GPU-…` or `MIG-…`
    pub uuid: Option<String>,
    /// Its index.
    pub index: Option<i64>,
    /// Its nodes.
    pub nodes: Option<Vec<String>>,
    /// Its model.
    pub name: Option<String>,
    /// Its address on the PCI bus.
    pub pci: Option<String>,
    /// Its memory.
    pub memory: Option<String>,
    /// The NUMA node that it is near to.
    pub numa_node: Option<i64>,
    /// The CPUs that are near to it.
    pub local_cpus: Option<String>,
    /// The GPU that a MIG instance is a part of.
    pub parent: Option<String>,
}

/// One thing that is wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatedError {
    /// Of which device, counted from 0; `None`: of none.
    pub device: Option<usize>,
    /// At which key.
    pub key: &'static str,
    /// What is wrong and what was expected.
    pub problem: String,
}

struct Findings(Vec<StatedError>);

impl Findings {
    fn add(&mut self, device: Option<usize>, key: &'static str, problem: impl Into<String>) {
        self.0.push(StatedError { device, key, problem: problem.into() });
    }

    fn keep<T>(&mut self, at: usize, key: &'static str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(Some(at), key, problem)).ok()
    }
}

/// Checks what the file says.
///
/// # Errors
/// Every mistake, in the order of the file.
pub fn check(stated: StatedDevices) -> Result<Inventory, Vec<StatedError>> {
    let mut found = Findings(Vec::new());
    let common = stated.common.unwrap_or_default();
    for (at, node) in common.iter().enumerate() {
        if let Err(problem) = check_node(node) {
            found.add(None, "common", problem);
        } else if common.iter().take(at).any(|known| known == node) {
            found.add(None, "common", format!("names {node} twice"));
        }
    }
    let read: Vec<Option<(DeviceUuid, DeviceFacts)>> = stated
        .device
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(|(at, device)| one(at, device, &mut found))
        .collect();
    between(&read, &common, &mut found);
    if found.0.is_empty() {
        Ok(Inventory { common, devices: read.into_iter().flatten().collect() })
    } else {
        found.0.sort_by_key(|error| error.device);
        Err(found.0)
    }
}

/// One device by itself.
fn one(at: usize, stated: StatedDevice, found: &mut Findings) -> Option<(DeviceUuid, DeviceFacts)> {
    const UUID: &str = "expected \"GPU-\" or \"MIG-\" and a UUID, as nvidia-smi -L prints it";
    let uuid = stated.uuid.ok_or_else(|| format!("missing; {UUID}"));
    let uuid = uuid.and_then(|text| text.parse::<DeviceUuid>().map_err(|_| format!("\"{text}\": {UUID}")));
    let uuid = found.keep(at, "uuid", uuid);
    let index = stated.index.ok_or_else(|| "missing; expected the device's number, from 0 on".to_owned());
    let index = index.and_then(|index| {
        let known = u32::try_from(index).ok().filter(|index| *index < 65_536);
        known.ok_or_else(|| format!("{index} is out of range; expected 0 to 65535"))
    });
    let index = found.keep(at, "index", index);
    let nodes = stated.nodes.unwrap_or_default();
    if nodes.is_empty() {
        found.add(Some(at), "nodes", "missing; expected its nodes, for instance [\"/dev/nvidia0\"]");
    }
    for (place, node) in nodes.iter().enumerate() {
        if let Err(problem) = check_node(node) {
            found.add(Some(at), "nodes", problem);
        } else if nodes.iter().take(place).any(|known| known == node) {
            found.add(Some(at), "nodes", format!("names {node} twice"));
        }
    }
    let pci = stated.pci.map(|text| {
        pci_address(&text)
            .ok_or_else(|| format!("\"{text}\": expected an address, for instance \"0000:41:00.0\""))
    });
    let pci_address = pci.map_or(Some(String::new()), |pci| found.keep(at, "pci", pci));
    let memory = stated.memory.map(|text| match parse_size(&text)? {
        Size::Bytes(bytes) => Ok(bytes.0),
        Size::Percent(_) => Err(format!("\"{text}\": expected an amount, for instance \"80GiB\"")),
    });
    let memory_total = memory.map_or(Some(0), |memory| found.keep(at, "memory", memory));
    let node = stated.numa_node.map(|node| {
        let known = u16::try_from(node).ok().filter(|node| *node < 1024);
        known.map(Some).ok_or_else(|| format!("{node} is out of range; expected 0 to 1023"))
    });
    let numa_node = node.map_or(Some(None), |node| found.keep(at, "numa_node", node));
    let cpus = stated.local_cpus.map(|text| {
        let list = text.parse::<CpuSet>().ok().filter(|list| !list.is_empty());
        list.map(|list| list.to_string()).ok_or_else(|| format!("\"{text}\": expected a list as \"0-3,8\""))
    });
    let local_cpus = cpus.map_or(Some(String::new()), |cpus| found.keep(at, "local_cpus", cpus));
    let parent = stated.parent.map(|text| match (text.parse::<DeviceUuid>(), &uuid) {
        (Ok(parent), Some(uuid)) if uuid.is_mig() && !parent.is_mig() => Ok(Some(parent)),
        (_, Some(uuid)) if !uuid.is_mig() => {
            Err("only a MIG instance is a part of another device".to_owned())
        }
        _ => Err(format!("\"{text}\": expected the UUID of the GPU that it is a part of")),
    });
    let parent = parent.map_or(Some(None), |parent| found.keep(at, "parent", parent));
    let name = stated.name.unwrap_or_default();
    if name.len() > 128 || name.contains(char::is_control) {
        found.add(Some(at), "name", "expected a name of at most 128 characters, without control characters");
    }
    let uuid = uuid?;
    let facts = DeviceFacts {
        kind: if uuid.is_mig() { DeviceKind::Mig } else { DeviceKind::Gpu },
        parent: parent?,
        index: index?,
        minor: nodes.first().map_or(0, |node| minor(node)),
        nodes,
        name,
        pci_address: pci_address?,
        numa_node: numa_node?,
        local_cpus: local_cpus?,
        memory_total: memory_total?,
        ..DeviceFacts::default()
    };
    Some((uuid, facts))
}

/// What must not be twice in the file. Instances of one device share that device's nodes.
fn between(read: &[Option<(DeviceUuid, DeviceFacts)>], common: &[String], found: &mut Findings) {
    let known = |at: usize| read.get(at).and_then(Option::as_ref);
    let whole = |(uuid, facts): &(DeviceUuid, DeviceFacts)| facts.parent.as_ref().unwrap_or(uuid).clone();
    for at in 0..read.len() {
        let Some(device) = known(at) else { continue };
        let (uuid, facts) = device;
        if let Some(node) = facts.nodes.iter().find(|node| common.contains(node)) {
            found.add(Some(at), "nodes", format!("{node} is in common already"));
        }
        if let Some(parent) = &facts.parent
            && !read.iter().flatten().any(|(uuid, _)| uuid == parent)
        {
            found.add(Some(at), "parent", format!("{parent} is not among the devices of this file"));
        }
        for before in (0..at).filter_map(known) {
            if before.0 == *uuid {
                found.add(Some(at), "uuid", format!("{uuid} is the device before it too"));
            }
            if before.1.index == facts.index {
                found.add(Some(at), "index", format!("{} is {}'s already", facts.index, before.0));
            }
            let shared = facts.nodes.iter().find(|node| before.1.nodes.contains(node));
            if let Some(node) = shared.filter(|_| whole(before) != whole(device)) {
                found.add(Some(at), "nodes", format!("{node} is {}'s already", before.0));
            }
        }
    }
}

/// A path that systemd takes as it is, for one node and not for a kind of them.
fn check_node(node: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    let is_node = node.strip_prefix("/dev/").is_some_and(|rest| {
        let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
        node.len() <= 255 && rest.split('/').all(part)
    });
    if is_node {
        Ok(())
    } else {
        Err(format!("\"{node}\": expected the path of one node below /dev, for instance \"/dev/nvidia0\""))
    }
}

/// The number at the end of a node's name, which drivers take for its minor.
fn minor(node: &str) -> u32 {
    let digits = node.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    node.get(digits..).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: i64) -> StatedDevice {
        StatedDevice {
            uuid: Some(format!("GPU-{index}")),
            index: Some(index),
            nodes: Some(vec![format!("/dev/nvidia{index}")]),
            ..StatedDevice::default()
        }
    }

    fn instance(index: i64) -> StatedDevice {
        StatedDevice {
            uuid: Some(format!("MIG-{index}")),
            parent: Some("GPU-0".into()),
            nodes: Some(vec!["/dev/nvidia0".into(), format!("/dev/nvidia-caps/nvidia-cap{index}")]),
            ..device(index)
        }
    }

    fn problems(devices: Vec<StatedDevice>) -> Vec<String> {
        let common = Some(vec!["/dev/nvidiactl".into()]);
        let result = check(StatedDevices { common, device: Some(devices) });
        let line = |error: StatedError| {
            let device = error.device.map_or(String::new(), |at| format!("{at}."));
            format!("{device}{}: {}", error.key, error.problem)
        };
        result.err().unwrap_or_default().into_iter().map(line).collect()
    }

    #[test]
    fn what_is_stated_is_known() {
        let full = StatedDevice {
            name: Some("H100".into()),
            pci: Some("00000000:C1:00.0".into()),
            memory: Some("80GiB".into()),
            numa_node: Some(1),
            local_cpus: Some("8-15".into()),
            ..device(3)
        };
        let found = check(StatedDevices { common: None, device: Some(vec![full]) }).expect("it is right");
        let facts = DeviceFacts {
            index: 3,
            minor: 3,
            nodes: vec!["/dev/nvidia3".into()],
            name: "H100".into(),
            pci_address: "0000:c1:00.0".into(),
            memory_total: 80 << 30,
            numa_node: Some(1),
            local_cpus: "8-15".into(),
            ..DeviceFacts::default()
        };
        assert_eq!(found.devices, BTreeMap::from([("GPU-3".parse().expect("a UUID"), facts)]));
        assert_eq!(check(StatedDevices::default()), Ok(Inventory::default()));
        assert!(problems(vec![device(0), instance(1), instance(2)]).is_empty(), "instances share nodes");
    }

    #[test]
    fn every_mistake_is_named_by_device_and_key() {
        let with = |change: fn(&mut StatedDevice)| {
            let mut changed = device(1);
            change(&mut changed);
            problems(vec![device(0), changed]).join("\n")
        };
        type Spoil = fn(&mut StatedDevice);
        let cases: [(Spoil, &str); 18] = [
            (|d| d.uuid = None, "1.uuid: missing"),
            (|d| d.uuid = Some("0".into()), "1.uuid: \"0\": expected"),
            (|d| d.uuid = Some("GPU-0".into()), "1.uuid: GPU-0 is the device before it too"),
            (|d| d.index = None, "1.index: missing"),
            (|d| d.index = Some(-1), "1.index: -1 is out of range"),
            (|d| d.index = Some(0), "1.index: 0 is GPU-0's already"),
            (|d| d.nodes = None, "1.nodes: missing"),
            (|d| d.nodes = Some(vec!["/dev/nvidia0".into()]), "1.nodes: /dev/nvidia0 is GPU-0's already"),
            (
                |d| d.nodes = Some(vec!["/dev/nvidiactl".into()]),
                "1.nodes: /dev/nvidiactl is in common already",
            ),
            (|d| d.nodes = Some(vec!["/dev/a".into(), "/dev/a".into()]), "1.nodes: names /dev/a twice"),
            (|d| d.nodes = Some(vec!["/etc/shadow".into()]), "1.nodes: \"/etc/shadow\": expected the path"),
            (|d| d.nodes = Some(vec!["/dev/../etc/x".into()]), "1.nodes: \"/dev/../etc/x\": expected"),
            (|d| d.nodes = Some(vec!["/dev/nvidia*".into()]), "1.nodes: \"/dev/nvidia*\": expected"),
            (|d| d.pci = Some("41".into()), "1.pci: \"41\": expected an address"),
            (|d| d.memory = Some("80%".into()), "1.memory: \"80%\": expected an amount"),
            (|d| d.numa_node = Some(-1), "1.numa_node: -1 is out of range"),
            (|d| d.local_cpus = Some("x".into()), "1.local_cpus: \"x\": expected a list"),
            (|d| d.parent = Some("GPU-0".into()), "1.parent: only a MIG instance is a part"),
        ];
        for (change, expected) in cases {
            let said = with(change);
            assert!(said.starts_with(expected) && !said.contains('\n'), "{expected}: {said}");
        }
        let orphan = StatedDevice { parent: Some("GPU-7".into()), ..instance(1) };
        assert!(problems(vec![orphan]).join("").starts_with("0.parent: GPU-7 is not among"));
    }
}
