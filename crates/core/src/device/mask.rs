//! `devices` of a pool file: how a mask is written, and what it is on this host.

use super::{DeviceFacts, DeviceUuid, Devices, Part};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Names one device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Selector {
    /// By its index in this boot.
    Index(u32),
    /// By its UUID, or by a beginning of it that is no other's.
    Uuid(String),
    /// By its address on the PCI bus.
    Pci(String),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Index(index) => write!(f, "{index}"),
            Selector::Uuid(uuid) => f.write_str(uuid),
            Selector::Pci(address) => write!(f, "pci:{address}"),
        }
    }
}

/// The devices that a pool asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceWish {
    /// None: it computes on the CPU.
    #[default]
    None,
    /// All that there are.
    All,
    /// These, in this order.
    These(Vec<Selector>),
}

impl DeviceWish {
    /// Reads `devices` of a pool file.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        match texts {
            [] => return Err(format!("names no device; {EXPECTED}, or \"none\"")),
            [one] if one == "none" => return Ok(DeviceWish::None),
            [one] if one == "all" => return Ok(DeviceWish::All),
            _ => {}
        }
        let mut selectors = Vec::new();
        for text in texts {
            if matches!(text.as_str(), "none" | "all") {
                return Err(format!("\"{text}\" cannot stand beside others"));
            }
            let selector = selector(text).ok_or_else(|| format!("\"{text}\": {EXPECTED}"))?;
            if selectors.contains(&selector) {
                return Err(format!("names device {selector} twice"));
            }
            selectors.push(selector);
        }
        Ok(DeviceWish::These(selectors))
    }
}

const EXPECTED: &str =
    "expected \"0\", \"GPU0\", \"GPU-<uuid>\", \"MIG-<uuid>\", \"pci:0000:41:00.0\" or \"all\"";

fn selector(text: &str) -> Option<Selector> {
    let digits = text.strip_prefix("GPU").unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.parse().ok().map(Selector::Index);
    }
    match text.strip_prefix("pci:") {
        Some(address) => pci_address(address).map(Selector::Pci),
        None => text.parse::<DeviceUuid>().ok().map(|uuid| Selector::Uuid(uuid.to_string())),
    }
}

/// A PCI address as sysfs writes it: domain of four digits, in lower case. NVIDIA's library writes eight, in upper case.
pub(super) fn pci_address(text: &str) -> Option<String> {
    let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let right = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        right.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let (domain, bus) = (hex(domain, 4..=8)?, hex(bus, 2..=2)?);
    let (device, function) = (hex(device, 2..=2)?, hex(function, 1..=1)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

/// The devices of a pool, and how many of them each of its engines gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMask {
    /// Which.
    pub wish: DeviceWish,
    /// So many for each engine; `None`: as many for each as there are.
    pub per_replica: Option<u32>,
}

impl DeviceMask {
    /// Checks what can be told without the host.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn check(&self, replicas: u16) -> Result<(), (&'static str, String)> {
        const PER_REPLICA: &str = "devices_per_replica";
        match (&self.wish, self.per_replica) {
            (_, Some(count)) if !(1..=1024).contains(&count) => {
                Err((PER_REPLICA, format!("{count} is out of range; expected 1 to 1024")))
            }
            (DeviceWish::None, Some(_)) => {
                Err((PER_REPLICA, "there are no devices to divide: devices = [\"none\"]".to_owned()))
            }
            (DeviceWish::None | DeviceWish::All, _) => Ok(()),
            (DeviceWish::These(these), count) => {
                let key = if count.is_some() { PER_REPLICA } else { "devices" };
                each(these.len(), count, replicas).map(|_| ()).map_err(|problem| (key, problem))
            }
        }
    }
}

/// How many devices each engine gets of a mask.
fn each(there: usize, per_replica: Option<u32>, replicas: u16) -> Result<usize, String> {
    let replicas = usize::from(replicas);
    match per_replica.map(|count| usize::try_from(count).unwrap_or(usize::MAX)) {
        Some(count) if count.saturating_mul(replicas) > there => Err(format!(
            "{replicas} engines of {count} devices each need {}, and the mask has {there}; name more devices, or lower \
             replicas or devices_per_replica",
            count.saturating_mul(replicas)
        )),
        Some(count) => Ok(count),
        None if there == 0 || !there.is_multiple_of(replicas) => Err(format!(
            "{there} devices cannot be divided evenly by {replicas} engines; set devices_per_replica, or change replicas"
        )),
        None => there.checked_div(replicas).ok_or_else(|| "there are no engines".to_owned()),
    }
}

impl Devices {
    /// What replica `index` of so many gets of a mask: its own part, in order.
    ///
    /// # Errors
    /// Why it cannot have it, in a sentence with a remedy.
    pub fn part(&self, mask: &DeviceMask, replicas: u16, index: u16) -> Result<Part, String> {
        let whole = self.resolve(&mask.wish)?;
        if whole.is_empty() {
            return Ok(Part::default());
        }
        let each = each(whole.len(), mask.per_replica, replicas)?;
        let own: Vec<(&DeviceUuid, &DeviceFacts)> =
            whole.into_iter().skip(each.saturating_mul(index.into())).take(each).collect();
        if own.is_empty() {
            return Err(format!("the mask has no devices for engine {index} of {replicas}"));
        }
        for (uuid, facts) in &own {
            let out_of_use = [Some(*uuid), facts.parent.as_ref()].into_iter().flatten();
            if let Some((which, quarantine)) =
                out_of_use.filter_map(|uuid| Some((uuid, self.quarantine(uuid)?))).next()
            {
                return Err(format!(
                    "device {} ({uuid}) is out of use: {}; name another in `devices`, or once it is well: poolctl \
                     readmit {which}",
                    facts.index, quarantine.reason
                ));
            }
        }
        // Instances of one device share some of their nodes.
        let mut nodes: Vec<String> = Vec::new();
        for node in own.iter().flat_map(|(_, facts)| &facts.nodes).chain(&self.common) {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        let devices = own.into_iter().map(|(uuid, facts)| (facts.index, uuid.clone()));
        Ok(Part::new(devices.collect(), nodes))
    }

    /// All devices of a mask, as far as it can be told: those of its engines together.
    #[must_use]
    pub fn whole(&self, mask: &DeviceMask) -> Option<Part> {
        let whole = self.resolve(&mask.wish).ok()?;
        Some(Part::new(
            whole.into_iter().map(|(uuid, facts)| (facts.index, uuid.clone())).collect(),
            Vec::new(),
        ))
    }

    /// The devices of a mask, in its order.
    fn resolve(&self, wish: &DeviceWish) -> Result<Vec<(&DeviceUuid, &DeviceFacts)>, String> {
        let selectors = match wish {
            DeviceWish::None => return Ok(Vec::new()),
            DeviceWish::All if self.found.is_empty() => return Err(self.not_there("a device")),
            DeviceWish::All => {
                let mut all: Vec<_> = self.found.iter().filter(|(uuid, _)| !self.is_divided(uuid)).collect();
                all.sort_by_key(|(_, facts)| facts.index);
                return Ok(all);
            }
            DeviceWish::These(selectors) => selectors,
        };
        let mut named = BTreeSet::new();
        let mut devices = Vec::new();
        for selector in selectors {
            let device = self.select(selector)?;
            if !named.insert(device.0) {
                return Err(format!(
                    "device {} is named twice, once as {selector}; correct `devices`",
                    device.0
                ));
            }
            devices.push(device);
        }
        Ok(devices)
    }

    fn select(&self, selector: &Selector) -> Result<(&DeviceUuid, &DeviceFacts), String> {
        let is_it = |(uuid, facts): &(&DeviceUuid, &DeviceFacts)| match selector {
            Selector::Index(index) => facts.index == *index,
            Selector::Uuid(beginning) => uuid.as_str().starts_with(beginning.as_str()),
            Selector::Pci(address) => facts.pci_address == *address,
        };
        // A device that is divided into instances has their address, and can be used by none but those.
        let whole = |(uuid, _): &(&DeviceUuid, &DeviceFacts)| !self.is_divided(uuid);
        let mut found: Vec<_> = self.found.iter().filter(is_it).collect();
        if let Selector::Uuid(text) = selector
            && let Some(exact) = found.iter().find(|(uuid, _)| uuid.as_str() == text)
        {
            found = vec![*exact];
        }
        if let Some((uuid, _)) = found.iter().find(|one| found.len() == 1 && !whole(one)) {
            let parts = self.found.iter().filter(|(_, facts)| facts.parent.as_ref() == Some(uuid));
            let parts: Vec<&str> = parts.map(|(uuid, _)| uuid.as_str()).collect();
            return Err(format!(
                "device {selector} is divided into {}; name one of those in `devices`",
                parts.join(", ")
            ));
        }
        found.retain(whole);
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(self.not_there(&format!("device {selector}"))),
            several => {
                let several: Vec<&str> = several.iter().map(|(uuid, _)| uuid.as_str()).collect();
                Err(format!("{selector} is {}; write one of them in full", several.join(" and ")))
            }
        }
    }

    fn is_divided(&self, uuid: &DeviceUuid) -> bool {
        self.found.values().any(|facts| facts.parent.as_ref() == Some(uuid))
    }

    fn not_there(&self, what: &str) -> String {
        let known: Vec<String> =
            self.found.iter().map(|(uuid, facts)| format!("{} ({uuid})", facts.index)).collect();
        if known.is_empty() {
            return format!(
                "it asks for {what}, and no device of this host is known; say which there are in \
                 /etc/llamaorch/devices.toml, then: poolctl reload"
            );
        }
        format!("it asks for {what}, and there is none; there are {}; correct `devices`", known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Inventory;
    use std::collections::BTreeMap;

    fn uuid(text: &str) -> DeviceUuid {
        text.parse().expect("a UUID")
    }

    /// Four GPUs, the last of which is divided in two.
    fn devices() -> Devices {
        let gpu = |index: u32| {
            let facts = DeviceFacts {
                index,
                nodes: vec![format!("/dev/nvidia{index}")],
                pci_address: format!("0000:4{index}:00.0"),
                ..DeviceFacts::default()
            };
            (uuid(&format!("GPU-{index}a")), facts)
        };
        let part = |index: u32| {
            let facts = DeviceFacts {
                index,
                parent: Some(uuid("GPU-3a")),
                nodes: vec!["/dev/nvidia3".into(), format!("/dev/nvidia-caps/nvidia-cap{index}")],
                pci_address: "0000:43:00.0".into(),
                ..DeviceFacts::default()
            };
            (uuid(&format!("MIG-{index}a")), facts)
        };
        let found: BTreeMap<_, _> = (0..4).map(gpu).chain((4..6).map(part)).collect();
        let mut devices = Devices::default();
        devices.find(Inventory { common: vec!["/dev/nvidiactl".into()], devices: found });
        devices
    }

    fn mask(texts: &[&str], per_replica: Option<u32>) -> DeviceMask {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        DeviceMask { wish: DeviceWish::parse(&texts).expect("a mask"), per_replica }
    }

    fn mask_of(text: &str) -> DeviceMask {
        mask(&[text], None)
    }

    fn part(texts: &[&str], per_replica: Option<u32>, replicas: u16, index: u16) -> Result<String, String> {
        let part = devices().part(&mask(texts, per_replica), replicas, index)?;
        let (devices, nodes) = part.marks();
        Ok(format!("{devices} {nodes}"))
    }

    #[test]
    fn a_mask_that_cannot_be_read_says_what_was_expected() {
        let parse = |texts: &[&str]| {
            DeviceWish::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(parse(&["none"]), Ok(DeviceWish::None));
        assert_eq!(parse(&["all"]), Ok(DeviceWish::All));
        let pci = Selector::Pci("0000:c1:00.0".into());
        let these = DeviceWish::These(vec![Selector::Index(1), Selector::Uuid("GPU-8f".into()), pci]);
        assert_eq!(parse(&["GPU1", "GPU-8f", "pci:00000000:C1:00.0"]), Ok(these));
        for (texts, problem) in [
            (&[][..], "names no device"),
            (&["none", "0"], "\"none\" cannot stand beside others"),
            (&["0", "all"], "\"all\" cannot stand beside others"),
            (&["0", "GPU0"], "names device 0 twice"),
            (&["gpu0"], "\"gpu0\": expected \"0\""),
            (&["pci:41:00"], "\"pci:41:00\": expected \"0\""),
            (&["-1"], "\"-1\": expected \"0\""),
            (&["99999999999"], "expected \"0\""),
        ] {
            let error = parse(texts).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn each_engine_has_its_own_part_in_order() {
        let nothing = Ok(" ".to_owned());
        assert_eq!(part(&["none"], None, 3, 1), nothing);
        assert_eq!(part(&["0"], None, 1, 0), Ok("0=GPU-0a /dev/nvidia0,/dev/nvidiactl".into()));
        let second = Ok("0=GPU-0a /dev/nvidia0,/dev/nvidiactl".to_owned());
        assert_eq!(part(&["GPU-2", "pci:41:00.0", "0"], Some(1), 2, 0), part(&["2"], None, 1, 0));
        assert_eq!(part(&["2", "0"], None, 2, 1), second);
        assert_eq!(
            part(&["all"], Some(2), 2, 1),
            Ok("2=GPU-2a,4=MIG-4a /dev/nvidia2,/dev/nvidia3,/dev/nvidia-caps/nvidia-cap4,/dev/nvidiactl"
                .into()),
            "of a device that is divided its parts, and not itself"
        );
    }

    #[test]
    fn what_cannot_be_given_is_named_with_what_there_is() {
        for (texts, per_replica, replicas, problem) in [
            (&["7"][..], None, 1, "device 7, and there is none; there are 0 (GPU-0a), 1 (GPU-1a), 2"),
            (&["GPU-9"], None, 1, "asks for device GPU-9, and there is none"),
            (&["GPU-"], None, 1, "GPU- is GPU-0a and GPU-1a and GPU-2a; write one of them in full"),
            (&["pci:43:00.0"], None, 1, "pci:0000:43:00.0 is MIG-4a and MIG-5a"),
            (&["3"], None, 1, "device 3 is divided into MIG-4a, MIG-5a; name one of those"),
            (&["GPU-0a", "0"], None, 1, "device GPU-0a is named twice, once as 0"),
            (&["all"], None, 2, "5 devices cannot be divided evenly by 2 engines; set devices_per_replica"),
            (&["all"], Some(2), 3, "3 engines of 2 devices each need 6, and the mask has 5"),
        ] {
            let wish = texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let wish = if texts == ["GPU-"] {
                DeviceWish::These(vec![Selector::Uuid("GPU-".into())])
            } else {
                DeviceWish::parse(&wish).expect("a mask")
            };
            let error = devices().part(&DeviceMask { wish, per_replica }, replicas, 0).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
        let error = Devices::default().part(&mask(&["all"], None), 1, 0).expect_err("there is none");
        assert!(error.contains("no device of this host is known; say which there are in /etc/"), "{error}");
    }

    #[test]
    fn one_that_is_out_of_use_keeps_the_engine_back_whose_it_is_and_no_other() {
        let mut devices = devices();
        devices.take_out(uuid("GPU-1a"), "it smells".to_owned());
        let mask = mask(&["0", "1"], None);
        let error = devices.part(&mask, 2, 1).expect_err("it is out of use");
        assert!(error.starts_with("device 1 (GPU-1a) is out of use: it smells"), "{error}");
        assert_eq!(devices.part(&mask, 2, 0).map(|part| part.len()), Ok(1));
        // With a device its instances are out of use.
        devices.take_out(uuid("GPU-3a"), "it is hot".to_owned());
        let error = devices.part(&mask_of("4"), 1, 0).expect_err("it is out of use");
        assert!(
            error.contains("(MIG-4a) is out of use: it is hot") && error.ends_with("readmit GPU-3a"),
            "{error}"
        );
    }

    #[test]
    fn what_never_comes_out_is_an_error_of_the_file() {
        let check = |texts: &[&str], per_replica, replicas| mask(texts, per_replica).check(replicas);
        assert_eq!(check(&["none"], None, 3), Ok(()));
        assert_eq!(check(&["all"], Some(2), 64), Ok(()));
        assert_eq!(check(&["0", "1", "2"], Some(1), 2), Ok(()));
        let key = |result: Result<(), (&'static str, String)>| result.map_err(|(key, _)| key);
        assert_eq!(key(check(&["none"], Some(1), 1)), Err("devices_per_replica"));
        assert_eq!(key(check(&["all"], Some(0), 1)), Err("devices_per_replica"));
        assert_eq!(key(check(&["0", "1", "2"], Some(2), 2)), Err("devices_per_replica"));
        assert_eq!(key(check(&["0", "1", "2"], None, 2)), Err("devices"));
    }
}
