//! An engine on a unix socket: who reaches it. What it reaches itself is among the attempts.

use crate::host::{HOSTILE, host};

#[test]
fn a_socket_is_opened_by_root_and_the_operators_and_by_nobody_else() {
    let (host, _turn) = host();
    let pool = host.pool("private", "conformance", "[network]\nlisten = \"unix\"\n");
    let endpoint = pool.endpoint();
    let socket = endpoint.strip_prefix("unix:").unwrap_or_else(|| panic!("{endpoint}"));
    let operators = host.shell("getent group llamaorch").split(':').nth(2).expect("its number").to_owned();
    let groups = [format!("--groups={operators}"), "--clear-groups".to_owned()];
    let user = |groups| ["setpriv", "--reuid=65534", "--regid=65534", groups];
    for (who, argv, outcome) in [
        ("root", &[][..], "succeeded"),
        ("an operator", &user(&groups[0]), "succeeded"),
        ("another user", &user(&groups[1]), "EACCES"),
    ] {
        let tried = host.run(&[argv, &[HOSTILE, "attempt", "connect-unix", socket]].concat());
        let said = String::from_utf8_lossy(&tried.stdout).into_owned();
        println!("{who}: {}", said.trim());
        assert!(said.contains(outcome), "{who}: {tried:?}");
    }
    let namespace = |process: u64| host.shell(&format!("readlink /proc/{process}/ns/net"));
    assert_ne!(namespace(pool.main_pid()), namespace(1), "its network is the host's");
}
