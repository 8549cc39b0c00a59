//! What should follow from failures, and who gets a lease, told a second time and more simply: in plain numbers and
//! words, of one pool, with none of the core's types. Times are microseconds.
//!
//! It does not roll the dice of a backoff. It says from when on a replica may start, and when it is overdue; and it is
//! told when one did start.

mod leases;
mod operator;
mod passage;
mod rules;

pub use leases::Leases;
use rules::is_oom;
pub use rules::{Rules, SECOND, breaker_of};

/// The breakers of a pool.
pub const ORDINARY: usize = 0;
pub const GPU: usize = 1;

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
    /// It is on its way down by itself: it no longer serves, and how it ends is not known yet.
    Leaves(usize),
    /// The pool is being emptied: what does not serve ends, what fails counts nothing, nothing starts.
    Drains,
    /// The pool is not emptied after all: what went down for it comes back.
    DrainCalledOff,
    /// Its engines are replaced: one is taken down or started as the replacement says, whatever the breakers say, and
    /// what fails counts nothing.
    Replaces,
    /// The replacement takes that one down.
    TakenDown(usize),
    /// From now on all is as ever.
    ReplacementEnds,
    /// The daemon was away. It tries once more what had failed for good.
    DaemonRestarted,
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
    /// It ends by itself; whether somebody asked for its start meanwhile.
    Leaves {
        asked: bool,
    },
    /// The operator stopped it and it is not gone yet.
    Ending,
}

#[derive(Debug, Clone, Copy)]
struct Replica {
    doing: Doing,
    failures: u32,
    /// Which lengths of this readiness were reached: of the row, the backoff, the count.
    reached: [bool; 3],
    /// It waited when the operator permitted an attempt: if it is the one, that was asked for.
    permitted: bool,
    /// It went down for a drain, and comes back if that is called off.
    comes_back: bool,
}

/// What the pool is on its way through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    None,
    Drain,
    Replacement,
}

/// What a replica does, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Down,
    Waits,
    Runs,
    Serves,
    Ending,
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
    passage: Passage,
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
            passage: Passage::None,
            replicas: vec![Replica::new(); replicas],
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
            Happening::Leaves(replica) => self.leaves(*replica),
            Happening::Drains => Ok(self.drains()),
            Happening::DrainCalledOff => Ok(self.drain_called_off()),
            Happening::Replaces => Ok(self.replaces()),
            Happening::TakenDown(replica) => self.taken_down(*replica),
            Happening::ReplacementEnds => Ok(self.replacement_ends()),
            Happening::DaemonRestarted => Ok(self.daemon_restarted()),
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

    /// The numbers change. A length of readiness that is over by the new ones is over at once.
    pub fn change(&mut self, rules: Rules) {
        self.rules = rules;
        self.marks_reached(self.now);
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether the pool should run.
    pub fn runs(&self) -> bool {
        self.run
    }

    pub fn stands(&self, replica: usize) -> Stands {
        match self.replicas[replica].doing {
            Doing::Down { .. } => Stands::Down,
            Doing::Waits { .. } => Stands::Waits,
            Doing::Runs { ready: Some(_) } => Stands::Serves,
            Doing::Runs { ready: None } | Doing::Leaves { .. } => Stands::Runs,
            Doing::Ending => Stands::Ending,
        }
    }

    /// Whether it is down because it failed.
    pub fn has_failed(&self, replica: usize) -> bool {
        self.replicas[replica].doing == Doing::Down { failed: true }
    }

    /// Whether its start was asked for while it was ending by itself.
    pub fn asked(&self, replica: usize) -> bool {
        self.replicas[replica].doing == Doing::Leaves { asked: true }
    }

    /// Whether a replica may start now, and whether that would be a restart and a trial.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_start(&self, replica: usize) -> Result<(bool, bool), String> {
        match (self.passage, self.replicas[replica].doing) {
            (Passage::None, _) => {}
            (Passage::Replacement, Doing::Down { .. }) if self.run => return Ok((false, false)),
            (Passage::Drain | Passage::Replacement, doing) => {
                return Err(format!("nothing starts in a {:?}: {doing:?}", self.passage));
            }
        }
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
        let permitted = self.replicas[replica].permitted && open.iter().any(|one| one.permit);
        let restart = !asked && !permitted;
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
            Doing::Down { .. } | Doing::Runs { .. } | Doing::Leaves { .. } | Doing::Ending => None,
        });
        let opens = self.breakers.iter().filter_map(|breaker| breaker.open).map(|open| open.until);
        let marks = self.marks().into_iter().map(|(at, ..)| at);
        waits.chain(opens).chain(marks).chain(self.storm_waits_until()).filter(|at| *at > self.now).min()
    }

    /// When what happened leaves one of the windows, later than now.
    pub fn windows_end(&self) -> Vec<u64> {
        let rules = &self.rules;
        let restarts = [rules.storm_window, rules.storm_short_window];
        let ends = self.restarts.iter().flat_map(|at| restarts.map(|window| at + window));
        let ooms = self.ooms.iter().map(|at| at + rules.oom_window);
        ends.chain(ooms).filter(|at| *at > self.now).collect()
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

    fn lengths(&self) -> [u64; 3] {
        [self.rules.row_ends, self.rules.backoff_forgets, self.rules.count_forgets]
    }

    /// The moments at which a ready replica has been ready for long enough for something: when, which, for what.
    fn marks(&self) -> Vec<(u64, usize, usize)> {
        let mut marks = Vec::new();
        for (index, replica) in self.replicas.iter().enumerate() {
            if let Doing::Runs { ready: Some(since) } = replica.doing {
                let lengths = self.lengths().into_iter().enumerate();
                let open = lengths.filter(|(what, _)| !replica.reached[*what]);
                marks.extend(open.map(|(what, length)| (since + length, index, what)));
            }
        }
        marks
    }

    fn marks_reached(&mut self, to: u64) {
        let mut marks = self.marks();
        marks.retain(|(at, ..)| *at <= to);
        marks.sort_unstable();
        for (_, index, what) in marks {
            self.replicas[index].reached[what] = true;
            match what {
                0 => {
                    for breaker in &mut self.breakers {
                        breaker.row = 0;
                        breaker.open = breaker.open.filter(|open| open.trial != Some(index));
                    }
                }
                1 => self.replicas[index].failures = 0,
                _ => self.restart_count = 0,
            }
        }
    }

    fn pass(&mut self, to: u64) -> Result<(), String> {
        if to < self.now {
            return Err(format!("time went back from {} to {to}", self.now));
        }
        self.marks_reached(to);
        self.now = to;
        Ok(())
    }

    fn started(&mut self, index: usize) -> Result<Told, String> {
        let (restart, trial) = self.may_start(index)?;
        let replaced = self.passage == Passage::Replacement;
        if restart {
            self.restarts.push(self.now);
            self.restart_count += 1;
        } else {
            self.replicas[index].failures = 0;
        }
        for open in self.breakers.iter_mut().filter_map(|breaker| breaker.open.as_mut()).filter(|_| !replaced)
        {
            open.trial = Some(index);
            open.permit = false;
        }
        for replica in &mut self.replicas {
            replica.permitted = false;
        }
        self.replicas[index].doing = Doing::Runs { ready: None };
        self.replicas[index].comes_back = false;
        Ok(Told { restart, trial, warning: restart && self.storm_warns(), ..Told::default() })
    }

    fn became_ready(&mut self, index: usize) -> Result<Told, String> {
        if self.replicas[index].doing != (Doing::Runs { ready: None }) {
            return Err(format!("replica {index} cannot become ready: {:?}", self.replicas[index].doing));
        }
        self.replicas[index].doing = Doing::Runs { ready: Some(self.now) };
        self.replicas[index].reached = [false; 3];
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
            Doing::Runs { .. } | Doing::Leaves { .. } => Ok(true),
            Doing::Ending => {
                let comes_up = self.run && self.passage == Passage::None;
                self.replicas[index].doing = if comes_up {
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
        let asked = self.asked(index);
        if self.gone(index)? {
            self.no_trial(index);
            self.replicas[index].comes_back = false;
            self.replicas[index].doing = Doing::Down { failed: false };
        }
        if asked {
            self.starts_as_asked(index);
        }
        Ok(Told::default())
    }

    fn refused(&mut self, index: usize) -> Result<Told, String> {
        let asked = self.asked(index);
        self.replicas[index].comes_back = false;
        let told = self.not_again(index)?;
        if asked {
            self.starts_as_asked(index);
        }
        Ok(told)
    }

    /// It has ended, and somebody has asked for its start since that began: that is an attempt which breakers permit.
    fn starts_as_asked(&mut self, index: usize) {
        self.replicas[index].permitted = false;
        self.replicas[index].doing = Doing::Waits { from: self.now, to: self.now, asked: true };
        self.permits();
    }

    /// It has failed, and nothing follows but that a trial has failed.
    fn not_again(&mut self, index: usize) -> Result<Told, String> {
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
        if self.passage != Passage::None {
            // It comes back if a drain is called off, be that a later one.
            self.replicas[index].comes_back = true;
            return self.not_again(index);
        }
        let asked = self.asked(index);
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
        let (from, to) = if asked { (self.now, self.now) } else { (self.now + from, self.now + to) };
        self.replicas[index].permitted = false;
        self.replicas[index].doing = Doing::Waits { from, to, asked };
        if asked {
            self.permits();
        }
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
}
