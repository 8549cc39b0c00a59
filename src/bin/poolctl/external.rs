//! `register` and `report`: pools that somebody else runs.

use super::arguments::{Health, Report};
use super::moment;
use super::output::{Failure, Output};
use pool_managerd::client::{Client, Exit, External};
use serde_json::json;
use std::time::Duration;

pub(crate) async fn register(
    out: Output,
    pool: String,
    engine: Option<String>,
    endpoint: Option<String>,
    heartbeat_timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let (engine, endpoint) = (engine.unwrap_or_default(), endpoint.unwrap_or_default());
    let external = External { engine, endpoint, heartbeat_timeout };
    let object = Client::connect().await?.register_pool(&pool, &external).await?;
    let told = json!({ "pool": pool, "result": "registered", "object": object.as_str() });
    out.show(&told, |_| format!("{pool}: registered\n"))?;
    Ok(Exit::Success)
}

/// Reports one thing after the other, health last: who waits for that finds the rest.
pub(crate) async fn report(out: Output, pool: String, report: Report) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    if let Some(version) = &report.engine_version {
        client.report_version(&pool, version).await?;
    }
    if let Some(error) = &report.error {
        client.report_last_error(&pool, error).await?;
    }
    if report.heartbeat {
        client.report_heartbeat(&pool, moment::now()).await?;
    }
    if let Some(health) = report.health {
        let (live, ready) = match health {
            Health::Ready => (true, true),
            Health::Live => (true, false),
            Health::Down => (false, false),
        };
        client.report_health(&pool, live, ready).await?;
    }
    out.show(&json!({ "pool": pool, "result": "reported" }), |_| format!("{pool}: reported\n"))?;
    Ok(Exit::Success)
}
