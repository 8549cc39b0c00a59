//! The examples of the reference page, run as they stand there.

use crate::bench::{Bench, SETTLE};
use std::collections::BTreeSet;
use std::process::Command;
use xtask::reference::{Example, examples_here, interfaces_here};

async fn run(bench: &Bench, example: &Example) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", &example.command]).env("DBUS_SYSTEM_BUS_ADDRESS", &bench.bus.address);
    // Beside this thread, which the systemd of this bench runs on.
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("it ran");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn every_example_does_what_the_page_says() {
    let bench = Bench::new().await;
    bench.devices(1);
    bench.pool_file("chat", SETTLE);
    let _daemon = bench.daemon().await;
    bench.wait_phase("chat", "ready").await;
    let examples = examples_here().expect("examples");
    assert!(examples.len() > 20, "{}", examples.len());
    for example in &examples {
        let printed = run(&bench, example).await;
        assert!(example.is_met_by(&printed), "$ {}\n{}\nbut was\n{printed}", example.command, example.prints);
    }
}

#[test]
fn every_method_has_an_example_and_every_example_its_member() {
    let interfaces = interfaces_here().expect("the contract");
    let examples = examples_here().expect("examples");
    let shown: BTreeSet<String> = examples.into_iter().map(|example| example.of).collect();
    let mut known = BTreeSet::new();
    for interface in interfaces {
        for member in &interface.members {
            let name = format!("{}.{}", interface.name, member.name);
            assert!(
                member.kind != "method" || shown.contains(&name),
                "{name} has no example in dbus/busctl.txt"
            );
            known.insert(name);
        }
        known.insert(interface.name);
    }
    known.insert("(step)".to_owned());
    let unknown: Vec<_> = shown.difference(&known).collect();
    assert!(unknown.is_empty(), "examples of nothing: {unknown:?}");
}
