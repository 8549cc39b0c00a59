//! The XML in `dbus/` is the contract: it is held against what is served, both ways.

use crate::bench::{Bench, MANAGER, NAME};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use zbus::Variant;

const FILES: [(&str, &str); 5] = [
    ("org.llamaorch.PoolManager", include_str!("../../dbus/org.llamaorch.PoolManager.xml")),
    ("org.llamaorch.PoolManager.Pool", include_str!("../../dbus/org.llamaorch.PoolManager.Pool.xml")),
    ("org.llamaorch.PoolManager.Replica", include_str!("../../dbus/org.llamaorch.PoolManager.Replica.xml")),
    ("org.llamaorch.PoolManager.Job", include_str!("../../dbus/org.llamaorch.PoolManager.Job.xml")),
    ("org.llamaorch.PoolManager.Device", include_str!("../../dbus/org.llamaorch.PoolManager.Device.xml")),
];

/// Every member of an interface, with names and types of its arguments and its annotations.
fn members(xml: &str, interface: &str) -> BTreeSet<String> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(xml, options).unwrap();
    let found = document
        .descendants()
        .find(|node| node.has_tag_name("interface") && node.attribute("name") == Some(interface));
    let found = found.unwrap_or_else(|| panic!("no {interface} in {xml}"));
    let member = |node: roxmltree::Node<'_, '_>| {
        let kind = node.tag_name().name();
        let name = node.attribute("name").unwrap();
        let parts =
            node.children().filter(roxmltree::Node::is_element).map(|part| match part.tag_name().name() {
                "arg" => {
                    let direction =
                        part.attribute("direction").unwrap_or(if kind == "signal" { "out" } else { "in" });
                    format!(
                        "{direction} {} {}",
                        part.attribute("type").unwrap(),
                        part.attribute("name").unwrap_or("?")
                    )
                }
                _ => format!("{} = {}", part.attribute("name").unwrap(), part.attribute("value").unwrap()),
            });
        // A property that says nothing of signals sends them: the standard's default.
        let parts = parts.filter(|part| part != "org.freedesktop.DBus.Property.EmitsChangedSignal = true");
        let parts: Vec<String> = parts.collect();
        let rest = [node.attribute("type"), node.attribute("access")]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ");
        format!("{kind} {name} {rest} {parts:?}")
    };
    found.children().filter(roxmltree::Node::is_element).map(member).collect()
}

#[tokio::test]
async fn the_served_interfaces_are_those_of_the_xml() {
    let bench = Bench::new().await;
    bench.devices(1);
    bench.pool_on("a", "0", "");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let reply = bench
        .client
        .call_method(Some(NAME), MANAGER, Some(NAME), "StartPool", &("a", options))
        .await
        .unwrap();
    let job: zbus::OwnedObjectPath = reply.body().deserialize().unwrap();
    let paths = BTreeMap::from([
        ("org.llamaorch.PoolManager", MANAGER.to_owned()),
        ("org.llamaorch.PoolManager.Pool", format!("{MANAGER}/pool/a")),
        ("org.llamaorch.PoolManager.Replica", format!("{MANAGER}/replica/a_2dr0")),
        ("org.llamaorch.PoolManager.Job", job.to_string()),
        ("org.llamaorch.PoolManager.Device", format!("{MANAGER}/device/GPU_2d0")),
    ]);
    for (interface, promised) in FILES {
        let path = paths[interface].as_str();
        let reply = bench
            .client
            .call_method(Some(NAME), path, Some("org.freedesktop.DBus.Introspectable"), "Introspect", &())
            .await
            .unwrap();
        let served: String = reply.body().deserialize().unwrap();
        let (promised, served) = (members(promised, interface), members(&served, interface));
        let missing: Vec<_> = promised.difference(&served).collect();
        let extra: Vec<_> = served.difference(&promised).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{interface}: not served {missing:#?}, not promised {extra:#?}"
        );
        assert!(!served.is_empty());
    }
}

/// Of the bus itself.
const OF_THE_BUS: [&str; 5] =
    ["AccessDenied", "InteractiveAuthorizationRequired", "InvalidArgs", "LimitsExceeded", "UnknownObject"];

/// The names in what a method says of its errors, without what stands in brackets.
fn named(errors: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let outside = |c: &char| {
        depth = if *c == '(' { depth + 1 } else { depth.saturating_sub(u32::from(*c == ')')) };
        depth == 0 && *c != ')'
    };
    let plain: String = errors.chars().filter(outside).collect();
    let pieces = plain.split([',', ';']).filter_map(|piece| piece.split_whitespace().next());
    let last = |name: &str| name.trim_end_matches('.').rsplit('.').next().unwrap_or_default().to_owned();
    pieces.map(last).collect()
}

#[test]
fn every_error_that_a_method_names_is_explained() {
    let interfaces = xtask::reference::interfaces_here().expect("the contract");
    let manager = interfaces.iter().find(|interface| interface.name == NAME).expect("the manager");
    let lists = manager.words.text.iter().flat_map(|paragraph| paragraph.lines());
    let mut known: BTreeSet<&str> =
        lists.filter_map(|line| line.strip_prefix("- ")?.split(':').next()).collect();
    assert!(known.contains("NoSuchPool"), "{known:?}");
    known.extend(OF_THE_BUS);
    known.insert("none");
    for interface in &interfaces {
        for member in &interface.members {
            for name in member.words.errors.iter().flat_map(|errors| named(errors)) {
                let place = format!("{}.{}", interface.name, member.name);
                assert!(
                    known.contains(name.as_str()),
                    "{place} names \"{name}\", which is nowhere explained"
                );
            }
        }
    }
    assert_eq!(named("A (b, C; d), E.F.G where, H."), ["A", "G", "H"]);
}

#[test]
fn every_member_says_what_it_is_since_when_how_it_changes_and_how_it_fails() {
    let interfaces = xtask::reference::interfaces_here().expect("every member has a comment of its own");
    assert_eq!(interfaces.len(), FILES.len());
    for interface in &interfaces {
        assert!(!interface.short.is_empty() && interface.words.since.is_some(), "{}", interface.name);
        for member in &interface.members {
            let name = format!("{}.{}", interface.name, member.name);
            let since = member.words.since.as_deref();
            assert!(since.is_some_and(|since| since.starts_with(char::is_numeric)), "{name}: since when?");
            assert!(!member.words.text.is_empty(), "{name}: what is it?");
            for argument in &member.arguments {
                assert!(!argument.words.is_empty(), "{name}: what is {}?", argument.name);
            }
            match &member.access {
                Some(access) => {
                    let signals = ["true", "const", "false"].contains(&access.emits.as_str());
                    assert!(signals, "{name}: how are its changes told?");
                    assert_eq!(access.access, "read", "{name}: nothing is written as a property");
                }
                None if member.kind == "method" => {
                    assert!(member.words.errors.is_some(), "{name}: which errors? \"Errors: none.\" if so");
                }
                None => {}
            }
        }
    }
}

#[test]
fn the_bus_lets_everybody_ask_and_root_alone_be_asked() {
    let policy = include_str!("../../dbus/org.llamaorch.PoolManager.conf");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(policy, options).unwrap();
    let rules: BTreeSet<String> = document
        .descendants()
        .filter(|node| node.has_tag_name("allow") || node.has_tag_name("deny"))
        .map(|rule| {
            let whom = rule.parent().expect("it is there");
            let whom = whom.attribute("user").or(whom.attribute("context")).expect("it is there");
            let what = rule.attributes().map(|what| format!("{}={}", what.name(), what.value()));
            format!("{whom}: {} {}", rule.tag_name().name(), what.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let expected = [
        "root: allow own=org.llamaorch.PoolManager",
        "default: allow send_destination=org.llamaorch.PoolManager",
        "default: allow receive_sender=org.llamaorch.PoolManager",
    ];
    assert_eq!(rules, expected.map(str::to_owned).into());
}
