//! What is asked of units: by the daemon, and by somebody behind its back.

use super::{Happening, World};
use crate::unit::{Step, Unit};
use pool_core::name::{UnitKind, UnitName};
use pool_core::replica::ActiveState;
use pool_core::unit::{UnitSpec, Value};
use pool_managerd::ports::SystemdError;
use std::time::Duration;
use tokio::time::Instant;

impl World {
    pub(super) fn start(&mut self, spec: &UnitSpec, asked: Instant) -> Result<(), SystemdError> {
        let name = &spec.name;
        if self.units.contains_key(name) {
            return Err(SystemdError::NameTaken);
        }
        if !self.calm && self.dice.chance(3) {
            return Err(SystemdError::Refused("no space left on device".to_owned()));
        }
        let others = self.units.values().filter(|unit| {
            unit.facts.seen.name.replica == name.replica && unit.lives() && unit.was_known(asked)
        });
        // Another model is checked beside the engine that serves, whose address the checks leave alone.
        let beside = name.kind == UnitKind::Stage && !asks_for_its_address(spec);
        let in_the_way = |unit: &&Unit| {
            let engine = unit.facts.seen.name.kind == UnitKind::Engine;
            if name.kind == UnitKind::Stage { !(beside && engine) } else { engine }
        };
        if let Some(double) = others.into_iter().find(in_the_way).map(|unit| unit.facts.seen.name.clone()) {
            self.fail(format!("{name} was started while {double} lived"));
        }
        let stray = !self.calm && self.dice.chance(1);
        if stray {
            self.may_stop.insert(name.replica.pool.clone());
        }
        self.units.insert(name.clone(), Unit::new(spec));
        self.changed(name);
        if self.dice.chance(30) {
            self.say(name);
        }
        let after = self.dice.millis(0, 2);
        self.due(after, Happening::Step(name.clone(), 0, Step::Activate));
        // Somebody else was faster.
        if stray { Err(SystemdError::NameTaken) } else { Ok(()) }
    }

    /// The daemon asks for a stop.
    pub(super) fn asked_to_stop(&mut self, name: &UnitName) -> Result<(), SystemdError> {
        let Some(unit) = self.units.get(name) else { return Err(SystemdError::NoSuchUnit) };
        let seen = &unit.facts.seen;
        let serves = name.kind == UnitKind::Engine && seen.active == ActiveState::Active && !seen.exited;
        if serves && !self.may_stop.contains(&name.replica.pool) {
            self.fail(format!("{name} was stopped although it served and nobody wanted it to stop"));
        }
        if !self.calm && self.dice.chance(4) {
            return Err(SystemdError::Refused("not today".to_owned()));
        }
        self.stop(name);
        Ok(())
    }

    /// A stop, whoever wants it.
    pub fn stop(&mut self, name: &UnitName) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if unit.frozen {
            let after = self.dice.millis(0, 40_000);
            return self.due(after, Happening::StopFails(name.clone()));
        }
        (unit.restarting, unit.fresh) = (false, false);
        let next = match unit.facts.seen.active {
            ActiveState::Active | ActiveState::Activating => unit.deactivate(&mut self.dice, self.calm),
            // A start that has not begun is taken back.
            ActiveState::Inactive => (Duration::ZERO, Step::Unload),
            ActiveState::Deactivating | ActiveState::Failed | ActiveState::Other => return,
        };
        self.plan(name, next);
    }

    /// A restart from outside.
    pub fn restart(&mut self, name: &UnitName) {
        self.may_stop.insert(name.replica.pool.clone());
        let Some(unit) = self.units.get_mut(name).filter(|unit| !unit.frozen) else { return };
        let next = match unit.facts.seen.active {
            ActiveState::Active | ActiveState::Activating => unit.deactivate(&mut self.dice, self.calm),
            ActiveState::Failed | ActiveState::Inactive => (Duration::ZERO, Step::Activate),
            ActiveState::Deactivating | ActiveState::Other => return,
        };
        (unit.intruder, unit.heard) = (unit.intruder || !unit.lives(), None);
        unit.restarting = true;
        if unit.facts.seen.active == ActiveState::Failed {
            unit.facts.seen.active = ActiveState::Inactive;
        }
        self.plan(name, next);
    }

    pub(super) fn kill(&mut self, name: &UnitName) -> Result<(), SystemdError> {
        let unit = self.units.get(name).ok_or(SystemdError::NoSuchUnit)?;
        if !unit.lives() || unit.facts.seen.active == ActiveState::Inactive {
            return Err(SystemdError::Refused("no process to kill".to_owned()));
        }
        let after = self.dice.millis(0, 50);
        self.plan(name, (after, Step::Fail("signal", 2, 9)));
        Ok(())
    }

    /// A failed unit is forgotten, whoever wants it.
    pub fn forget(&mut self, name: &UnitName) -> Result<(), SystemdError> {
        let unit = self.units.get_mut(name).ok_or(SystemdError::NoSuchUnit)?;
        if unit.facts.seen.active == ActiveState::Failed {
            unit.facts.seen.active = ActiveState::Inactive;
            let after = self.dice.millis(0, 3);
            // A restart that is under way goes on.
            let next = if unit.restarting { Step::Activate } else { Step::Unload };
            self.plan(name, (after, next));
        }
        Ok(())
    }

    /// A unit cannot be stopped for a while.
    pub fn freeze(&mut self, name: &UnitName) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.frozen = true;
            self.note(format!("{name} is frozen"));
            let after = self.dice.millis(0, 60_000);
            self.due(after, Happening::Release(name.clone()));
        }
    }

    pub(super) fn release(&mut self, name: &UnitName) {
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.frozen = false;
        if std::mem::take(&mut unit.held) {
            self.unload(name);
        }
    }
}

fn asks_for_its_address(spec: &UnitSpec) -> bool {
    spec.properties.iter().any(|property| match property.value() {
        Value::Command(command) => command.iter().any(|word| word == "--listen"),
        _ => false,
    })
}
