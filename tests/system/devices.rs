//! What a unit gets of devices that are stated: nodes without a driver, which say so to whoever may open them.
//!
//! Proved here: `DeviceAllow`, `DevicePolicy` and `LimitMEMLOCK` as systemd has them, and that the daemon says the first
//! again. Whether the kernel keeps to device rules is asked of a unit of the test's own; where it does not, as in many
//! containers, that is tried in a virtual machine alone. So is what a process may lock: a container may have less.

use crate::host::{Host, Pool, REPLICA, conformance_file, host, text};
use std::collections::BTreeSet;
use xtask::test_levels::LEFT_OUT;

const FILE: &str = "/etc/llamaorch/devices.toml";

/// Two devices with a node each, and one node for both; gone with the value.
struct Devices<'a>(&'a Host);

const NODES: [(&str, &str); 3] = [("/dev/llm0", "195 0"), ("/dev/llm1", "195 1"), ("/dev/llmctl", "195 255")];

impl Devices<'_> {
    fn on(host: &Host) -> Devices<'_> {
        let devices = Devices(host);
        NODES.iter().for_each(|(node, _)| devices.make(node));
        let device = |index: u32| {
            format!("[[device]]\nuuid = \"GPU-{index}\"\nindex = {index}\nnodes = [\"/dev/llm{index}\"]\n")
        };
        let text = format!("common = [\"/dev/llmctl\"]\n{}{}", device(0), device(1));
        host.sandbox.write(FILE, text, 0o644).expect("a file in the sandbox");
        devices
    }

    fn make(&self, node: &str) {
        let (_, numbers) = NODES.iter().find(|(known, _)| *known == node).expect("one of them");
        self.0.shell(&format!("rm -f {node} && mknod -m 0666 {node} c {numbers}"));
    }
}

impl Drop for Devices<'_> {
    fn drop(&mut self) {
        let nodes = NODES.map(|(node, _)| node).join(" ");
        let gone = self.0.run(&["sh", "-c", &format!("rm -f {FILE} {nodes}; poolctl reload")]);
        println!("the devices are gone: {}", gone.status);
    }
}

fn file(device: &str) -> String {
    conformance_file(&[]).replace("[\"none\"]", &format!("[\"{device}\"]"))
}

fn shown(pool: &Pool<'_>, property: &str) -> String {
    pool.host.shell(&format!("systemctl show -P {property} {}", pool.unit(0))).trim().to_owned()
}

/// The rules of its unit.
fn rules(pool: &Pool<'_>) -> BTreeSet<String> {
    shown(pool, "DeviceAllow").lines().map(str::to_owned).collect()
}

/// What opening a node says to the engine.
fn opens(pool: &Pool<'_>, node: &str) -> String {
    let (code, body) = pool.host.http("POST", &format!("{}/write?path={node}", pool.endpoint()));
    assert_eq!(code, 403, "there is no driver: {body}");
    body.trim().to_owned()
}

/// Whether the kernel keeps to device rules here.
fn in_force(host: &Host) -> bool {
    let argv =
        ["systemd-run", "-q", "--pipe", "--wait", "-p", "DevicePolicy=closed", "sh", "-c", ": </dev/llm1"];
    text(&host.run(&argv).stderr).contains("Operation not permitted")
}

#[test]
fn an_engine_may_open_its_own_device_also_after_systemd_has_read_its_units_again() {
    let host = host();
    let devices = Devices::on(&host);
    let pool = host.pool("carded", &file("0"));
    pool.wait_ready();
    let expected: BTreeSet<String> = ["/dev/llm0 rw", "/dev/llmctl rw"].map(str::to_owned).into();
    assert_eq!((rules(&pool), shown(&pool, "DevicePolicy")), (expected.clone(), "closed".to_owned()));
    assert_eq!(shown(&pool, "LimitMEMLOCK"), "infinity");
    let (_, env) = host.http("GET", &format!("{}/env", pool.endpoint()));
    assert!(env.contains("CUDA_VISIBLE_DEVICES=GPU-0"), "{env}");
    assert_eq!(pool.text("DeviceMask"), "0");
    let its: Vec<String> = host.property(&pool.replica_path(0), REPLICA, "Devices");
    assert_eq!(its, ["GPU-0"]);
    for line in ["_SYSTEMD_UNIT=pool-managerd.service", &format!("_SYSTEMD_UNIT={}", pool.unit(0))] {
        let fields = ["POOL_ID=carded", "DEVICE_MASK=0", line].join(" ");
        host.wait_until("the mask is in the journal", || {
            !host.shell(&format!("journalctl -q -n 1 -o cat {fields}")).is_empty()
        });
    }
    let plain = host.conformance("cardless", &[]);
    plain.wait_ready();
    assert_eq!((rules(&plain), shown(&plain, "DevicePolicy")), (BTreeSet::new(), "closed".to_owned()));
    assert_ne!(shown(&plain, "LimitMEMLOCK"), "infinity");

    let holds = |when: &str| {
        for node in ["/dev/llm0", "/dev/llmctl"] {
            assert!(opens(&pool, node).contains("ENXIO"), "{when} {node}: {}", opens(&pool, node));
        }
    };
    holds("at first");
    let drop_in = format!("/run/systemd/transient/{}.d/50-DeviceAllow.conf", pool.unit(0));
    let said = || host.shell(&format!("cat {drop_in} 2>/dev/null || true"));
    let says_all = |text: &str| expected.iter().all(|rule| text.contains(&format!("DeviceAllow={rule}")));
    // The reading of files for the other pool was one time that it was said again.
    host.shell(&format!("rm {drop_in} && systemctl daemon-reload"));
    host.wait_until("what it may open is said again", || says_all(&said()));
    holds("after a reload");
    // Its node is missing while systemd reads, and is back: whoever knows has the files read.
    host.shell(&format!("rm /dev/llm0 {drop_in} && systemctl daemon-reload"));
    host.wait_until("what it may open is said again", || says_all(&said()));
    devices.make("/dev/llm0");
    host.shell(&format!("rm {drop_in}"));
    host.reload();
    host.wait_until("what it may open is said again", || says_all(&said()));
    holds("after its node was gone");
    let told =
        || host.shell("journalctl -q -u pool-managerd -o cat").matches("no longer let it open").count();
    assert_eq!(told(), 0, "systemd has shown its rules all the time");
    // Somebody takes them away.
    host.shell(&format!("systemctl set-property --runtime {} DeviceAllow=", pool.unit(0)));
    assert_eq!(rules(&pool), BTreeSet::new());
    host.shell("systemctl daemon-reload");
    host.wait_until("they are there again", || rules(&pool) == expected);
    host.wait_until("that is told", || told() == 1);
    // And what it has outlives the daemon.
    let main = pool.main_pid(0);
    host.kill_daemon();
    assert_eq!((pool.main_pid(0), pool.text("DeviceMask"), rules(&pool)), (main, "0".to_owned(), expected));
}

#[test]
fn an_engine_opens_no_device_but_its_own() {
    let host = host();
    let devices = Devices::on(&host);
    if !in_force(&host) {
        println!(
            "{LEFT_OUT}: the kernel keeps to no device rules in this container; the machine level tries them"
        );
        return;
    }
    let (pool, plain) = (host.pool("carded", &file("0")), host.conformance("cardless", &[]));
    pool.wait_ready();
    plain.wait_ready();
    let closed = || {
        for (pool, node) in [(&pool, "/dev/llm1"), (&plain, "/dev/llm0"), (&plain, "/dev/llmctl")] {
            assert!(opens(pool, node).contains("EPERM"), "{} {node}: {}", pool.id, opens(pool, node));
        }
        assert!(opens(&pool, "/dev/llmctl").contains("ENXIO"));
    };
    closed();
    assert!(opens(&pool, "/dev/llm0").contains("ENXIO"));
    host.shell("rm /dev/llm0 && systemctl daemon-reload");
    devices.make("/dev/llm0");
    host.reload();
    host.wait_until("its node is open again", || opens(&pool, "/dev/llm0").contains("ENXIO"));
    closed();
}

#[test]
fn a_start_without_its_node_or_its_device_is_refused_with_what_to_do() {
    let host = host();
    let devices = Devices::on(&host);
    host.shell("rm /dev/llm1");
    let pool = host.pool("nodeless", &file("1"));
    pool.wait_phase("failed");
    assert_eq!(pool.text("LastErrorClass"), "preflight");
    let error = pool.text("LastError");
    assert!(error.contains("device node /dev/llm1: it does not exist; load the device's driver"), "{error}");
    devices.make("/dev/llm1");
    pool.start();
    pool.wait_ready();
    // One that nobody else may open either.
    host.shell("chmod 0660 /dev/llm1");
    pool.stop();
    pool.start();
    pool.wait_phase("failed");
    let error = pool.text("LastError");
    assert!(error.contains("no permission for /dev/llm1") && error.contains("`groups`"), "{error}");
    host.shell("chown root:video /dev/llm1");
    pool.write_file(&format!("groups = [\"video\"]\n{}", file("1")));
    host.reload();
    pool.wait_ready();

    let none = host.pool("absent", &file("7"));
    none.wait_phase("failed");
    assert_eq!(none.text("LastErrorClass"), "not-admitted");
    let error = none.text("LastError");
    assert!(
        error.contains("asks for device 7, and there is none; there are 0 (GPU-0), 1 (GPU-1)"),
        "{error}"
    );
    let listed = text(&host.poolctl(&["devices"]).stdout);
    assert!(listed.contains("GPU-1") && listed.contains("nodeless"), "{listed}");
}
