//! A state with a scripted systemd beside it: it carries effects out when told to, and knows which units there are.

use pool_core::config::{Activation, Configuration, Health, Listen, PoolSpec, Port, Revision};
use pool_core::cpu::{CpuSet, Topology};
use pool_core::device::{DeviceUuid, Part, Quarantine};
use pool_core::engine::{EngineTemplate, HealthRecipe};
use pool_core::host::{Answer, Caller, HostFacts, LogKind, RequestId, Saved, TimerId, UnitFacts};
use pool_core::lease::{Given, LeaseId, Terms};
use pool_core::name::{InvocationId, PoolId, ReplicaId, UnitKind, UnitName, Usec};
use pool_core::pool::{Pool, PoolPhase};
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, Hold, UnitObservation};
use pool_core::unit::{
    DEVICES_VARIABLE, ENDPOINT_VARIABLE, NODES_VARIABLE, OWN_CPUS_VARIABLE, Property, SPEC_VARIABLE,
    UnitSpec, VERSION_VARIABLE, Value,
};
use pool_core::view::View;
use pool_core::{Denied, Effect, Event, Input, Request, State, apply, decide};
use std::collections::{BTreeMap, BTreeSet};

pub struct World {
    pub state: State,
    /// Units that systemd has, as it last said.
    pub units: BTreeMap<UnitName, UnitObservation>,
    pub timers: BTreeMap<TimerId, Usec>,
    pub answers: Vec<(RequestId, Answer)>,
    pub forgotten: Vec<RequestId>,
    pub started: Vec<UnitName>,
    pub killed: Vec<UnitName>,
    /// What systemd was asked to stop or to forget.
    pub let_go: Vec<UnitName>,
    /// What is published, kept up to date by what each event touched.
    pub view: View,
    /// Starts that systemd has not answered yet.
    taken: Vec<UnitName>,
    /// systemd leaves starts unanswered.
    pub slow: bool,
    pub lines: Vec<String>,
    pub kinds: Vec<LogKind>,
    /// The device mask of each line that has one.
    pub masks: Vec<String>,
    /// Leases whose descriptors are there.
    pub held: BTreeSet<LeaseId>,
    /// Devices that were saved as out of use.
    pub quarantined: BTreeMap<DeviceUuid, Quarantine>,
    /// What the daemon knows of its host.
    pub host: HostFacts,
    /// On what leases were given, by the names of their descriptors.
    pub terms: BTreeMap<LeaseId, Terms>,
    pub revoked: Vec<LeaseId>,
    /// Why they were revoked.
    pub reasons: Vec<String>,
    /// What was saved last to survive a restart of the daemon, and a reboot.
    pub saved: Saved,
    pub wishes: BTreeSet<PoolId>,
    /// The CPUs of the host, which a daemon looks at before anything else.
    pub topology: Topology,
    /// What the daemon wrote into its units, and since when they are active.
    marks: BTreeMap<UnitName, UnitFacts>,
    pub now: Usec,
    /// How much later each event is than the one before.
    pub tick: Usec,
    /// How far the wall clock is ahead of the time since boot.
    pub ahead: Usec,
    pub seed: u64,
    requests: u64,
    invocations: u8,
}

pub fn spec(id: &str) -> PoolSpec {
    PoolSpec {
        id: id.parse().unwrap(),
        path: format!("/etc/llamaorch/pools.d/{id}.toml"),
        engine: "test".into(),
        template: EngineTemplate {
            program: "server".into(),
            args: vec![],
            env: BTreeMap::new(),
            version_args: vec![],
            listen: Default::default(),
            health: HealthRecipe { path: "/health".into() },
            progress: None,
            slots: None,
            version: None,
            sandbox: Default::default(),
        },
        program: "server".into(),
        model: "/srv/m".into(),
        digest: None,
        args: vec![],
        env: BTreeMap::new(),
        reach: Default::default(),
        replicas: 1,
        activation: Activation::Resident,
        listen: Listen::Tcp { host: "127.0.0.1".into(), port: Port::Auto },
        health: Health {
            start_limit: Usec::from_secs(60),
            start_timeout: Usec::from_secs(10),
            ..Health::default()
        },
        resources: Default::default(),
        restart: Default::default(),
        drain: Default::default(),
        leases: Default::default(),
        on_change: Default::default(),
        cpus: Default::default(),
        devices: Default::default(),
    }
}

pub fn revision(spec: &PoolSpec) -> Revision {
    Revision {
        digest: format!("{:?}", (&spec.args, &spec.model, spec.replicas, &spec.cpus, &spec.devices)),
        spec: spec.clone(),
    }
}

pub fn configuration(specs: &[PoolSpec]) -> Configuration {
    Configuration {
        pools: specs.iter().map(|spec| (spec.id.clone(), revision(spec))).collect(),
        ..Configuration::default()
    }
}

/// What an earlier run of the daemon can be told by a unit.
fn marks(spec: &UnitSpec, seen: &UnitObservation) -> UnitFacts {
    let environment = spec.properties.iter().find_map(|property| match property.value() {
        Value::Texts(texts) if property.name() == "Environment" => Some(texts),
        _ => None,
    });
    let variable = |name: &str| {
        let values = environment.into_iter().flatten();
        values.filter_map(|text| text.strip_prefix(name)?.strip_prefix('=')).next().unwrap_or_default()
    };
    UnitFacts {
        seen: seen.clone(),
        endpoint: variable(ENDPOINT_VARIABLE).parse().ok(),
        spec_digest: variable(SPEC_VARIABLE).to_owned(),
        engine_version: variable(VERSION_VARIABLE).to_owned(),
        became_active: Usec(0),
        own_cpus: variable(OWN_CPUS_VARIABLE).parse().expect("a list of CPUs"),
        allowed_cpus: spec.properties.iter().find_map(allowed),
        devices: Part::of_marks(variable(DEVICES_VARIABLE), variable(NODES_VARIABLE)),
        device_allow: spec.properties.iter().find_map(nodes).unwrap_or_default(),
    }
}

/// The nodes of a property that says which a unit may open.
fn nodes(property: &Property) -> Option<BTreeSet<String>> {
    match property.value() {
        Value::Pairs(rules) if property.name() == "DeviceAllow" => {
            Some(rules.iter().map(|(node, _)| node.clone()).collect())
        }
        _ => None,
    }
}

/// The CPUs of a property that says which a unit may use; `None`: all.
fn allowed(property: &Property) -> Option<CpuSet> {
    match property.value() {
        Value::Mask(mask) if property.name() == "AllowedCPUs" => {
            Some(CpuSet::of_mask(mask)).filter(|cpus| !cpus.is_empty())
        }
        _ => None,
    }
}

pub fn unit(kind: UnitKind, pool: &str, index: u16) -> UnitName {
    UnitName { kind, replica: ReplicaId { pool: pool.parse().unwrap(), index }, generation: 1 }
}

impl World {
    pub fn empty() -> World {
        World {
            state: State::default(),
            units: BTreeMap::new(),
            timers: BTreeMap::new(),
            answers: Vec::new(),
            forgotten: Vec::new(),
            started: Vec::new(),
            killed: Vec::new(),
            let_go: Vec::new(),
            view: View::default(),
            taken: Vec::new(),
            slow: false,
            lines: Vec::new(),
            kinds: Vec::new(),
            masks: Vec::new(),
            held: BTreeSet::new(),
            host: HostFacts::default(),
            terms: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            revoked: Vec::new(),
            reasons: Vec::new(),
            saved: Saved::default(),
            wishes: BTreeSet::new(),
            topology: Topology::default(),
            marks: BTreeMap::new(),
            now: Usec::from_secs(1_000),
            tick: Usec(1_000),
            ahead: Usec(0),
            seed: 1,
            requests: 0,
            invocations: 0,
        }
    }

    /// A daemon that has just started with these pools.
    pub fn with(specs: &[PoolSpec]) -> World {
        let mut world = World::empty();
        world.start_daemon(specs, Saved::default(), BTreeSet::new());
        world
    }

    pub fn start_daemon(&mut self, specs: &[PoolSpec], saved: Saved, stopped: BTreeSet<PoolId>) {
        self.start_daemon_by(configuration(specs), saved, stopped);
    }

    pub fn start_daemon_by(&mut self, configuration: Configuration, saved: Saved, stopped: BTreeSet<PoolId>) {
        let units = self.facts();
        self.state = State::default();
        self.view = View::default();
        self.wishes.clone_from(&stopped);
        self.timers.clear();
        let given = |id: &LeaseId| Given { id: id.clone(), terms: self.terms[id].clone() };
        let leases = self.held.iter().map(given).collect();
        let quarantined = self.quarantined.clone();
        self.state.cpus.find(self.topology.clone());
        let host = self.host.clone();
        self.event(Event::Started {
            configuration,
            units,
            saved: Box::new(saved),
            stopped,
            quarantined,
            leases,
            host,
        });
    }

    /// The daemon dies and comes back; what it saved is there.
    pub fn restart_daemon(&mut self, specs: &[PoolSpec]) {
        let (saved, stopped) = (self.state.saved(), self.state.stopped.clone());
        self.start_daemon(specs, saved, stopped);
    }

    pub fn facts(&self) -> Vec<UnitFacts> {
        let fact = |seen: &UnitObservation| match self.marks.get(&seen.name) {
            Some(marks) => UnitFacts { seen: seen.clone(), ..marks.clone() },
            // A test put it there.
            None => UnitFacts {
                seen: seen.clone(),
                endpoint: "http://127.0.0.1:20000".parse().ok(),
                spec_digest: String::new(),
                engine_version: String::new(),
                became_active: Usec(0),
                own_cpus: CpuSet::default(),
                allowed_cpus: None,
                devices: Part::default(),
                device_allow: BTreeSet::new(),
            },
        };
        self.units.values().map(fact).collect()
    }

    /// The CPUs that a unit may use, as systemd was told; "": all.
    pub fn allowed(&self, name: &UnitName) -> String {
        let allowed = self.marks[name].allowed_cpus.as_ref();
        allowed.map_or(String::new(), ToString::to_string)
    }

    /// The nodes that a unit may open, as systemd was told.
    pub fn nodes(&self, name: &UnitName) -> Vec<&str> {
        self.marks[name].device_allow.iter().map(String::as_str).collect()
    }

    /// systemd has dropped what a unit may open.
    pub fn drop_nodes(&mut self, name: &UnitName) {
        self.marks.get_mut(name).expect("it was started").device_allow.clear();
    }

    pub fn event(&mut self, event: Event) {
        self.seed += 1;
        self.now = self.now.plus(self.tick);
        let real = self.now.plus(self.ahead);
        let effects = apply(&mut self.state, Input { mono: self.now, real, seed: self.seed, event });
        let touched = self.state.take_touched();
        self.view.update(&self.state, &touched);
        for effect in effects {
            self.carry_out(effect);
        }
        assert!(self.saved == self.state.saved(), "not saved; last: {:?}", self.lines.last());
        assert_eq!(self.wishes, self.state.stopped, "not saved; last: {:?}", self.lines.last());
        if !self.slow
            && let Some(name) = self.taken.pop()
        {
            self.event(Event::UnitTaken(name));
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::StartUnit(spec) => {
                assert!(!self.units.contains_key(&spec.name), "{} was started while it was there", spec.name);
                self.invocations = self.invocations.wrapping_add(1).max(1);
                let seen = UnitObservation {
                    invocation: InvocationId([self.invocations; 16]),
                    main_pid: 100 + u32::from(self.invocations),
                    ..UnitObservation::new(spec.name.clone())
                };
                self.marks.insert(spec.name.clone(), marks(&spec, &seen));
                self.started.push(spec.name.clone());
                self.taken.push(spec.name.clone());
                self.units.insert(spec.name, seen);
            }
            Effect::ChangeUnit(name, property) => {
                assert!(self.units.contains_key(&name), "{name} is not there");
                let marks = self.marks.get_mut(&name).expect("it was started");
                match nodes(&property) {
                    Some(nodes) => marks.device_allow.extend(nodes),
                    None => marks.allowed_cpus = allowed(&property),
                }
            }
            // What systemd makes of a stop is said by the test, with `stopped`.
            Effect::KillUnit(name) => self.killed.push(name),
            Effect::StopUnit(name) | Effect::ForgetUnit(name) => {
                self.let_go.push(name.clone());
                if let Some(unit) = self.units.get_mut(&name)
                    && !matches!(unit.active, ActiveState::Failed | ActiveState::Inactive)
                {
                    unit.active = ActiveState::Deactivating;
                }
            }
            Effect::SetTimer(id, after) => {
                self.timers.insert(id, self.now.plus(after));
            }
            Effect::CancelTimer(id) => {
                self.timers.remove(&id);
            }
            Effect::Reply(to, answer) => self.answers.push((to, answer)),
            Effect::ForgetCaller(to) => self.forgotten.push(to),
            Effect::Log(line) => {
                self.kinds.push(line.kind);
                self.masks.extend(line.field("device_mask").map(str::to_owned));
                self.lines.push(line.message);
            }
            Effect::OpenLease(given) => {
                assert!(self.held.insert(given.id.clone()), "a lease is opened once");
                self.terms.insert(given.id, given.terms);
            }
            Effect::RenewLease(given) => drop(self.terms.insert(given.id, given.terms)),
            Effect::CloseLease(id) => {
                self.held.remove(&id);
                self.terms.remove(&id);
            }
            Effect::LeaseRevoked { lease, reason } => {
                self.revoked.push(lease);
                self.reasons.push(reason);
            }
            Effect::SaveRuntime => self.saved = self.state.saved(),
            Effect::SaveWishes => {
                self.wishes.clone_from(&self.state.stopped);
                self.quarantined.clone_from(self.state.devices.quarantined());
            }
        }
    }

    pub fn ask(&mut self, request: Request) -> Result<RequestId, Denied> {
        self.ask_as(&Caller::default(), request)
    }

    pub fn ask_as(&mut self, caller: &Caller, request: Request) -> Result<RequestId, Denied> {
        let before = self.state.clone();
        let accepted = decide(&self.state, caller, &request);
        assert_eq!(before, self.state);
        self.requests += 1;
        let id = RequestId(self.requests);
        self.event(Event::Asked { request: id, caller: caller.clone(), accepted: accepted? });
        Ok(id)
    }

    pub fn start(&mut self, pool: &str) -> RequestId {
        self.ask(Request::Start { pool: pool.into() }).unwrap()
    }

    pub fn stop(&mut self, pool: &str) -> RequestId {
        self.ask(Request::Stop { pool: pool.into() }).unwrap()
    }

    pub fn configure(&mut self, specs: &[PoolSpec]) {
        self.event(Event::ConfigurationRead { configuration: configuration(specs), requests: vec![] });
    }

    /// All units were read, and nothing was said of any meanwhile.
    pub fn read(&mut self, asked: BTreeMap<UnitName, Hold>, units: Vec<UnitFacts>) {
        self.event(Event::UnitsRead { asked, heard: BTreeSet::new(), units });
    }

    /// systemd says something new of a unit.
    pub fn seen(&mut self, name: &UnitName, change: impl FnOnce(&mut UnitObservation)) {
        let unit = self
            .units
            .get_mut(name)
            .unwrap_or_else(|| panic!("{name} is not there; started so far: {:?}", self.started));
        let before = (unit.active, unit.invocation);
        change(unit);
        let seen = unit.clone();
        if seen.active == ActiveState::Active && before != (seen.active, seen.invocation) {
            self.marks.get_mut(name).unwrap().became_active = self.now.plus(self.ahead);
        }
        self.event(Event::UnitSeen(seen));
    }

    /// systemd has forgotten a unit.
    pub fn forgotten(&mut self, name: &UnitName) {
        assert!(self.units.remove(name).is_some(), "{name} is not there");
        self.event(Event::UnitForgotten(name.clone()));
    }

    /// systemd does not take a unit that it was given; so it is not there.
    pub fn refused(&mut self, name: UnitName) {
        assert!(self.units.remove(&name).is_some(), "{name} was not started");
        self.event(Event::UnitRefused { name, name_taken: false, error: "no".into() });
    }

    /// Every unit that is failed or on its way down is gone.
    pub fn settle(&mut self) {
        let over =
            |unit: &UnitObservation| matches!(unit.active, ActiveState::Failed | ActiveState::Deactivating);
        while let Some(name) = self.units.values().find(|unit| over(unit)).map(|unit| unit.name.clone()) {
            self.forgotten(&name);
        }
    }

    /// The checks pass and the engine gets ready.
    pub fn serve(&mut self, pool: &str, index: u16) {
        self.checks_pass(pool, index);
        self.becomes_ready(pool, index);
    }

    pub fn checks_pass(&mut self, pool: &str, index: u16) {
        let stage = unit(UnitKind::Stage, pool, index);
        self.seen(&stage, |unit| {
            unit.active = ActiveState::Active;
            unit.exited = true;
            unit.status_text = "staged, engine version 1.2".into();
        });
        self.settle();
    }

    pub fn becomes_ready(&mut self, pool: &str, index: u16) {
        self.seen(&unit(UnitKind::Engine, pool, index), |unit| {
            unit.active = ActiveState::Active;
            unit.entered_active = true;
        });
    }

    pub fn refuses(&mut self, pool: &str, refusal: Refusal) {
        self.seen(&unit(UnitKind::Stage, pool, 0), |unit| {
            unit.active = ActiveState::Failed;
            unit.result = "exit-code".into();
            unit.exec_code = 1;
            unit.exec_status = i32::from(refusal.exit_status());
            unit.status_text = format!("{}: because", refusal.class());
        });
    }

    pub fn dies(&mut self, pool: &str, index: u16) {
        self.seen(&unit(UnitKind::Engine, pool, index), |unit| {
            unit.active = ActiveState::Failed;
            unit.main_pid = 0;
            unit.result = "signal".into();
            unit.exec_code = 2;
            unit.exec_status = 9;
        });
    }

    /// The timer that rings next, and when.
    pub fn next_timer(&self) -> Option<(TimerId, Usec)> {
        self.timers.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (*id, *at))
    }

    /// A timer rings, in its time or late.
    pub fn fire(&mut self, id: TimerId) {
        if let Some(at) = self.timers.remove(&id) {
            self.now = self.now.max(at);
            self.event(Event::TimerFired(id));
        }
    }

    /// The next timer rings; how far away it was.
    pub fn ring(&mut self) -> Usec {
        let (id, at) = self.next_timer().expect("a timer runs");
        let wait = at.since(self.now);
        self.fire(id);
        wait
    }

    pub fn pool(&self, id: &str) -> &Pool {
        &self.state.pools[&id.parse::<PoolId>().unwrap()]
    }

    pub fn phase(&self, id: &str) -> PoolPhase {
        self.pool(id).phase()
    }

    pub fn answers_to(&self, request: RequestId) -> Vec<&Answer> {
        self.answers.iter().filter(|(to, _)| *to == request).map(|(_, answer)| answer).collect()
    }
}
