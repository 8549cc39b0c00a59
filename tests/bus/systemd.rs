//! A stand-in for systemd's manager: it takes units, says that they are up, and forgets them, or refuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant, interface};

pub const ROOT: &str = "/org/freedesktop/systemd1";

type Properties = Vec<(String, OwnedVariant)>;
type Auxiliary = Vec<(String, Vec<(String, OwnedVariant)>)>;
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

#[derive(Debug, Default)]
pub struct Book {
    /// Calls in their order, as `verb unit`.
    pub calls: Vec<String>,
    /// Units that are there.
    pub units: BTreeMap<String, u32>,
    /// What a start is refused with.
    pub refuse: Option<String>,
    /// A property that cannot be set.
    pub cannot_set: Option<&'static str>,
    /// The properties of each unit that was taken.
    pub properties: BTreeMap<String, Vec<String>>,
    /// What was set of slices, as `slice: names`.
    pub slices: Vec<String>,
    /// How the checks before a start end, if not well: their exit status and last words.
    pub checks_fail: Option<(i32, String)>,
}

#[derive(Clone, Default)]
pub struct FakeSystemd {
    pub book: Arc<Mutex<Book>>,
}

pub fn path(unit: &str) -> OwnedObjectPath {
    format!("{ROOT}/unit/{}", pool_core::name::path_element(unit)).try_into().unwrap()
}

/// What systemd says when a unit has changed: the service's properties, then the unit's.
pub async fn say(
    connection: &Connection,
    to: Option<&str>,
    unit: &str,
    active: &str,
    sub: &str,
    pid: u32,
) -> zbus::Result<()> {
    let ended = if active == "failed" { ("signal", 2, 9) } else { ("success", 0, 0) };
    tell(connection, to, unit, (active, sub, pid), ended, "staged, engine version 1.0").await
}

/// The kernel has killed a unit for want of memory.
pub async fn runs_out(connection: &Connection, unit: &str) -> zbus::Result<()> {
    tell(connection, None, unit, ("failed", "failed", 0), ("oom-kill", 2, 9), "").await
}

/// What systemd says of one unit when it is asked, in bytes, tasks and time.
pub struct FakeUnit;

#[interface(name = "org.freedesktop.systemd1.Service")]
impl FakeUnit {
    #[zbus(property)]
    fn memory_current(&self) -> u64 {
        1 << 30
    }

    #[zbus(property)]
    fn memory_peak(&self) -> u64 {
        2 << 30
    }

    #[zbus(property)]
    fn memory_max(&self) -> u64 {
        64 << 30
    }

    #[zbus(property)]
    fn memory_high(&self) -> u64 {
        u64::MAX
    }

    #[zbus(property)]
    fn tasks_current(&self) -> u64 {
        u64::MAX
    }

    #[zbus(property)]
    fn tasks_max(&self) -> u64 {
        4608
    }

    #[zbus(property, name = "CPUUsageNSec")]
    fn cpu_usage(&self) -> u64 {
        65_000_000_000
    }
}

async fn tell(
    connection: &Connection,
    to: Option<&str>,
    unit: &str,
    (active, sub, pid): (&str, &str, u32),
    (result, code, status): (&str, i32, i32),
    text: &str,
) -> zbus::Result<()> {
    let service: HashMap<&str, Variant<'_>> = HashMap::from([
        ("MainPID", Variant::new(pid)),
        ("Result", Variant::new(result)),
        ("ExecMainCode", Variant::new(code)),
        ("ExecMainStatus", Variant::new(status)),
        ("StatusText", Variant::new(text)),
    ]);
    let unit_properties: HashMap<&str, Variant<'_>> = HashMap::from([
        ("ActiveState", Variant::new(active)),
        ("SubState", Variant::new(sub)),
        ("InvocationID", Variant::new(vec![7_u8; 16])),
        ("ActiveEnterTimestamp", Variant::new(u64::from(active == "active"))),
    ]);
    let none: &[&str] = &[];
    for (interface, changed) in
        [("org.freedesktop.systemd1.Service", service), ("org.freedesktop.systemd1.Unit", unit_properties)]
    {
        let body = (interface, changed, none);
        connection
            .emit_signal(to, path(unit), "org.freedesktop.DBus.Properties", "PropertiesChanged", &body)
            .await?;
    }
    Ok(())
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeSystemd {
    fn subscribe(&self) {}

    async fn start_transient_unit(
        &self,
        name: String,
        _mode: String,
        properties: Properties,
        _auxiliary: Auxiliary,
        #[zbus(connection)] connection: &Connection,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        let stage = name.starts_with("llamaorch-stage-");
        let (pid, checks_fail) = {
            let mut book = self.book.lock().unwrap();
            book.calls.push(format!("start {name}"));
            if let Some(refusal) = &book.refuse {
                return Err(zbus::fdo::Error::Failed(refusal.clone()));
            }
            if let Some(name) = book.cannot_set.filter(|name| properties.iter().any(|(sent, _)| sent == name))
            {
                let text = format!("Cannot set property {name}, or unknown property.");
                return Err(zbus::fdo::Error::PropertyReadOnly(text));
            }
            book.properties.insert(name.clone(), properties.into_iter().map(|(name, _)| name).collect());
            let pid = 1_000 + u32::try_from(book.calls.len()).unwrap();
            book.units.insert(name.clone(), pid);
            (pid, book.checks_fail.clone().filter(|_| stage))
        };
        if let Some((status, words)) = checks_fail {
            tell(connection, None, &name, ("failed", "failed", 0), ("exit-code", 1, status), &words).await?;
            return Ok(format!("{ROOT}/job/1").try_into().unwrap());
        }
        let (sub, pid) = if stage { ("exited", 0) } else { ("running", pid) };
        say(connection, None, &name, "active", sub, pid).await?;
        Ok(format!("{ROOT}/job/1").try_into().unwrap())
    }

    fn set_unit_properties(&self, name: String, runtime: bool, properties: Properties) {
        assert!(runtime, "until the next boot");
        let set: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        self.book.lock().expect("no test has failed in it").slices.push(format!("{name}: {}", set.join(" ")));
    }

    async fn stop_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        self.remove("stop", &name, &emitter).await
    }

    async fn reset_failed_unit(
        &self,
        name: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> zbus::fdo::Result<()> {
        self.remove("forget", &name, &emitter).await.map(|_| ())
    }

    fn list_units_by_patterns(&self, _states: Vec<String>, _patterns: Vec<String>) -> Vec<Listed> {
        Vec::new()
    }

    #[zbus(property)]
    fn version(&self) -> String {
        "257.1-test".into()
    }

    #[zbus(signal)]
    pub async fn unit_removed(
        emitter: &SignalEmitter<'_>,
        id: &str,
        unit: OwnedObjectPath,
    ) -> zbus::Result<()>;
}

impl FakeSystemd {
    async fn remove(
        &self,
        verb: &str,
        name: &str,
        emitter: &SignalEmitter<'_>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        let known = {
            let mut book = self.book.lock().unwrap();
            book.calls.push(format!("{verb} {name}"));
            book.units.remove(name).is_some()
        };
        if known {
            FakeSystemd::unit_removed(emitter, name, path(name)).await?;
        }
        Ok(format!("{ROOT}/job/2").try_into().unwrap())
    }
}
