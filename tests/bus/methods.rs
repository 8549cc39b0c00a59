//! Every method of every interface of ours, as the XML in `dbus/` has it, and what each does as far as it matters who
//! calls it. A method that this table does not know fails whatever test asks for it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use zbus::Variant;
use zbus::message::{Flags, Message};
use zbus::wire::StructureBuilder;

/// What a method does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It looks or waits: everybody may.
    Reads,
    /// It is asked about, as this action.
    Changes(&'static str),
}

pub const MANAGE: Does = Does::Changes("org.llamaorch.PoolManager.manage");
pub const CONFIGURE: Does = Does::Changes("org.llamaorch.PoolManager.configure");
pub const LEASE: Does = Does::Changes("org.llamaorch.PoolManager.lease");
pub const REPORT: Does = Does::Changes("org.llamaorch.PoolManager.report");

/// The table: an interface, below `org.llamaorch.PoolManager`, its methods, and what they do.
const TABLE: &[(&str, &[&str], Does)] = &[
    ("", &["ListPools", "GetPool", "GetHealth", "WaitReady", "Explain", "GetStatistics"], Does::Reads),
    ("", &["StartPool", "StopPool", "DrainPool", "ReloadPool", "ResetPool"], MANAGE),
    ("", &["ReloadConfiguration", "RegisterPool", "UnregisterPool"], CONFIGURE),
    ("", &["AllocateLease", "ReleaseLease", "RenewLease"], LEASE),
    ("", &["SetHealth", "SetHeartbeat", "SetVersion", "SetLastError"], REPORT),
    (".Pool", &["Start", "Stop", "Drain", "Reload", "Reset"], MANAGE),
    (".Pool", &["AllocateLease"], LEASE),
    (".Replica", &["GetUsage", "GetUnitLines"], Does::Reads),
    (".Job", &["Wait"], Does::Reads),
    (".Job", &["Cancel"], MANAGE),
    (".Device", &["Quarantine", "Readmit"], MANAGE),
];

/// A method as the XML has it.
#[derive(Debug)]
pub struct Method {
    pub interface: String,
    pub name: String,
    pub does: Does,
    /// Names and types of what it takes.
    pub takes: Vec<(String, String)>,
}

impl Method {
    /// A call of it at an object, with this pool where it asks for one.
    pub fn call(&self, path: &str, pool: &str, flags: Flags) -> Message {
        let call = Message::method_call(path, self.name.as_str())
            .destination("org.llamaorch.PoolManager")
            .interface(self.interface.as_str())
            .with_flags(flags);
        let mut body = StructureBuilder::new();
        for (name, kind) in &self.takes {
            body.push_value(argument(name, kind, pool));
        }
        let call =
            if self.takes.is_empty() { call.build(&()) } else { call.build(&body.build().expect("fields")) };
        call.expect("a call")
    }
}

fn argument(name: &str, kind: &str, pool: &str) -> Variant<'static> {
    match (name, kind) {
        ("id", "s") => Variant::from(pool.to_owned()),
        (_, "s") => Variant::from(""),
        (_, "b") => Variant::from(true),
        (_, "t") => Variant::from(1_u64),
        (_, "a{sv}") => Variant::from(HashMap::<String, Variant<'_>>::new()),
        _ => panic!("{name} {kind}: say in tests/bus/methods.rs what to call it with"),
    }
}

/// All of them.
pub fn all() -> Vec<Method> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbus");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder of the interfaces")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .collect();
    files.sort();
    let methods: Vec<Method> = files.iter().flat_map(|file| methods_of(file)).collect();
    assert!(methods.len() > 20, "they were read");
    methods
}

fn methods_of(file: &Path) -> Vec<Method> {
    let xml = fs::read_to_string(file).expect("a file of the repository");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&xml, options).expect("it is XML");
    let mut methods = Vec::new();
    for interface in document.descendants().filter(|node| node.has_tag_name("interface")) {
        let name = interface.attribute("name").expect("a name");
        for method in interface.children().filter(|node| node.has_tag_name("method")) {
            methods.push(read(name, method));
        }
    }
    methods
}

fn read(interface: &str, method: roxmltree::Node<'_, '_>) -> Method {
    let name = method.attribute("name").expect("a name");
    let known = TABLE.iter().find(|(below, names, _)| {
        interface.strip_prefix("org.llamaorch.PoolManager") == Some(below) && names.contains(&name)
    });
    let (_, _, does) = known.unwrap_or_else(|| {
        panic!("{interface}.{name} is in no table: say in tests/bus/methods.rs who may call it")
    });
    let takes = method
        .children()
        .filter(|node| node.has_tag_name("arg") && node.attribute("direction") != Some("out"))
        .map(|arg| {
            let text = |name: &str| arg.attribute(name).expect("a name and a type").to_owned();
            (text("name"), text("type"))
        })
        .collect();
    Method { interface: interface.to_owned(), name: name.to_owned(), does: *does, takes }
}
