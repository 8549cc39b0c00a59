//! The workers of an engine on several cards meet in the sandbox of vLLM's template, and not without what it loosens.

use crate::host::{HOSTILE, Host, Pool, host, spare_module};
use serde_json::Value;
use xtask::machine::SPARE_MODULE_PATH;

/// Each way to meet. The segment is one that NCCL might want.
const MEETINGS: [&[&str]; 3] =
    [&["meet-on-the-network"], &["meet-in-shared-memory", "64"], &["meet-by-descriptor"]];

/// The word of each refusal; "": they met.
fn refusals(pool: &Pool<'_>) -> [String; 3] {
    MEETINGS.map(|act| {
        let ended = pool.attempt(act);
        println!("{}: {}: {ended}", pool.id, act[0]);
        ended["errno"].as_str().unwrap_or_default().to_owned()
    })
}

/// An interface that is not loopback, as every server has one: without a name for it NCCL takes that.
struct Interface<'a>(&'a Host);

/// The tree has no insmod: finit_module, and delete_module.
const LOAD: &str = "import ctypes, sys; file = open(sys.argv[1]); sys.exit(ctypes.CDLL(None).syscall(313, file.fileno(), b'', 0))";
const UNLOAD: &str = "import ctypes; ctypes.CDLL(None).syscall(176, b'dummy', 0)";

impl<'a> Interface<'a> {
    fn add(host: &'a Host) -> Self {
        let loaded = host.run(&["python3", "-c", LOAD, SPARE_MODULE_PATH]);
        assert!(loaded.status.success(), "{loaded:?}");
        let added = Interface(host);
        host.shell("ip address add 10.8.0.1/24 dev dummy0 && ip link set dummy0 up");
        added
    }
}

impl Drop for Interface<'_> {
    fn drop(&mut self) {
        drop(self.0.run(&["python3", "-c", UNLOAD]));
    }
}

#[test]
fn workers_meet_in_vllm_s_sandbox_and_not_without_what_it_loosens() {
    let _module = spare_module();
    let (host, _turn) = host();
    let _interface = Interface::add(host);
    let program = format!("program = {HOSTILE:?}\n");

    for act in MEETINGS {
        let outside = host.run(&[&[HOSTILE, "attempt"], act].concat());
        let said: Value =
            serde_json::from_slice(&outside.stdout).unwrap_or_else(|error| panic!("{error}: {outside:?}"));
        assert_eq!(said["outcome"], "succeeded", "outside: {said}");
    }

    let workers = host.pool("workers", "vllm", &program);
    assert_eq!(refusals(&workers), ["", "", ""], "in the template's sandbox");

    // Without a network's name they meet on an address of this host, which is not loopback's.
    let more = format!("{program}env = {{ NCCL_SOCKET_IFNAME = \"\" }}\n[resources]\nshm = \"1MiB\"\n");
    let unnamed = host.pool("unnamed", "vllm", &more);
    assert_eq!(
        refusals(&unnamed),
        ["ETIMEDOUT", "ENOSPC", ""],
        "without the name, with little shared memory"
    );

    // No list of interfaces, no descriptors.
    let plain = host.pool("plain", "hostile", "");
    assert_eq!(refusals(&plain), ["EAFNOSUPPORT", "", "SIGSYS"], "without what the template loosens");
}
