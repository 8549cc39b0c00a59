//! Owns one unit as systemd has it: the states that it goes through, and what it does next by itself.

use crate::dice::Dice;
use pool_core::cpu::CpuSet;
use pool_core::device::Part;
use pool_core::host::UnitFacts;
use pool_core::name::{InvocationId, UnitKind, Usec};
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, UnitObservation};
use pool_core::unit::{
    DEVICES_VARIABLE, ENDPOINT_VARIABLE, NODES_VARIABLE, OWN_CPUS_VARIABLE, Property, SPEC_VARIABLE,
    UnitSpec, VERSION_VARIABLE, Value,
};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// A loaded unit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// What systemd says of it, with what the daemon wrote into it.
    pub facts: UnitFacts,
    /// The nodes that it may open by what systemd made of its rules; what systemd shows of them is another thing.
    pub opens: BTreeSet<String>,
    /// Counts what was asked of it, so that a plan made before is known to be void.
    pub plan: u64,
    /// A stop of it fails, as that of a frozen unit does.
    pub frozen: bool,
    /// Somebody's dependency keeps it loaded once it is inactive.
    pub held: bool,
    /// Somebody started it although it had ended: it may live beside a newer one that was asked for before the daemon
    /// can have known of it.
    pub intruder: bool,
    /// When the daemon heard that it is up.
    pub heard: Option<Instant>,
    /// It is to be started again once it has stopped.
    pub restarting: bool,
    /// Its first job has not begun.
    pub fresh: bool,
    /// It changed since systemd said so last.
    pub dirty: bool,
}

/// What a unit does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its job begins: it is on its way up.
    Activate,
    /// Checks passed, or an engine exited with status 0.
    Exit,
    /// Checks refused it.
    Refuse(Refusal),
    /// The engine serves.
    Serve,
    /// Its main process ends in a way that is a failure: result, code, status.
    Fail(&'static str, i32, i32),
    /// It has stopped.
    Stopped,
    /// systemd forgets it.
    Unload,
}

/// Ways in which an engine or a check fails.
const FAILURES: [Step; 6] = [
    Step::Fail("signal", 2, 9),
    Step::Fail("exit-code", 1, 1),
    Step::Fail("core-dump", 3, 11),
    Step::Fail("oom-kill", 2, 9),
    Step::Fail("exit-code", 1, 226),
    Step::Fail("resources", 0, 0),
];

impl Unit {
    /// A unit that was just loaded.
    pub fn new(spec: &UnitSpec) -> Unit {
        let environment = spec.properties.iter().find_map(|property| match property.value() {
            Value::Texts(texts) if property.name() == "Environment" => Some(texts.as_slice()),
            _ => None,
        });
        let variable = |name: &str| {
            let mut entries = environment.unwrap_or_default().iter();
            entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let facts = UnitFacts {
            seen: UnitObservation {
                active: ActiveState::Inactive,
                ..UnitObservation::new(spec.name.clone())
            },
            endpoint: variable(ENDPOINT_VARIABLE).parse().ok(),
            spec_digest: variable(SPEC_VARIABLE).to_owned(),
            engine_version: variable(VERSION_VARIABLE).to_owned(),
            became_active: Usec(0),
            own_cpus: variable(OWN_CPUS_VARIABLE).parse().expect("a list of CPUs"),
            allowed_cpus: None,
            devices: Part::of_marks(variable(DEVICES_VARIABLE), variable(NODES_VARIABLE)),
            device_allow: BTreeSet::new(),
        };
        let mut unit = Unit {
            facts,
            opens: BTreeSet::new(),
            plan: 0,
            frozen: false,
            held: false,
            intruder: false,
            heard: None,
            restarting: false,
            fresh: true,
            dirty: true,
        };
        spec.properties.iter().for_each(|property| unit.change(property));
        unit
    }

    /// Takes in which CPUs it may use and which nodes it may open; nothing else of its properties matters here.
    pub fn change(&mut self, property: &Property) {
        if let ("DeviceAllow", Value::Pairs(rules)) = (property.name(), property.value()) {
            // As systemd does: rules are added to those that are there.
            self.facts.device_allow.extend(rules.iter().map(|(node, _)| node.clone()));
            self.opens.clone_from(&self.facts.device_allow);
        }
        if let ("AllowedCPUs", Value::Mask(mask)) = (property.name(), property.value()) {
            self.facts.allowed_cpus = Some(CpuSet::of_mask(mask)).filter(|cpus| !cpus.is_empty());
        }
    }

    /// Whether it has, or is about to have, a process.
    pub fn lives(&self) -> bool {
        match self.facts.seen.active {
            ActiveState::Activating | ActiveState::Deactivating => true,
            ActiveState::Active => !self.facts.seen.exited,
            ActiveState::Inactive => self.restarting || self.fresh,
            ActiveState::Failed => self.restarting,
            ActiveState::Other => false,
        }
    }

    /// Whether the daemon knew that it was up when it decided to ask for something: calls wait for those before them.
    pub fn was_known(&self, asked: Instant) -> bool {
        !self.intruder || self.heard.is_some_and(|heard| asked > heard + Duration::from_secs(10))
    }

    /// What is read of it: one that has a job is about to be on its way up, as the real client says too.
    pub fn read(&self) -> UnitFacts {
        let mut facts = self.facts.clone();
        if facts.seen.active == ActiveState::Inactive && (self.restarting || self.fresh) {
            facts.seen.active = ActiveState::Activating;
        }
        facts
    }

    /// Takes a step, and says what follows it and when; what does not fit its state changes nothing.
    pub fn step(
        &mut self,
        step: Step,
        now: Usec,
        serial: u32,
        dice: &mut Dice,
        calm: bool,
    ) -> Option<(Duration, Step)> {
        let active = self.facts.seen.active;
        let before = self.facts.seen.clone();
        let next = match step {
            Step::Activate
                if active == ActiveState::Inactive || (active == ActiveState::Failed && self.restarting) =>
            {
                (self.intruder, self.heard) = (self.restarting, None);
                (self.restarting, self.fresh) = (false, false);
                self.begin(now, serial);
                Some(self.fate(dice, calm))
            }
            Step::Serve if active == ActiveState::Activating => {
                self.facts.became_active = now;
                self.facts.seen.active = ActiveState::Active;
                self.facts.seen.entered_active = true;
                self.facts.seen.status_text = "serving".to_owned();
                later_fate(dice, calm)
            }
            Step::Exit
                if active == ActiveState::Activating && self.facts.seen.name.kind == UnitKind::Engine =>
            {
                self.fail("protocol", 1, 0);
                None
            }
            Step::Exit if matches!(active, ActiveState::Activating | ActiveState::Active) => {
                let seen = &mut self.facts.seen;
                if active == ActiveState::Activating {
                    seen.status_text = "staged, engine version 1.2".to_owned();
                }
                (seen.active, seen.exited, seen.main_pid) = (ActiveState::Active, true, 0);
                (seen.entered_active, seen.exec_code, seen.exec_status) = (true, 1, 0);
                None
            }
            Step::Refuse(refusal) if active == ActiveState::Activating => {
                self.facts.seen.status_text = format!("{}: text", refusal.class());
                self.fail("exit-code", 1, i32::from(refusal.exit_status()));
                None
            }
            Step::Fail(result, code, status)
                if self.lives() && !matches!(active, ActiveState::Inactive | ActiveState::Failed) =>
            {
                self.fail(result, code, status);
                self.restarting.then(|| (dice.millis(0, 5), Step::Activate))
            }
            Step::Stopped if active == ActiveState::Deactivating => {
                let seen = &mut self.facts.seen;
                (seen.active, seen.exited, seen.main_pid) = (ActiveState::Inactive, false, 0);
                let next = if self.restarting { Step::Activate } else { Step::Unload };
                Some((dice.millis(0, 5), next))
            }
            _ => None,
        };
        self.dirty |= self.facts.seen != before;
        next
    }

    /// A new invocation.
    fn begin(&mut self, now: Usec, serial: u32) {
        let name = self.facts.seen.name.clone();
        let mut invocation = [0; 16];
        invocation[..4].copy_from_slice(&serial.to_le_bytes());
        self.facts.seen = UnitObservation {
            invocation: InvocationId(invocation),
            main_pid: 1_000 + serial,
            started: now,
            ..UnitObservation::new(name)
        };
        self.facts.became_active = Usec(0);
        self.opens.clone_from(&self.facts.device_allow);
    }

    fn fail(&mut self, result: &str, code: i32, status: i32) {
        let seen = &mut self.facts.seen;
        (seen.active, seen.exited, seen.main_pid) = (ActiveState::Failed, false, 0);
        (seen.result, seen.exec_code, seen.exec_status) = (result.to_owned(), code, status);
    }

    /// What will become of a unit that is on its way up.
    fn fate(&self, dice: &mut Dice, calm: bool) -> (Duration, Step) {
        let good = match self.facts.seen.name.kind {
            UnitKind::Stage => (dice.delay(), Step::Exit),
            UnitKind::Engine => (dice.millis(1, 8_000), Step::Serve),
        };
        if calm || dice.chance(75) {
            return good;
        }
        match dice.roll(10) {
            // It makes no progress.
            0 => (dice.millis(8_000, 20_000), Step::Fail("timeout", 2, 15)),
            1 if self.facts.seen.name.kind == UnitKind::Engine => (dice.delay(), Step::Exit),
            2..=4 => (dice.delay(), Step::Refuse(*dice.pick(&Refusal::ALL))),
            _ => (dice.delay(), *dice.pick(&FAILURES)),
        }
    }

    /// It was asked to stop: how it takes that.
    pub fn deactivate(&mut self, dice: &mut Dice, calm: bool) -> (Duration, Step) {
        self.facts.seen.active = ActiveState::Deactivating;
        self.dirty = true;
        if self.facts.seen.exited {
            return (dice.millis(0, 3), Step::Stopped);
        }
        match dice.roll(if calm { 8 } else { 12 }) {
            0..=6 => (dice.delay(), Step::Stopped),
            7 => (dice.millis(1_000, 29_000), Step::Stopped),
            8 | 9 => (Duration::from_secs(30), Step::Fail("timeout", 2, 9)),
            10 => (dice.delay(), Step::Fail("exit-code", 1, 143)),
            // It has its stop time-out extended, for ever.
            _ => (dice.millis(50_000, 80_000), Step::Stopped),
        }
    }
}

/// What will become of an engine that serves.
fn later_fate(dice: &mut Dice, calm: bool) -> Option<(Duration, Step)> {
    if calm || dice.chance(60) {
        return None;
    }
    let when = if dice.chance(70) { dice.millis(0, 20_000) } else { dice.millis(0, 400_000) };
    Some(match dice.roll(6) {
        0 => (when, Step::Exit),
        1 => (when, Step::Fail("watchdog", 2, 6)),
        _ => (when, *dice.pick(&FAILURES[..4])),
    })
}
