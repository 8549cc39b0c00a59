//! What a property is: a row of the [table](super::table) and a value of the type that the row names, so that a value of
//! another type cannot be written.

use crate::config::Subnet;
use crate::cpu::CpuSet;
use std::fmt;
use std::marker::PhantomData;

/// One property of a transient unit. It is made from its row of the table alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    name: &'static str,
    since: u16,
    value: Value,
}

impl Property {
    /// systemd's name on the bus, for instance `TimeoutStartUSec`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The oldest systemd that takes it in a transient unit; 252 stands for "every one that counts".
    #[must_use]
    pub const fn since(&self) -> u16 {
        self.since
    }

    /// Its value.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }
}

/// As a line of a unit file would say it, under its name on the bus.
impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// The value of a property, by what systemd's D-Bus API wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`: permissions of files.
    Mode(u32),
    /// `t`
    U64(u64),
    /// `t`: a limit of a process; all bits set: none.
    Limit(u64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `a(sasb)`: one command line, to reach the program as it stands here.
    Command(Vec<String>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
    /// `a(ssbt)`: read-only binds of a path onto itself; a missing source is left to the helper to name.
    Binds(Vec<String>),
    /// `(bas)`: allow (true) or deny a set of names.
    Set(bool, Vec<String>),
    /// `aay`: journal fields, `NAME=value`.
    Fields(Vec<String>),
    /// `ay`: a bit for each number.
    Mask(Vec<u8>),
    /// `a(iayu)`
    Networks(Vec<Subnet>),
}

/// As a unit file would say it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(flag) => f.write_str(if *flag { "yes" } else { "no" }),
            Value::I32(number) => write!(f, "{number}"),
            Value::Mode(mode) => write!(f, "{mode:04o}"),
            // How systemd is told to forget a number.
            Value::U64(u64::MAX) => Ok(()),
            Value::Limit(u64::MAX) => f.write_str("infinity"),
            Value::U64(number) | Value::Limit(number) => write!(f, "{number}"),
            Value::Text(text) => f.write_str(text),
            Value::Texts(texts) | Value::Command(texts) | Value::Fields(texts) => {
                words(f, texts.iter().map(String::as_str))
            }
            Value::Pairs(pairs) => {
                let pairs: Vec<String> =
                    pairs.iter().map(|(left, right)| format!("{left}:{right}")).collect();
                words(f, pairs.iter().map(String::as_str))
            }
            Value::Binds(paths) => {
                let paths: Vec<String> = paths.iter().map(|path| format!("-{path}")).collect();
                words(f, paths.iter().map(String::as_str))
            }
            Value::Set(allow, names) => {
                f.write_str(if *allow { "" } else { "~" })?;
                words(f, names.iter().map(String::as_str))
            }
            Value::Mask(mask) => CpuSet::of_mask(mask).fmt(f),
            Value::Networks(networks) => {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                words(f, networks.iter().map(String::as_str))
            }
        }
    }
}

/// Words with a space between them; one that holds a space or is empty in quotes.
fn words<'a>(f: &mut fmt::Formatter<'_>, words: impl Iterator<Item = &'a str>) -> fmt::Result {
    for (index, word) in words.enumerate() {
        f.write_str(if index == 0 { "" } else { " " })?;
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c == '"') {
            write!(f, "{word:?}")?;
        } else {
            f.write_str(word)?;
        }
    }
    Ok(())
}

/// A type that values of properties have.
pub(super) trait Typed: Default {
    /// How it is written on the bus.
    const SIGNATURE: &'static str;

    /// The value as it is sent.
    fn value(self) -> Value;
}

/// One command line: the program and its arguments.
#[derive(Debug, Clone, Default)]
pub(super) struct CommandLine(pub(super) Vec<String>);

/// Pairs of texts, for instance a path and its mount options.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

/// Paths that are bound read-only onto themselves, where they are there.
#[derive(Debug, Clone, Default)]
pub(super) struct Binds(pub(super) Vec<String>);

/// Names that alone are allowed.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed(pub(super) Vec<String>);

/// A limit of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limit(pub(super) u64);

/// Permissions of files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mode(pub(super) u32);

/// Fields of the journal, `NAME=value`.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(pub(super) Vec<String>);

/// Numbers, each a bit of a mask.
#[derive(Debug, Clone, Default)]
pub(super) struct Mask(pub(super) CpuSet);

/// Networks by address and length.
#[derive(Debug, Clone, Default)]
pub(super) struct Networks(pub(super) Vec<Subnet>);

macro_rules! typed {
    ($($type:ty, $signature:literal, $value:ident => $expression:expr;)*) => {$(
        impl Typed for $type {
            const SIGNATURE: &'static str = $signature;

            fn value(self) -> Value {
                let $value = self;
                $expression
            }
        }
    )*};
}

typed! {
    bool, "b", value => Value::Bool(value);
    i32, "i", value => Value::I32(value);
    u64, "t", value => Value::U64(value);
    Limit, "t", value => Value::Limit(value.0);
    Mode, "u", value => Value::Mode(value.0);
    String, "s", value => Value::Text(value);
    Vec<String>, "as", value => Value::Texts(value);
    CommandLine, "a(sasb)", value => Value::Command(value.0);
    Pairs, "a(ss)", value => Value::Pairs(value.0);
    Binds, "a(ssbt)", value => Value::Binds(value.0);
    Allowed, "(bas)", value => Value::Set(true, value.0);
    Fields, "aay", value => Value::Fields(value.0);
    Mask, "ay", value => Value::Mask(value.0.to_mask());
    Networks, "a(iayu)", value => Value::Networks(value.0);
}

/// A row of the table as units are built from it: what it takes is of type `T`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<T> {
    name: &'static str,
    since: u16,
    takes: PhantomData<fn(T)>,
}

impl<T: Typed> Known<T> {
    pub(super) const fn new(name: &'static str, since: u16) -> Self {
        Known { name, since, takes: PhantomData }
    }

    /// The property with that value.
    pub(super) fn is(self, value: impl Into<T>) -> Property {
        Property { name: self.name, since: self.since, value: value.into().value() }
    }
}

/// A row of the table as it can be looked through.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The property's name.
    pub name: &'static str,
    /// How its value is written on the bus.
    pub signature: &'static str,
    /// The oldest systemd that takes it in a transient unit.
    pub since: u16,
    /// A property of this row with the least value that its type has.
    pub least: fn() -> Property,
}

/// Whether two signatures are the same, while it is compiled.
pub(super) const fn same(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while let ([first, further @ ..], [other, others @ ..]) = (left, right) {
        if *first != *other {
            return false;
        }
        (left, right) = (further, others);
    }
    left.is_empty() && right.is_empty()
}
