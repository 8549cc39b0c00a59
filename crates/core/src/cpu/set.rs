//! A set of CPUs by their numbers, in the kernel's spelling: `0-3,8`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The kernel numbers no more CPUs than this.
const MOST: u16 = 8192;

/// CPUs by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet(BTreeSet<u16>);

/// What is wrong with a list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\": expected CPUs as the kernel lists them, for instance \"0-3,8\"")]
pub struct CpuListError(String);

impl CpuSet {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().copied()
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.intersection(&other.0).copied().collect())
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn without(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.difference(&other.0).copied().collect())
    }

    /// A bit for each, the lowest CPU in the lowest bit of the first byte: systemd's form.
    #[must_use]
    pub fn to_mask(&self) -> Vec<u8> {
        let mut mask = vec![0; self.0.last().map_or(0, |last| usize::from(last / 8) + 1)];
        for cpu in self.iter() {
            if let Some(byte) = mask.get_mut(usize::from(cpu / 8)) {
                *byte |= 1 << (cpu % 8);
            }
        }
        mask
    }

    /// The set that a mask in systemd's form stands for.
    #[must_use]
    pub fn of_mask(mask: &[u8]) -> CpuSet {
        let bits = mask.iter().flat_map(|byte| (0..8).map(move |bit| byte & (1 << bit) != 0));
        (0..MOST).zip(bits).filter_map(|(cpu, set)| set.then_some(cpu)).collect()
    }
}

impl FromIterator<u16> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u16>>(cpus: I) -> Self {
        CpuSet(cpus.into_iter().collect())
    }
}

impl Extend<u16> for CpuSet {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, cpus: I) {
        self.0.extend(cpus);
    }
}

impl FromStr for CpuSet {
    type Err = CpuListError;

    /// An empty text is the empty set, as where the kernel lists the CPUs of a node without any.
    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let wrong = || CpuListError(text.to_owned());
        let number = |text: &str| -> Result<u16, CpuListError> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && *number < MOST).ok_or_else(wrong)
        };
        let mut set = CpuSet::default();
        let parts = Some(text).filter(|text| !text.is_empty());
        for part in parts.into_iter().flat_map(|text| text.split(',')) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            set.extend(first..=last);
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            match last {
                last if last == first => write!(f, "{comma}{first}")?,
                last => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl TryFrom<String> for CpuSet {
    type Error = CpuListError;

    fn try_from(text: String) -> Result<Self, CpuListError> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> String {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a list of CPUs")
    }

    #[test]
    fn a_list_is_read_and_written_as_the_kernel_does() {
        for (text, same) in
            [("", ""), ("0", "0"), ("0-3,8", "0-3,8"), ("1,0,2-2", "0-2"), ("8191", "8191"), ("0,1", "0-1")]
        {
            assert_eq!(set(text).to_string(), same);
            assert_eq!(serde_json::to_string(&set(text)).expect("a text"), format!("\"{same}\""));
        }
        for text in ["a", "3-1", "0-", "-1", "0,,1", " 0", "+1", "8192", "0-99999", "0;1"] {
            assert_eq!(text.parse::<CpuSet>(), Err(CpuListError(text.to_owned())));
        }
    }

    #[test]
    fn a_mask_has_a_bit_for_each() {
        assert_eq!(set("0-3,8,17").to_mask(), [0b1111, 1, 0b10]);
        assert_eq!(set("").to_mask(), [0; 0]);
        for text in ["", "0-3,8,17", "63-64"] {
            assert_eq!(CpuSet::of_mask(&set(text).to_mask()), set(text));
        }
    }

    #[test]
    fn sets_are_cut_with_each_other() {
        assert_eq!(set("0-3").and(&set("2-5")), set("2-3"));
        assert_eq!(set("0-3").without(&set("2-5")), set("0-1"));
        assert!(set("0").without(&set("0")).is_empty());
        assert_eq!(set("0-3,8").len(), 5);
    }
}
