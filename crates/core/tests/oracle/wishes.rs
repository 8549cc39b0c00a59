//! What operators and holders of leases ask for in a story, and what that means to the oracle.

use super::driver::{Story, seconds};
use super::numbers::revision;
use super::oracle::Happening;
use super::twin::{Fine, Then};
use pool_core::config::PoolSpec;
use pool_core::host::{Answer, LeaseWish};
use pool_core::job::{JobState, Operation};
use pool_core::lease::{LeaseEnd, LeaseId};
use pool_core::name::Usec;
use pool_core::{Denied, Event, Request};

impl Story {
    pub fn operator(&mut self) -> Fine {
        let (twin, pool) = self.any_twin();
        let roll = self.dice.roll(8);
        let request = match roll {
            0..=4 => Request::Start { pool },
            5 => Request::Stop { pool },
            _ => Request::Reset { pool },
        };
        self.note(|| format!("{request:?}"));
        if self.world.ask(request).is_err() {
            return Ok(());
        }
        let own = &mut self.twins[twin];
        match (roll, &mut own.emptying) {
            // What is being emptied ends first.
            (0..=4, Some(emptying)) => {
                if emptying.then == Then::Stop {
                    emptying.then = Then::Restart;
                }
                self.told(twin, &[])
            }
            (0..=4, None) => self.told(twin, &[Happening::OperatorStarts]),
            (5, emptying) => {
                *emptying = None;
                self.told(twin, &[Happening::OperatorStops])
            }
            _ => self.told(twin, &[Happening::OperatorResets]),
        }
    }

    pub fn drain(&mut self) -> Fine {
        let (twin, pool) = self.any_twin();
        let deadline = self.dice.pick(&[Usec(0), seconds(1), seconds(20), seconds(400)]);
        self.note(|| format!("drain of {pool} within {deadline}"));
        self.world.ask(Request::Drain { pool, deadline }).map_err(|denied| denied.to_string())?;
        let now = self.world.now.0;
        let own = &mut self.twins[twin];
        let deadline = if deadline == Usec(0) { own.file.drain.deadline.0 } else { deadline.0 };
        if own.oracle.runs() {
            match &mut own.emptying {
                // Asked again, the earlier deadline wins.
                Some(emptying) if !matches!(emptying.then, Then::Replace { .. }) => {
                    emptying.then = Then::Stop;
                    emptying.deadline = emptying.deadline.min(now + deadline);
                }
                Some(_) | None => own.empty(now, deadline, Then::Stop)?,
            }
        }
        self.told(twin, &[])
    }

    pub fn reload(&mut self) -> Fine {
        let (twin, pool) = self.any_twin();
        let own = &self.twins[twin];
        let to = (self.dice.roll(3) > 0).then(|| {
            let model = format!("/srv/{}", self.dice.roll(4));
            revision(&PoolSpec { model, ..own.file.clone() })
        });
        let digest = to.as_ref().unwrap_or(&own.pool(&self.world).revision).digest.clone();
        // What an unproven spec leaves behind when it is given up itself is another story.
        let force = self.dice.once_in(2) && !own.replacing;
        let deadline = self.dice.pick(&[Usec(0), seconds(1), seconds(20)]);
        self.note(|| format!("reload of {pool} to {digest} within {deadline}, by force: {force}"));
        let request = Request::Reload { pool, revision: to.map(Box::new), deadline, force };
        if self.world.ask(request).is_err() {
            return Ok(());
        }
        let now = self.world.now.0;
        let own = &mut self.twins[twin];
        let deadline = if deadline == Usec(0) { own.file.drain.deadline.0 } else { deadline.0 };
        own.reload = (deadline, force);
        own.reload_asked = true;
        (own.ended_for_good, own.asked, own.changed) = (false, false, false);
        if own.emptying.take().is_some() {
            // An earlier reload gives way, and until this one's turn the pool serves as before.
            own.tell(now, &Happening::DrainCalledOff)?;
        }
        let job = self.world.answers.iter().rev().find_map(|(_, answer)| match answer {
            Answer::Job(job) => Some(*job),
            _ => None,
        });
        if let Some(job) = job {
            self.jobs.reload(job, &self.twins[twin], &self.world, &digest);
        }
        self.told(twin, &[])
    }

    pub fn cancel(&mut self) -> Fine {
        let running = |job: &pool_core::job::Job| job.state == JobState::Running;
        let jobs = self.world.state.jobs.all.iter();
        let jobs: Vec<_> = jobs.filter(|(_, job)| running(job)).map(|(id, job)| (*id, job.clone())).collect();
        if jobs.is_empty() {
            return Ok(());
        }
        let (id, job) = self.dice.pick(&jobs);
        self.note(|| format!("job {} is cancelled: {}", id.0, job.operation.as_str()));
        let twin = self.twins.iter().position(|twin| twin.id == job.pool).unwrap();
        if self.world.ask(Request::CancelJob { job: id }).is_err() {
            return Ok(());
        }
        if matches!(job.operation, Operation::Start | Operation::Stop) {
            return Err(format!("job {} was cancelled", id.0));
        }
        let was = self.twins[twin].emptying.take();
        self.told(twin, if was.is_some() { &[Happening::DrainCalledOff] } else { &[] })
    }

    pub fn allocate(&mut self) -> Fine {
        let (twin, pool) = self.any_twin();
        let ttl = self.limit();
        let answer =
            self.world.ask(Request::AllocateLease { pool, wish: LeaseWish { ttl, ..LeaseWish::default() } });
        let own = &mut self.twins[twin];
        let oracle = |given: Result<usize, &str>| match given {
            Ok(index) => format!("a lease of {index}"),
            Err(why) => why.to_owned(),
        };
        match answer {
            Ok(_) => {
                let Some((_, Answer::Lease { lease, endpoint })) = self.world.answers.last() else {
                    return Err("a lease that was let pass was not given".to_owned());
                };
                let replica = usize::from(lease.replica.index);
                let given = own.leases.allocate(lease.number);
                own.leases.limit(lease.number, (ttl != Usec(0)).then(|| self.world.now.plus(ttl).0));
                if given != Ok(replica) {
                    return Err(format!("{lease} was given, and not {}", oracle(given)));
                }
                let known = own.pool(&self.world).replicas[replica].endpoint.as_ref();
                if known.map(ToString::to_string).as_ref() != Some(endpoint) {
                    return Err(format!("{lease} is of {endpoint}, which is not its engine's"));
                }
            }
            Err(denied) => {
                let why = match denied {
                    Denied::Draining(_) => "draining",
                    Denied::NotReady { .. } => "not-ready",
                    Denied::AtCapacity { .. } => "at-capacity",
                    other => return Err(other.to_string()),
                };
                let own = own.leases.allocate(0);
                if own != Err(why) {
                    return Err(format!("a lease was refused as {why}, and not {}", oracle(own)));
                }
            }
        }
        self.note(|| "a lease was asked for".to_owned());
        self.told(twin, &[])
    }

    /// How long a lease lasts; 0: without limit.
    fn limit(&mut self) -> Usec {
        seconds(self.dice.pick(&[0, 0, 1, 5, 30, 300]))
    }

    pub fn renew(&mut self) -> Fine {
        let held: Vec<LeaseId> = self.world.held.iter().cloned().collect();
        if held.is_empty() {
            return Ok(());
        }
        let (lease, ttl) = (self.dice.pick(&held), self.limit());
        self.note(|| format!("{lease} is renewed for {ttl}"));
        let request = Request::RenewLease { lease: lease.to_string(), ttl };
        self.world.ask(request).map_err(|denied| denied.to_string())?;
        let twin = self.twins.iter().position(|twin| twin.id == lease.replica.pool).expect("its pool");
        let end = (ttl != Usec(0)).then(|| self.world.now.plus(ttl).0);
        self.twins[twin].leases.limit(lease.number, end);
        self.told(twin, &[])
    }

    pub fn release(&mut self) -> Fine {
        let held: Vec<LeaseId> = self.world.held.iter().cloned().collect();
        if held.is_empty() || self.dice.once_in(10) {
            let unknown = "a-r0.0000000000000001".to_owned();
            let denied = self.world.ask(Request::ReleaseLease { lease: unknown });
            return if matches!(denied, Err(Denied::NoSuchLease(_))) {
                Ok(())
            } else {
                Err("a lease that nobody holds was released".to_owned())
            };
        }
        let lease = self.dice.pick(&held);
        self.note(|| format!("{lease} ends"));
        let twin = self.twins.iter().position(|twin| twin.id == lease.replica.pool).unwrap();
        if self.dice.once_in(2) {
            let lease = lease.to_string();
            self.world.ask(Request::ReleaseLease { lease }).map_err(|denied| denied.to_string())?;
        } else {
            let how = match self.dice.roll(4) {
                0 => LeaseEnd::NotOpened("no room".into()),
                _ => LeaseEnd::Closed,
            };
            self.world.event(Event::LeaseEnded { lease: lease.clone(), how });
        }
        self.twins[twin].leases.release(lease.number)?;
        self.told(twin, &[])
    }
}
