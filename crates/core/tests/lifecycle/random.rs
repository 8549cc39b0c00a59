//! Random stories: whatever systemd, callers, files and daemon restarts do, some things always hold.

use crate::world::{World, spec};
use pool_core::Request;
use pool_core::config::PoolSpec;
use pool_core::job::JobState;
use pool_core::name::{UnitKind, Usec};
use pool_core::pool::{PoolPhase, Wish};
use pool_core::refusal::Refusal;
use pool_core::replica::ActiveState;
use pool_core::view::View;
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

fn story(seed: u64) {
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
    match dice.roll(16) {
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
        _ => systemd(world, dice),
    }
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
        if pool.at_rest() {
            let loaded = world.units.values().filter(|unit| unit.active != ActiveState::Inactive);
            let left = loaded.into_iter().any(|unit| unit.name.replica.pool == *pool.id());
            assert!(!left, "seed {seed}: {} rests although a unit of it is there", pool.id());
        }
    }
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
