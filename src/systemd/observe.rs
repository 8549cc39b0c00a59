//! From systemd's signals to observations.
//!
//! One task reads every message of the connection and only forwards, so a slow receiver cannot stop replies for long.
//! systemd sends the service's properties before the unit's, so an observation leaves with the latter.

#![allow(clippy::disallowed_methods, reason = "the one task that reads the connection")]

use super::manager::ManagerProxy;
use super::{SYSTEMD, UNIT_PATH};
use crate::ports::{Observation, SystemdError};
use futures_util::StreamExt;
use pool_core::name::{InvocationId, UnitName, Usec, from_path_element, path_element};
use pool_core::replica::{ActiveState, UnitObservation};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::sync::mpsc;
use zbus::fdo::DBusProxy;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, Variant};

pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const SERVICE: &str = "org.freedesktop.systemd1.Service";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";
const BUS: &str = "org.freedesktop.DBus";
/// So long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Subscribes, and forwards from now on.
pub(super) async fn start(
    connection: &Connection,
    observations: mpsc::Sender<Observation>,
) -> Result<(), SystemdError> {
    let bus = DBusProxy::new(connection).await?;
    let mut messages = MessageStream::from(connection);
    if let Some(depth) = NonZeroUsize::new(4096) {
        messages.set_max_queued(depth);
    }
    // The match rules come before the subscription, and that before any unit is asked for: no signal is missed.
    for rule in [
        format!("type='signal',sender='{SYSTEMD}',path='/org/freedesktop/systemd1',interface='{MANAGER}'"),
        format!(
            "type='signal',sender='{SYSTEMD}',path_namespace='/org/freedesktop/systemd1/unit',interface='{PROPERTIES}'"
        ),
        format!("type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'"),
    ] {
        connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &(rule,)).await?;
    }
    let owner = bus.get_name_owner(SYSTEMD.try_into()?).await.map_err(zbus::Error::from)?;
    let manager = ManagerProxy::new(connection).await?;
    manager.subscribe().await?;
    let listener =
        Listener { owner: owner.to_string(), reloading: false, units: HashMap::new(), manager, observations };
    tokio::spawn(listener.run(messages));
    Ok(())
}

struct Listener {
    /// The unique name that systemd has on the bus.
    owner: String,
    /// Whether systemd reads its units again: it signals that each is removed and new, which none is.
    reloading: bool,
    units: HashMap<UnitName, UnitObservation>,
    manager: ManagerProxy<'static>,
    observations: mpsc::Sender<Observation>,
}

impl Listener {
    async fn run(mut self, mut messages: MessageStream) {
        while let Some(message) = messages.next().await {
            let Ok(message) = message else { break };
            if message.message_type() != Type::Signal {
                continue;
            }
            // A signal that cannot be read is not from systemd as we know it; what it would have said is read anew.
            let said = self.understand(&message).unwrap_or(Some(Observation::ReadAnew));
            if let Some(Observation::ReadAnew) = said {
                self.units.clear();
            }
            let said = match said {
                Some(Observation::Seen(seen)) if seen.ran_out_of_memory() => {
                    Some(Observation::Seen(self.with_peak(seen).await))
                }
                said => said,
            };
            if let Some(said) = said
                && self.observations.send(said).await.is_err()
            {
                return;
            }
        }
        if self.observations.send(Observation::Disconnected).await.is_err() {
            tracing::debug!("nobody listens to systemd any more");
        }
    }

    /// Asks for what is not signalled: how much memory a unit has had that ran out of it. systemd keeps that until it
    /// forgets the unit, which it does once this has been said. One that does not know it refuses at once.
    async fn with_peak(&self, mut seen: UnitObservation) -> UnitObservation {
        let path = format!("{UNIT_PATH}{}", path_element(&seen.name.to_string()));
        let asked = (SERVICE, "MemoryPeak");
        let connection = self.manager.inner().connection();
        let answer = connection.call_method(Some(SYSTEMD), path.as_str(), Some(PROPERTIES), "Get", &asked);
        // Signals pile up meanwhile, and the answer stands behind them.
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, answer).await
            && let Ok(value) = answer.body().deserialize::<Variant<'_>>()
        {
            absorb(&mut seen, "MemoryPeak", &value);
        }
        seen
    }

    fn understand(&mut self, message: &Message) -> zbus::Result<Option<Observation>> {
        let header = message.header();
        let (Some(sender), Some(interface), Some(member)) =
            (header.sender(), header.interface(), header.member())
        else {
            return Ok(None);
        };
        let body = message.body();
        match (interface.as_str(), member.as_str()) {
            (BUS, "NameOwnerChanged") if sender.as_str() == BUS => {
                let (name, _, new): (&str, &str, &str) = body.deserialize()?;
                if name != SYSTEMD || new.is_empty() {
                    return Ok(None);
                }
                new.clone_into(&mut self.owner);
                self.reloading = false;
                let manager = self.manager.clone();
                tokio::spawn(async move {
                    match manager.subscribe().await {
                        Ok(()) => {}
                        // One that was executed anew remembers its subscribers.
                        Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == ALREADY_SUBSCRIBED => {}
                        Err(error) => tracing::error!("cannot subscribe to systemd again: {error}"),
                    }
                });
                Ok(Some(Observation::ReadAnew))
            }
            _ if sender.as_str() != self.owner => Ok(None),
            (MANAGER, "Reloading") => {
                let (begins,): (bool,) = body.deserialize()?;
                self.reloading = begins;
                Ok((!begins).then_some(Observation::ReadAnew))
            }
            _ if self.reloading => Ok(None),
            (MANAGER, "UnitRemoved") => {
                let (name, _): (&str, zbus::ObjectPath<'_>) = body.deserialize()?;
                let name = name.parse::<UnitName>().ok();
                if let Some(name) = &name {
                    self.units.remove(name);
                }
                Ok(name.map(Observation::Forgotten))
            }
            (MANAGER, "JobRemoved") => {
                let (_, _, unit, result): (u32, zbus::ObjectPath<'_>, &str, &str) = body.deserialize()?;
                // A job that a newer one took the place of has not failed.
                let failed = !matches!(result, "done" | "canceled" | "skipped");
                let name = unit.parse::<UnitName>().ok().filter(|_| failed);
                Ok(name.map(|name| Observation::JobFailed { name, result: result.to_owned() }))
            }
            (PROPERTIES, "PropertiesChanged") => {
                let Some(name) = header.path().and_then(|path| unit_of(path.as_str())) else {
                    return Ok(None);
                };
                let (interface, changed, _): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) =
                    body.deserialize()?;
                let seen = self.units.entry(name.clone()).or_insert_with(|| UnitObservation::new(name));
                for (property, value) in &changed {
                    absorb(seen, property, value);
                }
                Ok((interface == UNIT).then(|| Observation::Seen(seen.clone())))
            }
            _ => Ok(None),
        }
    }
}

/// The unit of ours that an object path stands for.
fn unit_of(path: &str) -> Option<UnitName> {
    path.strip_prefix(UNIT_PATH)
        .filter(|element| element.starts_with("llamaorch_2d"))
        .and_then(from_path_element)?
        .parse()
        .ok()
}

/// Takes over one property of a unit or service.
pub(super) fn absorb(seen: &mut UnitObservation, property: &str, value: &Variant<'_>) {
    match (property, value) {
        ("ActiveState", Variant::Str(word)) => seen.active = ActiveState::from_word(word),
        ("SubState", Variant::Str(word)) => seen.exited = word.as_str() == "exited",
        ("InvocationID", Variant::Array(bytes)) => {
            let bytes: Vec<u8> = bytes
                .inner()
                .iter()
                .filter_map(|byte| if let Variant::U8(byte) = byte { Some(*byte) } else { None })
                .collect();
            seen.invocation = InvocationId::from_bytes(&bytes);
        }
        ("ActiveEnterTimestamp", Variant::U64(usec)) => seen.entered_active = *usec != 0,
        ("MainPID", Variant::U32(pid)) => seen.main_pid = *pid,
        ("Result", Variant::Str(word)) => word.as_str().clone_into(&mut seen.result),
        ("ExecMainCode", Variant::I32(code)) => seen.exec_code = *code,
        ("ExecMainStatus", Variant::I32(status)) => seen.exec_status = *status,
        ("StatusText", Variant::Str(text)) => text.as_str().clone_into(&mut seen.status_text),
        ("ExecMainStartTimestamp", Variant::U64(usec)) => seen.started = Usec(*usec),
        // All bits set: not known.
        ("MemoryPeak", Variant::U64(bytes)) => {
            seen.memory_peak = Some(*bytes).filter(|bytes| *bytes != u64::MAX)
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_of_ours_are_taken_from_a_path() {
        let path = "/org/freedesktop/systemd1/unit/llamaorch_2dengine_2da_2dr0_2eg1_2eservice";
        assert_eq!(unit_of(path).unwrap().to_string(), "llamaorch-engine-a-r0.g1.service");
        assert_eq!(unit_of("/org/freedesktop/systemd1/unit/ssh_2eservice"), None);
        assert_eq!(unit_of("/org/freedesktop/systemd1/unit/llamaorch_2dbad"), None);
    }
}
