//! What systemd does to units in a story, and what that means to the oracle.

use super::driver::Story;
use super::oracle::{Happening, Stands};
use super::twin::{Fine, Then, alive};
use pool_core::config::RestartPolicy;
use pool_core::name::{UnitKind, UnitName};
use pool_core::pool::ReloadStage;
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, ExitClass, Phase, UnitObservation};
use pool_core::{Event, pool};

/// How a process ends: systemd's result, code and status, the last status that its prober sent, and the class of that
/// before and after it was ready.
const ENDS: [(&str, i32, i32, &str, &str, &str); 9] = [
    ("exit-code", 1, 3, "serving", "exit:3", "exit:3"),
    ("signal", 2, 9, "serving", "signal:KILL", "signal:KILL"),
    ("core-dump", 3, 11, "serving", "signal:SEGV", "signal:SEGV"),
    ("oom-kill", 2, 9, "serving", "oom-host", "oom-host"),
    ("oom-kill", 2, 9, "serving", "oom-host", "oom-host"),
    ("watchdog", 2, 6, "hung: no progress for 2 min", "watchdog", "watchdog"),
    ("watchdog", 2, 6, "serving", "prober-lost", "prober-lost"),
    ("exit-code", 1, 226, "serving", "preflight", "exit:226"),
    ("timeout", 2, 15, "serving", "start-timeout", "stopped"),
];

fn fails(unit: &mut UnitObservation, (result, code, status): (&str, i32, i32), text: &str) {
    unit.active = ActiveState::Failed;
    unit.main_pid = 0;
    (unit.result, unit.exec_code, unit.exec_status) = (result.into(), code, status);
    unit.status_text = text.to_owned();
}

/// Whether an engine's prober runs and is listened to.
pub fn has_prober(unit: &UnitObservation) -> bool {
    let up = matches!(unit.active, ActiveState::Activating | ActiveState::Active);
    unit.name.kind == UnitKind::Engine && up && !unit.exited
}

/// A unit, and whose it is.
struct Unit {
    name: UnitName,
    twin: usize,
    index: usize,
    /// Its replica goes by how it ends.
    counts: bool,
    /// It checks the new spec of a reload.
    checks: bool,
}

impl Story {
    pub fn systemd(&mut self) -> Fine {
        if self.world.units.is_empty() {
            return Ok(());
        }
        let at = self.dice.roll(self.world.units.len());
        let name = self.world.units.keys().nth(at).unwrap().clone();
        let twin = self.twins.iter().position(|twin| twin.id == name.replica.pool).unwrap();
        let index = usize::from(name.replica.index);
        let pool = self.twins[twin].pool(&self.world);
        let replica = &pool.replicas[index];
        let asked = |reload: &pool::Reload| reload.stage == ReloadStage::Checking { asked: true };
        let checks = name.kind == UnitKind::Stage
            && replica.phase != Phase::Staging
            && pool.reload.as_ref().is_some_and(asked);
        let unit = Unit { twin, index, counts: replica.in_use(&name), checks, name };
        let seen = &self.world.units[&unit.name];
        if !alive(seen) {
            self.note(|| format!("{} is forgotten", unit.name));
            self.world.forgotten(&unit.name);
            return self.told(unit.twin, &[]);
        }
        match (unit.name.kind, seen.active) {
            (UnitKind::Stage, _) => self.stage(&unit),
            (UnitKind::Engine, ActiveState::Deactivating) => self.ends(&unit),
            (UnitKind::Engine, ActiveState::Activating) => self.loads(&unit),
            (UnitKind::Engine, _) => self.serves(&unit),
        }
    }

    /// The unit says something, and if its replica goes by that, this happened.
    fn says(
        &mut self,
        unit: &Unit,
        what: Option<Happening>,
        change: impl FnOnce(&mut UnitObservation),
    ) -> Fine {
        self.note(|| format!("{}: {what:?}", unit.name));
        let told = what.filter(|_| unit.counts);
        self.world.seen(&unit.name, change);
        self.told(unit.twin, told.as_slice())
    }

    fn stage(&mut self, unit: &Unit) -> Fine {
        match self.dice.roll(24) {
            0 | 1 => {
                let refusals = [Refusal::ProgramMissing, Refusal::ModelUnreadable, Refusal::PortInUse];
                let refusal = self.dice.pick(&refusals);
                // An automatic port in use is stepped over, as part of the same start.
                let again = refusal == Refusal::PortInUse && unit.counts;
                let what = (!again).then_some(Happening::Refused(unit.index));
                let text = format!("{}: because", refusal.class());
                let status = i32::from(refusal.exit_status());
                self.says(unit, what, |unit| fails(unit, ("exit-code", 1, status), &text))
            }
            2 => {
                let what = Happening::Failed(unit.index, "stage-failed".into());
                self.says(unit, Some(what), |unit| fails(unit, ("signal", 2, 9), ""))
            }
            3 => self.vanishes(unit),
            4 => Ok(()),
            _ => {
                if self.world.units[&unit.name].active == ActiveState::Deactivating {
                    return self.vanishes(unit);
                }
                self.note(|| format!("{} passes", unit.name));
                self.world.seen(&unit.name, |unit| {
                    unit.active = ActiveState::Active;
                    unit.exited = true;
                    unit.status_text = "staged, engine version 1.2".into();
                });
                let twin = &mut self.twins[unit.twin];
                if unit.checks {
                    let (deadline, force) = twin.reload;
                    twin.empty(self.world.now.0, deadline, Then::Replace { force })?;
                }
                self.told(unit.twin, &[])
            }
        }
    }

    fn loads(&mut self, unit: &Unit) -> Fine {
        match self.dice.roll(12) {
            0..=6 => self.says(unit, Some(Happening::BecameReady(unit.index)), |unit| {
                unit.active = ActiveState::Active;
                unit.entered_active = true;
            }),
            7 if self.dice.once_in(3) => {
                let text = format!("{}: because", Refusal::ModelUnreadable.class());
                let status = i32::from(Refusal::ModelUnreadable.exit_status());
                let what = Happening::Refused(unit.index);
                self.says(unit, Some(what), |unit| fails(unit, ("exit-code", 1, status), &text))
            }
            7 | 8 => self.fails(unit),
            9 => self.any_end(unit),
            _ => Ok(()),
        }
    }

    fn serves(&mut self, unit: &Unit) -> Fine {
        match self.dice.roll(if self.calm { 40 } else { 8 }) {
            0 | 1 => self.fails(unit),
            2 => self.any_end(unit),
            _ => Ok(()),
        }
    }

    fn any_end(&mut self, unit: &Unit) -> Fine {
        match self.dice.roll(4) {
            0 => self.exits(unit),
            1 => self.vanishes(unit),
            2 => self.condemned(unit),
            _ => {
                // The first sign of an end, or of a stop from outside.
                let leaves = unit.counts && self.twins[unit.twin].condemned[unit.index].is_none();
                let what = leaves.then_some(Happening::Leaves(unit.index));
                self.says(unit, what, |unit| unit.active = ActiveState::Deactivating)
            }
        }
    }

    /// It is on its way down, and gets there.
    fn ends(&mut self, unit: &Unit) -> Fine {
        match self.dice.roll(6) {
            0 | 1 => self.fails(unit),
            2 => Ok(()),
            _ => self.vanishes(unit),
        }
    }

    /// systemd has forgotten a unit that ran: somebody stopped it, be it the daemon.
    fn vanishes(&mut self, unit: &Unit) -> Fine {
        let what = match self.taken_condemned(unit) {
            Some(class) => Happening::Failed(unit.index, class),
            None => Happening::Ended(unit.index),
        };
        self.note(|| format!("{} vanishes: {what:?}", unit.name));
        self.world.forgotten(&unit.name);
        let told = Some(what).filter(|_| unit.counts);
        self.told(unit.twin, told.as_slice())
    }

    fn fails(&mut self, unit: &Unit) -> Fine {
        let (result, code, status, text, before, after) = self.dice.pick(&ENDS);
        let class = if self.world.units[&unit.name].entered_active { after } else { before };
        let what = match self.taken_condemned(unit) {
            Some(class) => Happening::Failed(unit.index, class),
            None if class == "stopped" => Happening::Ended(unit.index),
            None => Happening::Failed(unit.index, class.into()),
        };
        self.says(unit, Some(what), |unit| fails(unit, (result, code, status), text))
    }

    /// It exits with status 0.
    fn exits(&mut self, unit: &Unit) -> Fine {
        let twin = &self.twins[unit.twin];
        let meant = twin.file.restart.policy != RestartPolicy::Always && !twin.replacing;
        let what = match self.taken_condemned(unit) {
            Some(class) => Happening::Failed(unit.index, class),
            None if meant => Happening::Ended(unit.index),
            None => Happening::Failed(unit.index, "exit:0".into()),
        };
        let ready = self.world.units[&unit.name].entered_active;
        self.says(unit, Some(what), |unit| {
            if ready {
                (unit.main_pid, unit.exec_code, unit.exited) = (0, 1, true);
            } else {
                fails(unit, ("protocol", 1, 0), "");
            }
        })
    }

    /// Its device is in trouble, and the daemon ends it.
    fn condemned(&mut self, unit: &Unit) -> Fine {
        let classes = [
            ExitClass::GpuError(79),
            ExitClass::GpuLost,
            ExitClass::CpuFallback,
            ExitClass::OomVram,
            ExitClass::OomVram,
        ];
        let class = self.dice.pick(&classes);
        let twin = &mut self.twins[unit.twin];
        if !unit.counts || !matches!(twin.oracle.stands(unit.index), Stands::Runs | Stands::Serves) {
            return Ok(());
        }
        twin.condemned[unit.index] = Some(class.clone());
        self.note(|| format!("{} is condemned: {class}", unit.name));
        let replica = unit.name.replica.clone();
        self.world.event(Event::EngineCondemned { replica, class, text: "its device".into() });
        self.told(unit.twin, &[Happening::Leaves(unit.index)])
    }

    /// Why the daemon ended it, if it did and still goes by that.
    fn taken_condemned(&mut self, unit: &Unit) -> Option<String> {
        let condemned = &mut self.twins[unit.twin].condemned[unit.index];
        if unit.counts { condemned.take().map(|class| class.to_string()) } else { None }
    }
}
