//! Random stories: whatever systemd, callers, files and daemon restarts do, some things always hold.

use crate::world::{World, configuration, spec};
use pool_core::config::PoolSpec;
use pool_core::host::LeaseWish;
use pool_core::job::JobState;
use pool_core::lease::LeaseEnd;
use pool_core::name::{ReplicaId, UnitKind, Usec};
use pool_core::pool::{PoolPhase, Wish};
use pool_core::refusal::Refusal;
use pool_core::replica::{ActiveState, ExitClass, Report};
use pool_core::view::View;
use pool_core::{Event, Request};
use std::collections::BTreeMap;

/// Xorshift: a story is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }
}

const POOLS: [&str; 3] = ["a", "b", "c"];

#[test]
fn whatever_happens_no_unit_is_doubled_every_job_ends_once_and_stopped_means_stopped() {
    for seed in 1..=2_000 {
        story(seed);
    }
}

/// Says which story it was, whatever failed in it.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was the story of seed {}", self.0);
        }
    }
}

fn story(seed: u64) {
    let _told = Told(seed);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut files: BTreeMap<&str, PoolSpec> = POOLS.iter().map(|id| (*id, spec(id))).collect();
    let mut world = World::with(&files.values().cloned().collect::<Vec<_>>());
    for _ in 0..200 {
        step(&mut world, &mut dice, &mut files);
        always(&world, seed);
    }
    // Left alone, everything comes to rest: asked to stop, it stops.
    for id in POOLS {
        let asked = world.ask(Request::Stop { pool: id.into() });
        assert_eq!(asked.is_ok(), world.state.pools.contains_key(&id.parse().unwrap()), "seed {seed}");
    }
    world.settle();
    // Names that somebody else keeps are given up, in time.
    while !world.state.pools.values().all(pool_core::pool::Pool::at_rest) && !world.timers.is_empty() {
        world.ring();
        world.settle();
    }
    for pool in world.state.pools.values() {
        assert!(pool.at_rest() && pool.phase() == PoolPhase::Stopped, "seed {seed}: {pool:?}");
    }
    world.units.retain(|_, unit| unit.active != ActiveState::Inactive);
    assert!(world.units.is_empty(), "seed {seed}: {:?}", world.units);
    assert!(world.state.jobs.all.values().all(|job| job.state != JobState::Running), "seed {seed}");
}

fn step(world: &mut World, dice: &mut Dice, files: &mut BTreeMap<&'static str, PoolSpec>) {
    let id = POOLS[dice.roll(POOLS.len())];
    match dice.roll(28) {
        0 => drop(world.ask(Request::Start { pool: id.into() })),
        1 => drop(world.ask(Request::Stop { pool: id.into() })),
        2 => drop(
            world.ask(Request::WaitReady { pool: id.into(), timeout: Usec::from_secs(dice.roll(3) as u64) }),
        ),
        3 => {
            if files.remove(id).is_none() {
                let replicas = 1 + u16::try_from(dice.roll(3)).unwrap();
                files.insert(id, PoolSpec { replicas, model: format!("/srv/{}", dice.roll(2)), ..spec(id) });
            }
            world.configure(&files.values().cloned().collect::<Vec<_>>());
        }
        4 => world.restart_daemon(&files.values().cloned().collect::<Vec<_>>()),
        5 if !world.timers.is_empty() => drop(world.ring()),
        6 => {
            let asked = world.state.units();
            let units = world.facts();
            world.read(asked, units);
        }
        7 | 8 => drop(
            world
                .ask(Request::Drain { pool: id.into(), deadline: Usec::from_secs(dice.roll(3) as u64 * 20) }),
        ),
        9 | 10 => drop(world.ask(Request::Reload {
            pool: id.into(),
            revision: (dice.roll(2) == 0).then(|| {
                let changed = PoolSpec { model: format!("/srv/{}", dice.roll(3)), ..spec(id) };
                Box::new(configuration(&[changed]).pools.into_values().next().unwrap())
            }),
            deadline: Usec::from_secs(dice.roll(2) as u64),
            force: dice.roll(2) == 0,
        })),
        11 => drop(world.ask(Request::Reset { pool: id.into() })),
        12 => {
            let mut running = world.state.jobs.all.iter().filter(|(_, job)| job.state == JobState::Running);
            if let Some((job, _)) = running.next_back() {
                drop(world.ask(Request::CancelJob { job: *job }));
            }
        }
        13 | 14 => drop(world.ask(Request::AllocateLease { pool: id.into(), wish: LeaseWish::default() })),
        15 if !world.held.is_empty() => {
            let lease = world.held.iter().nth(dice.roll(world.held.len())).unwrap().clone();
            if dice.roll(2) == 0 {
                assert!(world.ask(Request::ReleaseLease { lease: lease.to_string() }).is_ok());
            } else {
                world.event(Event::LeaseEnded { lease, how: LeaseEnd::Closed });
            }
        }
        16 => devices(world, dice),
        17 => world.pass(Usec::from_secs([1, 11, 61, 301][dice.roll(4)])),
        18 => reports(world, dice),
        _ => systemd(world, dice),
    }
}

/// A device is in trouble, and an engine must not go on.
fn devices(world: &mut World, dice: &mut Dice) {
    let replica = ReplicaId { pool: POOLS[dice.roll(3)].parse().unwrap(), index: dice.roll(3) as u16 };
    let classes = [ExitClass::GpuError(79), ExitClass::GpuLost, ExitClass::OomVram, ExitClass::CpuFallback];
    let class = classes[dice.roll(4)].clone();
    world.event(Event::EngineCondemned { replica, class, text: "its device".into() });
}

/// A prober says how its engine stands; now and then one of a unit that is gone.
fn reports(world: &mut World, dice: &mut Dice) {
    let Some(unit) = world.units.keys().nth(dice.roll(world.units.len().max(1))).cloned() else { return };
    let invocation = world.units[&unit].invocation;
    let some = |dice: &mut Dice| [None, Some(0), Some(2)][dice.roll(3)];
    let (in_flight, slots) = (some(dice), some(dice));
    let report = Report {
        invocation,
        in_flight,
        slots,
        version: None,
        progress: None,
        processes: None,
        memory_peak: None,
    };
    world.event(Event::Reported { unit, report });
}

/// systemd does something to one of its units.
fn systemd(world: &mut World, dice: &mut Dice) {
    if world.units.is_empty() {
        return;
    }
    let name = world.units.keys().nth(dice.roll(world.units.len())).unwrap().clone();
    let state = world.units[&name].active;
    match state {
        ActiveState::Failed | ActiveState::Deactivating if dice.roll(4) > 0 => world.forgotten(&name),
        ActiveState::Failed => {}
        ActiveState::Deactivating | ActiveState::Activating | ActiveState::Active => match dice.roll(5) {
            0 | 1 if state == ActiveState::Activating => world.seen(&name, |unit| {
                unit.active = ActiveState::Active;
                unit.exited = name.kind == UnitKind::Stage;
            }),
            2 => world.seen(&name, |unit| {
                unit.active = ActiveState::Failed;
                unit.main_pid = 0;
                (unit.result, unit.exec_code, unit.exec_status) = ("signal".into(), 2, 9);
            }),
            3 => {
                let refusal = Refusal::ALL[dice.roll(Refusal::ALL.len())];
                world.seen(&name, |unit| {
                    unit.active = ActiveState::Failed;
                    unit.main_pid = 0;
                    (unit.result, unit.exec_code) = ("exit-code".into(), 1);
                    unit.exec_status = i32::from(refusal.exit_status());
                    unit.status_text = format!("{}: text", refusal.class());
                });
            }
            // It ends, and somebody's dependency keeps it loaded for a while, or for ever.
            4 if dice.roll(4) == 0 => {
                // systemd says of every unit that it is on its way up, before it says that it has ended.
                world.seen(&name, |_| {});
                world.seen(&name, |unit| (unit.active, unit.main_pid) = (ActiveState::Inactive, 0));
            }
            // Somebody stops it from outside.
            4 if dice.roll(4) == 0 => world.forgotten(&name),
            _ => {}
        },
        ActiveState::Inactive if dice.roll(2) == 0 => world.forgotten(&name),
        ActiveState::Inactive | ActiveState::Other => {}
    }
}

fn always(world: &World, seed: u64) {
    assert_eq!(world.view, View::of(&world.state), "seed {seed}: what is published is not what is");
    for pool in world.state.pools.values() {
        let running =
            pool.job.iter().filter(|(id, _)| world.state.jobs.all[id].state == JobState::Running).count();
        assert_eq!(running, pool.job.iter().count(), "seed {seed}: a pool's job is one that runs");
        assert!(!(pool.wish == Wish::Stop && pool.ready()), "seed {seed}: a stopped pool is never ready");
        for replica in &pool.replicas {
            let held = world.held.iter().filter(|lease| lease.replica == replica.id).count();
            assert_eq!(replica.leases as usize, held, "seed {seed}: leases are counted as they are held");
            assert!(held == 0 || replica.ready(), "seed {seed}: a lease of an engine that does not serve");
        }
        if pool.at_rest() {
            let loaded = world.units.values().filter(|unit| unit.active != ActiveState::Inactive);
            let left = loaded.into_iter().any(|unit| unit.name.replica.pool == *pool.id());
            assert!(!left, "seed {seed}: {} rests although a unit of it is there", pool.id());
        }
    }
    assert_eq!(world.held.len(), world.state.leases.len(), "seed {seed}: a lease of nobody");
    let open = world.state.jobs.all.iter().filter(|(_, job)| job.state == JobState::Running);
    for (id, job) in open {
        let owner = world.state.pools.get(&job.pool).and_then(|pool| pool.job);
        assert_eq!(owner.map(|(owned, _)| owned), Some(*id), "seed {seed}: a running job nobody ends");
    }
    // Nobody is answered twice: each request has one answer at most.
    let mut seen = std::collections::BTreeSet::new();
    for (request, _) in &world.answers {
        assert!(seen.insert(request), "seed {seed}: {request:?} was answered twice");
    }
}
