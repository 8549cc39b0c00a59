//! What each verb does.

use super::arguments::{Format, Verb};
use super::operations::{self, Operation};
use super::output::{Failure, complain_of_file, print};
use super::{bugreport, explain, lease, moment, table};
use pool_managerd::client::{Client, Exit, Reloaded, Reloading};
use pool_managerd::config::{self, Folders};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn run(verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Check { files, root } => check(&files, root.as_deref()),
        Verb::List { format } => on_the_bus(list(format)),
        Verb::Status { pool, format } => on_the_bus(status(pool, format)),
        Verb::Start { pools, waiting } => operate(Operation::Start, pools, waiting.no_wait),
        Verb::Stop { pools: _, all: true, waiting } => on_the_bus(operations::stop_all(waiting.no_wait)),
        Verb::Stop { pools, all: false, waiting } => operate(Operation::Stop, pools, waiting.no_wait),
        Verb::Drain { pools, deadline, waiting } => {
            operate(Operation::Drain(deadline), pools, waiting.no_wait)
        }
        Verb::Wait { pool, timeout } => on_the_bus(wait(pool, timeout)),
        Verb::Reload { pool: None, .. } => on_the_bus(reload()),
        Verb::Reload { pool: Some(pool), model, deadline, force, no_wait } => {
            operate(Operation::Reload(Reloading { model, deadline, force }), vec![pool], no_wait)
        }
        Verb::Apply { pools, waiting } => operate(Operation::Apply, pools, waiting.no_wait),
        Verb::Diff { pool } => on_the_bus(diff(pool)),
        Verb::Reset { pools } => operate(Operation::Reset, pools, false),
        Verb::Explain { pool, format } => on_the_bus(explain(pool, format)),
        Verb::Bugreport { file } => on_the_bus(async {
            print(&bugreport::write(file).await?)?;
            Ok(Exit::Success)
        }),
        Verb::Cancel { job } => on_the_bus(cancel(job)),
        Verb::Lease { pool, command } => lease::run(pool, command),
    }
}

fn operate(operation: Operation, pools: Vec<String>, no_wait: bool) -> Result<Exit, Failure> {
    on_the_bus(async { operations::operate(&Client::connect().await?, &operation, pools, no_wait).await })
}

pub(crate) fn on_the_bus<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?
        .block_on(verb)
}

async fn list(format: Format) -> Result<Exit, Failure> {
    let pools = Client::connect().await?.list().await?;
    print(&if format.json { json(&pools)? } else { table::list(&pools) })?;
    Ok(Exit::Success)
}

async fn status(pool: String, format: Format) -> Result<Exit, Failure> {
    let pool = Client::connect().await?.pool(&pool).await?;
    print(&if format.json { json(&pool)? } else { table::status(&pool, moment::now()) })?;
    Ok(Exit::Success)
}

async fn explain(pool: String, format: Format) -> Result<Exit, Failure> {
    let told = Client::connect().await?.explain(&pool).await?;
    print(&if format.json { json(&told)? } else { explain::explanation(&told, moment::now()) })?;
    Ok(Exit::Success)
}

async fn diff(pool: Option<String>) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let (pools, one) = match &pool {
        Some(id) => (vec![client.pool(id).await?], true),
        None => (client.list().await?, false),
    };
    print(&explain::diff(&pools, one))?;
    Ok(Exit::Success)
}

async fn cancel(job: String) -> Result<Exit, Failure> {
    Client::connect().await?.find_job(&job).await?.cancel().await?;
    print("cancelled\n")?;
    Ok(Exit::Success)
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(Failure::Json)
}

async fn wait(pool: String, timeout: Option<Duration>) -> Result<Exit, Failure> {
    Client::connect().await?.wait_ready(&pool, timeout).await?;
    print(&format!("{pool}: ready\n"))?;
    Ok(Exit::Success)
}

async fn reload() -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let reloaded = client.reload().await?;
    let errors = client.configuration_errors().await?;
    print(&in_words(&reloaded))?;
    for error in &errors {
        complain_of_file(&error.file, &error.error);
    }
    Ok(if errors.is_empty() { Exit::Success } else { Exit::Usage })
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

fn check(files: &[PathBuf], root: Option<&Path>) -> Result<Exit, Failure> {
    let folders = root.map_or_else(Folders::default, Folders::below);
    let (pools, errors) = if files.is_empty() {
        let read = config::read(&folders);
        (read.pools.len(), read.errors)
    } else {
        (files.len(), config::check_files(&folders, files))
    };
    for error in &errors {
        complain_of_file(&error.file, &error.error);
    }
    if !errors.is_empty() {
        return Ok(Exit::Usage);
    }
    let noun = if pools == 1 { "pool" } else { "pools" };
    print(&format!("{pools} {noun}, no errors\n"))?;
    Ok(Exit::Success)
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
