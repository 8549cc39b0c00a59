//! Owns those who ask the daemon for something, the table of what they ask, and what they may be told.

use crate::daemon::Daemon;
use crate::dice::Dice;
use crate::files::POOLS;
use crate::systemd::Shared;
use pool_core::host::Answer;
use pool_core::job::JobId;
use pool_core::name::{PoolId, Usec};
use pool_core::pool::Wish;
use pool_core::{Denied, Request};
use pool_managerd::supervisor::Refused;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A kind of request: how one is made, what may be answered, what an answer makes certain.
struct Kind {
    make: fn(&mut Dice) -> Asked,
    may_be_told: fn(&Answer) -> bool,
    /// A job that was opened is a wish that survives whatever happens to the daemon.
    wish: Option<Wish>,
}

/// What is asked of the loop.
enum Asked {
    Request(Request),
    Reload,
}

/// How often each kind is asked.
const KINDS: [(usize, Kind); 5] = [
    (
        6,
        Kind {
            make: |dice| Asked::Request(Request::Start { pool: pool(dice) }),
            may_be_told: |answer| {
                matches!(answer, Answer::Job(_) | Answer::Denied(Denied::NoSuchPool(_) | Denied::Leaving(_)))
            },
            wish: Some(Wish::Run),
        },
    ),
    (
        4,
        Kind {
            make: |dice| Asked::Request(Request::Stop { pool: pool(dice) }),
            may_be_told: |answer| matches!(answer, Answer::Job(_) | Answer::Denied(Denied::NoSuchPool(_))),
            wish: Some(Wish::Stop),
        },
    ),
    (
        3,
        Kind {
            make: |dice| {
                let timeout = Usec::from_secs(u64::try_from(dice.roll(20)).unwrap());
                Asked::Request(Request::WaitReady { pool: pool(dice), timeout })
            },
            may_be_told: |answer| {
                let Answer::Denied(denied) = answer else { return *answer == Answer::Ready };
                matches!(denied, Denied::NoSuchPool(_) | Denied::NotReady { .. } | Denied::Timeout { .. })
            },
            wish: None,
        },
    ),
    (
        3,
        Kind {
            make: |dice| {
                let job = JobId(1 + u32::try_from(dice.roll(12)).unwrap());
                Asked::Request(Request::WaitJob { job })
            },
            may_be_told: |answer| {
                matches!(answer, Answer::JobEnded(_) | Answer::Denied(Denied::NoSuchJob(_)))
            },
            wish: None,
        },
    ),
    (
        2,
        Kind {
            make: |_| Asked::Reload,
            may_be_told: |answer| matches!(answer, Answer::Reloaded { .. }),
            wish: None,
        },
    ),
];

fn pool(dice: &mut Dice) -> String {
    if dice.chance(3) { "nobody".to_owned() } else { (*dice.pick(&POOLS)).to_owned() }
}

/// The pool that a request is about.
fn about(request: &Request) -> Option<PoolId> {
    match request {
        Request::Start { pool }
        | Request::Stop { pool }
        | Request::Drain { pool, .. }
        | Request::Reload { pool, .. }
        | Request::Reset { pool }
        | Request::AllocateLease { pool }
        | Request::WaitReady { pool, .. } => pool.parse().ok(),
        Request::WaitJob { .. } | Request::CancelJob { .. } | Request::ReleaseLease { .. } => None,
    }
}

/// Everybody who asked.
#[derive(Debug, Clone, Default)]
pub struct Callers(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    last: u64,
    /// Who waits for an answer, and for what.
    open: BTreeMap<u64, String>,
    /// What is certainly wished of a pool; nothing while somebody's wish has not been answered.
    wishes: BTreeMap<PoolId, (u64, Option<Wish>)>,
    /// Jobs that somebody was told of.
    pub jobs: usize,
}

impl Callers {
    /// Somebody asks for something.
    pub fn ask(&self, daemon: &Daemon, shared: &Shared, dice: &mut Dice) {
        let kind = dice.weighed(&KINDS);
        self.send(daemon, shared, kind, (kind.make)(dice));
    }

    /// Somebody asks for a pool's stop.
    pub fn stop(&self, daemon: &Daemon, shared: &Shared, pool: &PoolId) {
        let kind = &KINDS[1].1;
        self.send(daemon, shared, kind, Asked::Request(Request::Stop { pool: pool.to_string() }));
    }

    /// Somebody has the files read, and waits for that. Whether it was done.
    pub async fn reload(&self, daemon: &Daemon) -> bool {
        matches!(daemon.handle.reload().await, Ok(Answer::Reloaded { .. }))
    }

    fn send(&self, daemon: &Daemon, shared: &Shared, kind: &'static Kind, asked: Asked) {
        let words = match &asked {
            Asked::Request(request) => format!("{request:?}"),
            Asked::Reload => "Reload".to_owned(),
        };
        let pool = match &asked {
            Asked::Request(request) => about(request).filter(|_| kind.wish.is_some()),
            Asked::Reload => None,
        };
        let number = {
            let mut log = self.0.lock().unwrap();
            log.last += 1;
            let number = log.last;
            log.open.insert(number, words.clone());
            if let Some(pool) = &pool {
                log.wishes.insert(pool.clone(), (number, None));
            }
            number
        };
        {
            let mut world = shared.lock();
            world.note(format!("asked {number}: {words}"));
            if let Some(pool) = pool.clone().filter(|_| kind.wish == Some(Wish::Stop)) {
                world.may_stop.insert(pool);
            }
        }
        let (callers, handle, shared, published) =
            (self.0.clone(), daemon.handle.clone(), shared.clone(), daemon.published.clone());
        tokio::spawn(async move {
            let answer = match asked {
                Asked::Request(request) => handle.ask(request).await,
                Asked::Reload => handle.reload().await,
            };
            let mut world = shared.lock();
            world.note(format!("answered {number}: {answer:?}"));
            let mut log = callers.lock().unwrap();
            log.open.remove(&number);
            match answer {
                Ok(answer) if !(kind.may_be_told)(&answer) => {
                    world.fail(format!("{words} was answered with {answer:?}"));
                }
                Ok(Answer::Job(JobId(job))) => {
                    log.jobs += 1;
                    if !published.lock().unwrap().jobs.contains_key(&job) {
                        world.fail(format!("{words} was answered with job {job} before that was published"));
                    }
                    if let Some((last, wish)) = pool.and_then(|pool| log.wishes.get_mut(&pool))
                        && *last == number
                    {
                        *wish = kind.wish;
                    }
                }
                Ok(_) | Err(Refused::ShuttingDown) => {}
                Err(Refused::Full) => world.fail("the loop was not fast enough for callers".to_owned()),
            }
        });
    }

    /// Who still waits.
    pub fn open(&self) -> Vec<String> {
        self.0.lock().unwrap().open.values().cloned().collect()
    }

    /// How many jobs were opened.
    pub fn jobs(&self) -> usize {
        self.0.lock().unwrap().jobs
    }

    /// What is certainly wished of pools.
    pub fn wishes(&self) -> BTreeMap<PoolId, Wish> {
        let log = self.0.lock().unwrap();
        log.wishes.iter().filter_map(|(pool, (_, wish))| Some((pool.clone(), (*wish)?))).collect()
    }
}
