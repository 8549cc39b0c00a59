//! The sandbox that every unit of ours runs in: the lines that need no cgroup controller. A template may loosen
//! single ones, with its reason beside them in its file. What a unit may use of the host is in `limits`.

use super::limits::{pool_slice, shm};
use super::property::{Allowed, Binds, Fields, Limit, Mode, Networks, Pairs, Property};
use super::{Launch, REPORT_FOLDER, device_allow, table};
use crate::config::{Listen, PoolSpec, Subnet, seen};
use crate::device::Part;
use crate::name::UnitName;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(super) fn common(name: &UnitName, launch: &Launch<'_>) -> Vec<Property> {
    let spec = launch.spec;
    let template = &spec.template.sandbox;
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut calls = names(&["@system-service"]);
    calls.extend(template.system_calls.iter().cloned());
    let mut readable: BTreeSet<String> = seen(spec).into_iter().collect();
    readable.insert(REPORT_FOLDER.to_owned());
    let on_socket = spec.listen == Listen::Unix;
    // Whoever may write to a socket may open it: the helper gives its folder an access list, and this mask leaves it on.
    let umask = if on_socket { 0o007 } else { 0o077 };
    let mut properties = vec![
        table::SLICE.is(pool_slice(&spec.id)),
        table::LOG_EXTRA_FIELDS.is(Fields(journal_fields(name, launch))),
        table::SYSLOG_IDENTIFIER.is(spec.engine.as_str()),
        // Who it is.
        table::DYNAMIC_USER.is(true),
        table::USER.is(spec.id.user_name()),
        table::UMASK.is(Mode(umask)),
        // What it may become.
        table::NO_NEW_PRIVILEGES.is(true),
        table::CAPABILITY_BOUNDING_SET.is(0_u64),
        table::AMBIENT_CAPABILITIES.is(0_u64),
        table::RESTRICT_SUID_SGID.is(true),
        table::RESTRICT_NAMESPACES.is(0_u64),
        table::RESTRICT_REALTIME.is(true),
        table::LOCK_PERSONALITY.is(true),
        table::MEMORY_DENY_WRITE_EXECUTE.is(template.memory_deny_write_execute),
        table::SYSTEM_CALL_ARCHITECTURES.is(names(&["native"])),
        table::SYSTEM_CALL_FILTER.is(Allowed(calls)),
        table::KEYRING_MODE.is("private"),
        // What it sees.
        table::PROTECT_SYSTEM.is("strict"),
        table::PROTECT_HOME.is("tmpfs"),
        table::PRIVATE_TMP.is(true),
        table::PROTECT_PROC.is("invisible"),
        table::PROC_SUBSET.is(if template.proc_subset_pid { "pid" } else { "all" }),
        table::PROTECT_KERNEL_TUNABLES.is(true),
        table::PROTECT_KERNEL_MODULES.is(true),
        table::PROTECT_KERNEL_LOGS.is(true),
        table::PROTECT_CONTROL_GROUPS.is(true),
        table::PROTECT_HOSTNAME.is(true),
        table::TEMPORARY_FILE_SYSTEM.is(Pairs(temporary(&shm(&spec.resources), launch.model_folders))),
        table::BIND_READ_ONLY_PATHS.is(Binds(readable.into_iter().collect())),
        // AppArmor's files of policy are open to everybody, and the kernel asks only when they are written.
        table::INACCESSIBLE_PATHS.is(names(&["-/sys/kernel/security"])),
        // What it reaches.
        table::DEVICE_POLICY.is("closed"),
        table::PRIVATE_NETWORK.is(on_socket),
        table::RESTRICT_ADDRESS_FAMILIES.is(Allowed(spec.template.address_families(&spec.listen).to_vec())),
        table::IP_ADDRESS_DENY.is(Networks(Subnet::ALL.to_vec())),
        table::IP_ADDRESS_ALLOW.is(Networks(networks(spec))),
        table::REMOVE_IPC.is(true),
    ];
    properties.extend(reached(spec));
    if !launch.devices.is_empty() {
        // Single nodes: a kind of them would be all devices. Drivers pin the memory that devices read.
        properties.push(device_allow(launch.devices));
        properties.push(table::LIMIT_MEMLOCK.is(Limit(u64::MAX)));
    }
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
    let mut properties = Vec::new();
    if !reach.groups.is_empty() {
        properties.push(table::SUPPLEMENTARY_GROUPS.is(reach.groups.clone()));
    }
    // A name without a path is looked up in systemd's credential stores; the value is in no property.
    let stored = |encrypted: bool| {
        let kind = reach.credentials.values().filter(|known| known.encrypted == encrypted);
        let names: BTreeSet<&str> = kind.map(|known| known.name.as_str()).collect();
        let pairs = names.into_iter().map(|name| (name.to_owned(), name.to_owned()));
        Some(Pairs(pairs.collect())).filter(|pairs| !pairs.0.is_empty())
    };
    properties.extend(stored(false).map(|names| table::LOAD_CREDENTIAL.is(names)));
    properties.extend(stored(true).map(|names| table::LOAD_CREDENTIAL_ENCRYPTED.is(names)));
    properties
}
/// A `/dev/shm` of the unit's own: the host's is shared by everyone. And the homes once more: what `ProtectHome=tmpfs`
/// mounts is writable for everyone and without limit on systemd 252. And the daemon's folders, empty but for what is bound
/// into them. And two more folders that everybody may write to, which a read-only system leaves out: the locks of Debian,
/// and the message queues. And where models are kept, but for what is its own.
fn temporary(shm: &str, models: &[String]) -> Vec<(String, String)> {
    const EMPTY: &str = "ro,nosuid,nodev,mode=0755,size=4m";
    let shm = format!("size={shm},mode=1777,nosuid,nodev,noexec");
    let fixed = [
        ("/dev/shm", shm.as_str()),
        ("/home", EMPTY),
        ("/root", EMPTY),
        ("/run/user", EMPTY),
        ("/run/pool-managerd", EMPTY),
        ("/etc/llamaorch", EMPTY),
        ("/run/lock", EMPTY),
        ("/dev/mqueue", EMPTY),
    ];
    let models = models.iter().map(|folder| (folder.as_str(), EMPTY));
    fixed.into_iter().chain(models).map(|(path, options)| (path.to_owned(), options.to_owned())).collect()
}

/// What stands on every line that the engine prints, so that `journalctl POOL_ID=…` is the whole story of a pool.
fn journal_fields(name: &UnitName, launch: &Launch<'_>) -> Vec<String> {
    let spec = launch.spec;
    vec![
        format!("POOL_ID={}", spec.id),
        format!("ENGINE={}", spec.engine),
        format!("ENGINE_ID={}", name.replica),
        format!("MODEL_ID={}", spec.model_id()),
        format!("DEVICE_MASK={}", Part::mask([launch.devices])),
    ]
}
