//! Owns `launch`: the last checks, the detached prober, and the step at which this process becomes the engine.
//!
//! The engine keeps this process's id, so its exit status and its signals reach systemd unchanged. The prober detaches
//! itself before that, and is waited for until it has: an engine must not find a child that it never had.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use pool_core::refusal::Refusal;

use crate::access;
use crate::arguments::LaunchOptions;
use crate::listen;
use crate::model::{self, Depth, Subject};
use crate::notify;
use crate::program;
use crate::refused::Refused;
use crate::report;
use crate::warmup;

/// This program itself, even if its file was replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Checks, detaches the prober, and becomes the engine; returns only to refuse.
pub(crate) fn run(options: &LaunchOptions) -> Result<(), Refused> {
    let program = program::find(&options.program, std::env::var_os("PATH").as_deref())?;
    model::check(Subject::model(&options.model), Depth::Listing)?;
    let secrets = options.reached.check(Depth::Listing)?;
    warmup::check(options.watch.warmup.as_ref())?;
    listen::prepare(&options.listen)?;
    access::open_to_operators(&options.listen)?;
    start_prober(options)?;
    match become_engine(&program, options, secrets)? {}
}

fn start_prober(options: &LaunchOptions) -> Result<(), Refused> {
    // The pool's variables are the engine's alone: a library path or a secret is none of the prober's business.
    let own = notify::VARIABLES.iter().copied().chain([report::INVOCATION]);
    let status = Command::new(THIS_PROGRAM)
        .arg0("pool-helper")
        .args(["probe", "--pid", &std::process::id().to_string()])
        .args(options.watch.arguments())
        .env_clear()
        .envs(own.filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let failure = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Refused::new(
        Refusal::Preflight,
        format!(
            "the prober could not be started: {failure}; check the unit's limits (tasks_max, memory_max) and its system \
             call filter"
        ),
    ))
}

/// Executes the program in this process.
///
/// Not by std's `exec`: that sets SIGPIPE back to its default, and systemd starts services with SIGPIPE ignored. An engine
/// that relies on it would be killed by the first client that hangs up.
fn become_engine(
    program: &Path,
    options: &LaunchOptions,
    secrets: Vec<(OsString, OsString)>,
) -> Result<Infallible, Refused> {
    let arguments = std::iter::once(&options.program).chain(&options.program_args);
    let arguments: Vec<CString> = arguments.map(|argument| text(argument)).collect::<Result<_, _>>()?;
    let is_replaced = |name: &OsString| {
        notify::VARIABLES.iter().any(|own| name == own)
            || secrets.iter().any(|(variable, _)| name == variable)
    };
    let environment: Vec<_> = std::env::vars_os().filter(|(name, _)| !is_replaced(name)).collect();
    let environment: Vec<CString> = environment
        .into_iter()
        .chain(secrets)
        .map(|(name, value)| text(&[name, value].join(OsStr::new("="))))
        .collect::<Result<_, _>>()?;
    nix::unistd::execve(&text(program.as_os_str())?, &arguments, &environment)
        .map_err(|errno| program::not_run(program, errno.into()))
}

fn text(argument: &OsStr) -> Result<CString, Refused> {
    CString::new(argument.as_bytes()).map_err(|_| {
        Refused::new(
            Refusal::Preflight,
            "an argument or variable of the engine holds a zero byte; remove it from `args` or `env`",
        )
    })
}
