//! `[resources]` of a pool file: what each engine of the pool may use of the host. Validated together, because limits
//! must fit each other.

use super::check::Findings;
use super::fragment::ResourcesFragment;
use super::size::{Bytes, Size, parse_size};
use serde::{Deserialize, Serialize};

/// What each engine of a pool may use; `None`: as much as there is, unless it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Beyond this much memory it is slowed down and has to give some back.
    pub memory_high: Option<Size>,
    /// Beyond this much memory it is killed. That much is promised to it.
    pub memory_max: Option<Size>,
    /// The size of its own `/dev/shm`; `None`: half of the host's memory.
    pub shm: Option<Size>,
    /// Processes and threads at most; `None`: 4096 and 64 for each CPU.
    pub tasks_max: Option<u64>,
    /// Its part of CPUs that are fought for, 1 to 10000, beside others'; `None`: 100.
    pub cpu_weight: Option<u64>,
    /// CPU time at most, in percent of one CPU.
    pub cpu_quota: Option<u32>,
}

/// The least that a size may be: below it no engine starts, and the unit was forgotten.
const LEAST: Bytes = Bytes(1 << 20);

/// Reads `[resources]`; every mistake at its key.
pub(super) fn check(fragment: &ResourcesFragment, found: &mut Findings) -> Resources {
    let mut size = |key: &'static str, text: &Option<String>| {
        let size = found.keep(&["resources", key], parse_size(text.as_deref()?))?;
        if matches!(size, Size::Bytes(bytes) if bytes < LEAST) {
            found.add(&["resources", key], format!("{size} is out of range; expected {LEAST} or more"));
            return None;
        }
        Some(size)
    };
    let memory_high = size("memory_high", &fragment.memory_high);
    let memory_max = size("memory_max", &fragment.memory_max);
    let shm = size("shm", &fragment.shm);
    for (key, part) in [("memory_high", memory_high), ("shm", shm)] {
        if let (Some(part), Some(max)) = (part, memory_max)
            && exceeds(part, max)
        {
            let why = if key == "shm" {
                "what lies in /dev/shm counts as its memory"
            } else {
                "it would never be reached"
            };
            found
                .add(&["resources", key], format!("{part} is more than resources.memory_max ({max}): {why}"));
        }
    }
    let mut count = |key: &'static str, value: Option<i64>, least: u64, most: u64| {
        let number = u64::try_from(value?).ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let value = value.unwrap_or_default();
            found.add(&["resources", key], format!("{value} is out of range; expected {least} to {most}"));
        }
        number
    };
    let tasks_max = count("tasks_max", fragment.tasks_max, 16, 4_194_304);
    let cpu_weight = count("cpu_weight", fragment.cpu_weight, 1, 10_000);
    let cpu_quota = fragment.cpu_quota.as_deref();
    let cpu_quota = cpu_quota.and_then(|text| found.keep(&["resources", "cpu_quota"], quota(text)));
    Resources { memory_high, memory_max, shm, tasks_max, cpu_weight, cpu_quota }
}

/// Whether one is more than the other on every host.
fn exceeds(part: Size, whole: Size) -> bool {
    match (part, whole) {
        (Size::Bytes(part), Size::Bytes(whole)) => part > whole,
        (Size::Percent(part), Size::Percent(whole)) => part > whole,
        (Size::Bytes(_), Size::Percent(_)) | (Size::Percent(_), Size::Bytes(_)) => false,
    }
}

fn quota(text: &str) -> Result<u32, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    percent.filter(|percent| (1..=1_000_000).contains(percent)).ok_or_else(|| {
        format!("\"{text}\": expected percent of one CPU, 1% to 1000000%, for instance \"400%\" for four CPUs' time")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spoil: impl FnOnce(&mut ResourcesFragment)) -> Result<Resources, Vec<String>> {
        let mut fragment = ResourcesFragment::default();
        spoil(&mut fragment);
        let mut found = Findings::default();
        let resources = check(&fragment, &mut found);
        if found.0.is_empty() {
            return Ok(resources);
        }
        Err(found.0.iter().map(|error| error.key.join(".")).collect())
    }

    #[test]
    fn what_a_file_says_is_taken() {
        assert_eq!(run(|_| {}), Ok(Resources::default()));
        let read = run(|resources| {
            resources.memory_high = Some("60%".into());
            resources.memory_max = Some("80%".into());
            resources.shm = Some("32GiB".into());
            resources.tasks_max = Some(16384);
            resources.cpu_weight = Some(200);
            resources.cpu_quota = Some("400%".into());
        });
        let expected = Resources {
            memory_high: Some(Size::Percent(60)),
            memory_max: Some(Size::Percent(80)),
            shm: Some(Size::Bytes(Bytes(32 << 30))),
            tasks_max: Some(16384),
            cpu_weight: Some(200),
            cpu_quota: Some(400),
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_refused_at_its_key() {
        type Spoil = fn(&mut ResourcesFragment);
        let cases: [(&str, Spoil); 10] = [
            ("memory_high", |r| r.memory_high = Some("much".into())),
            ("memory_high", |r| {
                (r.memory_high, r.memory_max) = (Some("3G".into()), Some("2G".into()));
            }),
            ("memory_high", |r| {
                (r.memory_high, r.memory_max) = (Some("81%".into()), Some("80%".into()));
            }),
            ("memory_max", |r| r.memory_max = Some("1023K".into())),
            ("shm", |r| (r.shm, r.memory_max) = (Some("3G".into()), Some("2G".into()))),
            ("tasks_max", |r| r.tasks_max = Some(15)),
            ("cpu_weight", |r| r.cpu_weight = Some(0)),
            ("cpu_weight", |r| r.cpu_weight = Some(10_001)),
            ("cpu_quota", |r| r.cpu_quota = Some("4".into())),
            ("cpu_quota", |r| r.cpu_quota = Some("0%".into())),
        ];
        for (key, spoil) in cases {
            assert_eq!(run(spoil), Err(vec![format!("resources.{key}")]), "{key}");
        }
    }
}
