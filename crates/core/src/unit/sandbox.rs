//! The sandbox that every unit of ours runs in: the lines that need no cgroup controller. A template may loosen
//! single ones, with its reason beside them in its file.

use super::{Property, REPORT_FOLDER, SLICE, Value, property, text};
use crate::config::{Listen, PoolSpec, Subnet};
use crate::name::UnitName;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(super) fn common(name: &UnitName, spec: &PoolSpec) -> Vec<Property> {
    let template = &spec.template.sandbox;
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut calls = names(&["@system-service"]);
    calls.extend(template.system_calls.iter().cloned());
    let mut readable: BTreeSet<&str> = spec.reach.files.values().map(String::as_str).collect();
    readable.extend([spec.model.as_str(), REPORT_FOLDER]);
    readable.extend(spec.reach.warmup.as_deref());
    let on_socket = spec.listen == Listen::Unix;
    // Whoever may write to a socket may open it: the helper gives its folder an access list, and this mask leaves it on.
    let umask = if on_socket { 0o007 } else { 0o077 };
    let mut properties = vec![
        property("Slice", text(SLICE)),
        property("LogExtraFields", Value::Fields(journal_fields(name, spec))),
        property("SyslogIdentifier", text(&spec.engine)),
        // Who it is.
        property("DynamicUser", Value::Bool(true)),
        property("User", Value::Text(spec.id.user_name())),
        property("UMask", Value::U32(umask)),
        // What it may become.
        property("NoNewPrivileges", Value::Bool(true)),
        property("CapabilityBoundingSet", Value::U64(0)),
        property("AmbientCapabilities", Value::U64(0)),
        property("RestrictSUIDSGID", Value::Bool(true)),
        property("RestrictNamespaces", Value::U64(0)),
        property("RestrictRealtime", Value::Bool(true)),
        property("LockPersonality", Value::Bool(true)),
        property("MemoryDenyWriteExecute", Value::Bool(template.memory_deny_write_execute)),
        property("SystemCallArchitectures", Value::Texts(names(&["native"]))),
        property("SystemCallFilter", Value::Set(true, calls)),
        property("KeyringMode", text("private")),
        // What it sees.
        property("ProtectSystem", text("strict")),
        property("ProtectHome", text("tmpfs")),
        property("PrivateTmp", Value::Bool(true)),
        property("ProtectProc", text("invisible")),
        property("ProcSubset", text(if template.proc_subset_pid { "pid" } else { "all" })),
        property("ProtectKernelTunables", Value::Bool(true)),
        property("ProtectKernelModules", Value::Bool(true)),
        property("ProtectKernelLogs", Value::Bool(true)),
        property("ProtectControlGroups", Value::Bool(true)),
        property("ProtectHostname", Value::Bool(true)),
        property("TemporaryFileSystem", Value::Pairs(temporary())),
        property("BindReadOnlyPaths", Value::Binds(readable.into_iter().map(str::to_owned).collect())),
        // What it reaches.
        property("DevicePolicy", text("closed")),
        property("PrivateNetwork", Value::Bool(on_socket)),
        property(
            "RestrictAddressFamilies",
            Value::Set(true, spec.template.address_families(&spec.listen).to_vec()),
        ),
        property("IPAddressDeny", Value::AnyAddress),
        property("IPAddressAllow", Value::Networks(networks(spec))),
        property("RemoveIPC", Value::Bool(true)),
    ];
    properties.extend(reached(spec));
    properties
}

/// What it may speak with. Packets to the address that it listens on come from there too, the prober's for instance.
fn networks(spec: &PoolSpec) -> Vec<Subnet> {
    let host = match &spec.listen {
        Listen::Tcp { host, .. } => host.parse::<IpAddr>().ok(),
        Listen::Unix => None,
    };
    let own = host.filter(|address| !address.is_loopback());
    let allowed = spec.reach.allow.iter().copied().chain(own.map(Subnet::of));
    Subnet::LOOPBACK.into_iter().chain(allowed).collect()
}

/// Groups and secrets, where the pool has some.
fn reached(spec: &PoolSpec) -> Vec<Property> {
    let reach = &spec.reach;
    // A name without a path is looked up in systemd's credential stores; the value is in no property.
    let stored = |encrypted: bool| {
        let kind = reach.credentials.values().filter(|known| known.encrypted == encrypted);
        let names: BTreeSet<&str> = kind.map(|known| known.name.as_str()).collect();
        Value::Pairs(names.into_iter().map(|name| (name.to_owned(), name.to_owned())).collect())
    };
    [
        ("SupplementaryGroups", Value::Texts(reach.groups.clone())),
        ("LoadCredential", stored(false)),
        ("LoadCredentialEncrypted", stored(true)),
    ]
    .into_iter()
    .filter(|(_, value)| !matches!(value, Value::Texts(list) if list.is_empty()))
    .filter(|(_, value)| !matches!(value, Value::Pairs(list) if list.is_empty()))
    .map(|(name, value)| property(name, value))
    .collect()
}

/// A `/dev/shm` of the unit's own: the host's is shared by everyone. And the homes once more: what `ProtectHome=tmpfs`
/// mounts is writable for everyone and without limit on systemd 252. And the daemon's folders, empty but for what is bound
/// into them.
fn temporary() -> Vec<(String, String)> {
    const EMPTY: &str = "ro,nosuid,nodev,mode=0755,size=4m";
    [
        ("/dev/shm", "size=50%,mode=1777,nosuid,nodev,noexec"),
        ("/home", EMPTY),
        ("/root", EMPTY),
        ("/run/user", EMPTY),
        ("/run/pool-managerd", EMPTY),
        ("/etc/llamaorch", EMPTY),
    ]
    .map(|(path, options)| (path.to_owned(), options.to_owned()))
    .to_vec()
}

/// What stands on every line that the engine prints, so that `journalctl POOL_ID=…` is the whole story of a pool.
fn journal_fields(name: &UnitName, spec: &PoolSpec) -> Vec<String> {
    vec![
        format!("POOL_ID={}", spec.id),
        format!("ENGINE={}", spec.engine),
        format!("ENGINE_ID={}", name.replica),
        format!("MODEL_ID={}", spec.model_id()),
        format!("DEVICE_MASK={}", DEVICE_MASK_NONE),
    ]
}

/// How a mask without any device is published and logged.
pub const DEVICE_MASK_NONE: &str = "none";
