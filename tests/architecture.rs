//! The house's edges, held against the source: which room may use which, and which crates. `src/lib.rs` has the table in
//! words; `docs` of a forbidden edge is the message of the failure.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room of `src/`: the rooms it may use, the crates it may use, and why no more.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
    why: &'static str,
}

const EVERYWHERE: [&str; 6] = ["std", "core", "pool_core", "thiserror", "serde", "tracing"];

const ROOMS: [Room; 17] = [
    Room {
        name: "ports",
        rooms: &[],
        crates: &[],
        why: "it says what the loop needs in the core's words, so that anything can stand in for the real thing",
    },
    Room {
        name: "config",
        rooms: &[],
        crates: &["toml", "serde_json", "sha2", "nix"],
        why: "it reads files and knows no bus, no loop",
    },
    Room {
        name: "store",
        rooms: &[],
        crates: &["serde_json"],
        why: "it saves files and knows no bus, no loop",
    },
    Room {
        name: "leases",
        rooms: &[],
        crates: &["tokio", "nix"],
        why: "it keeps descriptors and knows what they are for by their names alone",
    },
    Room {
        name: "report",
        rooms: &["ports"],
        crates: &["tokio", "nix"],
        why: "it reads a socket and knows no loop",
    },
    Room {
        name: "processors",
        rooms: &["ports"],
        crates: &[],
        why: "it reads what the kernel says, and knows no loop",
    },
    Room {
        name: "gpu",
        rooms: &["ports"],
        crates: &[],
        why: "it reads what the kernel and the driver say of devices, and knows no loop",
    },
    Room {
        name: "host",
        rooms: &[],
        crates: &["nix"],
        why: "it reads the kernel's files once, and what they mean to engines is the core's",
    },
    Room {
        name: "recording",
        rooms: &[],
        crates: &["serde_json"],
        why: "it writes what the loop took in, and must not have a part in it",
    },
    Room {
        name: "systemd",
        rooms: &["ports"],
        crates: &["zbus", "tokio", "futures_util"],
        why: "an adapter uses the core's types and the port that it fills, never another adapter",
    },
    Room {
        name: "telemetry",
        rooms: &[],
        crates: &["tracing_journald", "tracing_subscriber"],
        why: "everyone logs through it, so it may know nobody",
    },
    Room {
        name: "notify",
        rooms: &[],
        crates: &["sd_notify"],
        why: "everyone may use it, so it may know nobody",
    },
    Room {
        name: "supervisor",
        rooms: &["config", "leases", "ports", "recording", "store", "telemetry", "notify"],
        crates: &["tokio", "nix"],
        why: "the loop knows the ports and never the bus: what it asks for is a port's, what it publishes is a view",
    },
    Room {
        name: "dbus",
        rooms: &["supervisor", "notify", "telemetry"],
        crates: &["zbus", "tokio", "futures_util", "async_trait", "nix"],
        why: "it serves views and reaches the loop by its handle; systemd, files and state are the loop's",
    },
    Room {
        name: "client",
        rooms: &[],
        crates: &["zbus", "futures_util"],
        why: "it is what anybody else has: the public API",
    },
    Room {
        name: "bin",
        rooms: &["client", "config"],
        crates: &["clap", "toml", "tokio", "serde_json", "futures_util", "nix"],
        why: "poolctl proves that the public API is enough; only `check` reads files itself, and `lease` hands a descriptor on",
    },
    Room {
        name: "main.rs",
        rooms: &[
            "config",
            "dbus",
            "gpu",
            "host",
            "leases",
            "notify",
            "processors",
            "recording",
            "report",
            "store",
            "supervisor",
            "systemd",
            "telemetry",
        ],
        crates: &["clap", "tokio", "zbus"],
        why: "it wires",
    },
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The first name behind each `prefix::`, also inside `prefix::{a, b::c}`.
fn names_behind(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let Some(rest) = rest.strip_prefix("::") else { continue };
        let name =
            |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            None => drop(names.insert(name(rest))),
            Some(group) => {
                let mut depth = 0_i32;
                let mut begins = true;
                for (index, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        c if c.is_whitespace() => {}
                        _ if begins && depth == 0 => {
                            begins = false;
                            names.insert(name(&group[index..]));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names.remove("");
    names
}

/// The source as it is built: without comments, and without the unit tests at its end.
fn without_comments(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Every edge of a source that the table does not have.
fn forbidden(room: &Room, text: &str, dependencies: &BTreeSet<String>) -> Vec<String> {
    let text = without_comments(text);
    let mut found = Vec::new();
    let known: BTreeSet<&str> = ROOMS.iter().map(|room| room.name).collect();
    for prefix in ["crate", "pool_managerd"] {
        for used in names_behind(&text, prefix) {
            if known.contains(used.as_str()) && used != room.name && !room.rooms.contains(&used.as_str()) {
                found.push(format!("uses room `{used}`"));
            }
        }
    }
    for dependency in dependencies {
        let used = !names_behind(&text, dependency).is_empty();
        if used && !room.crates.contains(&dependency.as_str()) && !EVERYWHERE.contains(&dependency.as_str()) {
            found.push(format!("uses crate `{dependency}`"));
        }
    }
    found
}

fn table(manifest: &str, section: &str) -> BTreeSet<String> {
    let parsed: toml::Table = toml::from_str(manifest).unwrap();
    let names = parsed
        .get(section)
        .and_then(toml::Value::as_table)
        .map(|table| table.keys().map(|name| name.replace('-', "_")).collect());
    names.unwrap_or_default()
}

#[test]
fn no_room_uses_what_it_may_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dependencies = table(&fs::read_to_string(root.join("Cargo.toml")).unwrap(), "dependencies");
    assert!(dependencies.contains("zbus"), "the manifest was read");
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for file in sources(&root.join("src")) {
        let inside = file.strip_prefix(root.join("src")).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        if first == "lib.rs" {
            continue;
        }
        let named = first.trim_end_matches(".rs");
        let room = ROOMS.iter().find(|room| room.name == first || room.name == named);
        let room = room.unwrap_or_else(|| {
            panic!("src/{} is in no room: add it to the table, with its edges", inside.display())
        });
        seen.insert(room.name);
        for edge in forbidden(room, &fs::read_to_string(&file).unwrap(), &dependencies) {
            complaints.push(format!(
                "src/{} {edge}; `{}` may not: {}",
                inside.display(),
                room.name,
                room.why
            ));
        }
    }
    assert_eq!(seen.len(), ROOMS.len(), "a room of the table is not there");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_forbidden_edge_is_found_however_it_is_written() {
    let dependencies = BTreeSet::from(["zbus".to_owned(), "tokio".to_owned()]);
    let store = ROOMS.iter().find(|room| room.name == "store").unwrap();
    for text in [
        "use crate::dbus::Error;",
        "use crate::{config, supervisor::Handle};",
        "use crate::{\n    systemd::{a, b},\n};",
        "fn f() { crate::notify::alive() }",
        "use zbus::Connection;",
        "let x = tokio::spawn(y);",
    ] {
        assert_eq!(
            forbidden(store, text, &dependencies).len(),
            if text.contains("config,") { 2 } else { 1 },
            "{text}"
        );
    }
    assert!(
        forbidden(store, "// crate::dbus is not used\nuse pool_core::name::PoolId;", &dependencies)
            .is_empty()
    );
}

#[test]
fn the_core_depends_on_serde_and_thiserror_alone() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/core/Cargo.toml")).unwrap();
    assert_eq!(
        table(&manifest, "dependencies"),
        BTreeSet::from(["serde".to_owned(), "thiserror".to_owned()])
    );
    // What a reader of a snapshot tolerates can only be shown in a format; no clock or file comes with this one.
    assert_eq!(table(&manifest, "dev-dependencies"), BTreeSet::from(["serde_json".to_owned()]));
    assert!(table(&manifest, "build-dependencies").is_empty());
}

#[test]
fn the_core_reads_no_clock_no_file_and_prints_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/core/src");
    for file in sources(&folder) {
        let text = without_comments(&fs::read_to_string(&file).unwrap());
        for banned in [
            "std::fs",
            "std::io",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "ToSocketAddrs",
            "std::process",
            "std::thread",
            "std::env",
            "Instant",
            "SystemTime",
            "HashMap",
            "println!",
            "eprintln!",
        ] {
            assert!(
                !text.contains(banned),
                "{} uses {banned}: the core must be replayable from its inputs",
                file.display()
            );
        }
    }
}

#[test]
fn the_helper_stays_small() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/helper/Cargo.toml")).unwrap();
    let dependencies = table(&manifest, "dependencies");
    for banned in ["tokio", "zbus", "clap"] {
        assert!(
            !dependencies.contains(banned),
            "{banned}: the helper sits in every engine's cgroup and on the start path"
        );
    }
}
