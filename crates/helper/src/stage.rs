//! Owns `stage`: every check that can be made before an engine is started, in the order of what an operator mends first.

use std::time::{Duration, Instant};

use crate::arguments::StageOptions;
use crate::digest::{self, Digest};
use crate::listen;
use crate::model::{self, Depth, Subject};
use crate::notify::{self, State};
use crate::program;
use crate::refused::Refused;
use crate::version;
use crate::warmup;

/// How long systemd waits for the next piece of a model: a file system that hangs shows by silence.
const PATIENCE_USEC: u64 = 60_000_000;
/// Status texts are signals on the bus to every subscriber: no more than one in this time.
const QUIET: Duration = Duration::from_secs(1);

/// Checks program, model, files, credentials, warm-up, digest and address, and asks the program for its version.
pub(crate) fn run(options: &StageOptions) -> Result<(), Refused> {
    let program = program::find(&options.program, std::env::var_os("PATH").as_deref())?;
    model::check(Subject::model(&options.model), Depth::EveryFile)?;
    options.reached.check(Depth::EveryFile)?;
    warmup::check(options.warmup.as_ref())?;
    if let Some(expected) = options.digest {
        verify(&options.model, expected)?;
    }
    if let Some(listen) = &options.listen {
        listen::check(listen)?;
    }
    let version =
        if options.version_args.is_empty() { None } else { version::ask(&program, &options.version_args)? };
    let status = match version {
        Some(version) => format!("staged, engine version {version}"),
        None => "staged".to_owned(),
    };
    notify::send(&[State::Status(&status)]);
    Ok(())
}

fn verify(model: &std::path::Path, expected: Digest) -> Result<(), Refused> {
    let size = std::fs::metadata(model).map_or(0, |found| found.len());
    let mut said = Instant::now();
    digest::check(model, expected, |read| {
        if said.elapsed() >= QUIET {
            said = Instant::now();
            let status = format!("verifying the model: {}", share(read, size));
            notify::send(&[State::Status(&status), State::ExtendTimeout(PATIENCE_USEC)]);
        }
    })
}

/// How much of a file is read, for instance `12.0 of 43.5 GiB, 27 %`.
fn share(read: u64, size: u64) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let percent = read.saturating_mul(100).checked_div(size).unwrap_or(100).min(100);
    format!("{:.1} of {:.1} GiB, {percent} %", gib(read), gib(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_said_in_gibibytes_and_percent() {
        assert_eq!(share(12 << 30, 48 << 30), "12.0 of 48.0 GiB, 25 %");
        assert_eq!(share(1, 0), "0.0 of 0.0 GiB, 100 %");
        assert_eq!(share(3 << 29, 1 << 30), "1.5 of 1.0 GiB, 100 %");
    }
}
