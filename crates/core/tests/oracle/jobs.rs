//! What holds of jobs: each ends once and is readable for a while, and a reload leaves the spec that its result says.

use super::oracle::Stands;
use super::twin::{Fine, Twin};
use super::world::World;
use pool_core::job::{JobId, JobResult, JobState, KEPT};
use pool_core::name::Usec;
use std::collections::BTreeMap;

/// What is known of jobs of this run of the daemon.
#[derive(Default)]
pub struct Jobs {
    known: BTreeMap<JobId, Option<(JobResult, Usec)>>,
    reloads: BTreeMap<JobId, Reload>,
}

/// A reload as it was asked for.
struct Reload {
    to: String,
    /// Digests of what ran then.
    served: Vec<String>,
    /// Whether every replica served then.
    whole: bool,
    /// The digest of what the pool was to run anyway.
    own: String,
}

impl Jobs {
    /// A reload of a pool was asked for.
    pub fn reload(&mut self, job: JobId, twin: &Twin, world: &World, to: &str) {
        let up = running(twin, world).into_iter();
        let served = up.map(str::to_owned).collect();
        let own = twin.pool(world).revision.digest.clone();
        let whole = (0..twin.replicas()).all(|index| twin.oracle.stands(index) == Stands::Serves);
        self.reloads.insert(job, Reload { to: to.to_owned(), served, whole, own });
    }

    pub fn compare(&mut self, world: &World, twins: &[Twin]) -> Fine {
        let all = &world.state.jobs.all;
        for (id, known) in &self.known {
            match (known, all.get(id).map(|job| &job.state)) {
                (None, None) => return Err(format!("job {} is gone before its end", id.0)),
                (Some((_, at)), None) if world.now.since(*at) < KEPT => {
                    return Err(format!("job {} was forgotten early", id.0));
                }
                (Some((result, _)), Some(JobState::Ended { result: now, .. })) if result == now => {}
                (Some(_), Some(_)) => return Err(format!("job {} ended twice", id.0)),
                (Some(_), None) | (None, Some(_)) => {}
            }
        }
        self.known.retain(|id, _| all.contains_key(id));
        for (id, job) in all {
            let twin = twins.iter().find(|twin| twin.id == job.pool);
            let twin = twin.ok_or_else(|| format!("job {} has no pool", id.0))?;
            let pool = twin.pool(world);
            let owned = pool.job.is_some_and(|(owned, _)| owned == *id);
            match &job.state {
                JobState::Running if owned => drop(self.known.entry(*id).or_default()),
                JobState::Running => return Err(format!("nobody ends job {}", id.0)),
                JobState::Ended { .. } if owned => {
                    return Err(format!("job {} has ended and is still its pool's", id.0));
                }
                JobState::Ended { result, .. } => {
                    let ended = job.began.plus(job.details.duration);
                    if self.known.insert(*id, Some((*result, ended))).flatten().is_some() {
                        continue;
                    }
                    if let Some(reload) = self.reloads.remove(id) {
                        reloaded(&reload, *result, twin, world)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Nobody waits any longer.
    pub fn all_ended(&self) -> Fine {
        match self.known.iter().find(|(_, ended)| ended.is_none()) {
            Some((id, _)) => Err(format!("job {} never ended", id.0)),
            None => Ok(()),
        }
    }
}

/// Digests of the specs by which engines run or are about to.
fn running<'a>(twin: &Twin, world: &'a World) -> Vec<&'a str> {
    let replicas = twin.pool(world).replicas.iter().enumerate();
    let up =
        replicas.filter(|(index, _)| !matches!(twin.oracle.stands(*index), Stands::Down | Stands::Ending));
    // One that has not begun yet begins with what the pool is to run.
    let own = &twin.pool(world).revision;
    up.map(|(_, replica)| replica.revision.as_ref().unwrap_or(own).digest.as_str()).collect()
}

/// The same, of those that have begun.
fn begun<'a>(twin: &Twin, world: &'a World) -> Vec<&'a str> {
    let replicas = twin.pool(world).replicas.iter().enumerate();
    let up =
        replicas.filter(|(index, _)| matches!(twin.oracle.stands(*index), Stands::Runs | Stands::Serves));
    up.filter_map(|(_, replica)| Some(replica.revision.as_ref()?.digest.as_str())).collect()
}

fn reloaded(reload: &Reload, result: JobResult, twin: &Twin, world: &World) -> Fine {
    let up = running(twin, world);
    let says =
        |what: &str| Err(format!("{}: its reload is {}, and {what}: {up:?}", twin.id, result.as_str()));
    match result {
        JobResult::Superseded => Ok(()),
        // It was a start.
        _ if reload.served.is_empty() => Ok(()),
        // A file that changed meanwhile is newer.
        JobResult::Done if !twin.changed && up.iter().any(|digest| *digest != reload.to) => {
            says("something else runs")
        }
        JobResult::Done => Ok(()),
        JobResult::Failed | JobResult::Canceled | JobResult::Timeout => {
            // What was started since because somebody had asked for it goes by the file, too.
            let newest =
                (twin.asked || twin.changed || !reload.whole).then_some(&twin.pool(world).revision.digest);
            let old = |digest: &&str| {
                let newer = newest.is_some_and(|newest| newest == digest || reload.own == *digest);
                *digest != reload.to || newer || reload.served.iter().any(|old| old == digest)
            };
            if !begun(twin, world).iter().all(old) {
                return says("the new spec runs");
            }
            if up.is_empty() && !twin.ended_for_good && twin.oracle.runs() {
                says("the old engine is gone")
            } else {
                Ok(())
            }
        }
    }
}
