//! What engines may use: that systemd has been told so, and where their units lie. Whether the kernel keeps the limits
//! is not provable in a container.

use crate::host::{NAME, ROOT, conformance_file, host, text};

#[test]
fn an_engine_lies_in_its_pools_slice_with_the_limits_of_its_file() {
    let host = host();
    let file = conformance_file(&[])
        + "[resources]\nmemory_high = \"48M\"\nmemory_max = \"64M\"\nshm = \"4M\"\ntasks_max = 321\n\
           cpu_weight = 200\ncpu_quota = \"150%\"\n";
    let pool = host.pool("small-one", &file);
    pool.wait_ready();
    let unit = pool.unit(0);
    let shown =
        |unit: &str, name: &str| host.shell(&format!("systemctl show -P {name} '{unit}'")).trim().to_owned();
    let slice = "llamaorch-small\\x2done.slice";
    for (name, expected) in [
        ("Slice", slice),
        ("MemoryHigh", "50331648"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "0"),
        ("TasksMax", "321"),
        ("CPUQuotaPerSecUSec", "1.500000s"),
    ] {
        assert_eq!(shown(&unit, name), expected, "{name}");
    }
    assert_eq!(shown(slice, "CPUWeight"), "200");
    assert_eq!(shown(slice, "Slice"), "llamaorch.slice", "what is set there limits all engines");
    host.shell("systemctl set-property --runtime llamaorch.slice MemoryMax=800G");
    assert_eq!(shown("llamaorch.slice", "MemoryMax"), (800_u64 << 30).to_string());
    let pid = pool.main_pid(0);
    let mounted = host.shell(&format!("nsenter -t {pid} -m -- findmnt -bno SIZE /dev/shm"));
    assert_eq!(mounted.trim(), (4 << 20).to_string());
    // Its prober is still taken for what it is.
    host.wait_until("its slots are known", || pool.number("SlotsTotal") > 0);
    host.shell("systemctl revert llamaorch.slice");
}

#[test]
fn a_pool_that_says_nothing_has_a_limit_on_tasks_alone() {
    let host = host();
    let pool = host.conformance("unlimited", &[]);
    pool.wait_ready();
    let unit = pool.unit(0);
    let shown = |name: &str| host.shell(&format!("systemctl show -P {name} {unit}")).trim().to_owned();
    let cpus: u64 = host.shell("nproc --all").trim().parse().expect("a number");
    assert_eq!(shown("TasksMax"), (4096 + 64 * cpus).to_string());
    for name in ["MemoryMax", "MemoryHigh", "CPUQuotaPerSecUSec"] {
        assert_eq!(shown(name), "infinity", "{name}");
    }
}

#[test]
fn a_status_shows_what_an_engine_may_use_and_uses() {
    let host = host();
    let file = conformance_file(&[]) + "[resources]\nmemory_max = \"1G\"\ntasks_max = 321\ncpus = \"0\"\n";
    let pool = host.pool("shown", &file);
    pool.wait_ready();
    let status = text(&host.poolctl(&["status", "shown"]).stdout);
    assert!(status.contains("321") && status.contains("1 GiB") && status.contains("CPU time:"), "{status}");
    // A limit that this host cannot keep is told as such, and the manager says so too.
    let words: Vec<String> = host.property(ROOT, NAME, "Tainted");
    let told = |key: &str| status.lines().any(|line| line.contains(key) && line.contains("not in force"));
    for (key, controller) in [("Memory:", "memory"), ("Tasks:", "pids"), ("CPUs:", "cpuset")] {
        assert_eq!(told(key), words.contains(&format!("no-controller:{controller}")), "{words:?}\n{status}");
    }
    let lines = text(&host.poolctl(&["status", "--unit", "shown"]).stdout);
    assert!(lines.contains("\n  DynamicUser=yes\n") && lines.contains("\n  TasksMax=321\n"), "{lines}");
}
