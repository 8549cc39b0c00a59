//! Files that are wrong, change, go and come back.

use crate::host::{NAME, POOL, ROOT, conformance_file, host, text};

#[test]
fn a_typo_is_named_by_place_and_the_other_pools_run_on() {
    let host = host();
    let good = host.conformance("good", &[]);
    good.wait_ready();
    let before = good.main_pid(0);
    let typo = format!("{}[network]\n  lisen = \"127.0.0.1:auto\"\n", conformance_file(&[]));
    host.sandbox.write("/etc/llamaorch/pools.d/typo.toml", &typo, 0o644).unwrap();

    let checked = host.poolctl(&["check"]);
    assert_eq!(checked.status.code(), Some(2));
    let said = text(&checked.stderr) + &text(&checked.stdout);
    for part in ["/etc/llamaorch/pools.d/typo.toml", "line 6, column 3", "unknown field `lisen`", "`listen`"]
    {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }

    let (added, _, _) = host.reload();
    assert_eq!(added, Vec::<String>::new());
    let errors: Vec<(String, String)> = {
        let value: zbus::OwnedVariant = host
            .call(ROOT, "org.freedesktop.DBus.Properties", "Get", &(NAME, "ConfigurationErrors"))
            .unwrap();
        value.try_into().unwrap()
    };
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].0.ends_with("typo.toml") && errors[0].1.contains("line 6, column 3"), "{errors:?}");
    assert_ne!(
        host.run(&["systemctl", "reload", "pool-managerd"]).status.code(),
        Some(0),
        "systemctl reload reports it"
    );
    assert_eq!((good.text("Phase"), good.main_pid(0)), ("ready".into(), before));
    let journal = host.sandbox.journal(&["CONFIG_PATH=/etc/llamaorch/pools.d/typo.toml"]).unwrap();
    assert!(journal.contains("line 6, column 3"), "{journal}");
    host.shell("rm /etc/llamaorch/pools.d/typo.toml");
    host.reload();
    assert!(host.poolctl(&["check"]).status.success());
}

#[test]
fn a_file_that_breaks_under_a_running_pool_changes_nothing() {
    let host = host();
    let pool = host.conformance("breaks", &[]);
    pool.wait_ready();
    let before = pool.main_pid(0);
    pool.write_file("engine = \"conformance\"\nreplicas = \"two\"\n");
    let (_, changed, removed) = host.reload();
    assert_eq!((changed, removed), (vec![], vec![]));
    assert_eq!((pool.text("Phase"), pool.main_pid(0)), ("ready".into(), before));
}

#[test]
fn a_changed_file_waits_for_the_next_start() {
    let host = host();
    let pool = host.conformance("changes", &[]);
    pool.wait_ready();
    let before = pool.main_pid(0);
    pool.write_file(&conformance_file(&["--metrics"]));
    let (_, changed, _) = host.reload();
    assert_eq!(changed, ["changes"]);
    assert!(pool.flag("NeedsReload"));
    let pending: Vec<String> = host.property(&pool.path(), POOL, "Pending");
    assert_eq!(pending, ["args"]);
    assert_eq!(pool.main_pid(0), before);
    host.kill_daemon();
    let pending: Vec<String> = host.property(&pool.path(), POOL, "Pending");
    assert_eq!(pending, ["args"], "also after a restart of the daemon");
    pool.stop();
    pool.start();
    pool.wait_ready();
    assert!(!pool.flag("NeedsReload"));
    let line = host.shell(&format!("tr '\\0' ' ' < /proc/{}/cmdline", pool.main_pid(0)));
    assert!(line.contains("--metrics"), "{line}");
}

#[test]
fn a_removed_file_ends_its_pool() {
    let host = host();
    let pool = host.conformance("removed", &[]);
    pool.wait_ready();
    pool.remove_file();
    let (_, _, removed) = host.reload();
    assert_eq!(removed, ["removed"]);
    host.wait_until("the object is gone", || {
        host.call::<_, zbus::OwnedObjectPath>(ROOT, NAME, "GetPool", &("removed",)).is_err()
    });
    assert!(host.units().iter().all(|unit| !unit.contains("removed")), "{:?}", host.units());
}

#[test]
fn sighup_reads_the_files_too() {
    let host = host();
    let pool = host.conformance("hup", &[]);
    pool.wait_ready();
    pool.write_file(&conformance_file(&["--metrics"]));
    host.kill(host.daemon_pid(), nix::sys::signal::Signal::SIGHUP);
    host.wait_until("the change was seen", || pool.flag("NeedsReload"));
}

#[test]
fn a_pool_by_hand_starts_only_when_told() {
    let host = host();
    let pool = host.pool("manual", &format!("activation = \"manual\"\n{}", conformance_file(&[])));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(pool.text("Phase"), "stopped");
    pool.start();
    pool.wait_ready();
    let before = pool.main_pid(0);
    host.kill_daemon();
    assert_eq!((pool.text("Phase"), pool.main_pid(0)), ("ready".into(), before));
}

#[test]
fn a_mended_file_starts_the_pool_that_it_kept_down() {
    let host = host();
    let pool = host.pool("mended", &conformance_file(&[]).replace("tiny.gguf", "absent.gguf"));
    pool.wait_phase("failed");
    pool.write_file(&conformance_file(&[]));
    host.reload();
    pool.wait_ready();
}

#[test]
fn arguments_reach_the_engine_as_they_are_written() {
    let host = host();
    let args = ["--engine-args", "$HOME", "--engine-args", "x${HOME}y$$z %n \\t"];
    let pool = host.conformance("literal", &args);
    pool.wait_ready();
    let line = host.shell(&format!("tr '\\0' '\\n' < /proc/{}/cmdline", pool.main_pid(0)));
    for arg in args {
        assert!(line.lines().any(|said| said == arg), "{arg} is not in {line}");
    }
}

#[test]
fn a_file_with_a_nul_disturbs_nobody() {
    let host = host();
    let good = host.conformance("undisturbed", &[]);
    good.wait_ready();
    let daemon = host.daemon_pid();
    for (id, line) in [("nul1", "engine = \"no\\u0000pe\""), ("nul2", "model = \"file:/srv/x\\u0000y\"")] {
        let key = line.split(' ').next().unwrap();
        let others = conformance_file(&[])
            .lines()
            .filter(|line| !line.starts_with(key))
            .collect::<Vec<_>>()
            .join("\n");
        host.sandbox
            .write(&format!("/etc/llamaorch/pools.d/{id}.toml"), format!("{line}\n{others}\n"), 0o644)
            .unwrap();
    }
    host.reload();
    assert_eq!(host.poolctl(&["check"]).status.code(), Some(2));
    assert_eq!((host.daemon_pid(), good.flag("Ready")), (daemon, true));
    host.shell("rm /etc/llamaorch/pools.d/nul*.toml");
    host.reload();
}

#[test]
fn pools_whose_folder_cannot_be_listed_run_on() {
    let host = host();
    let pool = host.conformance("unlisted", &[]);
    pool.wait_ready();
    let before = pool.main_pid(0);
    host.shell("chown 1234 /etc/llamaorch/pools.d && chmod 0700 /etc/llamaorch/pools.d");
    let (_, _, removed) = host.reload();
    host.kill_daemon();
    let after = (removed, pool.text("Phase"), pool.main_pid(0));
    host.shell("chown root /etc/llamaorch/pools.d && chmod 0755 /etc/llamaorch/pools.d");
    assert_eq!(after, (vec![], "ready".to_owned(), before));
    host.reload();
    assert_eq!(pool.main_pid(0), before);
}
