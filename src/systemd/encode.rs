//! From a unit's typed properties to what `StartTransientUnit` takes.

use pool_core::unit::{UnitSpec, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zbus::Variant;

/// systemd's own names for the two address families.
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// The properties that this systemd knows, and the names of those that it does not.
pub(super) fn properties(unit: &UnitSpec, systemd: u16) -> (Vec<(&str, Variant<'_>)>, Vec<&'static str>) {
    let (known, unknown): (Vec<_>, Vec<_>) =
        unit.properties.iter().partition(|property| property.since <= systemd);
    let encoded = known.into_iter().map(|property| (property.name, encode(&property.value))).collect();
    (encoded, unknown.into_iter().map(|property| property.name).collect())
}

/// The leading number of systemd's version; 252, the oldest that counts, where there is none.
pub(super) fn major(version: &str) -> u16 {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..digits).and_then(|digits| digits.parse().ok()).unwrap_or(252)
}

fn encode(value: &Value) -> Variant<'_> {
    match value {
        Value::Bool(flag) => Variant::new(*flag),
        Value::I32(number) => Variant::new(*number),
        Value::U32(number) => Variant::new(*number),
        Value::U64(number) => Variant::new(*number),
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
        Value::AnyAddress => {
            let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            Variant::new(unspecified.map(|address| network(address, 0)).to_vec())
        }
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
    use pool_core::unit::Property;

    #[test]
    fn a_network_is_its_family_its_bytes_and_its_length() {
        let known: Subnet = "10.20.0.0/16".parse().expect("a network");
        assert_eq!(network(known.address(), known.length()), (AF_INET, vec![10, 20, 0, 0], 16));
        let [_, loopback] = Subnet::LOOPBACK;
        let (family, octets, length) = network(loopback.address(), loopback.length());
        assert_eq!((family, octets.len(), octets.last(), length), (AF_INET6, 16, Some(&1), 128));
    }

    #[test]
    fn each_value_has_the_signature_that_systemd_wants() {
        for (value, signature) in [
            (Value::Bool(true), "b"),
            (Value::I32(1), "i"),
            (Value::U32(1), "u"),
            (Value::U64(1), "t"),
            (Value::Text("x".into()), "s"),
            (Value::Texts(vec![]), "as"),
            (Value::Command(vec!["x".into()]), "a(sasb)"),
            (Value::Pairs(vec![]), "a(ss)"),
            (Value::Binds(vec!["/x".into()]), "a(ssbt)"),
            (Value::Set(true, vec![]), "(bas)"),
            (Value::Fields(vec!["A=b".into()]), "aay"),
            (Value::AnyAddress, "a(iayu)"),
            (Value::Networks(Subnet::LOOPBACK.to_vec()), "a(iayu)"),
            (Value::Networks(vec![]), "a(iayu)"),
        ] {
            assert_eq!(encode(&value).value_signature().to_string(), signature, "{value:?}");
        }
    }

    #[test]
    fn a_property_that_systemd_does_not_know_is_left_out_and_named() {
        let property = |name, since| Property { name, since, value: Value::Bool(true) };
        let name = "llamaorch-engine-a-r0.g1.service".parse().unwrap();
        let unit = UnitSpec { name, properties: vec![property("Old", 252), property("New", 257)] };
        let (known, left_out) = properties(&unit, major("252.39-1~deb12u2"));
        assert_eq!(known.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["Old"]);
        assert_eq!(left_out, ["New"]);
        assert_eq!(major("v-unknown"), 252);
    }
}
