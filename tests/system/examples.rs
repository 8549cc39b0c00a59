//! The examples that come with the package, run as they are installed.

use crate::host::{host, text};

const PYTHON: &str = "/usr/share/doc/pool-managerd/examples/request.py";

#[test]
fn the_python_example_takes_a_lease_and_gets_an_answer() {
    let host = host();
    let pool = host.serving("snake");
    let output = host.run(&["python3", PYTHON, "snake", "/health"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("snake: ready\n"), "{said}");
    let lease = said.lines().find(|line| line.starts_with("snake-r0."));
    assert!(lease.is_some_and(|line| line.ends_with(&pool.endpoint())), "{said}");
    assert!(said.contains("\n200 "), "{said}");
    host.wait_until("the lease ended with the program", || pool.number("ActiveLeases") == 0);

    pool.stop();
    let refused = host.run(&["python3", PYTHON, "snake"]);
    assert!(!refused.status.success());
    let said = text(&refused.stderr);
    assert!(said.starts_with("org.llamaorch.PoolManager.Error.NotReady: "), "{said}");
}
