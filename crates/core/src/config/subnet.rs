//! Networks as they are written: an address and how many of its bits count, `10.20.0.0/16`.
//!
//! There is one way to write each, and what is no network of both families' rules is refused with a sentence.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: IpAddr,
    length: u8,
}

impl Subnet {
    /// What `localhost` stands for.
    pub const LOOPBACK: [Subnet; 2] = [
        Subnet { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), length: 8 },
        Subnet { address: IpAddr::V6(Ipv6Addr::LOCALHOST), length: 128 },
    ];

    /// Every address of both families.
    pub const ALL: [Subnet; 2] = [
        Subnet { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 },
        Subnet { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), length: 0 },
    ];

    /// The network of one address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Subnet {
        Subnet { address, length: bits(&address) }
    }

    /// Its lowest address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits of the address count.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }
}

const fn bits(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address without the bits that do not count.
fn lowest(address: IpAddr, length: u8) -> IpAddr {
    let unused = u32::from(bits(&address).saturating_sub(length));
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(unused).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(unused).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("\"{text}\": expected a network, for instance 10.20.0.0/16 or fd00:20::/64");
        let Some((address, length)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(address) => format!("\"{text}\": one address is written {}", Subnet::of(address)),
                Err(_) => expected(),
            });
        };
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        // "+8" and "08" parse as numbers too: only the one spelling counts.
        let known: u8 = length.parse().map_err(|_| expected())?;
        if known.to_string() != length || known > bits(&address) {
            return Err(expected());
        }
        if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(format!("\"{text}\": such packets are IPv4; write the network as that"));
        }
        let network = Subnet { address: lowest(address, known), length: known };
        if network.address != address {
            return Err(format!(
                "\"{text}\" has bits set behind its first {known}; the network is {network}"
            ));
        }
        Ok(network)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(network: Subnet) -> String {
        network.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_back() {
        for text in [
            "10.20.0.0/16",
            "10.20.1.7/32",
            "0.0.0.0/0",
            "fd00:20::/64",
            "::/0",
            "fe80::1/128",
            "128.0.0.0/1",
        ] {
            assert_eq!(text.parse::<Subnet>().expect(text).to_string(), text);
        }
        let network: Subnet = "10.20.0.0/16".parse().expect("a network");
        assert_eq!((network.address().to_string().as_str(), network.length()), ("10.20.0.0", 16));
        assert_eq!(Subnet::LOOPBACK.map(|network| network.to_string()), ["127.0.0.0/8", "::1/128"]);
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_was_meant() {
        for (text, said) in [
            ("", "expected a network"),
            ("10.20.0.0/33", "expected a network"),
            ("10.20.0.0/", "expected a network"),
            ("10.20.0.0/+8", "expected a network"),
            ("10.20.0.0/08", "expected a network"),
            ("10.20/16", "expected a network"),
            ("010.20.0.0/16", "expected a network"),
            ("any", "expected a network"),
            ("localhost", "expected a network"),
            ("fd00::/129", "expected a network"),
            ("10.20.0.0/255.255.0.0", "expected a network"),
            ("10.20.1.7", "one address is written 10.20.1.7/32"),
            ("fd00::1", "one address is written fd00::1/128"),
            ("10.20.1.7/16", "the network is 10.20.0.0/16"),
            ("1.0.0.0/0", "the network is 0.0.0.0/0"),
            ("fd00::1/64", "the network is fd00::/64"),
            ("fd00::1/0", "the network is ::/0"),
            ("::ffff:10.0.0.0/104", "such packets are IPv4"),
        ] {
            let refused = text.parse::<Subnet>().expect_err(text);
            assert!(refused.contains(said), "{refused}");
        }
    }
}
