//! The sandbox that every unit of ours runs in: the lines that need no cgroup controller. A template may loosen
//! single ones, with its reason beside them in its file.

use super::{Property, REPORT_FOLDER, SLICE, Value, property, text};
use crate::config::PoolSpec;
use crate::name::UnitName;

pub(super) fn common(name: &UnitName, spec: &PoolSpec) -> Vec<Property> {
    let template = &spec.template.sandbox;
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut calls = names(&["@system-service"]);
    calls.extend(template.system_calls.iter().cloned());
    vec![
        property("Slice", text(SLICE)),
        property("LogExtraFields", Value::Fields(journal_fields(name, spec))),
        property("SyslogIdentifier", text(&spec.engine)),
        // Who it is.
        property("DynamicUser", Value::Bool(true)),
        property("User", Value::Text(spec.id.user_name())),
        property("UMask", Value::U32(0o077)),
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
        property("BindReadOnlyPaths", Value::Binds(vec![spec.model.clone(), REPORT_FOLDER.to_owned()])),
        // AppArmor's files of policy are open to everybody, and the kernel asks only when they are written.
        property("InaccessiblePaths", Value::Texts(names(&["-/etc/llamaorch", "-/sys/kernel/security"]))),
        // What it reaches.
        property("DevicePolicy", text("closed")),
        property("RestrictAddressFamilies", Value::Set(true, template.address_families.clone())),
        property("IPAddressDeny", Value::AnyAddress),
        property("IPAddressAllow", Value::Loopback),
        property("RemoveIPC", Value::Bool(true)),
    ]
}

/// A `/dev/shm` of the unit's own: the host's is shared by everyone. And the homes once more: what `ProtectHome=tmpfs`
/// mounts is writable for everyone and without limit on systemd 252. And the daemon's folder, empty but for the one that
/// is bound into it. And two more folders that everybody may write to, which a read-only system leaves out: the locks of
/// Debian, and the message queues.
fn temporary() -> Vec<(String, String)> {
    const EMPTY: &str = "ro,nosuid,nodev,mode=0755,size=4m";
    [
        ("/dev/shm", "size=50%,mode=1777,nosuid,nodev,noexec"),
        ("/home", EMPTY),
        ("/root", EMPTY),
        ("/run/user", EMPTY),
        ("/run/pool-managerd", EMPTY),
        ("/run/lock", EMPTY),
        ("/dev/mqueue", EMPTY),
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
