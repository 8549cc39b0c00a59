//! CPUs of one's own: who has one computes on it and nowhere else, and nobody else computes there.

use crate::host::{Host, Pool, host_alone, words};
use std::thread;

/// How long the burning is measured, in seconds.
const MEASURED: u32 = 10;
/// The part of its CPU that an engine gets at least; the rest is the system's.
const LEAST: f64 = 0.95;

/// What a measurement reads of one engine.
#[derive(Debug)]
struct Reading {
    /// CPU time of its unit so far, in microseconds.
    used: f64,
    /// Time since boot, in microseconds.
    at: f64,
}

/// Reads all engines at one time, in the machine: what it takes to ask is not measured.
fn read(groups: &[String]) -> String {
    let cats: Vec<_> =
        groups.iter().map(|group| format!("grep usage_usec {group}/cpu.stat; cat /proc/uptime")).collect();
    cats.join("\n") + "\n"
}

fn readings(text: &str) -> Vec<Reading> {
    let lines: Vec<_> = text.lines().collect();
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<f64>().ok()).expect("a number");
    let pairs = lines.chunks_exact(2);
    pairs
        .map(|pair| Reading {
            used: number(pair[0].strip_prefix("usage_usec ")),
            at: number(pair[1].split(' ').next()) * 1e6,
        })
        .collect()
}

/// The part of a CPU that each engine had. A host that is busy itself stops the machine while something else than an engine
/// runs in it: where that has spoiled it, it is measured again, three times in all.
fn measured(host: &Host, script: &str) -> Vec<f64> {
    let mut parts = Vec::new();
    for _ in 0..3 {
        let all = readings(&host.shell(script));
        let (before, after) = all.split_at(all.len() / 2);
        let part =
            |(before, after): (&Reading, &Reading)| (after.used - before.used) / (after.at - before.at);
        parts = before.iter().zip(after).map(part).collect();
        println!("parts of a CPU: {parts:?}");
        if parts.iter().all(|part| *part >= LEAST) {
            break;
        }
    }
    parts
}

/// What every thread of its unit may use, each set once.
fn allowed(host: &Host, group: &str) -> String {
    let script = format!(
        "for thread in $(cat {group}/cgroup.threads); do grep -s ^Cpus_allowed_list /proc/$thread/status || :; done"
    );
    let said = host.shell(&script);
    let mut sets: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().last()).collect();
    sets.sort_unstable();
    sets.dedup();
    sets.join(" ")
}

/// Computes in three threads until the test says that it is enough.
fn burn(pool: &Pool<'_>) -> String {
    let stop = format!("/var/cache/private/llamaorch/{}/stop", pool.id);
    let answer = pool.attempts(&[words(&["burn", "3", "120", &stop])]).remove(0);
    answer["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn two_engines_with_a_cpu_each_compute_on_their_own_and_never_on_the_others() {
    let (host, _turn) = host_alone();
    let exclusive = "[resources]\ncpus = \"exclusive:1\"\n";
    let pools = ["left", "right"].map(|id| host.pool(id, "hostile", exclusive));
    // There is no third CPU.
    for (id, cpus) in [("third", exclusive), ("shared", "")] {
        let refused = host.new_pool(id, "conformance", cpus);
        host.wait_until("it is refused", || refused.text("last_error_class") == "preflight");
        let error = refused.text("last_error");
        println!("{id}: {error}");
        for holder in &pools {
            assert!(error.contains(&format!("engine {}", holder.id)), "{error}");
        }
        host.shell(&format!("poolctl stop {id}"));
    }

    let groups = pools.each_ref().map(Pool::cgroup);
    let idle = readings(&host.shell(&read(&groups)));
    let (measured, sets, ran_on) = thread::scope(|scope| {
        let burning = pools.each_ref().map(|pool| scope.spawn(|| burn(pool)));
        host.wait_until("both burn", || {
            let now = readings(&host.shell(&read(&groups)));
            now.iter().zip(&idle).all(|(now, idle)| now.used > idle.used + 500_000.0)
        });
        let script = format!("{0}sleep {MEASURED}\n{0}", read(&groups));
        let measured = measured(host, &script);
        let sets = groups.each_ref().map(|group| allowed(host, group));
        for pool in &pools {
            host.shell(&format!("touch /var/cache/private/llamaorch/{}/stop", pool.id));
        }
        (measured, sets, burning.map(|burning| burning.join().expect("it ended")))
    });
    for (index, pool) in pools.iter().enumerate() {
        let part = measured[index];
        let (set, ran_on) = (&sets[index], &ran_on[index]);
        println!("{}: {:.1} % of CPU {set}, {ran_on}", pool.id, part * 100.0);
        assert!((LEAST..1.05).contains(&part), "{}: {measured:?}", pool.id);
        assert_eq!(*ran_on, format!("ran on {set}"), "{}", pool.id);
    }
    let mut both = sets.to_vec();
    both.sort();
    assert_eq!(both, ["0", "1"]);
    host.shell("poolctl stop left right");
}
