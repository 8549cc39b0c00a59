//! Owns what the prober is told: what to ask, how often, and from when on an engine is lost. `launch` takes it and hands it
//! on to `probe` as it is.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::arguments::{Given, usage};
use crate::endpoint::Url;
use crate::refused::Refused;

/// The options that `launch` and `probe` share.
pub(crate) const OPTIONS: [&str; 17] = [
    "--health",
    "--start-timeout",
    "--start-limit",
    "--interval",
    "--timeout",
    "--failures",
    "--stall-timeout",
    "--computing-timeout",
    "--progress",
    "--in-flight",
    "--counter",
    "--slots",
    "--slots-pointer",
    "--version-url",
    "--version-pointer",
    "--report",
    "--warmup",
];

/// What the prober is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Watch {
    pub(crate) health: Url,
    pub(crate) start_timeout: Duration,
    pub(crate) start_limit: Duration,
    /// The time between two rounds of questions, once it is ready.
    pub(crate) interval: Duration,
    /// For one answer.
    pub(crate) timeout: Duration,
    /// So many refusals or bad answers in a row are its end.
    pub(crate) failures: u32,
    /// The longest time that it may be busy without progress.
    pub(crate) stall_timeout: Duration,
    /// The same while it computes and its counters stand still.
    pub(crate) computing_timeout: Duration,
    pub(crate) progress: Option<Progress>,
    pub(crate) slots: Option<Fact>,
    pub(crate) version: Option<Fact>,
    /// The file of a request that has to succeed before it is ready.
    pub(crate) warmup: Option<PathBuf>,
    /// The daemon's socket for reports.
    pub(crate) report: PathBuf,
}

/// Where it shows its work, and by which names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Progress {
    pub(crate) url: Url,
    pub(crate) in_flight: Vec<String>,
    pub(crate) counters: Vec<String>,
}

/// A value in a JSON document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fact {
    pub(crate) url: Url,
    pub(crate) pointer: String,
}

const URL: &str = "http://HOST:PORT/PATH or unix:SOCKET:/PATH";

impl Watch {
    pub(crate) fn take(given: &mut Given) -> Result<Watch, Refused> {
        let usec = |text: &str| text.parse().ok().map(Duration::from_micros);
        let mut time = |name| given.parsed(name, "a number of microseconds", usec);
        let (start_timeout, start_limit) = (time("--start-timeout")?, time("--start-limit")?);
        let (interval, timeout) = (time("--interval")?, time("--timeout")?);
        let (stall_timeout, computing_timeout) = (time("--stall-timeout")?, time("--computing-timeout")?);
        let number = |text: &str| text.parse().ok().filter(|&count| count > 0);
        Ok(Watch {
            health: given.parsed("--health", URL, Url::parse)?,
            start_timeout,
            start_limit,
            interval,
            timeout,
            failures: given.parsed("--failures", "a number above 0", number)?,
            stall_timeout,
            computing_timeout,
            progress: progress(given)?,
            slots: fact(given, "--slots", "--slots-pointer")?,
            version: fact(given, "--version-url", "--version-pointer")?,
            warmup: given.one("--warmup")?.map(PathBuf::from),
            report: given.required("--report")?.into(),
        })
    }

    /// The same as arguments again.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let usec = |time: Duration| time.as_micros().to_string();
        let mut arguments = vec![
            ("--health", self.health.to_string()),
            ("--start-timeout", usec(self.start_timeout)),
            ("--start-limit", usec(self.start_limit)),
            ("--interval", usec(self.interval)),
            ("--timeout", usec(self.timeout)),
            ("--failures", self.failures.to_string()),
            ("--stall-timeout", usec(self.stall_timeout)),
            ("--computing-timeout", usec(self.computing_timeout)),
        ];
        if let Some(progress) = &self.progress {
            arguments.push(("--progress", progress.url.to_string()));
            arguments.extend(progress.in_flight.iter().map(|name| ("--in-flight", name.clone())));
            arguments.extend(progress.counters.iter().map(|name| ("--counter", name.clone())));
        }
        if let Some(slots) = &self.slots {
            arguments
                .extend([("--slots", slots.url.to_string()), ("--slots-pointer", slots.pointer.clone())]);
        }
        if let Some(version) = &self.version {
            let (url, pointer) = (version.url.to_string(), version.pointer.clone());
            arguments.extend([("--version-url", url), ("--version-pointer", pointer)]);
        }
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name.into(), value.into()]);
        let warmup = self.warmup.iter().flat_map(|file| ["--warmup".into(), file.clone().into()]);
        arguments.chain(warmup).chain(["--report".into(), self.report.clone().into()]).collect()
    }
}

fn progress(given: &mut Given) -> Result<Option<Progress>, Refused> {
    let in_flight = names(given, "--in-flight")?;
    let counters = names(given, "--counter")?;
    match given.optional("--progress", URL, Url::parse)? {
        Some(_) if counters.is_empty() => Err(usage("--progress needs a --counter")),
        Some(url) => Ok(Some(Progress { url, in_flight, counters })),
        None if in_flight.is_empty() && counters.is_empty() => Ok(None),
        None => Err(usage("--in-flight and --counter need --progress")),
    }
}

fn names(given: &mut Given, option: &str) -> Result<Vec<String>, Refused> {
    let names = given.every(option).into_iter();
    names.map(|name| name.into_string().map_err(|_| usage(format!("{option} is no text")))).collect()
}

fn fact(given: &mut Given, option: &str, pointer_option: &str) -> Result<Option<Fact>, Refused> {
    let url = given.optional(option, URL, Url::parse)?;
    let pointer = given.optional(pointer_option, "a JSON pointer", |text| Some(text.to_owned()))?;
    match (url, pointer) {
        (Some(url), Some(pointer)) => Ok(Some(Fact { url, pointer })),
        (None, None) => Ok(None),
        _ => Err(usage(format!("{option} and {pointer_option} go together"))),
    }
}
