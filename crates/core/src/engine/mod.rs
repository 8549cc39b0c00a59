//! Owns engine templates: data that says how to run a kind of engine, and the command line that it gives for a pool.
//!
//! A placeholder that is unknown is an error when the file is read, never when the engine starts.

mod placeholder;
mod ways;

pub use placeholder::{Filling, PlaceholderError, Scope, check_placeholders, files_in};
pub use ways::{TcpWay, UnixWay, Ways};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How to run a kind of engine, as its file in `engines.d` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineTemplate {
    /// The program: an absolute path, or a name that is looked up in `PATH` when the engine starts.
    pub program: String,
    /// Its arguments; `{model}` is replaced, and `{host}` and `{port}` where its engines listen on addresses alone.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables of every engine of this kind.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Arguments that make the program print its version and exit; empty: the version stays unknown.
    #[serde(default)]
    pub version_args: Vec<String>,
    /// How to tell it where to listen.
    #[serde(default)]
    pub listen: Ways,
    /// How to see that it is ready.
    pub health: HealthRecipe,
    /// How to see that it gets on with its work; without it the CPU time of the unit has to do.
    pub progress: Option<ProgressRecipe>,
    /// Where it says how many requests it works on at once.
    pub slots: Option<Fact>,
    /// Where it says its version, for a program that does not print it quickly.
    pub version: Option<Fact>,
    /// What the sandbox must allow beyond the strict default.
    #[serde(default)]
    pub sandbox: Sandbox,
}

/// How the prober sees that an engine is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthRecipe {
    /// The path that answers 200 once the engine serves, for instance `/health`.
    pub path: String,
}

/// Where the prober sees how much work an engine has and whether it gets on with it: Prometheus metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressRecipe {
    /// The path of the metrics, for instance `/metrics`.
    pub path: String,
    /// Gauges; their samples, over all labels, add up to the requests in flight.
    #[serde(default)]
    pub in_flight: Vec<String>,
    /// Counters; any of them moving is progress.
    pub counters: Vec<String>,
}

/// One value in a JSON document that an engine serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// The document's path, for instance `/props`.
    pub path: String,
    /// Where in it the value is, as RFC 6901 writes it, for instance `/total_slots`.
    pub pointer: String,
}

impl EngineTemplate {
    /// Whether every question that the prober is to ask can be asked.
    ///
    /// # Errors
    /// The key of the first that cannot, and what was expected there.
    pub fn check_questions(&self) -> Result<(), ([&'static str; 2], &'static str)> {
        const PATH: &str = "expected a path that begins with \"/\"";
        const NAMES: &str = "expected names of metrics, without labels";
        let mut paths = vec![(["health", "path"], &self.health.path)];
        if let Some(progress) = &self.progress {
            paths.push((["progress", "path"], &progress.path));
            if !progress.in_flight.iter().all(|name| is_metric(name)) {
                return Err((["progress", "in_flight"], NAMES));
            }
            if progress.counters.is_empty() || !progress.counters.iter().all(|name| is_metric(name)) {
                return Err((["progress", "counters"], NAMES));
            }
        }
        for (table, fact) in [("slots", &self.slots), ("version", &self.version)] {
            let Some(fact) = fact else { continue };
            paths.push(([table, "path"], &fact.path));
            if !fact.pointer.starts_with('/') || fact.pointer.contains(char::is_control) {
                return Err(([table, "pointer"], "expected a JSON pointer that begins with \"/\""));
            }
        }
        // A path goes into a request line as it is.
        let plain =
            |path: &str| path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != '#');
        paths.into_iter().find(|(_, path)| !plain(path)).map_or(Ok(()), |(key, _)| Err((key, PATH)))
    }
}

fn is_metric(name: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(starts) && name.chars().all(|c| starts(c) || c.is_ascii_digit())
}

/// The lines of the sandbox that a template may loosen, each with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// `MemoryDenyWriteExecute=`; engines that compile at run time need it off.
    pub memory_deny_write_execute: bool,
    /// System calls allowed beyond `@system-service`.
    pub system_calls: Vec<String>,
    /// `RestrictAddressFamilies=`.
    pub address_families: Vec<String>,
    /// `ProcSubset=pid`; breaks readers of `/proc/meminfo`.
    pub proc_subset_pid: bool,
    /// Why the lines that are loosened are, by their keys.
    pub reasons: BTreeMap<String, String>,
}

impl Sandbox {
    /// The keys by which a template may loosen a line, the property that each is about, and whether it does.
    fn loosened(&self) -> [(&'static str, &'static str, bool); 3] {
        let strict = Sandbox::default();
        let more_families =
            self.address_families.iter().any(|family| !strict.address_families.contains(family));
        [
            ("memory_deny_write_execute", "MemoryDenyWriteExecute", !self.memory_deny_write_execute),
            ("system_calls", "SystemCallFilter", !self.system_calls.is_empty()),
            ("address_families", "RestrictAddressFamilies", more_families),
        ]
    }

    /// Why a property is looser than for other engines; `None`: it is not.
    #[must_use]
    pub fn reason(&self, property: &str) -> Option<&str> {
        let (key, ..) = self.loosened().into_iter().find(|(_, name, loose)| *name == property && *loose)?;
        self.reasons.get(key).map(String::as_str)
    }

    /// Whether each line that is loosened has a reason, and no other line.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn check_reasons(&self) -> Result<(), (&'static str, String)> {
        for (key, _, loose) in self.loosened() {
            let reason = self.reasons.get(key).map(|reason| reason.trim());
            if loose && reason.is_none_or(str::is_empty) {
                let example = format!("sandbox.reasons.{key} = \"why this engine needs it\"");
                return Err((key, format!("loosens the sandbox and says not why; expected {example}")));
            }
            if !loose && reason.is_some() {
                return Err(("reasons", format!("{key} is not loosened; expected no reason for it")));
            }
        }
        let known = |key: &&String| self.loosened().iter().any(|(known, ..)| known == key);
        match self.reasons.keys().find(|key| !known(key)) {
            None => Ok(()),
            Some(key) => {
                let keys = self.loosened().map(|(key, ..)| key).join(", ");
                Err(("reasons", format!("unknown key \"{key}\"; expected one of: {keys}")))
            }
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox {
            memory_deny_write_execute: true,
            system_calls: Vec::new(),
            address_families: ["AF_UNIX", "AF_INET", "AF_INET6"].map(str::to_owned).to_vec(),
            proc_subset_pid: false,
            reasons: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_cannot_be_asked_is_named_by_its_key() {
        let progress = |path: &str, in_flight: &str, counters: &[&str]| ProgressRecipe {
            path: path.into(),
            in_flight: vec![in_flight.into()],
            counters: counters.iter().map(|&name| name.into()).collect(),
        };
        let fact = |path: &str, pointer: &str| Some(Fact { path: path.into(), pointer: pointer.into() });
        let good = EngineTemplate {
            program: "x".into(),
            args: vec![],
            env: BTreeMap::new(),
            version_args: vec![],
            listen: Ways::default(),
            health: HealthRecipe { path: "/health?full=1".into() },
            progress: Some(progress("/metrics", "vllm:running", &["a_1"])),
            slots: fact("/props", "/total_slots"),
            version: fact("/version", "/a/0"),
            sandbox: Sandbox::default(),
        };
        assert_eq!(good.check_questions(), Ok(()));
        type Spoil<'a> = &'a dyn Fn(&mut EngineTemplate);
        let cases: [(&str, &str, Spoil<'_>); 7] = [
            ("health", "path", &|t| t.health.path = "/a b".into()),
            ("progress", "path", &|t| t.progress = Some(progress("metrics", "a", &["b"]))),
            ("progress", "in_flight", &|t| t.progress = Some(progress("/m", "a{b=\"c\"}", &["b"]))),
            ("progress", "counters", &|t| t.progress = Some(progress("/m", "a", &[]))),
            ("progress", "counters", &|t| t.progress = Some(progress("/m", "a", &["1b"]))),
            ("slots", "pointer", &|t| t.slots = fact("/props", "total_slots")),
            ("version", "path", &|t| t.version = fact("version", "/version")),
        ];
        for (table, key, spoil) in cases {
            let mut template = good.clone();
            spoil(&mut template);
            assert_eq!(template.check_questions().unwrap_err().0, [table, key]);
        }
    }

    #[test]
    fn a_line_is_loosened_with_a_reason_or_not_at_all() {
        let strict = Sandbox::default();
        assert_eq!(strict.check_reasons(), Ok(()));
        type Spoil = fn(&mut Sandbox);
        let cases: [(&str, Spoil); 6] = [
            ("memory_deny_write_execute", |s| s.memory_deny_write_execute = false),
            ("system_calls", |s| s.system_calls = vec!["pidfd_getfd".into()]),
            ("address_families", |s| s.address_families = vec!["AF_NETLINK".into()]),
            ("system_calls", |s| {
                s.system_calls = vec!["pidfd_getfd".into()];
                s.reasons.insert("system_calls".into(), " ".into());
            }),
            ("reasons", |s| drop(s.reasons.insert("system_calls".into(), "why not".into()))),
            ("reasons", |s| drop(s.reasons.insert("proc_subset_pid".into(), "why not".into()))),
        ];
        for (key, spoil) in cases {
            let mut sandbox = strict.clone();
            spoil(&mut sandbox);
            assert_eq!(sandbox.check_reasons().expect_err("it is wrong").0, key);
        }
        let mut loose = Sandbox { memory_deny_write_execute: false, ..strict };
        loose.reasons.insert("memory_deny_write_execute".into(), "it compiles".into());
        assert_eq!(loose.check_reasons(), Ok(()));
        assert_eq!(loose.reason("MemoryDenyWriteExecute"), Some("it compiles"));
        assert_eq!(loose.reason("SystemCallFilter"), None);
        // Less than the default is stricter, and needs no reason.
        let strict = Sandbox { address_families: vec!["AF_UNIX".into()], ..Sandbox::default() };
        assert_eq!(strict.check_reasons(), Ok(()));
    }
}
