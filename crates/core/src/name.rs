//! Owns the names of things and their spelling. Every name that reaches systemd, the bus or the journal is one of
//! these types, so that two of them cannot be mixed up.

mod endpoint;

pub use endpoint::Endpoint;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text that is no valid name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} \"{text}\" is not valid: {expected}")]
pub struct NameError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

impl NameError {
    pub(crate) fn new(what: &'static str, text: &str, expected: &'static str) -> Self {
        NameError { what, text: text.to_owned(), expected }
    }
}

/// A pool's id: `[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolId(String);

impl PoolId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The dynamic user that the engines of this pool share, at most 31 characters (the limit of user names).
    ///
    /// An id that is no user name, or too long for one, is replaced by its FNV-1a hash.
    #[must_use]
    pub fn user_name(&self) -> String {
        const PREFIX: &str = "llamaorch-";
        let fits = self.0.len() + PREFIX.len() <= 31 && !self.0.contains('.');
        if fits {
            format!("{PREFIX}{}", self.0)
        } else {
            format!("{PREFIX}{:016x}", fnv1a(self.0.as_bytes()))
        }
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl FromStr for PoolId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let valid = text.len() <= 40
            && edge(text.chars().next())
            && edge(text.chars().next_back())
            && text.chars().all(inner);
        if valid {
            Ok(PoolId(text.to_owned()))
        } else {
            Err(NameError {
                what: "pool id",
                text: text.to_owned(),
                expected: "1 to 40 of a-z, 0-9, '.', '_', '-', beginning and ending with a letter or digit",
            })
        }
    }
}

impl TryFrom<String> for PoolId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<PoolId> for String {
    fn from(id: PoolId) -> String {
        id.0
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One replica of a pool, written `<pool>-r<N>`; N counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaId {
    /// The pool it belongs to.
    pub pool: PoolId,
    /// Its number within the pool, from 0.
    pub index: u16,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-r{}", self.pool, self.index)
    }
}

impl FromStr for ReplicaId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (pool, index) = text.rsplit_once("-r")?;
            let replica = ReplicaId { pool: pool.parse().ok()?, index: index.parse().ok()? };
            // "+1" and "01" parse as numbers too: only the one spelling is ours.
            (replica.to_string() == text).then_some(replica)
        };
        parse().ok_or_else(|| NameError {
            what: "replica id",
            text: text.to_owned(),
            expected: "<pool>-r<N>",
        })
    }
}

impl TryFrom<String> for ReplicaId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ReplicaId> for String {
    fn from(id: ReplicaId) -> String {
        id.to_string()
    }
}

/// What a transient unit of ours runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum UnitKind {
    /// The engine itself, `llamaorch-engine-….service`.
    Engine,
    /// The checks before it, run as the engine's user, `llamaorch-stage-….service`.
    Stage,
}

impl UnitKind {
    const fn prefix(self) -> &'static str {
        match self {
            UnitKind::Engine => "llamaorch-engine-",
            UnitKind::Stage => "llamaorch-stage-",
        }
    }
}

/// The name of a unit of ours: `llamaorch-engine-<pool>-r<N>.g<G>.service`.
///
/// It needs no escaping and fits systemd's 255 characters, because a pool id is at most 40 plain ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName {
    /// What the unit runs.
    pub kind: UnitKind,
    /// The replica it serves.
    pub replica: ReplicaId,
    /// Which generation of the replica; two generations may run side by side.
    pub generation: u32,
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}.g{}.service", self.kind.prefix(), self.replica, self.generation)
    }
}

impl FromStr for UnitName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = |kind: UnitKind| {
            let rest = text.strip_prefix(kind.prefix())?.strip_suffix(".service")?;
            let (replica, generation) = rest.rsplit_once(".g")?;
            let name =
                UnitName { kind, replica: replica.parse().ok()?, generation: generation.parse().ok()? };
            // "+1" and "01" parse as numbers too: only the one spelling is ours.
            (name.to_string() == text).then_some(name)
        };
        parse(UnitKind::Engine).or_else(|| parse(UnitKind::Stage)).ok_or_else(|| NameError {
            what: "unit name",
            text: text.to_owned(),
            expected: "llamaorch-engine-<pool>-r<N>.g<G>.service",
        })
    }
}

impl TryFrom<String> for UnitName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> String {
        name.to_string()
    }
}

/// systemd's id of one run of a unit: 128 bits, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct InvocationId(pub [u8; 16]);

impl InvocationId {
    /// The id from systemd's byte array; anything but 16 bytes is "none".
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        InvocationId(bytes.try_into().unwrap_or_default())
    }

    /// Whether the unit has not run yet.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for InvocationId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let read = || {
            let mut id = [0; 16];
            if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            for (index, byte) in id.iter_mut().enumerate() {
                *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
            }
            Some(InvocationId(id))
        };
        read().ok_or_else(|| NameError {
            what: "invocation id",
            text: text.to_owned(),
            expected: "32 hexadecimal digits",
        })
    }
}

/// A time or a length of time, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Usec(pub u64);

impl Usec {
    /// That many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Usec(millis.saturating_mul(1_000))
    }

    /// That many seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Usec(secs.saturating_mul(1_000_000))
    }

    /// Rounded down to milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// The time that long after this one.
    #[must_use]
    pub const fn plus(self, other: Usec) -> Usec {
        Usec(self.0.saturating_add(other.0))
    }

    /// How long ago `earlier` was; 0 where it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Usec) -> Usec {
        Usec(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Usec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us if us >= 60_000_000 && us % 60_000_000 == 0 => write!(f, "{} min", us / 60_000_000),
            us if us >= 1_000_000 => {
                let tenths = us / 100_000;
                if tenths % 10 == 0 {
                    write!(f, "{} s", tenths / 10)
                } else {
                    write!(f, "{}.{} s", tenths / 10, tenths % 10)
                }
            }
            us => write!(f, "{} ms", us / 1_000),
        }
    }
}

/// A name as one element of a D-Bus object path, the way systemd and every other service of its kind escapes it:
/// letters, digits (not first) stay, each other byte becomes `_` and two hex digits; "" becomes `_`.
#[must_use]
pub fn path_element(name: &str) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    let mut element = String::new();
    for (index, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            element.push(char::from(byte));
        } else {
            element.push_str(&format!("_{byte:02x}"));
        }
    }
    element
}

/// The name that an object path's element stands for; `None` for one that [`path_element`] never makes.
#[must_use]
pub fn from_path_element(element: &str) -> Option<String> {
    if element == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::new();
    let mut rest = element.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(high * 16 + low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_element_is_read_back() {
        for (name, element) in [("chat", "chat"), ("0-a.b", "_30_2da_2eb"), ("", "_"), ("a0_", "a0_5f")] {
            assert_eq!(path_element(name), element);
            assert_eq!(from_path_element(element).as_deref(), Some(name));
        }
        assert_eq!(from_path_element("a_2"), None);
    }

    #[test]
    fn a_pool_id_is_what_the_pattern_says() {
        for good in ["a", "0", "chat", "qwen3-8b", "a.b_c-d", &"x".repeat(40)] {
            assert!(good.parse::<PoolId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "A", "a b", "a/b", "ä", &"x".repeat(41)] {
            assert!(bad.parse::<PoolId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_unit_name_survives_the_way_through_systemd() {
        for id in ["chat", "foo-r1.g2", "a.b", "r0"] {
            for kind in [UnitKind::Engine, UnitKind::Stage] {
                let replica = ReplicaId { pool: id.parse().unwrap(), index: 3 };
                let name = UnitName { kind, replica, generation: 7 };
                assert_eq!(name.to_string().parse::<UnitName>().unwrap(), name);
                assert!(name.to_string().len() <= 255);
            }
        }
        for foreign in
            ["ssh.service", "llamaorch-engine-chat.service", "llamaorch-engine-chat-r+1.g1.service"]
        {
            assert!(foreign.parse::<UnitName>().is_err(), "{foreign}");
        }
    }

    #[test]
    fn a_user_name_fits_and_differs_between_pools() {
        let name = |id: &str| id.parse::<PoolId>().unwrap().user_name();
        assert_eq!(name("chat"), "llamaorch-chat");
        assert!(name(&"x".repeat(40)).len() <= 31);
        assert!(!name("a.b").contains('.'));
        assert_ne!(name("a.b"), name("a.c"));
    }

    #[test]
    fn an_invocation_id_is_read_back() {
        let text = "00ff10fedcba98765432100123456789";
        assert_eq!(text.parse::<InvocationId>().expect("it is read back").to_string(), text);
        for bad in ["", "00ff", "+0ff10fedcba98765432100123456789", "00ff10fedcba9876543210012345678ä"] {
            assert!(bad.parse::<InvocationId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_read_as_words() {
        assert_eq!(Usec::from_millis(950).to_string(), "950 ms");
        assert_eq!(Usec::from_millis(1_500).to_string(), "1.5 s");
        assert_eq!(Usec::from_secs(600).to_string(), "10 min");
    }
}
