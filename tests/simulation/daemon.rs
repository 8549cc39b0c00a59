//! Owns one run of the daemon: the real supervisor, its client of the scripted systemd, and a publisher that checks what
//! it is given.

use crate::bus::{Answer, UnitsAnswer};
use crate::callers::Callers;
use crate::dice::Dice;
use crate::grave::{Doom, Grave};
use crate::systemd::{Call, Shared};
use pool_core::State;
use pool_core::config::Configuration;
use pool_core::host::{Answer as Told, HostFacts, UnitFacts};
use pool_core::lease::LeaseId;
use pool_core::name::{UnitName, Usec};
use pool_core::replica::Report;
use pool_core::unit::{Property, UnitSpec};
use pool_core::view::{JobView, View};
use pool_managerd::config::{self, Folders};
use pool_managerd::gpu;
use pool_managerd::leases::Fifos;
use pool_managerd::ports::{Clock, Files, Probers, Systemd, SystemdError, Usage};
use pool_managerd::processors::Sysfs;
use pool_managerd::recording::Recorder;
use pool_managerd::store::Store;
use pool_managerd::supervisor::{Handle, Outside, Publication, Signal, Supervisor, answer, calls};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How a run ended.
#[derive(Debug)]
pub enum Ending {
    /// It was killed.
    Died,
    /// It was asked to end, and knew that.
    Ended(Box<State>),
    /// It gave up.
    GaveUp(String),
}

/// What a run has published.
#[derive(Debug, Default)]
pub struct Published {
    pub view: Arc<View>,
    /// Result of each job; "" while it runs.
    pub jobs: BTreeMap<u32, &'static str>,
    /// Reloads in which something that ran was to be replaced.
    pub replacing: BTreeSet<u32>,
    /// Reloads that ended otherwise than they should.
    given_up: BTreeSet<u32>,
    /// Reloads of which what they were to put in place is given up.
    pub discarded: BTreeSet<u32>,
    /// Leases, each with the run of the engine that it was given of.
    pub given: BTreeMap<LeaseId, Option<Vec<u8>>>,
}

/// A run of the daemon.
#[derive(Debug)]
pub struct Daemon {
    pub handle: Handle,
    pub grave: Grave,
    pub published: Arc<Mutex<Published>>,
    /// Nothing went wrong since its start.
    pub in_calm: bool,
    signals: mpsc::Sender<Signal>,
    reports: mpsc::UnboundedSender<(UnitName, Report)>,
    task: JoinHandle<Ending>,
    publisher: JoinHandle<()>,
}

impl Daemon {
    /// Starts it on folders below `root`.
    pub fn start(
        shared: &Shared,
        root: &Path,
        run: u64,
        doom: Doom,
        callers: &Callers,
        dice: &mut Dice,
    ) -> Daemon {
        let saved = root.join("saved");
        let grave = Grave::new(doom, &saved, Dice::new(dice.next(), "grave"));
        let (observed, observations) = mpsc::channel(1024);
        let in_calm = {
            let mut world = shared.lock();
            world.note(format!("daemon {run} starts, {doom:?}"));
            world.bus.connect(run, observed);
            world.calm
        };
        let (handle, asked) = calls();
        let (publications, published) = mpsc::channel(64);
        let (signals, signalled) = mpsc::channel(8);
        let books = Arc::new(Mutex::new(Published::default()));
        let publisher = Publisher {
            shared: shared.clone(),
            grave: grave.clone(),
            callers: callers.clone(),
            dice: Dice::new(dice.next(), "publisher"),
        };
        let publisher = tokio::spawn(publisher.run(published, books.clone()));
        let (reports, reported) = mpsc::unbounded_channel();
        let outside = Outside {
            folders: SlowFolders {
                folders: Folders::below(root),
                grave: grave.clone(),
                dice: Arc::new(Mutex::new(Dice::new(dice.next(), "folders"))),
            },
            store: Store::new(&saved, &saved),
            leases: Fifos::below(&saved),
            reports: Some(Engines(reported)),
            recorder: Recorder::below(&saved),
            processors: Box::new(Sysfs::below(root)),
            gpus: Box::new(gpu::Sysfs::below(root)),
            host: HostFacts::default(),
            systemd: Client { shared: shared.clone(), grave: grave.clone(), run },
            clock: PausedClock { shared: shared.clone(), dice: Dice::new(dice.next(), "clock") },
        };
        let supervisor = Supervisor::new(outside, observations, asked, publications);
        let task = tokio::spawn(live(supervisor, signalled, grave.clone(), shared.clone(), run));
        Daemon { handle, grave, published: books, in_calm, signals, reports, task, publisher }
    }

    /// Sends it a signal, as `kill` does.
    pub fn signal(&self, signal: Signal) {
        assert_ne!(self.signals.try_send(signal), Err(mpsc::error::TrySendError::Full(signal)));
    }

    /// An engine's prober says how that stands.
    pub fn report(&self, unit: &UnitName, report: Report) {
        // Who is dead hears nothing.
        drop(self.reports.send((unit.clone(), report)));
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> Ending {
        (&mut self.task).await.unwrap()
    }

    /// Waits until all is published that a run which has ended had to say.
    pub async fn all_published(&mut self) {
        (&mut self.publisher).await.expect("it ends well");
    }
}

async fn live(
    mut supervisor: Supervisor<Client, PausedClock, SlowFolders, Engines>,
    signals: mpsc::Receiver<Signal>,
    grave: Grave,
    shared: Shared,
    run: u64,
) -> Ending {
    let ended = {
        let mut life = pin!(async {
            let first = supervisor.take_stock().await?;
            supervisor.run(first, signals).await
        });
        let mortal = poll_fn(|context| {
            if grave.is_dead() {
                return Poll::Pending;
            }
            grave.before_poll();
            let polled = life.as_mut().poll(context);
            grave.after_poll();
            if grave.is_dead() { Poll::Pending } else { polled }
        });
        tokio::select! { biased; () = grave.died() => None, ended = mortal => Some(ended) }
    };
    // Whatever its tasks still want is not heard any more.
    if let Some(Ok(())) = &ended {
        grave.lay_down()
    } else {
        grave.kill()
    }
    let mut world = shared.lock();
    world.died(run);
    let (line, ending) = match ended {
        None => ("died".to_owned(), Ending::Died),
        Some(Ok(())) => ("ended".to_owned(), Ending::Ended(Box::new(supervisor.state().clone()))),
        Some(Err(error)) => (format!("gave up: {error}"), Ending::GaveUp(error.to_string())),
    };
    world.note(format!("daemon {run} {line}"));
    ending
}

/// systemd, as a run of the daemon reaches it.
#[derive(Debug, Clone)]
struct Client {
    shared: Shared,
    grave: Grave,
    run: u64,
}

impl Client {
    /// Asks. Who is dead asks nothing and is not answered.
    async fn ask<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<Result<T, SystemdError>>) -> Call,
    ) -> Result<T, SystemdError> {
        if self.grave.is_dead() {
            return pending().await;
        }
        let (sender, answer) = oneshot::channel();
        self.shared.lock().submit(self.run, call(sender));
        self.grave.called();
        match answer.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    }
}

impl Systemd for Client {
    async fn start(&self, unit: &UnitSpec) -> Result<Vec<&'static str>, SystemdError> {
        self.ask(|answer: Answer| Call::Start(unit.clone(), answer)).await.map(|()| Vec::new())
    }

    async fn change(&self, name: &UnitName, property: &Property) -> Result<(), SystemdError> {
        self.ask(|answer: Answer| Call::Change(name.clone(), property.clone(), answer)).await
    }

    async fn stop(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.ask(|answer: Answer| Call::Stop(name.clone(), answer)).await
    }

    async fn kill(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.ask(|answer: Answer| Call::Kill(name.clone(), answer)).await
    }

    async fn forget(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.ask(|answer: Answer| Call::Forget(name.clone(), answer)).await
    }

    async fn usage(&self, _: &UnitName) -> Result<Usage, SystemdError> {
        Ok(Usage::default())
    }

    async fn units(&self) -> Result<Vec<UnitFacts>, SystemdError> {
        self.ask(|answer: UnitsAnswer| Call::Units(answer)).await
    }
}

/// Folders of a slow file system: they are read at one moment, and what they said is known some time later.
#[derive(Debug, Clone)]
struct SlowFolders {
    folders: Folders,
    grave: Grave,
    dice: Arc<Mutex<Dice>>,
}

impl Files for SlowFolders {
    async fn read(&self) -> Configuration {
        let (before, after) = {
            let mut dice = self.dice.lock().unwrap();
            (dice.delay(), dice.delay())
        };
        tokio::time::sleep(before).await;
        if self.grave.is_dead() {
            return pending().await;
        }
        let read = config::read(&self.folders);
        tokio::time::sleep(after).await;
        read
    }
}

/// The probers of all engines.
#[derive(Debug)]
struct Engines(mpsc::UnboundedReceiver<(UnitName, Report)>);

impl Probers for Engines {
    async fn next(&mut self) -> io::Result<(UnitName, Report)> {
        match self.0.recv().await {
            Some(report) => Ok(report),
            None => pending().await,
        }
    }
}

/// Paused time, and rolled randomness.
#[derive(Debug)]
struct PausedClock {
    shared: Shared,
    dice: Dice,
}

impl Clock for PausedClock {
    fn mono(&mut self) -> Usec {
        Usec(self.real().0 - 1_749_999_000_000_000)
    }

    fn real(&mut self) -> Usec {
        self.shared.lock().now()
    }

    fn seed(&mut self) -> u64 {
        self.dice.next()
    }
}

/// What stands in for the publisher: it keeps the books, and answers after that.
struct Publisher {
    shared: Shared,
    grave: Grave,
    callers: Callers,
    dice: Dice,
}

impl Publisher {
    async fn run(mut self, mut publications: mpsc::Receiver<Publication>, books: Arc<Mutex<Published>>) {
        while let Some(publication) = publications.recv().await {
            if self.dice.chance(10) {
                tokio::time::sleep(self.dice.delay()).await;
            }
            if self.grave.is_silent() {
                return;
            }
            let broken = {
                let mut books = books.lock().unwrap();
                for (_, told) in &publication.replies {
                    if let Told::Lease { lease, .. } = &told.answer {
                        let engine = publication.view.replicas.get(&lease.replica).filter(|view| view.ready);
                        books.given.insert(lease.clone(), engine.map(|view| view.invocation_id.clone()));
                    }
                }
                books.take_in(publication.view)
            };
            if let Err(problem) = broken {
                self.shared.lock().fail(problem);
            }
            for (lease, _) in &publication.revoked {
                self.callers.revoked(lease);
            }
            for (caller, reply) in publication.replies {
                answer(caller, reply);
            }
        }
    }
}

impl Published {
    /// Whether nothing is under way, as far as is published.
    pub fn at_rest(&self) -> bool {
        let rests = |phase: &str| matches!(phase, "stopped" | "ready" | "failed");
        self.view.replicas.values().all(|replica| rests(replica.phase))
            && self.view.pools.values().all(|pool| !pool.draining)
            && self.view.jobs.values().all(|job| job.state == "done")
    }

    fn take_in(&mut self, view: Arc<View>) -> Result<(), String> {
        for (id, job) in &view.jobs {
            let known = self.jobs.insert(*id, job.result);
            match known {
                None if id
                    .checked_sub(1)
                    .is_some_and(|before| before > 0 && !self.jobs.contains_key(&before)) =>
                {
                    return Err(format!("job {id} came before the one before it"));
                }
                Some(result) if !result.is_empty() && result != job.result => {
                    return Err(format!("job {id} ended as {result} and then as \"{}\"", job.result));
                }
                None | Some(_) => {}
            }
            if (job.state == "done") == job.result.is_empty() {
                return Err(format!("job {id} is {} with the result \"{}\"", job.state, job.result));
            }
        }
        for (id, job) in view.jobs.iter().filter(|(_, job)| job.operation == "reload") {
            if STAGES.contains(&job.detail.as_str()) {
                self.replacing.insert(*id);
            }
            let failed = matches!(job.result, "failed" | "canceled" | "timeout");
            if STAGES[4..].contains(&job.detail.as_str()) || (failed && self.replacing.contains(id)) {
                self.discarded.insert(*id);
            }
            if failed && self.given_up.insert(*id) {
                kept_or_told(*id, job, &view)?;
            }
        }
        for id in self.view.jobs.keys().filter(|id| !view.jobs.contains_key(id)) {
            if self.jobs.get(id).is_some_and(|result| result.is_empty()) {
                return Err(format!("job {id} went away before it ended"));
            }
        }
        for (id, pool) in &view.pools {
            let ready =
                view.replicas.iter().filter(|(replica, view)| replica.pool == *id && view.ready).count();
            if usize::try_from(pool.ready_replicas) != Ok(ready) || (pool.ready && ready == 0) {
                return Err(format!(
                    "pool {id} is published with {} ready replicas of {ready}",
                    pool.ready_replicas
                ));
            }
        }
        self.view = view;
        Ok(())
    }
}

/// What a job says of its reload, step by step; from the fifth on it is going back.
const STAGES: [&str; 6] = [
    "checking the new model beside the old engine",
    "draining the old engine",
    "ending the old engine",
    "starting the new engine",
    "ending the new engine",
    "starting the old engine again",
];

/// A reload that was given up says why, and its pool serves or says why it does not.
fn kept_or_told(id: u32, job: &JobView, view: &View) -> Result<(), String> {
    let pool = view.pools.get(&job.pool);
    if job.error.is_empty() || pool.is_some_and(|pool| !pool.ready && pool.reasons.is_empty()) {
        return Err(format!("reload {id} ended as {} with \"{}\", and left {pool:?}", job.result, job.error));
    }
    Ok(())
}
