//! What is done with several pools at the same time.

use super::output::{Failure, complain_of, print};
use futures_util::stream::{self, StreamExt};
use pool_managerd::client::{Client, Error, Exit, Job, JobDetails, Reloading};
use std::time::Duration;

/// How many pools are worked on at the same time: far below what the bus and the daemon take of one caller.
const AT_ONCE: usize = 32;

/// What is done with a pool.
#[derive(Debug)]
pub(crate) enum Operation {
    Start,
    Stop,
    Drain(Option<Duration>),
    Reload(Reloading),
    Apply,
    Reset,
}

pub(crate) async fn stop_all(no_wait: bool) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let pools: Vec<String> = client.list().await?.into_iter().map(|pool| pool.id).collect();
    if pools.is_empty() {
        print("there are no pools\n")?;
    }
    operate(&client, &Operation::Stop, pools, no_wait).await
}

/// Works on all pools at the same time and tells of each as it ends. The first that fails decides the exit code.
pub(crate) async fn operate(
    client: &Client,
    operation: &Operation,
    pools: Vec<String>,
    no_wait: bool,
) -> Result<Exit, Failure> {
    let work = |pool: String| async move {
        let outcome = operate_on(client, operation, &pool, no_wait).await;
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

/// What became of it, in words.
async fn operate_on(
    client: &Client,
    operation: &Operation,
    pool: &str,
    no_wait: bool,
) -> Result<String, Error> {
    match operation {
        Operation::Start => finish(client.start(pool).await?, no_wait, "ready").await,
        Operation::Stop => finish(client.stop(pool).await?, no_wait, "stopped").await,
        Operation::Drain(deadline) => {
            finish(client.drain(pool, *deadline).await?, no_wait, "drained and stopped").await
        }
        Operation::Reload(how) => finish(client.reload_pool(pool, how).await?, no_wait, "reloaded").await,
        Operation::Apply if !client.pool(pool).await?.needs_reload => Ok("no changes wait".to_owned()),
        Operation::Apply => {
            finish(client.reload_pool(pool, &Reloading::default()).await?, no_wait, "applied").await
        }
        Operation::Reset => client.reset(pool).await.map(|()| "its failures are forgotten".to_owned()),
    }
}

async fn finish(job: Job, no_wait: bool, done: &str) -> Result<String, Error> {
    if no_wait {
        return Ok(job.path().to_owned());
    }
    job.wait().await?;
    Ok(done.to_owned() + &in_words(&job.details().await?))
}

/// What is to be said of a job that is done besides that.
fn in_words(details: &JobDetails) -> String {
    match details {
        JobDetails { force_stopped: false, .. } => String::new(),
        JobDetails { leases_left: 0, .. } => {
            ", by force at the deadline: requests were still in flight".to_owned()
        }
        JobDetails { leases_left, .. } => {
            format!(", by force at the deadline: {leases_left} leases were still held")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_by_force_is_told() {
        assert_eq!(in_words(&JobDetails { leases_left: 2, ..JobDetails::default() }), "");
        let forced = |leases_left| JobDetails { force_stopped: true, leases_left, ..JobDetails::default() };
        assert_eq!(in_words(&forced(2)), ", by force at the deadline: 2 leases were still held");
        assert_eq!(in_words(&forced(0)), ", by force at the deadline: requests were still in flight");
    }
}
