//! What the manager and a pool are asked alike, and what may stand in a method's options.

use super::error::Error;
use super::job_path;
use crate::supervisor::{Handle, ReloadPool, Told, Usage};
use pool_core::Request;
use pool_core::host::{Answer, Caller, LeaseWish};
use pool_core::name::Usec;
use pool_core::registry::Report;
use pool_core::view::{DeviceView, PoolView, ReasonView};
use std::collections::HashMap;
use zbus::{OwnedFd, OwnedObjectPath, OwnedVariant, Variant};

/// A method's last argument: what a caller may leave out.
pub(super) type Options = HashMap<String, OwnedVariant>;

/// A dictionary of named values, as it is sent.
pub(super) type Named = HashMap<&'static str, Variant<'static>>;

/// A lease as it is handed out: its id, its engine's endpoint, the descriptor that it lives by.
pub(super) type Lease = (String, String, OwnedFd);

/// The kind of an option that is a length of time.
const MICROSECONDS: &str = "a number of microseconds (t)";

/// Takes an option out; `None` where the caller left it out.
fn take<T: TryFrom<OwnedVariant>>(options: &mut Options, key: &str, kind: &str) -> Result<Option<T>, Error> {
    let Some(value) = options.remove(key) else { return Ok(None) };
    let found = value.value_signature().to_string();
    T::try_from(value)
        .map(Some)
        .map_err(|_| Error::invalid_args(format!("option \"{key}\" is {kind}, not of type {found}")))
}

/// What is left is unknown, and so a mistake of the caller: `known` are the keys of this version.
fn finish(options: &Options, known: &[&str]) -> Result<(), Error> {
    let Some(key) = options.keys().min() else { return Ok(()) };
    Err(Error::invalid_args(if known.is_empty() {
        format!("unknown option \"{key}\"; this version takes none here")
    } else {
        format!("unknown option \"{key}\"; this version takes: {}", known.join(", "))
    }))
}

pub(super) async fn start(
    handle: &Handle,
    caller: &Caller,
    pool: String,
    options: Options,
) -> Result<OwnedObjectPath, Error> {
    finish(&options, &[])?;
    job(handle.ask(caller, Request::Start { pool }).await?)
}

pub(super) async fn stop(
    handle: &Handle,
    caller: &Caller,
    pool: String,
    options: Options,
) -> Result<OwnedObjectPath, Error> {
    finish(&options, &[])?;
    job(handle.ask(caller, Request::Stop { pool }).await?)
}

pub(super) async fn drain(
    handle: &Handle,
    caller: &Caller,
    pool: String,
    deadline: u64,
    options: Options,
) -> Result<OwnedObjectPath, Error> {
    finish(&options, &[])?;
    job(handle.ask(caller, Request::Drain { pool, deadline: Usec(deadline) }).await?)
}

pub(super) async fn reload(
    handle: &Handle,
    caller: &Caller,
    pool: String,
    model: String,
    mut options: Options,
) -> Result<OwnedObjectPath, Error> {
    let deadline: Option<u64> = take(&mut options, "deadline_usec", MICROSECONDS)?;
    let strategy: Option<String> = take(&mut options, "strategy", "a word (s)")?;
    let force: Option<bool> = take(&mut options, "force", "true or false (b)")?;
    finish(&options, &["deadline_usec", "force", "strategy"])?;
    match strategy.as_deref() {
        None | Some("auto" | "drain-first") => {}
        Some("rolling") => {
            return Err(Error::invalid_args(
                "strategy \"rolling\" is not supported by this version yet; \"drain-first\" is".to_owned(),
            ));
        }
        Some(other) => {
            return Err(Error::invalid_args(format!(
                "unknown strategy \"{other}\"; this version takes: auto, drain-first"
            )));
        }
    }
    let (deadline, force) = (Usec(deadline.unwrap_or(0)), force.unwrap_or(false));
    job(handle.reload_pool(caller, ReloadPool { pool, model, deadline, force }).await?)
}

pub(super) async fn reset(handle: &Handle, caller: &Caller, pool: String) -> Result<(), Error> {
    done(handle.ask(caller, Request::Reset { pool }).await?)
}

pub(super) async fn allocate_lease(
    handle: &Handle,
    caller: &Caller,
    pool: String,
    mut options: Options,
) -> Result<Lease, Error> {
    let wait: Option<u64> = take(&mut options, "wait_usec", MICROSECONDS)?;
    let ttl: Option<u64> = take(&mut options, "ttl_usec", MICROSECONDS)?;
    let holder: Option<String> = take(&mut options, "holder", "a name (s)")?;
    finish(&options, &["holder", "ttl_usec", "wait_usec"])?;
    let wish = LeaseWish {
        wait: Usec(wait.unwrap_or(0)),
        ttl: Usec(ttl.unwrap_or(0)),
        holder: holder.unwrap_or_default(),
    };
    match handle.ask_with_descriptor(caller, Request::AllocateLease { pool, wish }).await? {
        Told { answer: Answer::Lease { lease, endpoint }, descriptor: Some(descriptor) } => {
            Ok((lease.to_string(), endpoint, descriptor.into()))
        }
        Told { answer, .. } => Err(odd(answer, "a lease")),
    }
}

pub(super) async fn register(
    handle: &Handle,
    caller: &Caller,
    pool: String,
    mut options: Options,
) -> Result<OwnedObjectPath, Error> {
    let engine: Option<String> = take(&mut options, "engine", "a name (s)")?;
    let endpoint: Option<String> = take(&mut options, "endpoint", "an address (s)")?;
    let timeout: Option<u64> = take(&mut options, "heartbeat_timeout_usec", MICROSECONDS)?;
    finish(&options, &["endpoint", "engine", "heartbeat_timeout_usec"])?;
    let path = pool.parse().map(|id| super::pool::object_path(&id));
    let request = Request::RegisterPool {
        pool,
        engine: engine.unwrap_or_default(),
        endpoint: endpoint.unwrap_or_default(),
        heartbeat_timeout: Usec(timeout.unwrap_or(0)),
    };
    done(handle.ask(caller, request).await?)?;
    // An id that is not valid was refused.
    path.map_err(|error| Error::invalid_args(error.to_string()))
}

pub(super) async fn report(
    handle: &Handle,
    caller: &Caller,
    pool: String,
    report: Report,
) -> Result<(), Error> {
    done(handle.ask(caller, Request::Report { pool, report }).await?)
}

/// What moves fast, of one pool.
pub(super) fn statistics(view: &PoolView) -> Named {
    HashMap::from([
        ("active_leases", Variant::new(view.active_leases)),
        ("lease_capacity", Variant::new(view.lease_capacity)),
        ("in_flight", Variant::new(view.in_flight)),
        ("slots_total", Variant::new(view.slots_total)),
        ("slots_free", Variant::new(view.slots_free)),
        ("replicas", Variant::new(view.replicas)),
        ("ready_replicas", Variant::new(view.ready_replicas)),
        ("restart_count", Variant::new(view.restart_count)),
        ("last_heartbeat_timestamp", Variant::new(view.last_heartbeat.0)),
    ])
}

/// What an engine may use and what it uses, as far as it is known and limited.
pub(super) fn usage(usage: &Usage, missing_controllers: Vec<String>) -> Named {
    let numbers = [
        ("memory_current", usage.memory_current),
        ("memory_peak", usage.memory_peak),
        ("memory_high", usage.memory_high),
        ("memory_max", usage.memory_max),
        ("tasks_current", usage.tasks_current),
        ("tasks_max", usage.tasks_max),
        ("cpu_usage_usec", usage.cpu_usage.map(|usec| usec.0)),
        ("cpu_quota_usec", usage.cpu_quota.map(|usec| usec.0)),
    ];
    let known = numbers.into_iter().filter_map(|(name, number)| Some((name, Variant::new(number?))));
    known.chain([("missing_controllers", Variant::new(missing_controllers))]).collect()
}

/// What moves fast, of one device.
pub(super) fn device_statistics(view: &DeviceView) -> Named {
    HashMap::from([
        ("memory_total", Variant::new(view.memory_total)),
        ("memory_free", Variant::new(view.memory_free)),
        ("memory_reserved", Variant::new(view.memory_reserved)),
        ("utilization", Variant::new(view.utilization)),
        ("temperature", Variant::new(view.temperature)),
    ])
}

/// The answer to an operation: its job.
fn job(answer: Answer) -> Result<OwnedObjectPath, Error> {
    match answer {
        Answer::Job(job) => Ok(super::path(job_path(job.0))),
        other => Err(odd(other, "a job")),
    }
}

/// The answer to what is done at once.
pub(super) fn done(answer: Answer) -> Result<(), Error> {
    match answer {
        Answer::Done => Ok(()),
        other => Err(odd(other, "nothing")),
    }
}

/// An answer that is not `wanted`: a refusal, or one that does not belong to its question.
pub(super) fn odd(answer: Answer, wanted: &str) -> Error {
    let got = match answer {
        Answer::Denied(denied) => return denied.into(),
        Answer::Job(_) => "a job",
        Answer::Ready => "a pool's readiness",
        Answer::JobEnded(_) => "a job's end",
        Answer::Done => "nothing",
        Answer::Lease { .. } => "a lease",
        Answer::Reloaded { .. } => "what was read",
    };
    Error::internal(&format!("{wanted} was asked for and answered with {got}"))
}

/// Why a pool is as it is.
pub(super) fn explain(view: &PoolView) -> Named {
    let reasons: Vec<Named> = view.reasons.iter().map(reason).collect();
    HashMap::from([
        ("ready", Variant::new(view.ready)),
        ("live", Variant::new(view.live)),
        ("phase", Variant::new(view.phase)),
        ("summary", Variant::new(view.detail.clone())),
        ("reasons", Variant::new(reasons)),
    ])
}

fn reason(view: &ReasonView) -> Named {
    HashMap::from([
        ("code", Variant::new(view.code)),
        ("class", Variant::new(view.class.clone())),
        ("replica", Variant::new(view.replica.clone())),
        ("text", Variant::new(view.text.clone())),
        ("remedy", Variant::new(view.remedy.clone())),
        ("since_timestamp", Variant::new(view.since.0)),
        ("until_timestamp", Variant::new(view.until.0)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options<const N: usize>(given: [(&str, OwnedVariant); N]) -> Options {
        given.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    #[test]
    fn an_option_of_another_type_is_told_by_its_name() {
        let mut given = options([("force", OwnedVariant::from(1_u32))]);
        let error = take::<bool>(&mut given, "force", "true or false (b)").unwrap_err();
        assert_eq!(
            error,
            Error::invalid_args("option \"force\" is true or false (b), not of type u".to_owned())
        );
        assert_eq!(take::<bool>(&mut options([]), "force", ""), Ok(None));
    }

    #[test]
    fn an_unknown_option_is_told_with_those_that_are_known() {
        let refused = |key: &str, known: &[&str]| {
            finish(&options([(key, OwnedVariant::from(true))]), known).expect_err("it is unknown")
        };
        let told = |text: &str| Error::invalid_args(text.to_owned());
        assert_eq!(refused("x", &[]), told("unknown option \"x\"; this version takes none here"));
        assert_eq!(refused("x", &["a", "b"]), told("unknown option \"x\"; this version takes: a, b"));
        assert_eq!(finish(&options([]), &[]), Ok(()));
    }

    #[test]
    fn an_answer_to_another_question_is_a_bug_and_a_refusal_is_none() {
        use pool_core::Denied;
        assert_eq!(odd(Answer::Denied(Denied::TooManyWaiters), "a job"), Error::from(Denied::TooManyWaiters));
        assert_eq!(
            odd(Answer::Ready, "a job"),
            Error::internal("a job was asked for and answered with a pool's readiness")
        );
    }
}
