//! The table of all properties that a unit of ours may have: name, type of the value, its signature on the bus, and the
//! oldest systemd that takes it in a transient unit, where 252 stands for "every one that counts". A signature that is not
//! that of its type does not compile.

use super::property::{
    Allowed, Binds, CommandLine, Fields, Known, Limit, Mask, Mode, Networks, Pairs, Row, Typed, same,
};

macro_rules! table {
    ($($constant:ident = $name:literal: $type:ty, $signature:literal, $since:literal;)*) => {
        $(
            pub(super) const $constant: Known<$type> = Known::new($name, $since);
            const _: () = assert!(same($signature, <$type as Typed>::SIGNATURE), $name);
        )*

        /// Every row.
        pub const TABLE: &[Row] = &[
            $(Row {
                name: $name,
                signature: $signature,
                since: $since,
                least: || $constant.is(<$type>::default()),
            }),*
        ];
    };
}

table! {
    // What runs.
    DESCRIPTION = "Description": String, "s", 252;
    SLICE = "Slice": String, "s", 252;
    TYPE = "Type": String, "s", 252;
    NOTIFY_ACCESS = "NotifyAccess": String, "s", 252;
    REMAIN_AFTER_EXIT = "RemainAfterExit": bool, "b", 252;
    EXEC_START = "ExecStart": CommandLine, "a(sasb)", 252;
    ENVIRONMENT = "Environment": Vec<String>, "as", 252;
    WORKING_DIRECTORY = "WorkingDirectory": String, "s", 252;
    LOG_EXTRA_FIELDS = "LogExtraFields": Fields, "aay", 252;
    SYSLOG_IDENTIFIER = "SyslogIdentifier": String, "s", 252;
    // How it ends.
    TIMEOUT_START = "TimeoutStartUSec": u64, "t", 252;
    TIMEOUT_STOP = "TimeoutStopUSec": u64, "t", 252;
    WATCHDOG = "WatchdogUSec": u64, "t", 252;
    WATCHDOG_SIGNAL = "WatchdogSignal": i32, "i", 252;
    KILL_MODE = "KillMode": String, "s", 252;
    OOM_POLICY = "OOMPolicy": String, "s", 252;
    // Its own folders.
    CACHE_DIRECTORY = "CacheDirectory": Vec<String>, "as", 252;
    CACHE_DIRECTORY_MODE = "CacheDirectoryMode": Mode, "u", 252;
    RUNTIME_DIRECTORY = "RuntimeDirectory": Vec<String>, "as", 252;
    RUNTIME_DIRECTORY_MODE = "RuntimeDirectoryMode": Mode, "u", 252;
    // Where it computes.
    ALLOWED_CPUS = "AllowedCPUs": Mask, "ay", 252;
    NUMA_POLICY = "NUMAPolicy": i32, "i", 252;
    NUMA_MASK = "NUMAMask": Mask, "ay", 252;
    // Who it is.
    DYNAMIC_USER = "DynamicUser": bool, "b", 252;
    USER = "User": String, "s", 252;
    SUPPLEMENTARY_GROUPS = "SupplementaryGroups": Vec<String>, "as", 252;
    LOAD_CREDENTIAL = "LoadCredential": Pairs, "a(ss)", 252;
    LOAD_CREDENTIAL_ENCRYPTED = "LoadCredentialEncrypted": Pairs, "a(ss)", 252;
    UMASK = "UMask": Mode, "u", 252;
    // What it may become.
    NO_NEW_PRIVILEGES = "NoNewPrivileges": bool, "b", 252;
    CAPABILITY_BOUNDING_SET = "CapabilityBoundingSet": u64, "t", 252;
    AMBIENT_CAPABILITIES = "AmbientCapabilities": u64, "t", 252;
    RESTRICT_SUID_SGID = "RestrictSUIDSGID": bool, "b", 252;
    RESTRICT_NAMESPACES = "RestrictNamespaces": u64, "t", 252;
    RESTRICT_REALTIME = "RestrictRealtime": bool, "b", 252;
    LOCK_PERSONALITY = "LockPersonality": bool, "b", 252;
    MEMORY_DENY_WRITE_EXECUTE = "MemoryDenyWriteExecute": bool, "b", 252;
    SYSTEM_CALL_ARCHITECTURES = "SystemCallArchitectures": Vec<String>, "as", 252;
    SYSTEM_CALL_FILTER = "SystemCallFilter": Allowed, "(bas)", 252;
    KEYRING_MODE = "KeyringMode": String, "s", 252;
    // What it sees.
    PROTECT_SYSTEM = "ProtectSystem": String, "s", 252;
    PROTECT_HOME = "ProtectHome": String, "s", 252;
    PRIVATE_TMP = "PrivateTmp": bool, "b", 252;
    PROTECT_PROC = "ProtectProc": String, "s", 252;
    PROC_SUBSET = "ProcSubset": String, "s", 252;
    PROTECT_KERNEL_TUNABLES = "ProtectKernelTunables": bool, "b", 252;
    PROTECT_KERNEL_MODULES = "ProtectKernelModules": bool, "b", 252;
    PROTECT_KERNEL_LOGS = "ProtectKernelLogs": bool, "b", 252;
    PROTECT_CONTROL_GROUPS = "ProtectControlGroups": bool, "b", 252;
    PROTECT_HOSTNAME = "ProtectHostname": bool, "b", 252;
    TEMPORARY_FILE_SYSTEM = "TemporaryFileSystem": Pairs, "a(ss)", 252;
    BIND_READ_ONLY_PATHS = "BindReadOnlyPaths": Binds, "a(ssbt)", 252;
    INACCESSIBLE_PATHS = "InaccessiblePaths": Vec<String>, "as", 252;
    // What it reaches.
    DEVICE_POLICY = "DevicePolicy": String, "s", 252;
    DEVICE_ALLOW = "DeviceAllow": Pairs, "a(ss)", 252;
    PRIVATE_NETWORK = "PrivateNetwork": bool, "b", 252;
    RESTRICT_ADDRESS_FAMILIES = "RestrictAddressFamilies": Allowed, "(bas)", 252;
    IP_ADDRESS_DENY = "IPAddressDeny": Networks, "a(iayu)", 252;
    IP_ADDRESS_ALLOW = "IPAddressAllow": Networks, "a(iayu)", 252;
    REMOVE_IPC = "RemoveIPC": bool, "b", 252;
    // What it may use.
    MEMORY_ACCOUNTING = "MemoryAccounting": bool, "b", 252;
    TASKS_ACCOUNTING = "TasksAccounting": bool, "b", 252;
    MEMORY_HIGH = "MemoryHigh": u64, "t", 252;
    MEMORY_MAX = "MemoryMax": u64, "t", 252;
    MEMORY_SWAP_MAX = "MemorySwapMax": u64, "t", 252;
    MEMORY_ZSWAP_MAX = "MemoryZSwapMax": u64, "t", 253;
    TASKS_MAX = "TasksMax": u64, "t", 252;
    CPU_WEIGHT = "CPUWeight": u64, "t", 252;
    LIMIT_MEMLOCK = "LimitMEMLOCK": Limit, "t", 252;
    CPU_QUOTA = "CPUQuotaPerSecUSec": u64, "t", 252;
}

/// What runs, and as whom: a unit without one of these is not started, where one without another line is.
pub const NEEDED: [&str; 5] = ["Type", "NotifyAccess", "ExecStart", "DynamicUser", "User"];

/// The properties that a systemd does not know, by the number of its version.
pub fn unknown_to(systemd: u16) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.since > systemd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_name_is_in_the_table_once() {
        let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(NEEDED.iter().all(|needed| names.contains(needed)));
    }

    #[test]
    fn what_a_systemd_does_not_know_is_told_by_its_version() {
        let unknown = |systemd| unknown_to(systemd).map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(unknown(252), ["MemoryZSwapMax"]);
        assert!(unknown(253).is_empty());
    }
}
