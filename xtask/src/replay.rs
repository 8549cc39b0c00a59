//! `cargo xtask replay`: steps through a record of what the daemon's loop took in, with the same core, and shows what
//! changed at each input. A record is the daemon's (`/run/pool-managerd/record.jsonl`), or that of a bug report.

use crate::Failure;
use pool_core::host::{RECORD_VERSION, RecordHead};
use pool_core::name::{PoolId, Usec};
use pool_core::view::View;
use pool_core::{Effect, Event, Input, State, apply};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::vec;

/// A record that is being stepped through.
pub struct Replay {
    path: PathBuf,
    lines: vec::IntoIter<String>,
    line: usize,
    /// The version of the daemon that wrote it.
    pub daemon: String,
    /// The state after the inputs so far.
    pub state: State,
    /// What was published after the inputs so far.
    pub view: View,
}

/// One input, and what came of it.
#[derive(Debug)]
pub struct Step {
    /// The input.
    pub input: Input,
    /// What the core asked for.
    pub effects: Vec<Effect>,
    /// Pools whose phase changed: before and after; "" stands for a pool that is not there.
    pub phases: Vec<(PoolId, String, String)>,
}

impl Replay {
    /// Opens a record; of a bug report, the last one or the one before it.
    ///
    /// # Errors
    /// It cannot be read, or is none that this version understands.
    pub fn open(path: &Path, previous: bool) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| failed(path, 0, &error.to_string()))?;
        let mut lines = lines(path, &text, previous)?.into_iter();
        let first = lines.next().ok_or_else(|| failed(path, 1, "it is empty"))?;
        let version: Version = parse(path, 1, &first)?;
        if version.version != RECORD_VERSION {
            let text = format!("its version is {}, this one reads {RECORD_VERSION}", version.version);
            return Err(failed(path, 1, &text));
        }
        let RecordHead { daemon, state, .. } = parse(path, 1, &first)?;
        let view = View::of(&state);
        Ok(Replay { path: path.to_owned(), lines, line: 1, daemon, state, view })
    }

    /// Takes the next input in; `None` at the end.
    ///
    /// # Errors
    /// A line that is no input.
    pub fn step(&mut self) -> Result<Option<Step>, Failure> {
        let Some(text) = self.lines.next() else { return Ok(None) };
        self.line += 1;
        let input: Input = match parse(&self.path, self.line, &text) {
            // A daemon that was killed may have left half a line.
            Err(_) if self.lines.next().is_none() => return Ok(None),
            read => read?,
        };
        let before = self.phases();
        let effects = apply(&mut self.state, input.clone());
        let touched = self.state.take_touched();
        self.view.update(&self.state, &touched);
        let after = self.phases();
        let ids: std::collections::BTreeSet<&PoolId> = before.keys().chain(after.keys()).collect();
        let word =
            |phases: &BTreeMap<PoolId, String>, id: &PoolId| phases.get(id).cloned().unwrap_or_default();
        let phases = ids
            .into_iter()
            .map(|id| (id.clone(), word(&before, id), word(&after, id)))
            .filter(|(_, before, after)| before != after)
            .collect();
        Ok(Some(Step { input, effects, phases }))
    }

    fn phases(&self) -> BTreeMap<PoolId, String> {
        self.state.pools.iter().map(|(id, pool)| (id.clone(), pool.phase().as_str().to_owned())).collect()
    }

    /// What is published, as JSON: the names are those of the bus in lower case.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let View { manager, pools, replicas, jobs, devices } = &self.view;
        let pools: BTreeMap<String, _> = pools.iter().map(|(id, pool)| (id.to_string(), &**pool)).collect();
        let replicas: BTreeMap<String, _> =
            replicas.iter().map(|(id, replica)| (id.to_string(), &**replica)).collect();
        let jobs: BTreeMap<String, _> = jobs.iter().map(|(id, job)| (id.to_string(), &**job)).collect();
        let devices: BTreeMap<String, _> =
            devices.iter().map(|(uuid, device)| (uuid.to_string(), &**device)).collect();
        serde_json::json!({
            "manager": manager, "pools": pools, "replicas": replicas, "jobs": jobs, "devices": devices
        })
    }
}

/// The lines of a record, which may be one of the two of a bug report.
fn lines(path: &Path, text: &str, previous: bool) -> Result<Vec<String>, Failure> {
    let name = if previous { "record_previous" } else { "record" };
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(report) if report.get("poolctl").is_some() => match report
            .get(name)
            .and_then(|lines| lines.as_array())
        {
            Some(lines) => Ok(lines.iter().map(ToString::to_string).collect()),
            None => {
                Err(failed(path, 1, &format!("the bug report has no \"{name}\": it was not made by root")))
            }
        },
        Ok(_) | Err(_) => Ok(text.lines().map(str::to_owned).collect()),
    }
}

#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

/// Steps through a record and prints what changed, or what is published at its end.
///
/// # Errors
/// As [`Replay`].
pub fn run(path: &Path, previous: bool, json: bool) -> Result<(), Failure> {
    let mut replay = Replay::open(path, previous)?;
    if json {
        while replay.step()?.is_some() {}
        println!("{:#}", replay.json());
        return Ok(());
    }
    println!(
        "record of pool-managerd {}; pools at its beginning: {}",
        replay.daemon,
        replay.state.pools.len()
    );
    let (mut number, mut first) = (0_u64, None);
    while let Some(Step { input, effects, phases }) = replay.step()? {
        number += 1;
        let since = input.mono.since(*first.get_or_insert(input.mono));
        println!("#{number} +{} {}", seconds(since), describe(&input.event));
        for (id, before, after) in phases {
            println!("    {id}: {} -> {}", shown(&before), shown(&after));
        }
        for effect in effects {
            match effect {
                Effect::Log(line) => println!("    | {}", line.message),
                Effect::StartUnit(unit) => println!("    start {}", unit.name),
                Effect::ChangeUnit(name, property) => println!("    change {} of {name}", property.name()),
                Effect::StopUnit(name) => println!("    stop {name}"),
                Effect::KillUnit(name) => println!("    kill {name}"),
                Effect::ForgetUnit(name) => println!("    forget {name}"),
                Effect::OpenLease(given) => println!("    lease {given}"),
                Effect::RenewLease(given) => println!("    lease renewed: {given}"),
                Effect::CloseLease(id) => println!("    end of lease {id}"),
                Effect::LeaseRevoked { lease, reason } => println!("    lease {lease} revoked: {reason}"),
                Effect::Reply(request, answer) => println!("    reply to {}: {answer:?}", request.0),
                Effect::ForgetCaller(request) => println!("    nobody waits for {} any more", request.0),
                Effect::SetTimer(..) | Effect::CancelTimer(_) | Effect::SaveRuntime | Effect::SaveWishes => {}
            }
        }
    }
    println!("{number} inputs; at the end:");
    for pool in replay.view.pools.values() {
        println!("  {}: {} (live {}, ready {}): {}", pool.id, pool.phase, pool.live, pool.ready, pool.detail);
    }
    Ok(())
}

fn shown(phase: &str) -> &str {
    if phase.is_empty() { "not there" } else { phase }
}

fn seconds(time: Usec) -> String {
    format!("{}.{:03} s", time.0 / 1_000_000, time.0 / 1_000 % 1_000)
}

fn describe(event: &Event) -> String {
    match event {
        Event::Started { configuration, units, leases, .. } => format!(
            "the daemon started; pools in files: {}, units: {}, leases: {}",
            configuration.pools.len(),
            units.len(),
            leases.len()
        ),
        Event::PropertiesLeftOut(names) => format!("left out of units: {names:?}"),
        Event::Asked { request, caller, accepted } => {
            format!("asked ({}) by uid {} ({}): {accepted:?}", request.0, caller.uid, caller.name)
        }
        Event::ConfigurationRead { configuration, .. } => {
            format!(
                "files read; pools: {}, errors: {}",
                configuration.pools.len(),
                configuration.errors.len()
            )
        }
        Event::UnitSeen(seen) => format!(
            "seen: {} {:?}{} result={} main={} status={:?}",
            seen.name,
            seen.active,
            if seen.exited { " (exited)" } else { "" },
            seen.result,
            seen.main_pid,
            seen.status_text
        ),
        Event::UnitForgotten(name) => format!("forgotten: {name}"),
        Event::UnitTaken(name) => format!("taken: {name}"),
        Event::UnitsRead { units, .. } => format!("all units read anew: {}", units.len()),
        Event::TimerFired(id) => format!("timer {}", id.0),
        other => format!("{other:?}"),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| failed(path, line, &error.to_string()))
}

fn failed(path: &Path, line: usize, text: &str) -> Failure {
    Failure::Record(format!("{}, line {line}: {text}", path.display()))
}
