//! Many leases, and holders that die: a lease is over with its last descriptor, at once, and leaves nothing behind.

use crate::bench::{Bench, Daemon, MANAGER, NAME, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pool_bus_bench::wire::{Call, Wire};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use zbus::Variant;

const POOL: &str = "/org/llamaorch/PoolManager/pool/a";

fn allocate() -> Call {
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    Call::new((NAME, MANAGER, NAME), "AllocateLease", &("a", options)).expect("a call")
}

fn held() -> Call {
    Call::get((NAME, POOL, "org.llamaorch.PoolManager.Pool"), "ActiveLeases").expect("a call")
}

fn wire(bench: &Bench) -> Wire {
    Wire::connect_to(bench.bus.path()).expect("the bus is there")
}

/// Beside this thread, which the systemd of this bench runs on.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

fn take(wire: &mut Wire) -> OwnedFd {
    wire.ask(&allocate()).expect("a lease");
    wire.descriptor().expect("its descriptor")
}

/// How long until so many are held.
fn until(wire: &mut Wire, count: u32) -> Duration {
    let begun = Instant::now();
    let held = held();
    loop {
        let now = wire.ask(&held).expect("an answer").value();
        if now == count {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{now} leases are held, and not {count}");
    }
}

async fn serving() -> (Bench, Daemon) {
    let bench = Bench::new().await;
    bench.pool_file("a", "");
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    (bench, daemon)
}

fn holder(lease: OwnedFd, script: &str) -> Child {
    Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::from(lease))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell")
}

#[tokio::test]
async fn a_lease_is_over_as_soon_as_its_holder_is_killed() {
    let (bench, _daemon) = serving().await;
    let mut wire = wire(&bench);
    let times = beside(move || {
        let mut times = Vec::new();
        for _ in 0..50 {
            let mut holder = holder(take(&mut wire), "exec sleep 1000");
            until(&mut wire, 1);
            holder.kill().expect("it runs");
            times.push(until(&mut wire, 0));
            holder.wait().expect("it has ended");
        }
        times.sort();
        times
    })
    .await;
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "a lease was over after its holder's SIGKILL: median {median:?}, worst {worst:?} of {}",
        times.len()
    );
    assert!(median < Duration::from_millis(20), "{times:?}");
}

#[tokio::test]
async fn a_descriptor_that_was_passed_on_keeps_the_lease() {
    let (bench, _daemon) = serving().await;
    let mut wire = wire(&bench);
    beside(move || {
        // The child's standard input is what the shell was given; in the background it would be nothing.
        let mut parent = holder(take(&mut wire), "exec 3<&0; sleep 1000 <&3 & echo $!; wait");
        let mut line = String::new();
        let mut said = BufReader::new(parent.stdout.take().expect("it is piped"));
        said.read_line(&mut line).expect("the child's number");
        let child = Pid::from_raw(line.trim().parse().expect("a number"));
        parent.kill().expect("it runs");
        parent.wait().expect("it has ended");
        // Nothing is to happen: by when a lease that ended later is over, so would this one be.
        drop(take(&mut wire));
        until(&mut wire, 1);
        kill(child, Signal::SIGKILL).expect("it runs");
        until(&mut wire, 0);
    })
    .await;
}

/// What the daemon has open.
fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.0.id())).expect("it runs").count()
}

fn resident(daemon: &Daemon) -> u64 {
    crate::bench::memory(daemon, "VmRSS")
}

#[tokio::test]
async fn leases_that_come_and_go_leave_nothing_behind() {
    let (bench, daemon) = serving().await;
    let mut wire = wire(&bench);
    // What is made once is there.
    wire = beside(move || {
        drop(take(&mut wire));
        until(&mut wire, 0);
        wire
    })
    .await;
    let (open, memory) = (descriptors(&daemon), resident(&daemon));
    let begun = Instant::now();
    wire = beside(move || {
        pool_bus_bench::series::rate(&mut wire, &allocate(), 10_000, 64).expect("10,000 leases");
        until(&mut wire, 0);
        wire
    })
    .await;
    println!(
        "10,000 leases were taken and dropped in {:?}; resident: {memory} KiB, then {} KiB",
        begun.elapsed(),
        resident(&daemon)
    );
    drop(wire);
    wait_until("as many descriptors are open as before", async || descriptors(&daemon) <= open).await;
    let files = fs::read_dir(bench.folder.join("run/leases")).expect("a folder").count();
    assert_eq!(files, 0);
    let grown = resident(&daemon).saturating_sub(memory);
    assert!(grown < 32 * 1024, "{grown} KiB more are resident");
}
