//! What trees are made of: releases, packages, mmdebstrap's arguments, and the name that says all of it.

use std::fmt;
use std::str::FromStr;

const BASE: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "dbus-broker",
    "polkitd",
    "libnss-systemd",
    "attr",
    "iproute2",
    "curl",
    "procps",
    "python3-dbus",
];

/// A Debian release that the product is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// Debian 12: systemd 252, the oldest that counts.
    Bookworm,
    /// Debian 13: systemd 257.
    Trixie,
    /// Debian 14 in the making: systemd 262 at the time of writing, and the only one with a packaged llama-server.
    Forky,
}

impl Suite {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Forky];

    /// The release's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }

    /// Whether `llama-server` is in its tree.
    pub fn has_llama_server(self) -> bool {
        self == Self::Forky
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no suite.
#[derive(Debug, thiserror::Error)]
#[error("no suite `{0}`; there are bookworm, trixie and forky")]
pub struct NoSuchSuite(String);

impl FromStr for Suite {
    type Err = NoSuchSuite;

    fn from_str(word: &str) -> Result<Self, NoSuchSuite> {
        let found = Self::ALL.into_iter().find(|suite| suite.name() == word);
        found.ok_or_else(|| NoSuchSuite(word.to_owned()))
    }
}

/// What a tree is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// A system to boot.
    System(Suite),
    /// Debian 12 with a C compiler and its headers: what release binaries are linked in, for the oldest libc.
    Build,
    /// Debian 12's kernel and a static busybox, unpacked and not installed: what virtual machines boot with.
    Kernel,
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(suite) => f.write_str(suite.name()),
            Self::Build => f.write_str("bookworm-build"),
            Self::Kernel => f.write_str("bookworm-kernel"),
        }
    }
}

impl Recipe {
    fn suite(self) -> Suite {
        match self {
            Self::System(suite) => suite,
            Self::Build | Self::Kernel => Suite::Bookworm,
        }
    }

    fn packages(self) -> Vec<&'static str> {
        let mut packages = match self {
            Self::System(_) => BASE.to_vec(),
            Self::Build => vec!["gcc", "libc6-dev"],
            Self::Kernel => vec!["linux-image-cloud-amd64", "busybox-static"],
        };
        if self == Self::System(Suite::Forky) {
            packages.push("llama.cpp-tools");
        }
        packages
    }

    /// mmdebstrap's arguments, all but the folder. Whatever is here is in the recipe's hash.
    pub(super) fn arguments(self) -> Vec<String> {
        vec![
            "--mode=root".to_owned(),
            format!("--variant={}", if self == Self::Kernel { "extract" } else { "minbase" }),
            // A mirror's copy may be older than its Valid-Until date.
            "--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned(),
            "--aptopt=Acquire::Retries \"3\"".to_owned(),
            format!("--include={}", self.packages().join(",")),
            self.suite().name().to_owned(),
        ]
    }

    /// A file without which the tree is of no use.
    pub(super) fn witness(self) -> &'static str {
        match self {
            Self::System(suite) if suite.has_llama_server() => "usr/bin/llama-server",
            Self::System(_) => "usr/bin/systemctl",
            Self::Build => "usr/bin/gcc",
            Self::Kernel => "bin/busybox",
        }
    }

    /// Name of the tree's folder: the recipe and a hash of all it says.
    pub(super) fn folder(self) -> String {
        let mut hash = Fnv::default();
        hash.write(super::FINISH_VERSION);
        for argument in self.arguments() {
            hash.write(&argument);
        }
        format!("{self}-{:08x}", hash.0 >> 32)
    }
}

/// FNV-1a: stable across compilers, which the standard library's hasher is not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_recipe_has_another_folder() {
        let folders = Suite::ALL.map(|suite| Recipe::System(suite).folder());
        assert!(folders.iter().all(|folder| folder.len() > 9), "{folders:?}");
        let mut tails: Vec<_> = folders
            .iter()
            .chain([&Recipe::Build.folder(), &Recipe::Kernel.folder()])
            .map(|f| f.rsplit_once('-').expect("-").1.to_owned())
            .collect();
        tails.sort();
        tails.dedup();
        assert_eq!(tails.len(), 5);
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hash = Fnv::default();
        hash.write("foobar");
        // FNV-1a of "foobar\0".
        assert_eq!(hash.0, 0x34531ca7168b8f38);
    }

    #[test]
    fn suites_are_read_by_name() {
        assert_eq!("forky".parse::<Suite>().expect("known"), Suite::Forky);
        let unknown = "sid".parse::<Suite>().expect_err("unknown").to_string();
        assert!(unknown.contains("bookworm, trixie and forky"), "{unknown}");
    }
}
