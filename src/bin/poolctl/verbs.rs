//! What each verb does.

use super::arguments::{Format, Verb, Waiting};
use super::output::{Failure, complain_of, complain_of_file, print};
use super::{moment, table};
use futures_util::stream::{self, StreamExt};
use pool_managerd::client::{Client, Error, Exit, Reloaded};
use pool_managerd::config::{self, Folders};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many pools are worked on at the same time: far below what the bus and the daemon take of one caller.
const AT_ONCE: usize = 32;

#[derive(Clone, Copy)]
enum Operation {
    Start,
    Stop,
}

pub(crate) fn run(verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Check { files, root } => check(&files, root.as_deref()),
        Verb::List { format } => on_the_bus(list(format)),
        Verb::Status { pool, format } => on_the_bus(status(pool, format)),
        Verb::Start { pools, waiting } => on_the_bus(start(pools, waiting)),
        Verb::Stop { pools, all, waiting } => on_the_bus(stop(pools, all, waiting)),
        Verb::Wait { pool, timeout } => on_the_bus(wait(pool, timeout)),
        Verb::Reload => on_the_bus(reload()),
    }
}

fn on_the_bus(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
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

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(Failure::Json)
}

async fn start(pools: Vec<String>, waiting: Waiting) -> Result<Exit, Failure> {
    operate(&Client::connect().await?, Operation::Start, pools, waiting).await
}

async fn stop(pools: Vec<String>, all: bool, waiting: Waiting) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let pools = if all { client.list().await?.into_iter().map(|pool| pool.id).collect() } else { pools };
    if pools.is_empty() {
        print("there are no pools\n")?;
    }
    operate(&client, Operation::Stop, pools, waiting).await
}

/// Works on all pools at the same time and tells of each as it ends. The first that fails decides the exit code.
async fn operate(
    client: &Client,
    operation: Operation,
    pools: Vec<String>,
    waiting: Waiting,
) -> Result<Exit, Failure> {
    let work = |pool: String| async move {
        let outcome = operate_on(client, operation, &pool, waiting.no_wait).await;
        (pool, outcome)
    };
    let mut outcomes = stream::iter(pools).map(work).buffer_unordered(AT_ONCE);
    let mut exit = Exit::Success;
    while let Some((pool, outcome)) = outcomes.next().await {
        match outcome {
            Ok(text) => print(&format!("{pool}: {text}\n"))?,
            Err(error) => {
                let alone = complain_of(&pool, &error);
                exit = if exit == Exit::Success { alone } else { exit };
            }
        }
    }
    Ok(exit)
}

async fn operate_on(
    client: &Client,
    operation: Operation,
    pool: &str,
    no_wait: bool,
) -> Result<String, Error> {
    let (job, done) = match operation {
        Operation::Start => (client.start(pool).await?, "ready"),
        Operation::Stop => (client.stop(pool).await?, "stopped"),
    };
    if no_wait {
        return Ok(job.path().to_owned());
    }
    job.wait().await.map(|()| done.to_owned())
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
        (
            "changed",
            changed,
            " (an engine that runs keeps its settings until its pool is stopped and started)",
        ),
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
            "added: a, b\nchanged: c (an engine that runs keeps its settings until its pool is stopped and started)\n"
        );
        assert_eq!(in_words(&Reloaded::default()), "no pool was added, changed or removed\n");
    }
}
