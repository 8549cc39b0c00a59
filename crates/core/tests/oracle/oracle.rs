//! What should follow from failures, and who gets a lease, told a second time and more simply: in plain numbers and
//! words, of one pool, with none of the core's types. Times are microseconds.
//!
//! It does not roll the dice of a backoff. It says from when on a replica may start, and when it is overdue; and it is
//! told when one did start.

/// All numbers of the rules. A window or a wait of length W is over for what is exactly W old.
#[derive(Debug, Clone)]
pub struct Rules {
    pub backoff_first: u64,
    pub backoff_least: u64,
    pub backoff_most: u64,
    pub jitter_percent: u64,
    pub gpu_factor: u64,
    /// So long ready, and the next failure of that replica is its first.
    pub backoff_forgets: u64,
    /// So many failures in a row open the breaker.
    pub row: u32,
    pub open: u64,
    pub open_most: u64,
    /// So long ready, and no failure before is in a row with one after; a trial so long ready closes the breaker.
    pub row_ends: u64,
    /// More restarts than this within the window are worth a warning.
    pub storm_warns: usize,
    /// After so many restarts within the window the next one waits.
    pub storm_waits: usize,
    pub storm_window: u64,
    /// A failure that finds so many restarts within the short window opens the breaker.
    pub storm_trips: usize,
    pub storm_short_window: u64,
    pub ooms: usize,
    pub oom_window: u64,
    /// So long ready, and the restart count is 0.
    pub count_forgets: u64,
}

pub const SECOND: u64 = 1_000_000;

impl Default for Rules {
    fn default() -> Self {
        Rules {
            backoff_first: SECOND,
            backoff_least: SECOND / 2,
            backoff_most: 60 * SECOND,
            jitter_percent: 10,
            gpu_factor: 2,
            backoff_forgets: 300 * SECOND,
            row: 5,
            open: 300 * SECOND,
            open_most: 3_600 * SECOND,
            row_ends: 60 * SECOND,
            storm_warns: 5,
            storm_waits: 10,
            storm_window: 60 * SECOND,
            storm_trips: 10,
            storm_short_window: 30 * SECOND,
            ooms: 5,
            oom_window: 60 * SECOND,
            count_forgets: 600 * SECOND,
        }
    }
}

/// The breakers of a pool.
pub const ORDINARY: usize = 0;
pub const GPU: usize = 1;

/// Which breaker a class of failure belongs to.
pub fn breaker_of(class: &str) -> usize {
    let class = class.split(':').next().unwrap_or(class);
    if ["gpu-error", "gpu-lost", "cpu-fallback", "oom-vram"].contains(&class) { GPU } else { ORDINARY }
}

fn is_oom(class: &str) -> bool {
    ["oom-host", "oom-vram"].contains(&class)
}

/// What can happen to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Nothing; but it is later now.
    TimePasses,
    /// A replica begins a start, its checks included.
    Started(usize),
    /// It serves.
    BecameReady(usize),
    /// It failed, before or after it was ready.
    Failed(usize, String),
    /// Its checks refused it, or nothing can end it: no restart helps.
    Refused(usize),
    /// It ended with status 0, or somebody stopped it from outside, or it ended because the operator stopped the pool.
    Ended(usize),
    OperatorStarts,
    OperatorStops,
    OperatorResets,
}

/// What follows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// The start was an automatic one after a failure.
    pub restart: bool,
    /// The start was a breaker's trial.
    pub trial: bool,
    /// The restart is one too many to go without a warning.
    pub warning: bool,
    /// The failure opened a breaker, and why: `row`, `storm`, `oom-storm` or `trial`.
    pub opened: Option<&'static str>,
    /// The failure makes a storm of OOMs.
    pub oom_storm: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Closed,
    /// Nothing starts by itself before that time.
    Open {
        until: u64,
    },
    /// One attempt may be made, or is being made.
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Down until somebody does something; it failed, or ended as meant.
    Down {
        failed: bool,
    },
    /// To be started: not before `from`, and overdue at `to`, unless a breaker or a storm is in the way.
    Waits {
        from: u64,
        to: u64,
        asked: bool,
    },
    Runs {
        ready: Option<u64>,
    },
    /// The operator stopped it and it is not gone yet.
    Ending,
}

#[derive(Debug, Clone, Copy)]
struct Replica {
    doing: Doing,
    failures: u32,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until: u64,
    length: u64,
    /// The operator permits an attempt.
    permit: bool,
    /// The replica that is the attempt.
    trial: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Breaker {
    row: u32,
    open: Option<Open>,
}

/// One pool.
#[derive(Debug, Clone)]
pub struct Oracle {
    rules: Rules,
    now: u64,
    run: bool,
    replicas: Vec<Replica>,
    breakers: [Breaker; 2],
    restart_count: u32,
    restarts: Vec<u64>,
    ooms: Vec<u64>,
}

impl Oracle {
    /// A stopped pool.
    pub fn new(rules: Rules, replicas: usize) -> Self {
        Oracle {
            rules,
            now: 0,
            run: false,
            replicas: vec![Replica { doing: Doing::Down { failed: false }, failures: 0 }; replicas],
            breakers: [Breaker::default(); 2],
            restart_count: 0,
            restarts: Vec::new(),
            ooms: Vec::new(),
        }
    }

    /// Something happens, not before what happened last.
    ///
    /// # Errors
    /// Why it must not happen now. Then nothing has changed but the time.
    pub fn tell(&mut self, at: u64, happening: &Happening) -> Result<Told, String> {
        self.pass(at)?;
        match happening {
            Happening::TimePasses => Ok(Told::default()),
            Happening::Started(replica) => self.started(*replica),
            Happening::BecameReady(replica) => self.became_ready(*replica),
            Happening::Failed(replica, class) => self.failed(*replica, class),
            Happening::Refused(replica) => self.refused(*replica),
            Happening::Ended(replica) => self.ended(*replica),
            Happening::OperatorStarts => Ok(self.operator_starts()),
            Happening::OperatorStops => Ok(self.operator_stops()),
            Happening::OperatorResets => Ok(self.operator_resets()),
        }
    }

    /// How a breaker stands.
    pub fn breaker(&self, which: usize) -> Standing {
        match self.breakers[which].open {
            None => Standing::Closed,
            Some(open) if open.trial.is_some() || open.permit || self.now >= open.until => Standing::HalfOpen,
            Some(open) => Standing::Open { until: open.until },
        }
    }

    /// How both stand together, as one word.
    pub fn breakers(&self) -> &'static str {
        let both = [self.breaker(ORDINARY), self.breaker(GPU)];
        if both.iter().any(|one| matches!(one, Standing::Open { .. })) {
            "open"
        } else if both.contains(&Standing::HalfOpen) {
            "half-open"
        } else {
            "closed"
        }
    }

    /// Failures in a row that a breaker counts.
    pub fn row(&self, which: usize) -> u32 {
        self.breakers[which].row
    }

    /// Failures in a row of a replica, which its backoff follows.
    pub fn failures(&self, replica: usize) -> u32 {
        self.replicas[replica].failures
    }

    /// Automatic starts after failures, since a replica was ready for long.
    pub fn restart_count(&self) -> u32 {
        self.restart_count
    }

    /// Whether there are enough restarts for a warning.
    pub fn storm_warns(&self) -> bool {
        self.within(&self.restarts, self.rules.storm_window) > self.rules.storm_warns
    }

    /// Until when a restart has to wait because there were so many.
    pub fn storm_waits_until(&self) -> Option<u64> {
        let recent = self.within(&self.restarts, self.rules.storm_window);
        let oldest = self.restarts.len().checked_sub(self.rules.storm_waits)?;
        (recent >= self.rules.storm_waits).then(|| self.restarts[oldest] + self.rules.storm_window)
    }

    /// Whether a replica may start now, and whether that would be a restart and a trial.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_start(&self, replica: usize) -> Result<(bool, bool), String> {
        let Doing::Waits { from, asked, .. } = self.replicas[replica].doing else {
            return Err(format!("replica {replica} does not wait: {:?}", self.replicas[replica].doing));
        };
        let open: Vec<Open> = self.breakers.iter().filter_map(|breaker| breaker.open).collect();
        for one in &open {
            if one.trial.is_some() {
                return Err("another replica is the trial".into());
            }
            if !one.permit && self.now < one.until {
                return Err(format!("a breaker is open until {}", one.until));
            }
        }
        if self.now < from {
            return Err(format!("replica {replica} may start at {from} at the earliest"));
        }
        let restart = !asked && !open.iter().any(|one| one.permit);
        match self.storm_waits_until() {
            Some(until) if restart => Err(format!("so many restarts that the next one waits until {until}")),
            _ => Ok((restart, !open.is_empty())),
        }
    }

    /// The replicas that should have started by now. Where a breaker is half-open, that is one of them, any one.
    pub fn overdue(&self) -> Vec<usize> {
        if self.replicas.iter().any(|replica| replica.doing == Doing::Ending) {
            return Vec::new();
        }
        let due = |replica: &Replica| matches!(replica.doing, Doing::Waits { to, .. } if to <= self.now);
        let all = 0..self.replicas.len();
        all.filter(|index| due(&self.replicas[*index]) && self.may_start(*index).is_ok()).collect()
    }

    /// When something is due next although nothing happens: a backoff, a breaker, a storm or a time of being ready ends.
    pub fn next(&self) -> Option<u64> {
        let waits = self.replicas.iter().filter_map(|replica| match replica.doing {
            Doing::Waits { to, .. } => Some(to),
            Doing::Down { .. } | Doing::Runs { .. } | Doing::Ending => None,
        });
        let opens = self.breakers.iter().filter_map(|breaker| breaker.open).map(|open| open.until);
        let marks = self.marks().into_iter().map(|(at, ..)| at);
        waits.chain(opens).chain(marks).chain(self.storm_waits_until()).filter(|at| *at > self.now).min()
    }

    fn within(&self, times: &[u64], window: u64) -> usize {
        times.iter().filter(|at| self.now - **at < window).count()
    }

    /// From when to when a restart may come after the n-th failure in a row.
    fn backoff(&self, n: u32, class: &str) -> (u64, u64) {
        let rules = &self.rules;
        let mut base = rules.backoff_first;
        for _ in 1..n {
            base = (base * 2).min(rules.backoff_most);
        }
        let kept = |percent: u64| (base * percent / 100).clamp(rules.backoff_least, rules.backoff_most);
        let factor = if breaker_of(class) == GPU { rules.gpu_factor } else { 1 };
        (kept(100 - rules.jitter_percent) * factor, kept(100 + rules.jitter_percent) * factor)
    }

    /// The moments at which a ready replica has been ready for long enough for something.
    fn marks(&self) -> Vec<(u64, usize, u64)> {
        let lengths = [self.rules.row_ends, self.rules.backoff_forgets, self.rules.count_forgets];
        let mut marks = Vec::new();
        for (index, replica) in self.replicas.iter().enumerate() {
            if let Doing::Runs { ready: Some(since) } = replica.doing {
                marks.extend(lengths.map(|length| (since + length, index, length)));
            }
        }
        marks
    }

    fn pass(&mut self, to: u64) -> Result<(), String> {
        if to < self.now {
            return Err(format!("time went back from {} to {to}", self.now));
        }
        for (at, index, length) in self.marks() {
            if at <= self.now || at > to {
                continue;
            }
            if length == self.rules.row_ends {
                for breaker in &mut self.breakers {
                    breaker.row = 0;
                    breaker.open = breaker.open.filter(|open| open.trial != Some(index));
                }
            }
            if length == self.rules.backoff_forgets {
                self.replicas[index].failures = 0;
            }
            if length == self.rules.count_forgets {
                self.restart_count = 0;
            }
        }
        self.now = to;
        Ok(())
    }

    fn started(&mut self, index: usize) -> Result<Told, String> {
        let (restart, trial) = self.may_start(index)?;
        if restart {
            self.restarts.push(self.now);
            self.restart_count += 1;
        } else {
            self.replicas[index].failures = 0;
        }
        for open in self.breakers.iter_mut().filter_map(|breaker| breaker.open.as_mut()) {
            open.trial = Some(index);
            open.permit = false;
        }
        self.replicas[index].doing = Doing::Runs { ready: None };
        Ok(Told { restart, trial, warning: restart && self.storm_warns(), ..Told::default() })
    }

    fn became_ready(&mut self, index: usize) -> Result<Told, String> {
        if self.replicas[index].doing != (Doing::Runs { ready: None }) {
            return Err(format!("replica {index} cannot become ready: {:?}", self.replicas[index].doing));
        }
        self.replicas[index].doing = Doing::Runs { ready: Some(self.now) };
        Ok(Told::default())
    }

    /// It is no trial any more; says of which breakers it was one.
    fn no_trial(&mut self, index: usize) -> [bool; 2] {
        let mut was = [false; 2];
        for (which, breaker) in self.breakers.iter_mut().enumerate() {
            if let Some(open) = breaker.open.as_mut().filter(|open| open.trial == Some(index)) {
                open.trial = None;
                was[which] = true;
            }
        }
        was
    }

    /// It is gone. False where nobody looks at how, because the operator stopped it.
    fn gone(&mut self, index: usize) -> Result<bool, String> {
        match self.replicas[index].doing {
            Doing::Runs { .. } => Ok(true),
            Doing::Ending => {
                self.replicas[index].doing = if self.run {
                    Doing::Waits { from: self.now, to: self.now, asked: true }
                } else {
                    Doing::Down { failed: false }
                };
                Ok(false)
            }
            Doing::Down { .. } | Doing::Waits { .. } => Err(format!("replica {index} does not run")),
        }
    }

    fn ended(&mut self, index: usize) -> Result<Told, String> {
        if self.gone(index)? {
            self.no_trial(index);
            self.replicas[index].doing = Doing::Down { failed: false };
        }
        Ok(Told::default())
    }

    fn refused(&mut self, index: usize) -> Result<Told, String> {
        let mut told = Told::default();
        if self.gone(index)? {
            for (which, was) in self.no_trial(index).into_iter().enumerate() {
                if was {
                    self.open_again(which);
                    told.opened = Some("trial");
                }
            }
            self.replicas[index].doing = Doing::Down { failed: true };
        }
        Ok(told)
    }

    fn failed(&mut self, index: usize, class: &str) -> Result<Told, String> {
        if !self.gone(index)? {
            return Ok(Told::default());
        }
        let which = breaker_of(class);
        let trial_failed = self.no_trial(index)[which];
        self.replicas[index].failures += 1;
        self.breakers[which].row += 1;
        if is_oom(class) {
            self.ooms.push(self.now);
        }
        let oom_storm = is_oom(class) && self.within(&self.ooms, self.rules.oom_window) >= self.rules.ooms;
        let storm = self.within(&self.restarts, self.rules.storm_short_window) >= self.rules.storm_trips;
        let mut opened = None;
        if trial_failed {
            self.open_again(which);
            opened = Some("trial");
        } else if self.breakers[which].open.is_none() {
            let in_a_row = self.breakers[which].row >= self.rules.row;
            opened = [(oom_storm, "oom-storm"), (storm, "storm"), (in_a_row, "row")]
                .into_iter()
                .find_map(|(holds, why)| holds.then_some(why));
            if opened.is_some() {
                let length = self.rules.open;
                let until = self.now + length;
                self.breakers[which].open = Some(Open { until, length, permit: false, trial: None });
            }
        }
        let (from, to) = self.backoff(self.replicas[index].failures, class);
        self.replicas[index].doing = Doing::Waits { from: self.now + from, to: self.now + to, asked: false };
        // Behind a breaker that is not closed it is the breaker that says when.
        if self.breakers.iter().any(|breaker| breaker.open.is_some()) {
            for replica in &mut self.replicas {
                if let Doing::Waits { from, .. } = &mut replica.doing {
                    *from = self.now.min(*from);
                }
            }
        }
        Ok(Told { opened, oom_storm, ..Told::default() })
    }

    /// Its trial failed: it opens for twice the time.
    fn open_again(&mut self, which: usize) {
        if let Some(open) = self.breakers[which].open.as_mut() {
            open.length = (open.length * 2).min(self.rules.open_most);
            open.until = self.now + open.length;
        }
    }

    fn operator_starts(&mut self) -> Told {
        self.run = true;
        let closed = self.breakers.iter().all(|breaker| breaker.open.is_none());
        let trial = self.breakers.iter().any(|breaker| breaker.open.is_some_and(|open| open.trial.is_some()));
        for open in self.breakers.iter_mut().filter_map(|breaker| breaker.open.as_mut()) {
            open.permit = !trial;
        }
        for replica in &mut self.replicas {
            match replica.doing {
                Doing::Waits { .. } if !closed => {}
                Doing::Down { .. } | Doing::Waits { .. } => {
                    replica.doing = Doing::Waits { from: self.now, to: self.now, asked: true };
                }
                Doing::Runs { .. } | Doing::Ending => {}
            }
        }
        Told::default()
    }

    fn operator_stops(&mut self) -> Told {
        self.run = false;
        for open in self.breakers.iter_mut().filter_map(|breaker| breaker.open.as_mut()) {
            open.permit = false;
            open.trial = None;
        }
        for replica in &mut self.replicas {
            replica.doing = match replica.doing {
                Doing::Runs { .. } | Doing::Ending => Doing::Ending,
                Doing::Down { .. } | Doing::Waits { .. } => Doing::Down { failed: false },
            };
        }
        Told::default()
    }

    fn operator_resets(&mut self) -> Told {
        self.breakers = [Breaker::default(); 2];
        self.restart_count = 0;
        self.restarts.clear();
        self.ooms.clear();
        for replica in &mut self.replicas {
            replica.failures = 0;
            match replica.doing {
                Doing::Down { failed: true } | Doing::Waits { .. } => {
                    replica.doing = Doing::Waits { from: self.now, to: self.now, asked: true };
                }
                Doing::Down { failed: false } | Doing::Runs { .. } | Doing::Ending => {}
            }
        }
        Told::default()
    }
}

/// Who holds what of one pool: a list of leases, each with its replica.
#[derive(Debug, Clone)]
pub struct Leases {
    /// How many a replica takes at most.
    pub capacity: usize,
    pub draining: bool,
    ready: Vec<bool>,
    held: Vec<(u64, usize)>,
}

impl Leases {
    pub fn new(capacity: usize, replicas: usize) -> Self {
        Leases { capacity, draining: false, ready: vec![false; replicas], held: Vec::new() }
    }

    /// A replica serves from now on, or does not for the moment; what is held of it stays held.
    pub fn ready(&mut self, replica: usize, ready: bool) {
        self.ready[replica] = ready;
    }

    pub fn of_pool(&self) -> usize {
        self.held.len()
    }

    pub fn of_replica(&self, replica: usize) -> usize {
        self.held.iter().filter(|(_, of)| *of == replica).count()
    }

    /// Gives a lease, and says of which replica.
    ///
    /// # Errors
    /// `draining`, `not-ready` or `at-capacity`, in this order.
    pub fn allocate(&mut self, lease: u64) -> Result<usize, &'static str> {
        if self.draining {
            return Err("draining");
        }
        let ready: Vec<usize> = (0..self.ready.len()).filter(|index| self.ready[*index]).collect();
        if ready.is_empty() {
            return Err("not-ready");
        }
        let room = ready.into_iter().filter(|index| self.of_replica(*index) < self.capacity);
        let chosen = room.min_by_key(|index| (self.of_replica(*index), *index)).ok_or("at-capacity")?;
        self.held.push((lease, chosen));
        Ok(chosen)
    }

    /// A lease ends, and this is how many the pool has left.
    ///
    /// # Errors
    /// `no-such-lease`
    pub fn release(&mut self, lease: u64) -> Result<usize, &'static str> {
        let at = self.held.iter().position(|(id, _)| *id == lease).ok_or("no-such-lease")?;
        self.held.remove(at);
        Ok(self.held.len())
    }

    /// An engine ends, and with it these leases.
    pub fn engine_ended(&mut self, replica: usize) -> Vec<u64> {
        self.ready[replica] = false;
        let (gone, held) = self.held.iter().copied().partition(|(_, of)| *of == replica);
        self.held = held;
        let gone: Vec<(u64, usize)> = gone;
        gone.into_iter().map(|(lease, _)| lease).collect()
    }
}
