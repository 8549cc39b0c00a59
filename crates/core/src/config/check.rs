//! From a fragment to a spec: every error that the file has, each at its key.

use super::fragment::PoolFragment;
use super::reach;
use super::restart::{self, number};
use super::spec::{Activation, DrainNumbers, Health, LeaseNumbers, Listen, OnChange, PoolSpec};
use super::{SpecError, health, listen, parse_duration, resources};
use crate::cpu::{CpuSet, CpuWish};
use crate::device::{DeviceMask, DeviceWish};
use crate::engine::{EngineTemplate, Scope, check_placeholders};
use crate::name::{PoolId, Usec};
use std::collections::BTreeMap;

pub(super) const UNSUPPORTED: &str = "known, but not supported by this version of pool-managerd";

/// Collects errors, so that a file with three mistakes says so at once.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<SpecError>);

impl Findings {
    pub(super) fn add(&mut self, key: &[&'static str], problem: impl Into<String>) {
        self.0.push(SpecError { key: key.to_vec(), problem: problem.into() });
    }

    pub(super) fn keep<T>(&mut self, key: &[&'static str], result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(key, problem)).ok()
    }
}

/// Checks a pool file against the engine templates that were read.
///
/// # Errors
/// Every mistake of the file, in the order of the design's keys.
pub fn check(
    id: &PoolId,
    path: &str,
    fragment: PoolFragment,
    templates: &BTreeMap<String, EngineTemplate>,
) -> Result<PoolSpec, Vec<SpecError>> {
    let mut found = Findings::default();
    unsupported(&fragment, &mut found);
    let mut reach = reach::check(&fragment, &mut found);
    let template = template(fragment.engine.as_deref(), templates, &mut found);
    let model = required(
        &["model"],
        fragment.model,
        "a model, for instance model = \"file:/srv/models/qwen3-8b.gguf\"",
        &mut found,
    );
    let model = model.and_then(|text| found.keep(&["model"], model_path(&text)));
    let digest = fragment.digest.and_then(|text| found.keep(&["digest"], digest(&text)));
    let replicas = found.keep(&["replicas"], replicas(fragment.replicas.unwrap_or(1)));
    let per_replica = fragment.devices_per_replica;
    let devices = devices(fragment.devices.as_deref(), per_replica, replicas, &mut found);
    let network = fragment.network.unwrap_or_default();
    let (listen, allow) = listen::check(&network, replicas, template.as_ref(), &mut found);
    reach.allow = allow;
    // Where nothing is known of it, nothing is said of it twice.
    let scope = Scope {
        files: true,
        address: listen != Some(Listen::Unix),
        socket: listen.as_ref().is_none_or(|listen| *listen == Listen::Unix),
    };
    let args = fragment.args.unwrap_or_default();
    for (index, arg) in args.iter().enumerate() {
        if let Err(error) = check_placeholders(arg, scope) {
            found.add(&["args"], format!("argument {}: {error}", index + 1));
        }
    }
    check_text("args", args.iter(), &mut found);
    let pool_env = fragment.env.unwrap_or_default();
    check_env(&pool_env, &mut found);
    if let Some(program) = &fragment.program
        && (program.is_empty() || (program.contains('/') && !program.starts_with('/')))
    {
        found.add(&["program"], "expected an absolute path, or a name that is looked up in PATH");
    }
    let activation = found.keep(&["activation"], activation(fragment.activation.as_deref()));
    if fragment.program.as_deref().is_some_and(|program| program.contains(char::is_control)) {
        found.add(&["program"], "contains a control character");
    }
    let health = health::check(&fragment.health.unwrap_or_default(), &mut found);
    let limits = fragment.resources.unwrap_or_default();
    let cpus = found.keep(&["resources", "cpus"], cpus(limits.cpus.as_deref()));
    let resources = resources::check(&limits, &mut found);
    let restart = restart::restart(fragment.restart.unwrap_or_default(), &mut found);
    let drain = drain(&fragment.drain.unwrap_or_default(), health.as_ref(), &mut found);
    let capacity = fragment.leases.unwrap_or_default().capacity;
    let capacity =
        capacity.map(|value| number(&["leases", "capacity"], Some(value), (1, 100_000), 1, &mut found));
    let on_change = found.keep(&["on_change"], on_change(fragment.on_change.as_deref()));

    match (template, model, replicas, activation, listen, health, on_change, cpus, devices) {
        (
            Some((engine, template)),
            Some(model),
            Some(replicas),
            Some(activation),
            Some(listen),
            Some(health),
            Some(on_change),
            Some(cpus),
            Some(devices),
        ) if found.0.is_empty() => {
            let mut env = template.env.clone();
            env.extend(pool_env);
            Ok(PoolSpec {
                id: id.clone(),
                path: path.to_owned(),
                program: fragment.program.unwrap_or_else(|| template.program.clone()),
                engine,
                template,
                model,
                digest,
                args,
                env,
                reach,
                replicas,
                activation,
                listen,
                health,
                resources,
                restart,
                drain,
                leases: LeaseNumbers { capacity },
                on_change,
                cpus,
                devices,
            })
        }
        _ => Err(found.0),
    }
}

fn unsupported(fragment: &PoolFragment, found: &mut Findings) {
    let resources = fragment.resources.clone().unwrap_or_default();
    if resources.vram.is_some() {
        found.add(&["resources", "vram"], UNSUPPORTED);
    }
}

fn required(
    key: &[&'static str],
    value: Option<String>,
    expected: &str,
    found: &mut Findings,
) -> Option<String> {
    if value.is_none() {
        found.add(key, format!("missing; expected {expected}"));
    }
    value
}

fn template(
    name: Option<&str>,
    templates: &BTreeMap<String, EngineTemplate>,
    found: &mut Findings,
) -> Option<(String, EngineTemplate)> {
    let known = || templates.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        found.add(&["engine"], format!("missing; expected one of: {}", known()));
        return None;
    };
    let template = templates.get(name);
    if template.is_none() {
        found.add(
            &["engine"],
            format!(
                "no engine template \"{name}\"; known: {}. A template is a file engines.d/{name}.toml",
                known()
            ),
        );
    }
    template.map(|template| (name.to_owned(), template.clone()))
}

/// The path of a model as a pool file names it.
///
/// # Errors
/// A sentence that says what was expected.
pub fn model_path(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("https" | "hf", _)) => Err(format!("\"{text}\": fetching models is {UNSUPPORTED}; use file:")),
        Some(("file", path)) if plain_path(path) => Ok(path.to_owned()),
        Some(("file", _)) => Err(format!("\"{text}\": expected an absolute path without \"..\" after file:")),
        _ => Err(format!("\"{text}\": expected file:/absolute/path")),
    }
}

/// systemd takes the path as one side of a bind mount and resolves "..", so only plain paths mean what they say.
pub(super) fn plain_path(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part != "..") && !path.contains(char::is_control)
}

fn digest(text: &str) -> Result<String, String> {
    text.strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_ascii_lowercase)
        .ok_or_else(|| {
            format!("\"{text}\": expected sha256: and 64 hexadecimal digits, as sha256sum prints them")
        })
}

fn devices(
    devices: Option<&[String]>,
    per_replica: Option<i64>,
    replicas: Option<u16>,
    found: &mut Findings,
) -> Option<DeviceMask> {
    let wish = devices.map_or_else(
        || Err("missing; a pool runs on the CPU only where it says devices = [\"none\"]".to_owned()),
        DeviceWish::parse,
    );
    let wish = found.keep(&["devices"], wish)?;
    // What is out of range is told by the check, which says the range.
    let per_replica = per_replica.map(|count| u32::try_from(count).unwrap_or(0));
    let mask = DeviceMask { wish, per_replica };
    match mask.check(replicas?) {
        Ok(()) => Some(mask),
        Err((key, problem)) => {
            found.add(&[key], problem);
            None
        }
    }
}

fn check_text<'a>(key: &'static str, texts: impl Iterator<Item = &'a String>, found: &mut Findings) {
    if texts.into_iter().any(|text| text.contains('\0')) {
        found.add(&[key], "a NUL character cannot be passed to a program");
    }
}

fn check_env(env: &BTreeMap<String, String>, found: &mut Findings) {
    for (name, value) in env {
        if !is_variable(name) {
            found.add(&["env"], format!("\"{name}\" is no name of an environment variable"));
        }
        if is_reserved(name) {
            found.add(&["env"], format!("{name} is the daemon's and systemd's own"));
        }
        if is_mask(name) {
            found.add(
                &["env"],
                format!("{name} is set by the daemon, to what `devices` says; name them there"),
            );
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            found.add(&["env"], format!("the value of {name} contains a control character"));
        }
        if name.ends_with("_TOKEN")
            || name.ends_with("_API_KEY")
            || name.ends_with("_SECRET")
            || name.ends_with("_PASSWORD")
        {
            found.add(&["env"], format!("{name} looks like a secret, and everybody can read env on the bus; keep its value in /etc/credstore and name it in credentials = {{ {name} = \"…\" }}"));
        }
    }
}

/// Whether it can be an environment variable's name.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether the variable says to an engine which devices it has.
#[must_use]
pub fn is_mask(name: &str) -> bool {
    matches!(name, "CUDA_VISIBLE_DEVICES" | "ROCR_VISIBLE_DEVICES")
}

/// Whether the daemon or systemd sets the variable.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with("LLAMAORCH_")
        || name.starts_with("WATCHDOG_")
        || matches!(name, "NOTIFY_SOCKET" | "CREDENTIALS_DIRECTORY" | "INVOCATION_ID")
}

fn replicas(count: i64) -> Result<u16, String> {
    u16::try_from(count)
        .ok()
        .filter(|n| (1..=64).contains(n))
        .ok_or_else(|| format!("{count} is out of range; expected 1 to 64"))
}

fn activation(text: Option<&str>) -> Result<Activation, String> {
    match text {
        None | Some("resident") => Ok(Activation::Resident),
        Some("manual") => Ok(Activation::Manual),
        Some("on-demand") => Err(format!("\"on-demand\" is {UNSUPPORTED}; expected resident or manual")),
        Some(other) => Err(format!("\"{other}\": expected resident or manual")),
    }
}

pub(super) fn time(
    key: &[&'static str],
    text: Option<&str>,
    default: Usec,
    found: &mut Findings,
) -> Option<Usec> {
    let Some(text) = text else { return Some(default) };
    let time = found.keep(key, parse_duration(text))?;
    if time < Usec::from_secs(1) || time > Usec::from_secs(7 * 86_400) {
        found.add(key, format!("\"{text}\" is out of range; expected 1s to 7d"));
        return None;
    }
    Some(time)
}

fn drain(
    fragment: &super::fragment::DrainFragment,
    health: Option<&Health>,
    found: &mut Findings,
) -> DrainNumbers {
    let known = DrainNumbers::default();
    let deadline = restart::time(&["drain", "deadline"], fragment.deadline.as_deref(), known.deadline, found);
    // What came in last is known after the next question that the engine answers.
    let seen = health.map_or(Usec(0), |health| health.interval.plus(health.timeout));
    let settle = fragment.settle.as_deref();
    let settle = restart::time(&["drain", "settle"], settle, known.settle.max(seen).min(deadline), found);
    let numbers = DrainNumbers { deadline, settle };
    if numbers.deadline < numbers.settle {
        let text = format!(
            "{} is below drain.settle ({}): no drain could end before its deadline",
            numbers.deadline, numbers.settle
        );
        found.add(&["drain", "deadline"], text);
    }
    if fragment.settle.is_some() && numbers.settle < seen {
        let text = format!(
            "{} is below health.interval + health.timeout ({seen}): a drain could miss requests that came in last",
            numbers.settle
        );
        found.add(&["drain", "settle"], text);
    }
    numbers
}

fn cpus(text: Option<&str>) -> Result<CpuWish, String> {
    const EXPECTED: &str = "expected \"numa\", a list as \"0-3,8\", or \"exclusive:N\" with N from 1 to 4096";
    let Some(text) = text.filter(|text| *text != "numa") else { return Ok(CpuWish::Numa) };
    let wish = match text.strip_prefix("exclusive:") {
        Some(count) => count.parse().ok().filter(|count| (1..=4096).contains(count)).map(CpuWish::Exclusive),
        None => text.parse().ok().filter(|list: &CpuSet| !list.is_empty()).map(CpuWish::List),
    };
    wish.ok_or_else(|| format!("\"{text}\": {EXPECTED}"))
}

fn on_change(text: Option<&str>) -> Result<OnChange, String> {
    match text {
        None | Some("hold") => Ok(OnChange::Hold),
        Some("drain-first") => Ok(OnChange::DrainFirst),
        Some("rolling") => Err(format!("\"rolling\" is {UNSUPPORTED}; expected hold or drain-first")),
        Some(other) => Err(format!("\"{other}\": expected hold or drain-first")),
    }
}

#[cfg(test)]
pub(super) mod tests;
