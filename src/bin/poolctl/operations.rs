//! What is done with several pools at the same time.

use super::output::{Failure, Output, Problem, complain_of, print};
use futures_util::stream::{self, StreamExt};
use pool_managerd::client::{Client, Error, Exit, Job, JobDetails, Reloading};
use serde::Serialize;
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
    Unregister,
}

/// What became of one pool, as JSON has it: a result or an error.
#[derive(Debug, Serialize)]
struct Told {
    pool: String,
    #[serde(flatten)]
    done: Option<Done>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// What was done with a pool.
#[derive(Debug, Default, Serialize)]
struct Done {
    /// One word.
    result: &'static str,
    /// The same for people.
    #[serde(skip)]
    words: String,
    /// The job's object; it is not waited for where the result is "accepted".
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(flatten)]
    details: Option<JobDetails>,
}

pub(crate) async fn stop_all(out: Output, no_wait: bool) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    // Those of others are stopped by who runs them.
    let own = client.list().await?.into_iter().filter(|pool| !pool.external);
    let pools: Vec<String> = own.map(|pool| pool.id).collect();
    if pools.is_empty() && !out.json {
        print("there are no pools\n")?;
    }
    operate(out, &client, &Operation::Stop, pools, no_wait).await
}

/// Works on all pools at the same time. In words, each is told as it ends; JSON is of all of them, in their order. The
/// first that fails decides the exit code.
pub(crate) async fn operate(
    out: Output,
    client: &Client,
    operation: &Operation,
    pools: Vec<String>,
    no_wait: bool,
) -> Result<Exit, Failure> {
    let work = |(index, pool): (usize, String)| async move {
        let outcome = operate_on(client, operation, &pool, no_wait).await;
        (index, pool, outcome)
    };
    let mut outcomes = stream::iter(pools.into_iter().enumerate()).map(work).buffer_unordered(AT_ONCE);
    let (mut exit, mut all) = (Exit::Success, Vec::new());
    while let Some((index, pool, outcome)) = outcomes.next().await {
        let alone = outcome.as_ref().err().map_or(Exit::Success, Error::exit);
        exit = if exit == Exit::Success { alone } else { exit };
        let told = match outcome {
            Ok(done) => Told { pool, done: Some(done), error: None },
            Err(error) => Told { pool, done: None, error: Some(Problem::from(&error)) },
        };
        match &told {
            _ if out.json => {}
            Told { pool, done: Some(done), .. } => print(&format!("{pool}: {}\n", done.words))?,
            Told { pool, error: Some(problem), .. } => complain_of(pool, problem),
            Told { done: None, error: None, .. } => {}
        }
        all.push((index, told));
    }
    all.sort_by_key(|(index, _)| *index);
    let all: Vec<Told> = all.into_iter().map(|(_, told)| told).collect();
    if out.json {
        out.show(&all, |_| String::new())?;
    }
    Ok(exit)
}

async fn operate_on(
    client: &Client,
    operation: &Operation,
    pool: &str,
    no_wait: bool,
) -> Result<Done, Error> {
    match operation {
        Operation::Start => finish(client.start(pool).await?, no_wait, "ready", "ready").await,
        Operation::Stop => finish(client.stop(pool).await?, no_wait, "stopped", "stopped").await,
        Operation::Drain(deadline) => {
            finish(client.drain(pool, *deadline).await?, no_wait, "drained", "drained and stopped").await
        }
        Operation::Reload(how) => {
            finish(client.reload_pool(pool, how).await?, no_wait, "reloaded", "reloaded").await
        }
        Operation::Apply if !client.pool(pool).await?.needs_reload => {
            Ok(at_once("unchanged", "no changes wait"))
        }
        Operation::Apply => {
            let job = client.reload_pool(pool, &Reloading::default()).await?;
            finish(job, no_wait, "applied", "applied").await
        }
        Operation::Reset => client.reset(pool).await.map(|()| at_once("reset", "its failures are forgotten")),
        Operation::Unregister => {
            client.unregister_pool(pool).await.map(|()| at_once("unregistered", "unregistered"))
        }
    }
}

fn at_once(result: &'static str, words: &str) -> Done {
    Done { result, words: words.to_owned(), ..Done::default() }
}

async fn finish(job: Job, no_wait: bool, result: &'static str, words: &str) -> Result<Done, Error> {
    let path = Some(job.path().to_owned());
    if no_wait {
        return Ok(Done { result: "accepted", words: job.path().to_owned(), job: path, details: None });
    }
    job.wait().await?;
    let details = job.details().await?;
    let words = words.to_owned() + &in_words(&details);
    Ok(Done { result, words, job: path, details: Some(details) })
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

    #[test]
    fn json_has_a_result_or_an_error_of_each_pool() {
        let json = |told: &Told| serde_json::to_string(told).expect("JSON of ours");
        let at_once = Told { pool: "a".into(), done: Some(at_once("reset", "forgotten")), error: None };
        assert_eq!(json(&at_once), r#"{"pool":"a","result":"reset"}"#);
        let done = Done {
            result: "stopped",
            job: Some("/j/1".into()),
            details: Some(JobDetails { duration_usec: 5, ..JobDetails::default() }),
            ..Done::default()
        };
        let after_a_job = Told { pool: "a".into(), done: Some(done), error: None };
        assert_eq!(
            json(&after_a_job),
            r#"{"pool":"a","result":"stopped","job":"/j/1","force_stopped":false,"rolled_back":false,"leases_left":0,"duration_usec":5}"#
        );
        let error = Some(Problem::from(&Error::NoSuchPool("no pool \"a\"".into())));
        assert_eq!(
            json(&Told { pool: "a".into(), done: None, error }),
            r#"{"pool":"a","error":{"code":"no-such-pool","message":"no pool \"a\"","status":4}}"#
        );
    }
}
