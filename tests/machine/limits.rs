//! What an engine is given of the host, and that nobody else pays where it takes more.

use crate::host::{host, turn};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

#[test]
fn an_engine_beyond_its_memory_dies_alone_and_its_neighbour_answers_on() {
    let host = host();
    let _turn = turn();
    let neighbour = host.pool("neighbour", "conformance", &[], "");
    let greedy = host.pool("greedy", "hostile", &[], "[restart]\npolicy = \"never\"\n");
    let outside = host.run(&[crate::host::HOSTILE, "attempt", "allocate", "300"]);
    assert!(String::from_utf8_lossy(&outside.stdout).contains("succeeded"), "{outside:?}");
    greedy.limit(&["MemoryMax=100M", "MemorySwapMax=0"]);
    let (unit, before) = (greedy.unit(), neighbour.main_pid());
    let over = AtomicBool::new(false);
    let (answered, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let count = if neighbour.answers() { &answered } else { &failed };
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Killed in the middle of it, it does not answer.
        let url = format!("{}/attempts", greedy.endpoint());
        let list = r#"[["allocate", "300"]]"#;
        let asked = host.run(&["curl", "-s", "-m", "100", "--data-binary", list, &url]);
        println!("the greedy one answers: {:?}", String::from_utf8_lossy(&asked.stdout));
        host.wait_until("the greedy one is not ready", || {
            !greedy.status()["ready"].as_bool().unwrap_or(true)
        });
        host.wait_until("its end has a class", || !greedy.text("last_error_class").is_empty());
        over.store(true, Ordering::SeqCst);
    });
    println!(
        "{unit}: {} - {}; the neighbour answered {} times",
        greedy.text("last_error_class"),
        greedy.text("last_error"),
        answered.load(Ordering::SeqCst)
    );
    assert_eq!(greedy.text("last_error_class"), "oom-host");
    assert_eq!(neighbour.main_pid(), before);
    assert_eq!(failed.load(Ordering::SeqCst), 0, "of {} requests", answered.load(Ordering::SeqCst));
    assert!(answered.load(Ordering::SeqCst) > 0);
}

#[test]
fn an_engine_with_a_quota_is_throttled_and_one_with_a_cpu_stays_on_it() {
    let host = host();
    let _turn = turn();
    let bounded = host.pool("bounded", "hostile", &[], "");
    let throttled = |stat: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.unwrap_or_default().parse::<u64>().unwrap_or(0)
    };
    bounded.limit(&["AllowedCPUs=1", "CPUQuota=20%"]);
    let pid = bounded.main_pid();
    host.wait_until("it has its CPU", || {
        host.shell(&format!("grep Cpus_allowed_list /proc/{pid}/status")).split_whitespace().last()
            == Some("1")
    });
    let before = throttled(&bounded.cgroup("cpu.stat"));
    let url = format!("{}/slow?ms=1", bounded.endpoint());
    assert!(host.run(&["curl", "-sf", "-m", "60", "-X", "POST", &url]).status.success());
    host.wait_until("it is throttled", || throttled(&bounded.cgroup("cpu.stat")) > before + 5);
    println!("{}", bounded.cgroup("cpu.stat"));
}
