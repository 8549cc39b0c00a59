//! Owns the loop: the one task that holds the state. It takes events in, lets the core decide, hands the view to the
//! publisher and carries effects out. It never waits for systemd: calls run beside it, in order for each replica, and
//! come back as events.
//!
//! | channel | from | to | bound, when full |
//! | --- | --- | --- | --- |
//! | observations | systemd's listener | loop | 1024, the listener waits |
//! | refusals | effects | loop | 1024, the effect waits |
//! | calls | D-Bus handlers | loop | 256, the caller gets `LimitsExceeded` |
//! | ends of leases | descriptors | loop | as many as leases, which the core bounds |
//! | reports | probers, by a socket | loop | the socket's buffer, probers drop theirs |
//! | publications | loop | publisher | 64, the loop waits: what is published may lag, never grow |

#![allow(clippy::disallowed_methods, reason = "the loop spawns what it must not wait for")]

mod asked;
mod clock;
mod effects;
mod files;
mod handle;
mod reading;
mod turn;

pub use clock::HostClock;
pub use handle::{Asked, Call, Handle, Refused, ReloadPool, Told, answer, calls};

use crate::leases::Fifos;
use crate::notify;
pub use crate::ports::Usage;
use crate::ports::{Clock, Files, Gpus, Observation, Probers, Processors, Systemd, SystemdError};
use crate::recording::Recorder;
use crate::store::{Store, Wishes};
use effects::{Lanes, TimerTasks};
use pool_core::config::Configuration;
use pool_core::host::{HostFacts, LogLine, RequestId, UnitFacts};
use pool_core::lease::LeaseId;
use pool_core::name::UnitName;
use pool_core::replica::{Report, UnitObservation};
use pool_core::view::View;
use pool_core::{Effects, Event, Input, State, apply};
use reading::{FilesReading, UnitsReading};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use turn::{Came, Turn};

/// What the loop hands to the publisher after a turn.
#[derive(Debug)]
pub struct Publication {
    /// Everything that is published.
    pub view: Arc<View>,
    /// Leases that ended before their holders ended them, and why.
    pub revoked: Vec<(LeaseId, String)>,
    /// Answers, to be given after the signals of the view.
    pub replies: Vec<(oneshot::Sender<Told>, Told)>,
    /// Whether the publisher shall tell systemd that the daemon lives: the watchdog covers both.
    pub alive: bool,
}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// systemd could not be asked for the units that are there.
    #[error("cannot read the units that are there")]
    Systemd(#[source] SystemdError),
    /// The bus went away; systemd starts the daemon again, and engines go on.
    #[error("the system bus is gone")]
    Disconnected,
    /// The publisher is gone.
    #[error("the publisher ended")]
    PublisherGone,
}

/// What comes back to the loop.
#[derive(Debug)]
enum Returned {
    Event(Box<Event>),
    Configuration(Box<Configuration>, Vec<RequestId>),
    UnitsRead(Vec<UnitFacts>),
}

/// What the loop works with outside itself.
#[derive(Debug)]
pub struct Outside<S, C, F, P> {
    /// Where configuration is read.
    pub folders: F,
    /// Where things are saved.
    pub store: Store,
    /// The service manager.
    pub systemd: S,
    /// Time and randomness.
    pub clock: C,
    /// The descriptors of leases.
    pub leases: Fifos,
    /// Numbers from probers; `None`: the socket could not be made.
    pub reports: Option<P>,
    /// The record of what came in.
    pub recorder: Recorder,
    /// The CPUs of this host.
    pub processors: Box<dyn Processors>,
    /// What the kernel knows of devices.
    pub gpus: Box<dyn Gpus>,
    /// What is known of the host.
    pub host: HostFacts,
}

/// The loop's task.
pub struct Supervisor<S, C, F, P> {
    state: State,
    /// What was published last, kept up to date by what events touched.
    view: View,
    outside: Outside<S, C, F, P>,
    observations: mpsc::Receiver<Observation>,
    calls: mpsc::Receiver<Call>,
    publications: mpsc::Sender<Publication>,
    returned: (mpsc::Sender<Returned>, mpsc::Receiver<Returned>),
    callers: BTreeMap<RequestId, oneshot::Sender<Told>>,
    /// What came of effects that were carried out at once.
    follow_ups: VecDeque<Event>,
    /// The descriptor of the lease that is answered next.
    descriptor: Option<OwnedFd>,
    revoked: Vec<(LeaseId, String)>,
    /// Lines of this turn for the journal.
    lines: Vec<LogLine>,
    /// Refusals of this turn.
    denied: Vec<(oneshot::Sender<Told>, Told)>,
    last_request: u64,
    lanes: Lanes<S>,
    timers: TimerTasks,
    said: String,
    /// The reading of the files that runs.
    reading: Option<FilesReading>,
    /// The reading of the units that runs.
    units_reading: Option<UnitsReading>,
    /// All units are to be read once what came in this turn has been taken in: what is asked for by then is told apart.
    read_anew: bool,
}

impl<S: Systemd, C: Clock, F: Files, P: Probers> Supervisor<S, C, F, P> {
    /// A loop that has not seen anything.
    #[must_use]
    pub fn new(
        outside: Outside<S, C, F, P>,
        observations: mpsc::Receiver<Observation>,
        calls: mpsc::Receiver<Call>,
        publications: mpsc::Sender<Publication>,
    ) -> Self {
        let returned = mpsc::channel(1024);
        Supervisor {
            state: State::default(),
            view: View::default(),
            lanes: Lanes::new(outside.systemd.clone()),
            outside,
            observations,
            calls,
            publications,
            timers: TimerTasks::default(),
            returned,
            callers: BTreeMap::new(),
            follow_ups: VecDeque::new(),
            descriptor: None,
            revoked: Vec::new(),
            lines: Vec::new(),
            denied: Vec::new(),
            last_request: 0,
            said: String::new(),
            reading: None,
            units_reading: None,
            read_anew: false,
        }
    }

    /// What the loop knows, once it no longer runs.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Reads files, saved state and units, and publishes what they come to. Nothing is started yet: the effects that
    /// come back are to be handed to [`run`](Self::run) once the name is ours, so that a second daemon does nothing.
    ///
    /// # Errors
    /// systemd could not be asked.
    pub async fn take_stock(&mut self) -> Result<Effects, Ended> {
        let mut configuration = self.outside.folders.read().await;
        self.complete(&mut configuration);
        let (saved, wishes, complaints) = self.outside.store.load();
        let Wishes { stopped, quarantined } = wishes;
        for complaint in complaints {
            tracing::warn!("{complaint}");
        }
        let (leases, complaints) = self.outside.leases.adopt();
        for complaint in complaints {
            tracing::warn!("{complaint}");
        }
        let units = self.outside.systemd.units().await.map_err(Ended::Systemd)?;
        // What was said meanwhile may be older or newer than what was read of its unit. Taken for newer, the end of a unit
        // would pass for the end of the next one of its name; so all of it goes, and the units are read once more.
        let mut said = false;
        while let Ok(seen) = self.observations.try_recv() {
            if seen == Observation::Disconnected {
                return Err(Ended::Disconnected);
            }
            said = true;
        }
        let topology = self.outside.processors.read();
        let mut effects = self.apply(Event::CpusFound(topology));
        let host = self.outside.host.clone();
        effects.extend(self.apply(Event::Started {
            configuration,
            units,
            saved: Box::new(saved),
            stopped,
            quarantined,
            leases,
            host,
        }));
        if said {
            self.read_units();
        }
        // Nothing is saved or done yet.
        self.end(Turn::default()).await?;
        Ok(effects)
    }

    /// The loop, until `stop` or until the bus is gone.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub async fn run(
        &mut self,
        first: Effects,
        mut signals: crate::supervisor::Signals,
    ) -> Result<(), Ended> {
        let mut turn = Turn::default();
        self.carry_out(first, &mut turn);
        self.end(turn).await?;
        notify::ready(&self.status());
        let watchdog = notify::watchdog_interval().unwrap_or(Duration::from_secs(5));
        let mut heartbeat = tokio::time::interval(watchdog);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut turn = Turn::default();
            // Leaving comes first, then what systemd says, then what follows from it; callers come behind that, so that a
            // flood of them cannot delay the news that they ask for. Reports, which anybody can send, delay nothing.
            let first = tokio::select! {
                biased;
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => {
                        self.read_configuration(Vec::new());
                        continue;
                    }
                    Some(Signal::Terminate) | None => return Ok(()),
                },
                seen = self.observations.recv() => Came::Seen(seen.ok_or(Ended::Disconnected)?),
                Some(returned) = self.returned.1.recv() => Came::Back(returned),
                Some(timer) = self.timers.fired() => Came::Fired(timer),
                Some(lease) = self.outside.leases.ended() => Came::Ended(lease),
                _ = heartbeat.tick() => Came::Beat,
                Some(call) = self.calls.recv() => Came::Called(call),
                (unit, report) = next_report(&mut self.outside.reports) => Came::Reported(unit, report),
            };
            if let Err(ended) = self.take_in_all(first, &mut turn) {
                self.save(&mut turn);
                return Err(ended);
            }
            if turn.changed || turn.alive {
                self.end(turn).await?;
            }
            if std::mem::take(&mut self.read_anew) {
                self.read_units();
            }
        }
    }

    fn apply(&mut self, event: Event) -> Effects {
        let clock = &mut self.outside.clock;
        let input = Input { mono: clock.mono(), real: clock.real(), seed: clock.seed(), event };
        self.outside.recorder.record(&self.state, &input);
        apply(&mut self.state, input)
    }

    /// What the files do not say of devices.
    fn complete(&mut self, configuration: &mut Configuration) {
        if let Some(inventory) = &mut configuration.inventory {
            self.outside.gpus.complete(inventory);
        }
    }

    fn observed(&mut self, seen: Observation, events: &mut Vec<Event>) -> Result<(), Ended> {
        if let (
            Some(reading),
            Observation::Seen(UnitObservation { name, .. }) | Observation::Forgotten(name),
        ) = (&mut self.units_reading, &seen)
        {
            reading.heard.insert(name.clone());
        }
        match seen {
            Observation::Seen(seen) => events.push(Event::UnitSeen(seen)),
            Observation::Forgotten(name) => events.push(Event::UnitForgotten(name)),
            Observation::JobFailed { name, result } => events.push(Event::JobFailed { name, result }),
            Observation::ReadAnew => self.read_anew = true,
            Observation::Disconnected => return Err(Ended::Disconnected),
        }
        Ok(())
    }

    fn came_back(&mut self, returned: Returned, events: &mut Vec<Event>) {
        match returned {
            Returned::Event(event) => {
                // By when the reading that runs began, this unit was not known to be there, and so not to be missing.
                if let (Some(reading), Event::UnitTaken(_)) = (&mut self.units_reading, &*event) {
                    reading.again = true;
                }
                events.push(*event);
            }
            Returned::UnitsRead(units) => {
                if let Some(UnitsReading { asked, heard, again }) = self.units_reading.take() {
                    events.push(Event::UnitsRead { asked, heard, units });
                    self.read_anew |= again;
                }
            }
            Returned::Configuration(mut configuration, requests) => {
                self.complete(&mut configuration);
                events.push(Event::ConfigurationRead { configuration: *configuration, requests });
                if let Some(FilesReading { late, again: true }) = self.reading.take() {
                    self.read_configuration(late);
                }
            }
        }
    }
}

/// The next report; never, where there is no socket. One that broke is not asked again.
async fn next_report(reports: &mut Option<impl Probers>) -> (UnitName, Report) {
    if let Some(socket) = reports {
        match socket.next().await {
            Ok(report) => return report,
            Err(error) => {
                tracing::error!(
                    "the report socket is broken, numbers of engines are no longer known: {error}"
                );
                *reports = None;
            }
        }
    }
    std::future::pending().await
}

/// What the daemon is told by Unix signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Read the files again.
    Reload,
    /// Go away; engines stay.
    Terminate,
}

/// Where [`Signal`]s come from.
pub type Signals = mpsc::Receiver<Signal>;

#[cfg(test)]
mod tests;
