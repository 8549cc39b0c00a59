//! From a unit's typed properties to what `StartTransientUnit` takes.

use pool_core::unit::{NEEDED, Property, UNSET, UnitSpec, Value};
use std::collections::BTreeSet;
use std::net::IpAddr;
use zbus::{Variant, fdo};

/// systemd's own names for the two address families.
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// The properties that are sent: those that this systemd knows by its version, but for those that it would not set.
pub(super) fn properties<'a>(
    unit: &'a UnitSpec,
    systemd: u16,
    refused: &BTreeSet<&'static str>,
) -> Vec<(&'a str, Variant<'a>)> {
    let sent = |property: &&Property| property.since() <= systemd && !refused.contains(property.name());
    unit.properties.iter().filter(sent).map(|property| (property.name(), encode(property.value()))).collect()
}

/// The properties of its pool's slice that are set; `None`: nothing is to be set, and nothing was before.
pub(super) fn slice(unit: &UnitSpec, set_before: bool) -> Option<Vec<(&str, Variant<'_>)>> {
    let sets = unit.slice.iter().any(|property| *property.value() != Value::U64(UNSET));
    let encoded = || unit.slice.iter().map(|property| (property.name(), encode(property.value()))).collect();
    (sets || set_before).then(encoded)
}

/// The leading number of systemd's version; 252, the oldest that counts, where there is none.
pub(super) fn major(version: &str) -> u16 {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..digits).and_then(|digits| digits.parse().ok()).unwrap_or(252)
}

/// One property's value.
pub(super) fn value(property: &Property) -> Variant<'_> {
    encode(property.value())
}

/// The property that systemd does not know or cannot set, by its answer to a start, where the unit can do without it. A
/// value that it does not take is none of these: that is a mistake of ours, which must be seen.
pub(super) fn not_settable(unit: &UnitSpec, error: &zbus::Error) -> Option<&'static str> {
    let zbus::Error::FDO(error) = error else { return None };
    let (fdo::Error::PropertyReadOnly(text)
    | fdo::Error::UnknownProperty(text)
    | fdo::Error::NotSupported(text)) = &**error
    else {
        return None;
    };
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric());
    let named = |property: &&'static str| words().any(|word| word == *property);
    let property = unit.properties.iter().map(Property::name).find(named)?;
    (!NEEDED.contains(&property)).then_some(property)
}

fn encode(value: &Value) -> Variant<'_> {
    match value {
        Value::Bool(flag) => Variant::new(*flag),
        Value::I32(number) => Variant::new(*number),
        Value::Mode(mode) => Variant::new(*mode),
        Value::U64(number) | Value::Limit(number) => Variant::new(*number),
        Value::Text(text) => Variant::new(text.as_str()),
        Value::Texts(texts) => Variant::new(texts.iter().map(String::as_str).collect::<Vec<_>>()),
        Value::Command(command) => {
            // systemd expands $VARIABLE in arguments. Telling it not to (ExecStartEx) makes 252 lose the unit at the next
            // daemon-reload, so each dollar is written as it wants a plain one.
            let program = command.first().map_or("", String::as_str);
            let arguments: Vec<String> = command.iter().map(|argument| argument.replace('$', "$$")).collect();
            Variant::new(vec![(program, arguments, false)])
        }
        Value::Pairs(pairs) => Variant::new(
            pairs.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect::<Vec<_>>(),
        ),
        Value::Binds(paths) => {
            let ignore_missing = true;
            let recursive: u64 = 0x4000;
            Variant::new(
                paths
                    .iter()
                    .map(|path| (path.as_str(), path.as_str(), ignore_missing, recursive))
                    .collect::<Vec<_>>(),
            )
        }
        Value::Set(allow, names) => {
            Variant::new((*allow, names.iter().map(String::as_str).collect::<Vec<_>>()))
        }
        Value::Fields(fields) => {
            Variant::new(fields.iter().map(|field| field.as_bytes().to_vec()).collect::<Vec<_>>())
        }
        Value::Mask(bytes) => Variant::new(bytes.as_slice()),
        Value::Networks(networks) => Variant::new(
            networks.iter().map(|known| network(known.address(), known.length())).collect::<Vec<_>>(),
        ),
    }
}

/// Family, address, length of the prefix.
fn network(address: IpAddr, length: u8) -> (i32, Vec<u8>, u32) {
    let (family, octets) = match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    (family, octets, length.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool_core::config::Subnet;
    use pool_core::unit::TABLE;

    fn unit(names: &[&str]) -> UnitSpec {
        let row = |name: &&str| TABLE.iter().find(|row| row.name == *name).expect("it is in the table");
        UnitSpec {
            name: "llamaorch-engine-a-r0.g1.service".parse().expect("a valid name"),
            properties: names.iter().map(|name| (row(name).least)()).collect(),
            slice: Vec::new(),
        }
    }

    fn names(unit: &UnitSpec, systemd: u16, refused: &[&'static str]) -> Vec<String> {
        let refused = refused.iter().copied().collect();
        properties(unit, systemd, &refused).iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    #[test]
    fn each_property_has_the_signature_that_the_table_gives() {
        for row in TABLE {
            let property = (row.least)();
            assert_eq!(property.name(), row.name);
            assert_eq!(encode(property.value()).value_signature().to_string(), row.signature, "{}", row.name);
        }
    }

    #[test]
    fn a_network_is_its_family_its_bytes_and_its_length() {
        let known: Subnet = "10.20.0.0/16".parse().expect("a network");
        assert_eq!(network(known.address(), known.length()), (AF_INET, vec![10, 20, 0, 0], 16));
        let [_, loopback] = Subnet::LOOPBACK;
        let (family, octets, length) = network(loopback.address(), loopback.length());
        assert_eq!((family, octets.len(), octets.last(), length), (AF_INET6, 16, Some(&1), 128));
    }

    #[test]
    fn values_that_hold_something_have_the_same_signatures() {
        for (value, signature) in [
            (Value::Texts(vec!["x".into()]), "as"),
            (Value::Command(vec!["x".into(), "y".into()]), "a(sasb)"),
            (Value::Pairs(vec![("x".into(), "y".into())]), "a(ss)"),
            (Value::Binds(vec!["/x".into()]), "a(ssbt)"),
            (Value::Set(true, vec!["x".into()]), "(bas)"),
            (Value::Fields(vec!["A=b".into()]), "aay"),
            (Value::Mask(vec![1]), "ay"),
            (Value::Networks(Subnet::LOOPBACK.to_vec()), "a(iayu)"),
            (Value::Networks(vec![]), "a(iayu)"),
        ] {
            assert_eq!(encode(&value).value_signature().to_string(), signature, "{value:?}");
        }
    }

    #[test]
    fn a_property_that_systemd_does_not_know_is_left_out() {
        let unit = unit(&["Type", "MemoryZSwapMax", "UMask"]);
        assert_eq!(names(&unit, major("252.39-1~deb12u2"), &[]), ["Type", "UMask"]);
        assert_eq!(names(&unit, major("257.1"), &[]), ["Type", "MemoryZSwapMax", "UMask"]);
        assert_eq!(names(&unit, 257, &["UMask"]), ["Type", "MemoryZSwapMax"]);
        assert_eq!(major("v-unknown"), 252);
    }

    #[test]
    fn only_a_property_that_the_unit_can_do_without_is_left_out() {
        let unit = unit(&["Type", "UMask", "User"]);
        let read_only = |text: &str| fdo::Error::PropertyReadOnly(text.to_owned());
        for (error, expected) in [
            (read_only("Cannot set property UMask, or unknown property."), Some("UMask")),
            (read_only("Cannot set property User, or unknown property."), None),
            (read_only("Cannot set property UMaskX, or unknown property."), None),
            (fdo::Error::InvalidArgs("UMask= is out of range".to_owned()), None),
        ] {
            let error = zbus::Error::from(error);
            assert_eq!(not_settable(&unit, &error), expected, "{error}");
        }
    }
}
