//! `pool-managerd`: arguments, runtime, wiring, exit code; nothing else.

use clap::Parser;
use pool_managerd::config::Folders;
use pool_managerd::dbus::{self, Server, Versions};
use pool_managerd::leases::Fifos;
use pool_managerd::processors::Sysfs;
use pool_managerd::recording::Recorder;
use pool_managerd::report::Reports;
use pool_managerd::store::Store;
use pool_managerd::supervisor::{Ended, HostClock, Outside, Signal, Signals, Supervisor, calls};
use pool_managerd::systemd::Client;
use pool_managerd::{gpu, host, notify, telemetry};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Owns every LLM engine process on this host; see pool-managerd(8).
///
/// systemd runs it as pool-managerd.service. It reads /etc/llamaorch and serves org.llamaorch.PoolManager on the
/// system bus. SIGHUP reads the configuration again; SIGTERM ends it and leaves the engines running.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Look for configuration folders below this folder instead of /
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = telemetry::start();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments, log: telemetry::Log) -> Result<(), Box<dyn Error>> {
    let signals = signals()?;
    let bus = dbus::client().await.map_err(|error| Box::new(NoBus(error)))?;
    let (observed, observations) = mpsc::channel(1024);
    let systemd = Client::connect(&bus, observed).await?;
    let (handle, asked) = calls();
    let (published, publications) = mpsc::channel(64);
    let driver = host::driver_version();
    let tainted = tainted(&driver);
    let versions = Versions { systemd: systemd.version().to_owned(), driver };
    let server = Server::start(None, versions, tainted, log, handle, publications).await?;
    // systemd names the folders of the daemon's unit; by hand they are the same.
    let folder = |variable: &str, standard: &str| {
        std::env::var_os(variable).map_or_else(|| standard.into(), PathBuf::from)
    };
    let runtime = folder("RUNTIME_DIRECTORY", "/run/pool-managerd");
    let reports = Reports::below(&runtime);
    if let Err(error) = &reports {
        tracing::error!("{}; numbers of engines will not be known", telemetry::chain(error));
    }
    let processors = Sysfs::below(Path::new("/"));
    let host = host::facts(systemd.number(), processors.count());
    let outside = Outside {
        folders: Folders::below(&arguments.root),
        store: Store::new(&runtime, &folder("STATE_DIRECTORY", "/var/lib/llamaorch")),
        systemd,
        clock: HostClock,
        leases: Fifos::below(&runtime),
        reports: reports.ok(),
        recorder: Recorder::below(&runtime),
        processors: Box::new(processors),
        gpus: Box::new(gpu::Sysfs::below(Path::new("/"))),
        host,
    };
    let mut supervisor = Supervisor::new(outside, observations, asked, published);
    let first = supervisor.take_stock().await?;
    server.take_name().await?;
    let ended = supervisor.run(first, signals).await;
    notify::stopping();
    match ended {
        Ok(()) => Ok(()),
        Err(error @ (Ended::Disconnected | Ended::PublisherGone | Ended::Systemd(_))) => Err(error.into()),
    }
}

/// What this host lacks besides what the core is told, in the words of the `Tainted` property.
fn tainted(driver: &str) -> Vec<String> {
    driver.is_empty().then(|| "no-gpu-driver".to_owned()).into_iter().collect()
}

#[derive(Debug, thiserror::Error)]
#[error("cannot reach the system bus; is dbus.socket active?")]
struct NoBus(#[source] zbus::Error);

#[allow(clippy::disallowed_methods, reason = "one task a Unix signal, which only forwards")]
fn signals() -> std::io::Result<Signals> {
    let (sender, signals) = mpsc::channel(8);
    let wanted = [
        (SignalKind::hangup(), Signal::Reload),
        (SignalKind::terminate(), Signal::Terminate),
        (SignalKind::interrupt(), Signal::Terminate),
    ];
    for (kind, meaning) in wanted {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(meaning).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(signals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_lacks_a_driver_only_where_none_has_a_version() {
        let lacks = |driver: &str| tainted(driver).iter().any(|word| word == "no-gpu-driver");
        assert!(lacks("") && !lacks("570.86.15"));
    }
}
