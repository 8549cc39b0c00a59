//! What one engine is given of the devices, and how that is written into its unit, for the next run of the daemon.

use super::DeviceUuid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How a mask without any device is published and logged.
pub const DEVICE_MASK_NONE: &str = "none";

/// The devices of one engine. Which they are, and by which nodes it opens them, holds for as long as it runs, whatever an
/// inventory finds meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Each with the index that it had, in the order in which the engine counts them.
    devices: Vec<(u32, DeviceUuid)>,
    /// The nodes that it may open.
    nodes: Vec<String>,
}

impl Part {
    pub(super) fn new(devices: Vec<(u32, DeviceUuid)>, nodes: Vec<String>) -> Self {
        Part { devices, nodes }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// The nodes that the engine may open.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Which they are, in the order in which the engine counts them.
    pub fn uuids(&self) -> impl Iterator<Item = &DeviceUuid> {
        self.devices.iter().map(|(_, uuid)| uuid)
    }

    /// The mask of several parts in its one spelling: ascending indices joined by commas.
    #[must_use]
    pub fn mask<'a>(parts: impl IntoIterator<Item = &'a Part>) -> String {
        let words: Vec<String> = Part::together(parts).map(|(index, _)| index.to_string()).collect();
        if words.is_empty() { DEVICE_MASK_NONE.to_owned() } else { words.join(",") }
    }

    /// All devices of several parts, by their indices.
    pub fn together<'a>(
        parts: impl IntoIterator<Item = &'a Part>,
    ) -> impl Iterator<Item = (u32, &'a DeviceUuid)> {
        let all = parts.into_iter().flat_map(|part| &part.devices).map(|(index, uuid)| (*index, uuid));
        all.collect::<BTreeSet<_>>().into_iter()
    }

    /// What is written into its unit: the devices, and the nodes.
    #[must_use]
    pub fn marks(&self) -> (String, String) {
        let devices: Vec<String> =
            self.devices.iter().map(|(index, uuid)| format!("{index}={uuid}")).collect();
        (devices.join(","), self.nodes.join(","))
    }

    /// Reads what was written into a unit. What cannot be read is left out.
    #[must_use]
    pub fn of_marks(devices: &str, nodes: &str) -> Self {
        let device = |word: &str| {
            let (index, uuid) = word.split_once('=')?;
            Some((index.parse().ok()?, uuid.parse().ok()?))
        };
        let nodes = nodes.split(',').filter(|node| !node.is_empty()).map(str::to_owned);
        Part { devices: devices.split(',').filter_map(device).collect(), nodes: nodes.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_into_a_unit_is_read_back() {
        let device = |index, uuid: &str| (index, uuid.parse().expect("a UUID"));
        let nodes = vec!["/dev/nvidia1".to_owned(), "/dev/nvidiactl".to_owned()];
        let part = Part::new(vec![device(10, "GPU-b"), device(1, "MIG-GPU-a/1/0")], nodes);
        let (devices, nodes) = part.marks();
        assert_eq!(
            (devices.as_str(), nodes.as_str()),
            ("10=GPU-b,1=MIG-GPU-a/1/0", "/dev/nvidia1,/dev/nvidiactl")
        );
        assert_eq!(Part::of_marks(&devices, &nodes), part);
        assert_eq!(Part::of_marks("", ""), Part::default());
        assert_eq!(Part::of_marks("x,1=", ""), Part::default());
    }

    #[test]
    fn a_mask_has_one_spelling() {
        let part = |indices: &[u32]| {
            let device = |index: &u32| (*index, format!("GPU-{index}").parse().expect("a UUID"));
            Part::new(indices.iter().map(device).collect(), Vec::new())
        };
        assert_eq!(Part::mask([&part(&[10, 2]), &part(&[1])]), "1,2,10");
        assert_eq!(Part::mask([&part(&[])]), "none");
    }
}
