//! The sandbox keeps what it promises: systemd as PID 1, isolation that works, nothing left behind; and the tiny model is
//! one that a real llama-server generates with.
//!
//! Needs root; part of the system level.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xtask::gguf;
use xtask::image::Suite;
use xtask::sandbox::{Error, Sandbox};

fn suite() -> Suite {
    std::env::var("POOL_TEST_SUITE").map_or(Suite::Forky, |suite| suite.parse().expect("a suite"))
}

#[test]
fn it_runs_systemd_with_dynamic_users_and_a_loopback_network() {
    let sandbox = Sandbox::boot(suite(), "basics").expect("boots");
    eprintln!("{} up after {:.2} s", sandbox.suite(), sandbox.boot_time().as_secs_f64());
    assert_eq!(sandbox.check(&["cat", "/proc/1/comm"]).expect("PID 1"), "systemd\n");
    assert_eq!(sandbox.check(&["hostname"]).expect("a name").trim_end(), sandbox.machine());
    let failed = sandbox.check(&["systemctl", "--failed", "--no-legend", "--plain"]).expect("units");
    assert_eq!(failed, "", "units failed at boot");
    let id = sandbox
        .check(&["systemd-run", "--quiet", "--wait", "--pipe", "--property=DynamicUser=yes", "id", "--user"])
        .expect("a dynamic user");
    assert!(id.trim_end().parse::<u32>().is_ok_and(|id| (61184..=65519).contains(&id)), "{id}");
    let links = sandbox.shell("ls /sys/class/net; ip -brief link show up").expect("links");
    assert!(links.starts_with("lo\nlo "), "{links}");
    let unit = sandbox.check(&["cat", "/proc/self/cgroup"]).expect("cgroup");
    assert!(unit.lines().any(|line| line == "0::/init.scope"), "{unit}");
}

#[test]
fn files_go_in_with_their_mode_and_never_through_a_link_to_the_host() {
    let sandbox = Sandbox::boot(suite(), "files").expect("boots");
    let host = std::env::temp_dir().join(format!("xtask-sandbox-test-{}", std::process::id()));
    sandbox.shell(&format!("ln -s {} /srv/link", std::env::temp_dir().display())).expect("a link");
    let inside = format!("/srv/link/{}", host.file_name().and_then(|name| name.to_str()).expect("a name"));
    sandbox.write(&inside, "inside", 0o640).expect("written");
    assert!(!host.exists(), "the host's folder was written to");
    assert_eq!(sandbox.shell(&format!("cat {inside}; stat -c %a {inside}")).expect("read"), "inside640\n");
    let big = vec![b'x'; 3 << 20];
    sandbox.write("/srv/a/b/big", &big, 0o755).expect("written");
    assert_eq!(sandbox.shell("wc -c </srv/a/b/big").expect("counted"), format!("{}\n", big.len()));
    sandbox.copy_in(Path::new("/bin/true"), "/opt/true").expect("copied");
    assert!(sandbox.run(&["test", "-x", "/opt/true"]).expect("ran").status.success());
}

#[test]
fn a_command_out_of_time_is_killed_and_named() {
    let sandbox = Sandbox::boot(suite(), "limits").expect("boots");
    let begun = Instant::now();
    let slow = sandbox.run_for(Duration::from_millis(300), &["sleep", "60"]);
    assert!(matches!(slow, Err(Error::TimedOut { .. })), "{slow:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(sandbox.shell("pgrep -c sleep || true").expect("counted"), "0\n");
    let failed = sandbox.shell("echo seen; echo why >&2; false").expect_err("fails").to_string();
    assert!(failed.contains("seen") && failed.contains("why"), "{failed}");
}

#[test]
fn nothing_is_left_of_a_sandbox_that_was_dropped() {
    let sandbox = Sandbox::boot(suite(), "dropped").expect("boots");
    let (machine, leader) = (sandbox.machine().to_owned(), sandbox.leader_pid());
    let journal = sandbox.journal_file().to_owned();
    sandbox.shell("systemd-run --quiet --unit=stays sleep 1000").expect("a unit");
    drop(sandbox);
    assert_gone(&machine, leader);
    let journal = fs::read_to_string(journal).expect("the journal was kept");
    assert!(journal.contains("stays.service"), "{journal}");
}

/// This test runs itself as the process that is killed: told by this variable, it boots and waits.
const OWNER: &str = "XTASK_TEST_OWNER";

#[test]
fn a_killed_owner_leaves_nothing() {
    if std::env::var_os(OWNER).is_some() {
        let sandbox = Sandbox::boot(suite(), "killed").expect("boots");
        println!("booted {} {}", sandbox.machine(), sandbox.leader_pid());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut owner = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_killed_owner_leaves_nothing", "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the owner runs");
    let lines = BufReader::new(owner.stdout.take().expect("its output")).lines();
    let booted = lines.map_while(Result::ok).find(|line| line.contains("booted ")).expect("it booted");
    let words: Vec<&str> = booted.split(' ').rev().take(2).collect();
    let (leader, machine) = (words[0].parse().expect("a PID"), words[1].to_owned());
    owner.kill().expect("killed");
    owner.wait().expect("reaped");
    let begun = Instant::now();
    while Path::new(&format!("/proc/{leader}")).exists() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The guard removes mounts and folder after the container's end.
    std::thread::sleep(Duration::from_secs(1));
    assert_gone(&machine, leader);
}

#[test]
fn llama_server_loads_the_tiny_model_and_generates() {
    let sandbox = Sandbox::boot(Suite::Forky, "engine").expect("boots");
    sandbox.write("/srv/models/tiny.gguf", gguf::tiny_llama(), 0o644).expect("the model is in");
    sandbox
        .shell("systemd-run --quiet --unit=llama --property=DynamicUser=yes llama-server -m /srv/models/tiny.gguf --port 9000 -ngl 0 --ctx-size 512")
        .expect("started");
    let health = sandbox.wait_until("llama-server is healthy", Duration::from_secs(20), |sandbox| {
        let asked = sandbox.run(&["curl", "--silent", "--fail", "http://127.0.0.1:9000/health"])?;
        Ok(asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).into_owned()))
    });
    assert!(health.expect("healthy").contains("ok"));
    let request = r#"{"prompt":"Hello","n_predict":16,"ignore_eos":true}"#;
    let answer = sandbox
        .check(&["curl", "--silent", "--fail", "http://127.0.0.1:9000/completion", "-d", request])
        .expect("a completion");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["tokens_predicted"], 16, "{answer}");
    assert!(answer["content"].as_str().is_some_and(|content| !content.is_empty()), "{answer}");
}

fn assert_gone(machine: &str, leader: u32) {
    assert!(!Path::new(&format!("/proc/{leader}")).exists(), "PID 1 of {machine} still runs");
    assert!(!xtask::host::target_dir().join("sandbox").join(machine).exists(), "its folder is still there");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(machine), "{mounts}");
    for tree in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"] {
        assert!(!Path::new(tree).join(machine).exists(), "its cgroup in {tree} is still there");
    }
}
