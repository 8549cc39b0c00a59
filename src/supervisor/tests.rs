//! The loop beside a flood of reports, and beside files that take long to be read.

use super::*;
use pool_core::Denied;
use pool_core::Request;
use pool_core::config::Activation;
use pool_core::cpu::Topology;
use pool_core::device::Inventory;
use pool_core::host::{Answer, Caller, HostFacts};
use pool_core::name::{InvocationId, Usec};
use pool_core::unit::{Property, UnitSpec};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Semaphore;

/// A systemd without units.
#[derive(Clone)]
struct NoUnits;

impl Systemd for NoUnits {
    async fn start(&self, _: &UnitSpec) -> Result<Vec<&'static str>, SystemdError> {
        Ok(Vec::new())
    }

    async fn change(&self, _: &UnitName, _: &Property) -> Result<(), SystemdError> {
        Ok(())
    }

    async fn stop(&self, _: &UnitName) -> Result<(), SystemdError> {
        Ok(())
    }

    async fn kill(&self, _: &UnitName) -> Result<(), SystemdError> {
        Ok(())
    }

    async fn forget(&self, _: &UnitName) -> Result<(), SystemdError> {
        Ok(())
    }

    async fn usage(&self, _: &UnitName) -> Result<Usage, SystemdError> {
        Ok(Usage::default())
    }

    async fn units(&self) -> Result<Vec<UnitFacts>, SystemdError> {
        Ok(Vec::new())
    }
}

/// Time that stands still.
struct Still;

impl Clock for Still {
    fn mono(&mut self) -> Usec {
        Usec(1)
    }

    fn real(&mut self) -> Usec {
        Usec(1)
    }

    fn seed(&mut self) -> u64 {
        1
    }
}

/// Files that are read when the test lets them.
#[derive(Clone)]
struct HeldFiles {
    configuration: Configuration,
    readings: Arc<AtomicU32>,
    gate: Arc<Semaphore>,
}

impl Files for HeldFiles {
    async fn read(&self) -> Configuration {
        self.readings.fetch_add(1, Ordering::Relaxed);
        self.gate.acquire().await.expect("it is never closed").forget();
        self.configuration.clone()
    }
}

/// A host whose kernel says nothing of devices.
#[derive(Debug)]
struct NoGpus;

impl Gpus for NoGpus {
    fn complete(&mut self, _: &mut Inventory) {}
}

/// A host that does not say which CPUs it has.
#[derive(Debug)]
struct NoProcessors;

impl Processors for NoProcessors {
    fn read(&mut self) -> Topology {
        Topology::default()
    }
}

/// A prober that has always something to report.
struct Flood;

impl Probers for Flood {
    async fn next(&mut self) -> io::Result<(UnitName, Report)> {
        let unit = "llamaorch-engine-chat-r0.g1.service".parse().expect("a unit of ours");
        let invocation: InvocationId = "ab".repeat(16).parse().expect("an invocation");
        let report = Report {
            invocation,
            in_flight: Some(1),
            slots: None,
            version: None,
            progress: None,
            processes: None,
            memory_peak: None,
        };
        Ok((unit, report))
    }
}

/// A loop that runs, and all that reaches it.
struct Bench {
    folder: PathBuf,
    files: HeldFiles,
    handle: Handle,
    signals: mpsc::Sender<Signal>,
    publications: mpsc::Receiver<Publication>,
    _observed: mpsc::Sender<Observation>,
}

impl Bench {
    fn start(name: &str, reports: Option<Flood>) -> Bench {
        Bench::with(name, reports, Configuration::default())
    }

    fn with(name: &str, reports: Option<Flood>, configuration: Configuration) -> Bench {
        let folder = std::env::temp_dir().join(format!("pool-loop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder of the test's own");
        let files = HeldFiles { configuration, readings: Arc::default(), gate: Arc::new(Semaphore::new(1)) };
        let (observed, observations) = mpsc::channel(8);
        let (handle, asked) = calls();
        let (published, publications) = mpsc::channel(64);
        let (signals, signalled) = mpsc::channel(8);
        let outside = Outside {
            folders: files.clone(),
            store: Store::new(&folder, &folder),
            systemd: NoUnits,
            clock: Still,
            leases: Fifos::below(&folder),
            reports,
            recorder: Recorder::below(&folder),
            processors: Box::new(NoProcessors),
            gpus: Box::new(NoGpus),
            host: HostFacts::default(),
        };
        let mut supervisor = Supervisor::new(outside, observations, asked, published);
        tokio::spawn(async move {
            let first = supervisor.take_stock().await.expect("systemd answers");
            supervisor.run(first, signalled).await
        });
        Bench { folder, files, handle, signals, publications, _observed: observed }
    }

    /// Hears the publisher's part until nothing comes any more; the answers.
    async fn settle(&mut self) -> usize {
        let mut answers = 0;
        let within = Duration::from_millis(500);
        while let Ok(Some(said)) = tokio::time::timeout(within, self.publications.recv()).await {
            answers += said.replies.len();
            said.replies.into_iter().for_each(|(caller, told)| answer(caller, told));
        }
        answers
    }

    /// Whether a file was written that the next run reads.
    fn saved(&self) -> bool {
        self.folder.join("pools.json").exists()
    }

    fn readings(&self) -> u32 {
        self.files.readings.load(Ordering::Relaxed)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_reports_keeps_neither_the_heartbeat_nor_callers_waiting() {
    let mut bench = Bench::start("flood", Some(Flood));
    let handle = bench.handle.clone();
    let call = tokio::spawn(async move {
        handle.ask(&Caller::default(), Request::Start { pool: "none".to_owned() }).await
    });
    let mut alive = false;
    for _ in 0..1_000 {
        let publication = bench.publications.recv().await.expect("the loop runs");
        alive |= publication.alive;
        for (caller, told) in publication.replies {
            answer(caller, told);
        }
        tokio::task::yield_now().await;
    }
    assert!(alive, "the watchdog is starved");
    assert!(call.is_finished(), "the caller is starved");
    assert!(matches!(call.await.expect("it was asked"), Ok(Answer::Denied(_))));
}

#[tokio::test(start_paused = true)]
async fn a_signal_while_files_are_read_has_them_read_once_more() {
    let mut bench = Bench::start("signal", None);
    bench.settle().await;
    for _ in 0..2 {
        bench.signals.send(Signal::Reload).await.expect("the loop runs");
        bench.settle().await;
    }
    assert_eq!(bench.readings(), 2, "one is under way");
    bench.files.gate.add_permits(10);
    bench.settle().await;
    assert_eq!(bench.readings(), 3);
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_while_files_are_read_are_answered_by_one_reading_more() {
    let mut bench = Bench::start("late", None);
    bench.settle().await;
    for _ in 0..4 {
        let handle = bench.handle.clone();
        tokio::spawn(async move { handle.reload(&Caller::default()).await });
        bench.settle().await;
    }
    bench.files.gate.add_permits(10);
    assert_eq!(bench.settle().await, 4);
    assert_eq!(bench.readings(), 3, "at the start, for the first one, for the others");
}

/// A pool that starts by itself.
fn one_pool() -> Configuration {
    let saved = crate::store::tests::sample();
    let mut pools: BTreeMap<_, _> = saved.pools.into_iter().map(|(id, pool)| (id, pool.revision)).collect();
    pools.values_mut().for_each(|revision| revision.spec.activation = Activation::Resident);
    Configuration { pools, ..Configuration::default() }
}

#[tokio::test(start_paused = true)]
async fn news_leave_before_they_are_saved() {
    let mut bench = Bench::with("news", None, one_pool());
    // What was found, and what is done about it.
    for _ in 0..2 {
        let news = bench.publications.recv().await.expect("the loop runs");
        assert_eq!(news.view.pools.len(), 1);
    }
    assert!(!bench.saved(), "whoever waits for news waits for no file");
    tokio::task::yield_now().await;
    assert!(bench.saved(), "the publisher has taken them");
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_does_not_get_on_keeps_nothing_from_being_saved() {
    let bench = Bench::with("stuck", None, one_pool());
    tokio::time::sleep(turn::PATIENCE * 2).await;
    assert!(bench.saved());
}

#[tokio::test(start_paused = true)]
async fn an_answer_leaves_once_what_it_says_is_saved() {
    let mut bench = Bench::start("answer", None);
    bench.settle().await;
    std::fs::remove_file(bench.folder.join("pools.json")).expect("it was saved at the start");
    let handle = bench.handle.clone();
    let request = Request::RegisterPool {
        pool: "mine".to_owned(),
        engine: String::new(),
        endpoint: String::new(),
        heartbeat_timeout: Usec(0),
    };
    tokio::spawn(async move { handle.ask(&Caller::default(), request).await });
    let said = bench.publications.recv().await.expect("the loop runs");
    assert_eq!((said.replies.len(), bench.saved()), (1, true));
}

#[test]
fn a_lease_that_is_given_and_revoked_in_one_turn_was_none() {
    let lease = |number| LeaseId { replica: "a-r0".parse().expect("a valid name"), number };
    let given = |number| {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let answer = Answer::Lease { lease: lease(number), endpoint: "http://127.0.0.1:1".to_owned() };
        ((sender, Told::from(answer)), receiver)
    };
    let ((one, _heard), (other, _also)) = (given(1), given(2));
    let mut replies = [one, other];
    let mut revoked = vec![(lease(7), "long ago".to_owned()), (lease(2), "it ended".to_owned())];
    turn::not_given(&mut replies, &mut revoked);
    assert_eq!(revoked, [(lease(7), "long ago".to_owned())], "who holds it is told");
    let [(_, one), (_, other)] = &replies;
    assert!(matches!(one.answer, Answer::Lease { .. }));
    assert!(matches!(&other.answer, Answer::Denied(Denied::NotReady { why, .. }) if why == "it ended"));
}
