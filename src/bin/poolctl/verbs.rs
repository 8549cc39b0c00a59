//! What each verb does.

use super::agent::Agent;
use super::arguments::Verb;
use super::operations::{self, Operation};
use super::output::{Failure, Output, complain_of_file};
use super::{bugreport, devices, explain, external, lease, moment, statistics, table, usage, watch};
use pool_managerd::client::{Client, ConfigurationError, Exit, Reloaded, Reloading, UnitLine};
use pool_managerd::config::{self, Folders};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn run(verb: Verb, out: Output) -> Result<Exit, Failure> {
    let operate = |operation, pools, no_wait| {
        asking(async move {
            operations::operate(out, &Client::connect().await?, &operation, pools, no_wait).await
        })
    };
    match verb {
        Verb::Check { files, root } => check(out, &files, root.as_deref()),
        Verb::List => on_the_bus(list(out)),
        Verb::Status { pool, unit: false } => on_the_bus(status(out, pool)),
        Verb::Status { pool, unit: true } => on_the_bus(units(out, pool)),
        Verb::Watch { pools } => on_the_bus(watch::watch(out, pools)),
        Verb::Devices => on_the_bus(devices::list(out)),
        Verb::Quarantine { device, reason } => asking(devices::quarantine(out, device, reason)),
        Verb::Readmit { device } => asking(devices::readmit(out, device)),
        Verb::Statistics { pools } => on_the_bus(statistics::show(out, pools)),
        Verb::Start { pools, waiting } => operate(Operation::Start, pools, waiting.no_wait),
        Verb::Stop { pools: _, all: true, waiting } => asking(operations::stop_all(out, waiting.no_wait)),
        Verb::Stop { pools, all: false, waiting } => operate(Operation::Stop, pools, waiting.no_wait),
        Verb::Drain { pools, deadline, waiting } => {
            operate(Operation::Drain(deadline), pools, waiting.no_wait)
        }
        Verb::Wait { pool, timeout } => on_the_bus(wait(out, pool, timeout)),
        Verb::Reload { pool: None, .. } => asking(reload(out)),
        Verb::Reload { pool: Some(pool), model, deadline, force, no_wait } => {
            operate(Operation::Reload(Reloading { model, deadline, force }), vec![pool], no_wait)
        }
        Verb::Apply { pools, waiting } => operate(Operation::Apply, pools, waiting.no_wait),
        Verb::Diff { pool } => on_the_bus(diff(out, pool)),
        Verb::Reset { pools } => operate(Operation::Reset, pools, false),
        Verb::Explain { pool } => on_the_bus(explain(out, pool)),
        Verb::Bugreport { file } => on_the_bus(bugreport(out, file)),
        Verb::Cancel { job } => asking(cancel(out, job)),
        Verb::Register { pool, engine, endpoint, heartbeat_timeout } => {
            asking(external::register(out, pool, engine, endpoint, heartbeat_timeout))
        }
        Verb::Unregister { pools } => operate(Operation::Unregister, pools, false),
        Verb::Report { pool, report } => asking(external::report(out, pool, report)),
        Verb::Lease { pool, wait, ttl, holder, command } => lease::run(pool, wait, ttl, holder, command),
    }
}

/// The same for a verb that changes something: a person may be asked whether it may.
pub(crate) fn asking<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let _agent = Agent::start();
    on_the_bus(verb)
}

fn on_the_bus<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?
        .block_on(verb)
}

async fn list(out: Output) -> Result<Exit, Failure> {
    let pools = Client::connect().await?.list().await?;
    out.show(&pools, |paint| table::list(&pools, paint))?;
    Ok(Exit::Success)
}

async fn status(out: Output, pool: String) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let mut pool = client.pool(&pool).await?;
    for replica in &mut pool.replicas {
        // An older daemon does not know, and what else there is to say is said all the same.
        replica.usage = client.usage(replica).await.ok();
    }
    out.show(&pool, |paint| table::status(&pool, moment::now(), paint))?;
    Ok(Exit::Success)
}

/// The unit of each engine of a pool.
#[derive(Serialize)]
struct Unit {
    replica: String,
    lines: Vec<UnitLine>,
}

async fn units(out: Output, pool: String) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let mut units = Vec::new();
    for replica in &client.pool(&pool).await?.replicas {
        units.push(Unit { replica: replica.id.clone(), lines: client.unit_lines(replica).await? });
    }
    let text = |unit: &Unit| match unit.lines.as_slice() {
        [] => format!("{}: never started\n", unit.replica),
        lines => format!("{}:\n{}", unit.replica, usage::unit(lines)),
    };
    out.show(&units, |_| units.iter().map(text).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Success)
}

async fn explain(out: Output, pool: String) -> Result<Exit, Failure> {
    let told = Client::connect().await?.explain(&pool).await?;
    out.show(&told, |paint| explain::explanation(&told, moment::now(), paint))?;
    Ok(Exit::Success)
}

async fn diff(out: Output, pool: Option<String>) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let (pools, one) = match &pool {
        Some(id) => (vec![client.pool(id).await?], true),
        None => (client.list().await?, false),
    };
    let waiting = pools.iter().filter(|pool| pool.needs_reload);
    let waiting: Vec<_> = waiting.map(|pool| json!({ "pool": pool.id, "pending": pool.pending })).collect();
    out.show(&waiting, |_| explain::diff(&pools, one))?;
    Ok(Exit::Success)
}

async fn bugreport(out: Output, file: Option<PathBuf>) -> Result<Exit, Failure> {
    let file = bugreport::write(file).await?;
    out.show(&json!({ "file": file }), |_| {
        format!("{file}\nValues that look like secrets were left out; read it before you give it away.\n")
    })?;
    Ok(Exit::Success)
}

async fn cancel(out: Output, job: String) -> Result<Exit, Failure> {
    let job = Client::connect().await?.find_job(&job).await?;
    job.cancel().await?;
    out.show(&json!({ "job": job.path(), "result": "canceled" }), |_| "cancelled\n".to_owned())?;
    Ok(Exit::Success)
}

async fn wait(out: Output, pool: String, timeout: Option<Duration>) -> Result<Exit, Failure> {
    Client::connect().await?.wait_ready(&pool, timeout).await?;
    out.show(&json!({ "pool": pool, "result": "ready" }), |paint| {
        format!("{pool}: {}\n", paint.phase("ready", "ready"))
    })?;
    Ok(Exit::Success)
}

/// What was read, and what of it is not valid.
#[derive(Serialize)]
struct Read<'a, T> {
    #[serde(flatten)]
    read: T,
    errors: &'a [ConfigurationError],
}

async fn reload(out: Output) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let read = client.reload().await?;
    let errors = client.configuration_errors().await?;
    out.show(&Read { read: &read, errors: &errors }, |_| in_words(&read))?;
    Ok(end_of_reading(out, &errors))
}

/// JSON has the errors already.
fn end_of_reading(out: Output, errors: &[ConfigurationError]) -> Exit {
    for error in errors.iter().filter(|_| !out.json) {
        complain_of_file(&error.file, &error.error);
    }
    if errors.is_empty() { Exit::Success } else { Exit::Usage }
}

fn in_words(reloaded: &Reloaded) -> String {
    let Reloaded { added, changed, removed } = reloaded;
    let mut text = String::new();
    for (what, pools, note) in [
        ("added", added, ""),
        ("changed", changed, " (an engine that runs keeps its settings until: poolctl apply POOL)"),
        ("removed", removed, ""),
    ] {
        if !pools.is_empty() {
            text += &format!("{what}: {}{note}\n", pools.join(", "));
        }
    }
    if text.is_empty() { "no pool was added, changed or removed\n".to_owned() } else { text }
}

fn check(out: Output, files: &[PathBuf], root: Option<&Path>) -> Result<Exit, Failure> {
    let folders = root.map_or_else(Folders::default, Folders::below);
    let (count, noun, errors) = if files.is_empty() {
        let read = config::read(&folders);
        (read.pools.len(), "pool", read.errors)
    } else {
        (files.len(), "file", config::check_files(&folders, files))
    };
    let errors: Vec<ConfigurationError> =
        errors.into_iter().map(|error| ConfigurationError { file: error.file, error: error.error }).collect();
    out.show(&Read { read: json!({ format!("{noun}s"): count }), errors: &errors }, |_| {
        let plural = if count == 1 { "" } else { "s" };
        if errors.is_empty() { format!("{count} {noun}{plural}, no errors\n") } else { String::new() }
    })?;
    Ok(end_of_reading(out, &errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_told_in_words() {
        let some = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        let reloaded = Reloaded { added: some(&["a", "b"]), changed: some(&["c"]), removed: Vec::new() };
        assert_eq!(
            in_words(&reloaded),
            "added: a, b\nchanged: c (an engine that runs keeps its settings until: poolctl apply POOL)\n"
        );
        assert_eq!(in_words(&Reloaded::default()), "no pool was added, changed or removed\n");
    }
}
