//! Owns those who ask the daemon for something: what each waits for, what they were promised, and the leases that they
//! hold.

use crate::daemon::{Daemon, Published};
use crate::dice::Dice;
use crate::kinds::{Asked, KINDS, Kind, STOP, own_model};
use crate::systemd::Shared;
use pool_core::Request;
use pool_core::host::{Answer, Caller};
use pool_core::job::JobId;
use pool_core::lease::LeaseId;
use pool_core::name::PoolId;
use pool_core::pool::Wish;
use pool_managerd::supervisor::{Handle, Refused, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

/// Everybody who asked.
#[derive(Debug, Clone, Default)]
pub struct Callers(Arc<Mutex<Log>>);

/// By pool: who asked last, and what for; nothing while that is not certain.
type Wishes = BTreeMap<PoolId, (u64, Option<Wish>)>;

/// A lease that somebody holds.
#[derive(Debug)]
struct Held {
    descriptor: OwnedFd,
    /// The run of the engine that it was given of; `None`: it had ended by then.
    invocation: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Log {
    last: u64,
    /// Who waits for an answer, and for what.
    open: BTreeMap<u64, String>,
    /// What is certainly wished of a pool; nothing while somebody's wish has not been answered.
    wishes: Wishes,
    /// What was certain before somebody asked for the end of a job, whatever job that is, and has not been answered.
    doubted: BTreeMap<u64, Wishes>,
    /// Jobs that somebody was told of.
    jobs: usize,
    /// Reloads to a model of their own: where their jobs are told of, which, and the model.
    reloads: Vec<(Arc<Mutex<Published>>, u32, String)>,
    leases: BTreeMap<LeaseId, Held>,
    /// How many leases were given.
    given: usize,
    /// Leases that the daemon has ended.
    revoked: BTreeSet<LeaseId>,
    /// Descriptors of leases that are over; their holders have not let go of them.
    over: Vec<OwnedFd>,
}

impl Callers {
    /// Somebody asks for something.
    pub fn ask(&self, daemon: &Daemon, shared: &Shared, dice: &mut Dice) {
        let kind = dice.weighed(&KINDS);
        let number = self.0.lock().unwrap().last + 1;
        self.send(daemon, shared, kind, (kind.make)(dice, number), dice);
    }

    /// Somebody asks for a pool's stop.
    pub fn stop(&self, daemon: &Daemon, shared: &Shared, pool: &PoolId, dice: &mut Dice) {
        self.send(daemon, shared, &STOP, Asked::Request(Request::Stop { pool: pool.to_string() }), dice);
    }

    /// Somebody has the files read, and waits for that. Whether it was done.
    pub async fn reload(&self, daemon: &Daemon) -> bool {
        matches!(daemon.handle.reload(&Caller::default()).await, Ok(Answer::Reloaded { .. }))
    }

    fn send(&self, daemon: &Daemon, shared: &Shared, kind: &'static Kind, asked: Asked, dice: &mut Dice) {
        let words = format!("{asked:?}");
        let number = self.begin(kind, &asked, words.clone());
        {
            let mut world = shared.lock();
            world.note(format!("asked {number}: {words}"));
            if let Some(pool) = asked.about().filter(|_| asked.may_stop()) {
                world.may_stop.insert(pool);
            }
        }
        let patience = if dice.chance(70) { Some(dice.millis(0, 60_000)) } else { None };
        let about = asked.about().filter(|_| kind.wish.is_some());
        let of_own_model = matches!(&asked, Asked::ReloadPool(wanted) if !wanted.model.is_empty())
            .then(|| own_model(number));
        let released = matches!(asked, Asked::Release).then(|| self.one_of_the_leases(dice));
        let (callers, handle, shared, published) =
            (self.clone(), daemon.handle.clone(), shared.clone(), daemon.published.clone());
        tokio::spawn(async move {
            let answer = put(&handle, asked, released.as_ref().map(|(lease, _)| lease.clone())).await;
            let given = {
                let mut world = shared.lock();
                let told = answer.as_ref().map(|told| &told.answer);
                world.note(format!("answered {number}: {told:?}"));
                let mut log = callers.0.lock().unwrap();
                log.open.remove(&number);
                match told {
                    Ok(told) if !(kind.may_be_told)(told) => {
                        world.fail(format!("{words} was answered with {told:?}"));
                    }
                    Ok(Answer::Job(JobId(job))) => {
                        log.jobs += 1;
                        if !published.lock().unwrap().jobs.contains_key(job) {
                            world.fail(format!(
                                "{words} was answered with job {job} before that was published"
                            ));
                        }
                        log.reloads.extend(of_own_model.map(|model| (published.clone(), *job, model)));
                        if let Some((last, wish)) = about.and_then(|pool| log.wishes.get_mut(&pool))
                            && *last == number
                        {
                            *wish = kind.wish;
                        }
                    }
                    Ok(Answer::Denied(_)) => log.nothing_came_of(number),
                    Ok(Answer::Done) => log.over.extend(released.and_then(|(_, descriptor)| descriptor)),
                    Ok(_) | Err(Refused::ShuttingDown) => {}
                    Err(Refused::Full) => world.fail("the loop was not fast enough for callers".to_owned()),
                }
                answer.ok().and_then(|told| log.took(told, &published.lock().unwrap()))
            };
            if let (Some(lease), Some(patience)) = (given, patience) {
                tokio::time::sleep(patience).await;
                if callers.0.lock().unwrap().leases.remove(&lease).is_some() {
                    shared.lock().note(format!("lease {lease} is let go of"));
                }
            }
        });
    }

    /// What somebody is about to ask is noted.
    fn begin(&self, kind: &Kind, asked: &Asked, words: String) -> u64 {
        let mut log = self.0.lock().unwrap();
        log.last += 1;
        let number = log.last;
        log.open.insert(number, words);
        if let Asked::Request(Request::CancelJob { .. }) = asked {
            // Whatever job that is, what it was asked for may no longer hold.
            let before = log.wishes.clone();
            log.doubted.insert(number, before);
            log.wishes.values_mut().for_each(|wish| *wish = (number, None));
        }
        if let Some(pool) = asked.about().filter(|_| kind.wish.is_some()) {
            log.wishes.insert(pool, (number, None));
        }
        number
    }

    /// A lease that somebody gives back, out of the hands of its holder; or one that there never was.
    fn one_of_the_leases(&self, dice: &mut Dice) -> (String, Option<OwnedFd>) {
        let mut log = self.0.lock().unwrap();
        let leases: Vec<LeaseId> = log.leases.keys().cloned().collect();
        if leases.is_empty() || dice.chance(10) {
            return ("a-r0.0000000000000001".to_owned(), None);
        }
        let lease = dice.pick(&leases);
        (lease.to_string(), log.leases.remove(lease).map(|held| held.descriptor))
    }

    /// The daemon says that a lease is over.
    pub fn revoked(&self, lease: &LeaseId) {
        let mut log = self.0.lock().unwrap();
        log.revoked.insert(lease.clone());
        let held = log.leases.remove(lease);
        log.over.extend(held.map(|held| held.descriptor));
    }

    /// Who still waits.
    pub fn open(&self) -> Vec<String> {
        self.0.lock().unwrap().open.values().cloned().collect()
    }

    /// How many jobs were opened.
    pub fn jobs(&self) -> usize {
        self.0.lock().unwrap().jobs
    }

    /// How many leases were given.
    pub fn given(&self) -> usize {
        self.0.lock().unwrap().given
    }

    /// The leases that are held, each with the run of the engine that it is of.
    pub fn leases(&self) -> BTreeMap<LeaseId, Option<Vec<u8>>> {
        let log = self.0.lock().unwrap();
        log.leases.iter().map(|(lease, held)| (lease.clone(), held.invocation.clone())).collect()
    }

    /// Models of reloads that were called off or have failed: nothing else asks for them.
    pub fn discarded(&self) -> BTreeSet<String> {
        let log = self.0.lock().unwrap();
        let discarded =
            log.reloads.iter().filter(|(books, job, _)| books.lock().unwrap().discarded.contains(job));
        discarded.map(|(_, _, model)| model.clone()).collect()
    }

    /// What is certainly wished of pools.
    pub fn wishes(&self) -> BTreeMap<PoolId, Wish> {
        let log = self.0.lock().unwrap();
        log.wishes.iter().filter_map(|(pool, (_, wish))| Some((pool.clone(), (*wish)?))).collect()
    }
}

impl Log {
    /// What somebody asked was denied: where nobody has asked for anything since, all holds that held before.
    fn nothing_came_of(&mut self, number: u64) {
        for (pool, before) in self.doubted.remove(&number).into_iter().flatten() {
            if let Some(wish) = self.wishes.get_mut(&pool).filter(|wish| wish.0 == number) {
                *wish = before;
            }
        }
    }

    /// A lease was given to somebody.
    fn took(&mut self, told: Told, published: &Published) -> Option<LeaseId> {
        let (Answer::Lease { lease, .. }, Some(descriptor)) = (told.answer, told.descriptor) else {
            return None;
        };
        self.given += 1;
        if self.revoked.contains(&lease) {
            self.over.push(descriptor);
            return None;
        }
        let invocation = published.given.get(&lease).cloned().flatten();
        self.leases.insert(lease.clone(), Held { descriptor, invocation });
        Some(lease)
    }
}

/// Puts a question.
async fn put(handle: &Handle, asked: Asked, released: Option<String>) -> Result<Told, Refused> {
    let caller = Caller::default();
    match asked {
        Asked::Request(request) => handle.ask_with_descriptor(&caller, request).await,
        Asked::Files => handle.reload(&caller).await.map(Told::from),
        Asked::ReloadPool(wanted) => handle.reload_pool(&caller, wanted).await.map(Told::from),
        Asked::Release => {
            let lease = released.unwrap_or_default();
            handle.ask_with_descriptor(&caller, Request::ReleaseLease { lease }).await
        }
    }
}
