//! Owns the connection to systemd: units are asked for here, and what systemd says of them becomes observations.
//!
//! Signals are believed only from the connection that owns `org.freedesktop.systemd1`, whose unique name is tracked:
//! any local user can send a signal that claims to be systemd's. Nothing here decides anything.

mod encode;
mod manager;
mod observe;

use crate::ports::{Observation, Systemd, SystemdError, Usage};
use manager::ManagerProxy;
use pool_core::cpu::CpuSet;
use pool_core::device::Part;
use pool_core::host::UnitFacts;
use pool_core::name::{Endpoint, UnitName, Usec, path_element};
use pool_core::replica::{ActiveState, UnitObservation};
use pool_core::unit::{
    DEVICES_VARIABLE, ENDPOINT_VARIABLE, NODES_VARIABLE, OWN_CPUS_VARIABLE, Property, SPEC_VARIABLE,
    UnitSpec, VERSION_VARIABLE, pool_slice,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use zbus::message::Message;
use zbus::{Connection, Variant};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/";

impl From<zbus::Error> for SystemdError {
    fn from(error: zbus::Error) -> Self {
        match &error {
            zbus::Error::MethodError(name, text, _) => match name.as_str() {
                "org.freedesktop.systemd1.UnitExists" => SystemdError::NameTaken,
                "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.DBus.Error.UnknownObject" => {
                    SystemdError::NoSuchUnit
                }
                name => SystemdError::Refused(text.clone().unwrap_or_else(|| name.to_owned())),
            },
            _ => SystemdError::Unavailable(Box::new(error)),
        }
    }
}

/// A client of systemd. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    manager: ManagerProxy<'static>,
    version: String,
    /// Properties that systemd would not set: it is not asked again.
    refused: Arc<Mutex<BTreeSet<&'static str>>>,
    /// Slices of pools of which something was set.
    slices: Arc<Mutex<BTreeSet<String>>>,
}

impl Client {
    /// Connects to systemd over a bus connection of its own, and sends what it says into `observations` from now on.
    ///
    /// # Errors
    /// systemd cannot be reached.
    pub async fn connect(
        connection: &Connection,
        observations: mpsc::Sender<Observation>,
    ) -> Result<Client, SystemdError> {
        observe::start(connection, observations).await?;
        let manager = ManagerProxy::new(connection).await?;
        let version = manager.version().await?;
        Ok(Client { manager, version, refused: Arc::default(), slices: Arc::default() })
    }

    /// systemd's version as it says it, for instance `252.39-1~deb12u2`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The number of its version, which tells what it knows.
    #[must_use]
    pub fn number(&self) -> u16 {
        encode::major(&self.version)
    }

    /// Sets what a unit's pool wants of its slice, until the next boot. It need not be there yet.
    async fn set_slice(&self, unit: &UnitSpec) -> Result<(), SystemdError> {
        let slice = pool_slice(&unit.name.replica.pool);
        let set_before = self.slices.lock().unwrap_or_else(PoisonError::into_inner).contains(&slice);
        if let Some(properties) = encode::slice(unit, set_before) {
            self.manager.set_unit_properties(&slice, true, &properties).await?;
            self.slices.lock().unwrap_or_else(PoisonError::into_inner).insert(slice);
        }
        Ok(())
    }

    /// All properties that a unit has by one of its interfaces.
    async fn properties(&self, name: &UnitName, interface: &str) -> zbus::Result<Message> {
        let path = format!("{UNIT_PATH}{}", path_element(&name.to_string()));
        let properties = Some("org.freedesktop.DBus.Properties");
        let connection = self.manager.inner().connection();
        connection.call_method(Some(SYSTEMD), path.as_str(), properties, "GetAll", &(interface,)).await
    }

    async fn read(&self, name: UnitName) -> Result<UnitFacts, SystemdError> {
        let mut seen = UnitObservation { active: ActiveState::Other, ..UnitObservation::new(name.clone()) };
        let mut facts = Facts::default();
        for interface in [observe::SERVICE, observe::UNIT] {
            let reply = self.properties(&name, interface).await?;
            let body = reply.body();
            for (property, value) in body.deserialize::<HashMap<&str, Variant<'_>>>()? {
                observe::absorb(&mut seen, property, &value);
                facts.absorb(property, &value);
            }
        }
        Ok(facts.with(seen))
    }
}

impl Systemd for Client {
    async fn start(&self, unit: &UnitSpec) -> Result<Vec<&'static str>, SystemdError> {
        self.set_slice(unit).await?;
        let name = unit.name.to_string();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            let properties = encode::properties(unit, self.number(), &refused);
            let Err(error) = self.manager.start_transient_unit(&name, "fail", &properties, &[]).await else {
                let left_out =
                    unit.properties.iter().map(Property::name).filter(|name| refused.contains(name));
                return Ok(left_out.collect());
            };
            // Each is refused once, so this ends.
            match encode::not_settable(unit, &error) {
                Some(property) if refused.insert(property) => {
                    self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(property);
                }
                _ => return Err(error.into()),
            }
        }
    }

    async fn change(&self, name: &UnitName, property: &Property) -> Result<(), SystemdError> {
        let (name, property) = (name.to_string(), (property.name(), encode::value(property)));
        self.manager.set_unit_properties(&name, true, &[property]).await?;
        Ok(())
    }

    async fn stop(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.manager.stop_unit(&name.to_string(), "replace").await?;
        Ok(())
    }

    async fn kill(&self, name: &UnitName) -> Result<(), SystemdError> {
        const SIGKILL: i32 = 9;
        self.manager.kill_unit(&name.to_string(), "all", SIGKILL).await?;
        Ok(())
    }

    async fn forget(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.manager.reset_failed_unit(&name.to_string()).await?;
        Ok(())
    }

    async fn usage(&self, name: &UnitName) -> Result<Usage, SystemdError> {
        let reply = self.properties(name, observe::SERVICE).await?;
        let body = reply.body();
        let properties = body.deserialize::<HashMap<&str, Variant<'_>>>()?;
        // All bits set: no limit, or not known.
        let number = |name: &str| match properties.get(name) {
            Some(Variant::U64(number)) => Some(*number).filter(|number| *number != u64::MAX),
            _ => None,
        };
        Ok(Usage {
            memory_current: number("MemoryCurrent"),
            memory_peak: number("MemoryPeak"),
            memory_high: number("MemoryHigh"),
            memory_max: number("MemoryMax"),
            tasks_current: number("TasksCurrent"),
            tasks_max: number("TasksMax"),
            cpu_usage: number("CPUUsageNSec").map(|nsec| Usec(nsec / 1_000)),
            cpu_quota: number("CPUQuotaPerSecUSec").map(Usec),
        })
    }

    async fn units(&self) -> Result<Vec<UnitFacts>, SystemdError> {
        let patterns = ["llamaorch-engine-*.service", "llamaorch-stage-*.service"];
        let listed = self.manager.list_units_by_patterns(&[], &patterns).await?;
        let names = listed
            .into_iter()
            .filter(|unit| unit.2 == "loaded")
            .filter_map(|unit| unit.0.parse::<UnitName>().ok());
        let reads = names.map(|name| self.read(name));
        let read: Vec<Result<UnitFacts, SystemdError>> = futures_util::future::join_all(reads).await;
        // A unit that went away between the two questions is no longer one of ours.
        read.into_iter().filter(|read| !matches!(read, Err(SystemdError::NoSuchUnit))).collect()
    }
}

/// What adoption needs besides the observation.
#[derive(Default)]
struct Facts {
    became_active: Usec,
    environment: Vec<String>,
    allowed_cpus: CpuSet,
    device_allow: BTreeSet<String>,
    /// Whether a job of it waits or runs.
    has_job: bool,
}

impl Facts {
    fn absorb(&mut self, property: &str, value: &Variant<'_>) {
        match (property, value) {
            ("ActiveEnterTimestamp", Variant::U64(usec)) => self.became_active = Usec(*usec),
            ("AllowedCPUs", Variant::Array(bytes)) => {
                let byte = |byte: &Variant<'_>| if let Variant::U8(byte) = byte { Some(*byte) } else { None };
                self.allowed_cpus =
                    CpuSet::of_mask(&bytes.inner().iter().filter_map(byte).collect::<Vec<_>>());
            }
            ("Environment", Variant::Array(entries)) => {
                let texts = entries.inner().iter().filter_map(|entry| match entry {
                    Variant::Str(text) => Some(text.to_string()),
                    _ => None,
                });
                self.environment = texts.collect();
            }
            ("DeviceAllow", Variant::Array(rules)) => {
                let node = |rule: &Variant<'_>| match rule {
                    Variant::Structure(rule) => match rule.fields().first() {
                        Some(Variant::Str(node)) => Some(node.to_string()),
                        _ => None,
                    },
                    _ => None,
                };
                self.device_allow = rules.inner().iter().filter_map(node).collect();
            }
            ("Job", Variant::Structure(job)) => {
                self.has_job = matches!(job.fields().first(), Some(Variant::U32(id)) if *id != 0);
            }
            _ => {}
        }
    }

    fn with(self, mut seen: UnitObservation) -> UnitFacts {
        if self.has_job && seen.active == ActiveState::Inactive {
            // It is about to be on its way up, and not over.
            seen.active = ActiveState::Activating;
        }
        let variable = |name: &str| {
            self.environment
                .iter()
                .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
        };
        UnitFacts {
            endpoint: variable(ENDPOINT_VARIABLE).parse::<Endpoint>().ok(),
            spec_digest: variable(SPEC_VARIABLE).to_owned(),
            engine_version: variable(VERSION_VARIABLE).to_owned(),
            became_active: self.became_active,
            own_cpus: variable(OWN_CPUS_VARIABLE).parse().unwrap_or_default(),
            allowed_cpus: Some(self.allowed_cpus.clone()).filter(|cpus| !cpus.is_empty()),
            devices: Part::of_marks(variable(DEVICES_VARIABLE), variable(NODES_VARIABLE)),
            device_allow: self.device_allow.clone(),
            seen,
        }
    }
}
