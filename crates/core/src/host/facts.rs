//! What the daemon knows of its host, once and for all: how many processors and how much memory there is, and what the
//! host cannot do for engines. It comes in when the daemon starts.

use super::{Effect, Effects, LogKind, LogLine, State};
use crate::unit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What the daemon knows of its host. What is not known is 0 or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// The number of systemd's version.
    pub systemd: u16,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Control group controllers that limits need and this host does not have.
    pub missing_controllers: BTreeSet<String>,
}

/// Takes in what is known of the host. What engines have to do without is said once.
pub(super) fn found(state: &mut State, effects: &mut Effects, host: HostFacts) {
    for controller in &host.missing_controllers {
        let message = format!(
            "this host has no control group controller \"{controller}\": what it limits is not limited, whatever pool \
             files say"
        );
        effects.push(Effect::Log(LogLine::plain(LogKind::HostLacks, message)));
    }
    let systemd = host.systemd;
    state.host = host;
    if systemd != 0 {
        let names: Vec<&str> = unit::unknown_to(systemd).map(|row| row.name).collect();
        let why = format!("systemd {systemd} does not know it");
        left_out(state, effects, names.into_iter(), &why);
    }
}

/// Properties are left out of units from now on.
pub(super) fn left_out<'a>(
    state: &mut State,
    effects: &mut Effects,
    names: impl Iterator<Item = &'a str>,
    why: &str,
) {
    for name in names {
        if state.left_out.insert(name.to_owned()) {
            let message = format!("engines run without {name}: {why}");
            effects.push(Effect::Log(LogLine::plain(LogKind::HostLacks, message)));
        }
    }
}

impl State {
    /// What this host cannot do for engines, each one word.
    pub(crate) fn host_lacks(&self) -> Vec<String> {
        let controllers = self.host.missing_controllers.iter().map(|name| format!("no-controller:{name}"));
        controllers.chain(self.left_out.iter().map(|name| format!("left-out:{name}"))).collect()
    }
}
