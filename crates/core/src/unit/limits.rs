//! What a unit may use of the host: the lines of its pool's `[resources]`, and the slice that it lies in.

use super::property::Property;
use super::{SLICE, table};
use crate::config::{Resources, Size};
use crate::host::HostFacts;
use crate::name::PoolId;

/// Without a file's word so many tasks, and so many more for each processor.
const TASKS: (u64, u64) = (4096, 64);
/// CPU time a second that one percent of a CPU is, in microseconds.
const PERCENT: u64 = 10_000;

/// How systemd is told to forget a number.
pub const UNSET: u64 = u64::MAX;

/// The slice of all units of a pool. It lies below [`SLICE`], so that what an operator sets there limits all engines. A
/// dash in the pool's id would nest it once more, and is escaped as systemd escapes it.
#[must_use]
pub fn pool_slice(id: &PoolId) -> String {
    let stem = SLICE.strip_suffix(".slice").unwrap_or(SLICE);
    format!("{stem}-{}.slice", id.as_str().replace('-', "\\x2d"))
}

/// The lines that limit it.
pub(super) fn lines(resources: &Resources, host: &HostFacts) -> Vec<Property> {
    let size = |size: Option<Size>| size.and_then(|size| size.of(host.memory)).map(|bytes| bytes.0);
    let mut lines = vec![
        table::MEMORY_ACCOUNTING.is(true),
        table::TASKS_ACCOUNTING.is(true),
        // An engine that swaps is as good as dead, and looks alive.
        table::MEMORY_SWAP_MAX.is(0_u64),
        table::MEMORY_ZSWAP_MAX.is(0_u64),
        table::TASKS_MAX.is(tasks_max(resources, host)),
    ];
    lines.extend(size(resources.memory_high).map(|bytes| table::MEMORY_HIGH.is(bytes)));
    lines.extend(size(resources.memory_max).map(|bytes| table::MEMORY_MAX.is(bytes)));
    let quota = |percent: u32| table::CPU_QUOTA.is(u64::from(percent).saturating_mul(PERCENT));
    lines.extend(resources.cpu_quota.map(quota));
    lines
}

/// The lines of the pool's slice. A weight counts among what lies in one slice: between pools it is that of their slices.
pub(super) fn slice(resources: &Resources) -> Vec<Property> {
    vec![table::CPU_WEIGHT.is(resources.cpu_weight.unwrap_or(UNSET))]
}

/// The most tasks that it may have.
fn tasks_max(resources: &Resources, host: &HostFacts) -> u64 {
    let (least, each) = TASKS;
    resources.tasks_max.unwrap_or_else(|| least.saturating_add(each.saturating_mul(host.cpus.into())))
}

/// The size of its own `/dev/shm`, as mount options have it.
pub(super) fn shm(resources: &Resources) -> String {
    match resources.shm {
        None => "50%".to_owned(),
        Some(Size::Percent(percent)) => format!("{percent}%"),
        Some(Size::Bytes(bytes)) => bytes.0.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bytes;

    fn shown(resources: &Resources) -> Vec<String> {
        let host = HostFacts { cpus: 8, memory: 100 << 30, ..HostFacts::default() };
        lines(resources, &host).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pool_that_says_nothing_has_no_limit_but_on_tasks_and_swap() {
        let expected = [
            "MemoryAccounting=yes",
            "TasksAccounting=yes",
            "MemorySwapMax=0",
            "MemoryZSwapMax=0",
            "TasksMax=4608",
        ];
        assert_eq!(shown(&Resources::default()), expected);
        assert_eq!(shm(&Resources::default()), "50%");
    }

    #[test]
    fn what_a_pool_says_is_what_systemd_is_told() {
        let resources = Resources {
            memory_high: Some(Size::Percent(50)),
            memory_max: Some(Size::Bytes(Bytes(1 << 30))),
            shm: Some(Size::Bytes(Bytes(1 << 20))),
            tasks_max: Some(100),
            cpu_weight: Some(200),
            cpu_quota: Some(150),
        };
        let lines = shown(&resources);
        let limits = lines.iter().map(String::as_str).filter(|line| !line.contains("Accounting"));
        let expected = [
            "MemorySwapMax=0",
            "MemoryZSwapMax=0",
            "TasksMax=100",
            "MemoryHigh=53687091200",
            "MemoryMax=1073741824",
            "CPUQuotaPerSecUSec=1500000",
        ];
        assert_eq!(limits.collect::<Vec<_>>(), expected);
        assert_eq!(shm(&resources), "1048576");
        let weight = |resources| slice(resources).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(weight(&resources), ["CPUWeight=200"]);
        assert_eq!(weight(&Resources::default()), ["CPUWeight="]);
    }

    #[test]
    fn a_pools_slice_is_one_step_below_ours() {
        for (id, slice) in
            [("chat", "llamaorch-chat.slice"), ("qwen3-8b.q4", "llamaorch-qwen3\\x2d8b.q4.slice")]
        {
            assert_eq!(pool_slice(&id.parse().expect("a valid id")), slice);
        }
    }
}
