//! Within the published names there are additions only: what was released is there still, as it was.
//!
//! A release copies its contract to `dbus/released/VERSION/`, all of `dbus/*.xml`, in the commit that is tagged; from
//! then on every later contract is held against it here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use xtask::reference::{Interface, Member, read_interfaces};

/// What a member promises to those who call it: its name, with the types, and how its changes are told.
fn promise(interface: &str, member: &Member) -> (String, String) {
    let types = |goes_in: bool| {
        let these = member.arguments.iter().filter(|argument| argument.goes_in == goes_in);
        these.map(|argument| argument.signature.as_str()).collect::<Vec<_>>().join(" ")
    };
    let says = match &member.access {
        Some(access) => format!("{} {}, changes {}", access.access, access.signature, access.emits),
        None => format!("({}) -> ({})", types(true), types(false)),
    };
    (format!("{} {interface}.{}", member.kind, member.name), says)
}

fn promises(interfaces: &[Interface]) -> BTreeMap<String, String> {
    let of = |interface: &Interface| {
        let members = interface.members.iter();
        members.map(|member| promise(&interface.name, member)).collect::<Vec<_>>()
    };
    interfaces.iter().flat_map(of).collect()
}

/// Every promise of `before` that is broken.
fn broken(before: &Path, now: &Path) -> Vec<String> {
    let [before, now] = [before, now].map(|folder| promises(&read_interfaces(folder).expect("a contract")));
    assert!(!before.is_empty(), "there is nothing to compare with");
    before
        .into_iter()
        .filter_map(|(name, was)| match now.get(&name) {
            None => Some(format!("{name} is gone")),
            Some(is) if *is != was => Some(format!("{name} was {was} and is {is}")),
            Some(_) => None,
        })
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_was_released_is_there_still() {
    let released = root().join("dbus/released");
    let Ok(versions) = fs::read_dir(&released) else {
        // Nothing is released yet; the comparison itself is tested below.
        assert!(!released.exists(), "it cannot be read");
        return;
    };
    for version in versions {
        let folder = version.expect("a folder").path();
        let found = broken(&folder, &root().join("dbus"));
        assert_eq!(found, Vec::<String>::new(), "{}", folder.display());
    }
}

#[test]
fn removals_and_other_types_are_found_and_additions_are_none() {
    let fixture = root().join("tests/bus/released");
    let found = broken(&fixture.join("before"), &fixture.join("now"));
    assert_eq!(
        found,
        [
            "method org.example.Thing.Gone is gone",
            "method org.example.Thing.More was (s) -> () and is (s u) -> ()",
            "property org.example.Thing.Count was read u, changes true and is read t, changes true",
            "property org.example.Thing.Told was read s, changes true and is read s, changes false",
            "signal org.example.Thing.Done was () -> (s) and is () -> (o)",
        ]
    );
    assert_eq!(broken(&fixture.join("before"), &fixture.join("before")), Vec::<String>::new());
    assert_eq!(broken(&root().join("dbus"), &root().join("dbus")), Vec::<String>::new());
}
