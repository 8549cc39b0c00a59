//! The registry, held against a model too simple to be wrong: a list of everything that was said, read backwards.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use pool_core::name::{PoolId, Usec};
use pool_core::registry::{External, HealthStatus, LeaseRefused, Moment, Registry, Report};

/// Xorshift: a story is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Said {
    Health(bool, bool),
    Error(Option<String>),
    Heartbeat(u64),
    Version(String),
    Draining(bool),
    Leased,
    Released,
    Owned { uid: u32, timeout: u64 },
    Alive { mono: u64 },
    Gone,
}

/// Everything that was said, of any pool, in order.
#[derive(Default)]
struct Model(Vec<(&'static str, Said)>);

impl Model {
    /// What was said of a pool since it came, newest first.
    fn of(&self, pool: &str) -> Vec<&Said> {
        let mine = self.0.iter().rev().filter(|(id, _)| *id == pool).map(|(_, said)| said);
        mine.take_while(|said| **said != Said::Gone).collect()
    }

    fn last<T>(&self, pool: &str, pick: impl Fn(&Said) -> Option<T>) -> Option<T> {
        self.of(pool).into_iter().find_map(pick)
    }

    fn known(&self, pool: &str) -> bool {
        !self.of(pool).is_empty()
    }

    fn health(&self, pool: &str) -> Option<(bool, bool)> {
        let said =
            |said: &Said| if let Said::Health(live, ready) = said { Some((*live, *ready)) } else { None };
        self.known(pool).then(|| self.last(pool, said).unwrap_or((false, false)))
    }

    fn error(&self, pool: &str) -> Option<String> {
        self.last(pool, |said| if let Said::Error(text) = said { Some(text.clone()) } else { None }).flatten()
    }

    fn heartbeat(&self, pool: &str) -> Option<u64> {
        self.last(pool, |said| if let Said::Heartbeat(at) = said { Some(*at) } else { None })
    }

    fn version(&self, pool: &str) -> Option<String> {
        self.last(pool, |said| if let Said::Version(text) = said { Some(text.clone()) } else { None })
    }

    fn draining(&self, pool: &str) -> bool {
        self.last(pool, |said| if let Said::Draining(yes) = said { Some(*yes) } else { None })
            .unwrap_or(false)
    }

    fn leases(&self, pool: &str) -> i64 {
        let one = |said: &&Said| i64::from(**said == Said::Leased) - i64::from(**said == Said::Released);
        self.of(pool).iter().map(one).sum()
    }

    fn owned(&self, pool: &str) -> Option<(u32, u64)> {
        let said = |said: &Said| {
            if let Said::Owned { uid, timeout } = said { Some((*uid, *timeout)) } else { None }
        };
        self.last(pool, said)
    }

    fn due(&self, pool: &str) -> Option<u64> {
        let alive = |said: &Said| if let Said::Alive { mono } = said { Some(*mono) } else { None };
        let (_, timeout) = self.owned(pool).filter(|_| self.health(pool) != Some((false, false)))?;
        Some(self.last(pool, alive).unwrap_or(0) + timeout)
    }

    fn say(&mut self, pool: &'static str, said: Said) {
        self.0.push((pool, said));
    }
}

const POOLS: [&str; 4] = ["a", "b", "c", "d"];
/// Realtime is ahead of the other clock by this much.
const EPOCH: u64 = 1_000_000_000;

#[test]
fn whatever_is_said_the_registry_knows_what_a_list_of_it_knows() {
    let mut refusals = 0;
    let mut silences = 0;
    for seed in 1..=60 {
        let mut dice = Dice((seed * 0x9e37_79b9) | 1);
        let (mut registry, mut model, mut mono) = (Registry::default(), Model::default(), 0);
        for number in 0..200 {
            let pool = POOLS[usize::try_from(dice.roll(4)).unwrap()];
            mono += dice.roll(20);
            step(&mut dice, &mut registry, &mut model, pool, mono, &mut refusals, &mut silences);
            compare(&registry, &model, &format!("seed {seed}, step {number}"));
        }
    }
    assert!(
        refusals > 1_000 && silences > 100,
        "{refusals} refusals and {silences} silences show too little"
    );
}

fn step(
    dice: &mut Dice,
    registry: &mut Registry,
    model: &mut Model,
    pool: &'static str,
    mono: u64,
    refusals: &mut u32,
    silences: &mut usize,
) {
    let id: PoolId = pool.parse().unwrap();
    let now = Moment { mono: Usec(mono), real: Usec(EPOCH + mono) };
    let uid = u32::try_from(dice.roll(2)).unwrap();
    let (live, ready) = (dice.roll(3) > 0, dice.roll(2) == 0);
    let before = registry.clone();
    let refused = match dice.roll(14) {
        0 => {
            registry.set_health(&id, HealthStatus { live, ready });
            model.say(pool, Said::Health(live, ready));
            false
        }
        1 => {
            let text = live.then(|| format!("error {mono}"));
            registry.set_last_error(&id, text.as_deref());
            model.say(pool, Said::Error(text));
            false
        }
        2 => {
            registry.set_heartbeat(&id, now.real);
            model.say(pool, Said::Heartbeat(now.real.0));
            false
        }
        3 => {
            registry.set_version(&id, mono.to_string());
            model.say(pool, Said::Version(mono.to_string()));
            false
        }
        4 => {
            registry.set_draining(&id, ready);
            model.say(pool, Said::Draining(ready));
            false
        }
        5 | 6 => {
            let answer = registry.allocate_lease(&id);
            if !model.known(pool) {
                assert_eq!(answer, Err(LeaseRefused::UnknownPool(id)));
            } else if model.draining(pool) {
                assert_eq!(answer, Err(LeaseRefused::Draining(id)));
            } else {
                model.say(pool, Said::Leased);
                assert_eq!(i64::from(*answer.as_ref().unwrap()), model.leases(pool));
            }
            answer.is_err()
        }
        7 | 8 => {
            let answer = registry.release_lease(&id);
            if !model.known(pool) {
                assert_eq!(answer, Err(LeaseRefused::UnknownPool(id)));
            } else if model.leases(pool) == 0 {
                assert_eq!(answer, Err(LeaseRefused::NoneHeld(id)));
            } else {
                model.say(pool, Said::Released);
                assert_eq!(i64::from(*answer.as_ref().unwrap()), model.leases(pool));
            }
            answer.is_err()
        }
        9 if dice.roll(3) == 0 => {
            assert_eq!(registry.remove(&id), model.known(pool));
            model.say(pool, Said::Gone);
            false
        }
        9 => {
            let timeout = 50 + dice.roll(100);
            let answer = registry.register(
                &id,
                External { engine: "x".into(), heartbeat_timeout: Usec(timeout), ..External::of(uid) },
            );
            let by_reports = model.owned(pool) == Some((uid, 30_000_000));
            if answer.is_ok() {
                model.say(pool, Said::Owned { uid, timeout });
            } else {
                assert!(model.known(pool) && !by_reports);
            }
            answer.is_err()
        }
        10..=12 => {
            let age = dice.roll(60);
            let report = match dice.roll(4) {
                0 => Report::Health(HealthStatus { live, ready }),
                1 => Report::Heartbeat(Usec(now.real.0 + 5 - age)),
                2 => Report::Version(mono.to_string()),
                _ => Report::LastError(live.then(|| mono.to_string())),
            };
            let answer = registry.report(&id, uid, report.clone(), now);
            let allowed = !model.known(pool) || model.owned(pool).is_some_and(|(owner, _)| owner == uid);
            assert_eq!(answer.is_ok(), allowed);
            if allowed {
                if !model.known(pool) {
                    model.say(pool, Said::Owned { uid, timeout: 30_000_000 });
                }
                reported(model, pool, &report, now, age);
            }
            !allowed
        }
        _ => {
            let silent: Vec<_> =
                POOLS.into_iter().filter(|pool| model.due(pool).is_some_and(|due| due <= mono)).collect();
            let found = registry.expire(now.mono);
            assert_eq!(found.iter().map(PoolId::as_str).collect::<Vec<_>>(), silent);
            assert_eq!(registry.expire(now.mono), []);
            *silences += silent.len();
            for pool in silent {
                model.say(pool, Said::Health(false, false));
                let text = registry.get_last_error(&pool.parse().unwrap()).unwrap();
                assert!(text.contains("silent"));
                model.say(pool, Said::Error(Some(text.to_owned())));
            }
            false
        }
    };
    if refused {
        *refusals += 1;
        assert_eq!(*registry, before, "a refusal changed something");
    }
}

fn reported(model: &mut Model, pool: &'static str, report: &Report, now: Moment, age: u64) {
    let age = if matches!(report, Report::Heartbeat(_)) { age.saturating_sub(5) } else { 0 };
    let mono = now.mono.0.saturating_sub(age);
    let last = model.last(pool, |said| if let Said::Alive { mono } = said { Some(*mono) } else { None });
    if last.is_none_or(|last| last <= mono) {
        model.say(pool, Said::Alive { mono });
        model.say(pool, Said::Heartbeat(now.real.0 - age));
    }
    match report {
        Report::Heartbeat(_) => {}
        Report::Health(health) => model.say(pool, Said::Health(health.live, health.ready)),
        Report::Version(text) => model.say(pool, Said::Version(text.clone())),
        Report::LastError(text) => model.say(pool, Said::Error(text.clone())),
    }
}

fn compare(registry: &Registry, model: &Model, when: &str) {
    for pool in POOLS {
        let id: PoolId = pool.parse().unwrap();
        let known = model.known(pool);
        assert_eq!(registry.knows(&id), known, "{when}");
        let health = registry.get_health(&id).map(|health| (health.live, health.ready));
        assert_eq!(health, model.health(pool), "{when}");
        assert_eq!(registry.get_last_error(&id).map(str::to_owned), model.error(pool), "{when}");
        assert_eq!(registry.get_heartbeat(&id).map(|at| at.0), model.heartbeat(pool), "{when}");
        assert_eq!(registry.get_version(&id).map(str::to_owned), model.version(pool), "{when}");
        assert_eq!(registry.get_draining(&id), known.then(|| model.draining(pool)), "{when}");
        let leases = registry.get_active_leases(&id).map(i64::from);
        assert_eq!(leases, known.then(|| model.leases(pool)), "{when}");
        let owner = registry.get_external(&id).map(|external| external.owner_uid);
        assert_eq!(owner, model.owned(pool).map(|(uid, _)| uid), "{when}");
    }
    let due = POOLS.into_iter().filter_map(|pool| model.due(pool)).min();
    assert_eq!(registry.next_expiry().map(|at| at.0), due, "{when}");
    let ids: Vec<_> = registry.snapshot().into_iter().map(|pool| pool.pool_id.to_string()).collect();
    let known: Vec<_> = POOLS.into_iter().filter(|pool| model.known(pool)).collect();
    assert_eq!(ids, known, "{when}");
}
