//! What an engine is given of the host, and that nobody else pays where it takes more.

use crate::host::{host, words};

#[test]
fn an_engine_beyond_its_memory_dies_alone_and_its_neighbour_answers_on() {
    let (host, _turn) = host();
    let neighbour = host.pool("neighbour", "conformance", "");
    let limits = "[resources]\nmemory_max = \"100MiB\"\n[restart]\npolicy = \"never\"\n";
    let greedy = host.pool("greedy", "hostile", limits);
    let outside = host.run(&[crate::host::HOSTILE, "attempt", "allocate", "300"]);
    assert!(String::from_utf8_lossy(&outside.stdout).contains("succeeded"), "{outside:?}");
    // As much as fits does: what follows is the limit's doing.
    assert_eq!(greedy.attempt(&["allocate", "40"])["outcome"], "succeeded");
    let (unit, before) = (greedy.unit(), neighbour.main_pid());
    let ((), answered, failed) = neighbour.answers_while(|| {
        // Killed in the middle of it, it does not answer.
        let asked = greedy.asked(&[words(&["allocate", "300"])]);
        assert!(!asked.status.success(), "it is alive: {asked:?}");
        host.wait_until("its end has a class", || !greedy.text("last_error_class").is_empty());
    });
    println!(
        "{unit}: {} - {}; the neighbour answered {answered} times",
        greedy.text("last_error_class"),
        greedy.text("last_error"),
    );
    assert_eq!(greedy.text("last_error_class"), "oom-host");
    let error = greedy.text("last_error");
    assert!(error.contains("resources.memory_max is 100 MiB"), "{error}");
    // Without systemd's word, which has one since 254, its prober knows what it had some time before.
    let exact = host.unit_property("pool-managerd", "MemoryPeak").parse::<u64>().is_ok();
    let peak = if exact { "it had 100 MiB at its peak" } else { "it had at least " };
    assert!(error.contains(peak), "{error}");
    assert_eq!(neighbour.main_pid(), before);
    assert_eq!(greedy.status()["ready"], false);
    assert_eq!(failed, 0, "of {answered} requests");
    assert!(answered >= 10, "only {answered}");
}

#[test]
fn an_engine_with_a_quota_is_throttled() {
    let (host, _turn) = host();
    let bounded = host.pool("bounded", "hostile", "[resources]\ncpu_quota = \"20%\"\n");
    let stat = |key: &str| {
        let text = host.shell(&format!("cat {}/cpu.stat", bounded.cgroup()));
        let line =
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok());
        line.unwrap_or_else(|| panic!("no {key}: {text}"))
    };
    let max = host.shell(&format!("cat {}/cpu.max", bounded.cgroup()));
    assert_eq!(max.trim(), "20000 100000");
    let before = stat("nr_throttled");
    assert!(bounded.post("/slow?ms=1"));
    host.wait_until("it is throttled", || stat("nr_throttled") > before + 5);
    println!("throttled {} times, used {} us", stat("nr_throttled"), stat("usage_usec"));
    assert!(bounded.post("/slow?ms=0"));
}
