//! What a binary needs of the system it runs on: libraries, and the newest version of libc, as `readelf` tells it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use crate::host;

/// A version of libc, `2.36`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LibcVersion(u32, u32);

/// Debian 12 has this one, and what is built must run there.
pub const OLDEST_LIBC: LibcVersion = LibcVersion(2, 36);

impl fmt::Display for LibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl LibcVersion {
    /// From the name of a symbol version, `GLIBC_2.34`; a third number is ignored, since it is of versions long past.
    fn from_symbol(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// What one or several binaries need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The newest libc version that is asked for.
    pub libc: Option<LibcVersion>,
    /// Shared libraries by their file names.
    pub libraries: BTreeSet<String>,
}

impl Needs {
    /// What these binaries need together.
    pub fn of(binaries: &[PathBuf]) -> Result<Self, Error> {
        let mut all = Self::default();
        for binary in binaries {
            let needs = Self::parse(&readelf(binary)?);
            all.libc = all.libc.max(needs.libc);
            all.libraries.extend(needs.libraries);
        }
        Ok(all)
    }

    /// From the output of `readelf --version-info --dynamic --wide`.
    fn parse(text: &str) -> Self {
        let mut needs = Self::default();
        let mut in_needs = false;
        for line in text.lines() {
            if line.starts_with("Version needs section") {
                in_needs = true;
            } else if line.starts_with("Version ") || line.starts_with("Dynamic section") {
                in_needs = false;
            }
            if let Some((_, library)) = line.split_once("(NEEDED)").and_then(|(_, rest)| rest.split_once('['))
            {
                needs.libraries.insert(library.trim_end_matches(']').to_owned());
            }
            // A weak need may be absent: the program asks for the symbol and lives without it.
            if in_needs && !line.contains("WEAK") {
                let name = line.split_once("Name: ").and_then(|(_, rest)| rest.split_whitespace().next());
                needs.libc = needs.libc.max(name.and_then(LibcVersion::from_symbol));
            }
        }
        needs
    }

    /// Whether an older libc than Debian 12's would do.
    pub fn runs_on_the_oldest(&self) -> bool {
        self.libc.is_none_or(|libc| libc <= OLDEST_LIBC)
    }

    /// The packages that a control file must depend on.
    pub fn packages(&self) -> Result<Vec<String>, Error> {
        let mut packages = BTreeSet::new();
        for library in &self.libraries {
            packages.insert(match library.as_str() {
                "libgcc_s.so.1" => "libgcc-s1".to_owned(),
                "libc.so.6" | "libm.so.6" | "libdl.so.2" | "libpthread.so.0" | "librt.so.1" => {
                    self.libc_package()
                }
                loader if loader.starts_with("ld-linux") => self.libc_package(),
                other => return Err(Error::UnknownLibrary(other.to_owned())),
            });
        }
        Ok(packages.into_iter().collect())
    }

    fn libc_package(&self) -> String {
        match self.libc {
            Some(version) => format!("libc6 (>= {version})"),
            None => "libc6".to_owned(),
        }
    }
}

fn readelf(binary: &Path) -> Result<String, Error> {
    let mut command = Command::new("readelf");
    command.args(["--version-info", "--dynamic", "--wide"]).arg(binary).env("LC_ALL", "C");
    let output =
        command.output().map_err(|source| host::Error::Spawn { command: host::typed(&command), source })?;
    if !output.status.success() {
        return Err(host::Error::Failed { command: host::typed(&command), status: output.status }.into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READELF: &str = "\
Dynamic section at offset 0x1 contains 30 entries:
 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
Version symbols section '.gnu.version' contains 140 entries:
  000:   0 (*local*)       2 (GLIBC_2.99)
Version needs section '.gnu.version_r' contains 2 entries:
 Addr: 0x1  Offset: 0x1  Link: 5 (.dynstr)
  000000: Version: 1  File: libgcc_s.so.1  Cnt: 1
  0x0010:   Name: GCC_3.0  Flags: none  Version: 4
  0x0020: Version: 1  File: libc.so.6  Cnt: 3
  0x0030:   Name: GLIBC_2.39  Flags: WEAK  Version: 9
  0x0040:   Name: GLIBC_2.34  Flags: none  Version: 2
  0x0050:   Name: GLIBC_2.2.5  Flags: none  Version: 3
";

    #[test]
    fn the_newest_strong_need_counts() {
        let needs = Needs::parse(READELF);
        assert_eq!(needs.libc, Some(LibcVersion(2, 34)));
        assert!(needs.runs_on_the_oldest());
        assert_eq!(needs.packages().expect("known"), ["libc6 (>= 2.34)", "libgcc-s1"]);
    }

    #[test]
    fn versions_compare_as_numbers_and_not_as_text() {
        let version = |name| LibcVersion::from_symbol(name).expect("a version");
        assert!(version("GLIBC_2.4") < version("GLIBC_2.36"));
        assert!(version("GLIBC_2.100") > version("GLIBC_2.36"));
        assert_eq!(LibcVersion::from_symbol("GCC_3.0"), None);
        assert_eq!(LibcVersion::from_symbol("GLIBC_PRIVATE"), None);
    }

    #[test]
    fn a_newer_need_does_not_run_on_the_oldest() {
        let needs = Needs::parse(&READELF.replace("2.34  Flags", "2.38  Flags"));
        assert!(!needs.runs_on_the_oldest());
    }

    #[test]
    fn an_unknown_library_is_no_silent_dependency() {
        let needs = Needs::parse(&READELF.replace("libgcc_s.so.1]", "libfoo.so.1]"));
        assert!(needs.packages().expect_err("unknown").to_string().contains("libfoo.so.1"));
    }

    #[test]
    fn this_very_test_can_be_read() {
        let me = std::env::current_exe().expect("a path");
        let needs = Needs::of(&[me]).expect("readelf reads it");
        assert!(needs.libraries.contains("libc.so.6"), "{needs:?}");
    }
}
