//! What can be read in the journal about a pool.

use crate::host::host;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;

fn lines(json: &str) -> Vec<BTreeMap<String, String>> {
    json.lines()
        .map(|line| {
            let entry: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            entry.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
        })
        .collect()
}

#[test]
fn the_whole_story_of_a_pool_is_found_by_its_id() {
    let host = host();
    let pool = host.serving("story");
    host.kill(pool.main_pid(0), Signal::SIGKILL);
    pool.wait_phase("backoff");
    pool.wait_ready();
    host.shell("journalctl --sync");
    let lines = lines(&host.shell("journalctl POOL_ID=story -o json --no-pager"));
    let daemon: Vec<_> = lines
        .iter()
        .filter(|line| line.get("SYSLOG_IDENTIFIER").is_some_and(|who| who == "pool-managerd"))
        .collect();
    let engine: Vec<_> = lines
        .iter()
        .filter(|line| {
            line.get("_SYSTEMD_UNIT").is_some_and(|unit| unit.starts_with("llamaorch-engine-story"))
        })
        .collect();
    assert!(!daemon.is_empty() && (!engine.is_empty() || !host.has_llama()), "{lines:#?}");
    for field in ["POOL_ID", "ENGINE", "MODEL_ID", "DEVICE_MASK"] {
        for line in daemon.iter().chain(&engine) {
            assert!(line.contains_key(field), "{field} is missing in {line:#?}");
        }
    }
    let restarting =
        daemon.iter().find(|line| line["MESSAGE"].contains("restarting")).expect("a line about the restart");
    for field in [
        "RESTART_COUNT",
        "BACKOFF_MS",
        "LAST_ERROR",
        "ENGINE_VERSION",
        "ENGINE_ID",
        "UNIT",
        "EXIT_CLASS",
        "MESSAGE_ID",
    ] {
        assert!(restarting.contains_key(field), "{field} is missing in {restarting:#?}");
    }
    assert_eq!(restarting["RESTART_COUNT"], "0", "it counts restarts that were made");
    let ready = daemon.iter().filter(|line| line["MESSAGE"].contains("ready after"));
    let counts: Vec<&str> = ready.map(|line| line["RESTART_COUNT"].as_str()).collect();
    assert_eq!(counts, ["0", "1"]);
    assert_eq!(restarting["EXIT_CLASS"], "signal:KILL");
    let backoff: u64 = restarting["BACKOFF_MS"].parse().unwrap();
    assert!((900..=1100).contains(&backoff), "{backoff}");
    let ready =
        daemon.iter().find(|line| line["MESSAGE"].contains("ready after")).expect("a line about readiness");
    assert_eq!((ready["PRIORITY"].as_str(), restarting["PRIORITY"].as_str()), ("6", "4"));
    for line in &daemon {
        let prefixed: Vec<_> = line.keys().filter(|name| name.starts_with("F_")).collect();
        assert!(prefixed.is_empty(), "{prefixed:?}");
    }
}

#[test]
fn the_catalog_says_what_to_do() {
    let host = host();
    let pool = host.pool("help", &crate::host::conformance_file(&[]).replace("tiny", "absent"));
    pool.wait_phase("failed");
    host.shell("journalctl --sync");
    let explained = host.shell("journalctl -x POOL_ID=help --no-pager");
    assert!(explained.contains("poolctl start help"), "{explained}");
    assert!(!explained.contains("@POOL_ID@") && !explained.contains("@LAST_ERROR@"), "{explained}");
}
