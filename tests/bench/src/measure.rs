//! What is measured. Everything that is compared is measured in turns, so that a busy machine slows both alike.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use zbus::Variant;

use crate::series::{Series, figure, micros, middle, one, rate, real};
use crate::wire::{BUS, Call, Wire};
use crate::{DAEMON, ROOT, Result, bare, sink};

const MANAGER: (&str, &str, &str) = (DAEMON, ROOT, DAEMON);
const BARE: (&str, &str, &str) = (bare::NAME, bare::PLACE, bare::NAME);
const LOGIN: (&str, &str, &str) =
    ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager");
const SYSTEMD: &str = "org.freedesktop.systemd1";
const LIMIT: Duration = Duration::from_secs(30);

/// How many calls are under way at once where that is asked for.
const IN_FLIGHT: usize = 64;

fn pool_path(pool: &str) -> String {
    format!("{ROOT}/pool/{pool}")
}

fn replica_path(pool: &str) -> String {
    format!("{ROOT}/replica/{pool}_2dr0")
}

/// A property, a method, one at a time and many at a time, beside what others serve.
pub(crate) fn look(pool: &str) -> Result<()> {
    let wire = &mut Wire::connect()?;
    let path = pool_path(pool);
    let subjects = [
        ("get.daemon", Call::get((DAEMON, &path, "org.llamaorch.PoolManager.Pool"), "Ready")?),
        ("get.login1", Call::get(LOGIN, "KillUserProcesses")?),
        ("get.bare", Call::get(BARE, "Ready")?),
        ("health.daemon", Call::new(MANAGER, "GetHealth", &(pool,))?),
        ("health.bare", Call::new(BARE, "GetHealth", &(pool,))?),
        ("bus", Call::new(BUS, "GetId", &())?),
    ];
    let mut times: HashMap<&str, Series> = HashMap::new();
    for round in 0..60 {
        for (name, call) in &subjects {
            for _ in 0..50 {
                let time = one(wire, call)?;
                // The first round warms up.
                if round > 0 {
                    times.entry(name).or_default().add(time);
                }
            }
        }
    }
    let mut rates: HashMap<&str, Vec<f64>> = HashMap::new();
    for _ in 0..15 {
        for (name, call) in &subjects {
            rates.entry(name).or_default().push(rate(wire, call, 6_000, IN_FLIGHT)?);
        }
    }
    for (name, _) in &subjects {
        let times = times.remove(name).unwrap_or_default();
        figure(&format!("{name}.us"), micros(times.median()));
        figure(&format!("{name}.p99.us"), micros(times.at(0.99)));
        figure(&format!("{name}.rate"), middle(rates.remove(name).unwrap_or_default()));
    }
    Ok(())
}

/// All objects in one answer, beside a bare service of the same objects.
pub(crate) fn objects(pools: usize) -> Result<()> {
    let wire = &mut Wire::connect()?;
    let managed = "org.freedesktop.DBus.ObjectManager";
    let ours = Call::new((DAEMON, ROOT, managed), "GetManagedObjects", &())?;
    let theirs = Call::new((bare::NAME, bare::PLACE, managed), "GetManagedObjects", &())?;
    let (mut daemon, mut bare) = (Series::default(), Series::default());
    let bytes = wire.ask(&ours)?.body.len();
    for _ in 0..31 {
        daemon.add(one(wire, &ours)?);
        bare.add(one(wire, &theirs)?);
    }
    figure(&format!("objects.{pools}.bytes"), real(bytes));
    figure(&format!("objects.{pools}.daemon.us"), micros(daemon.median()));
    figure(&format!("objects.{pools}.bare.us"), micros(bare.median()));
    Ok(())
}

fn allocate(pool: &str) -> Result<Call> {
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    Call::new(MANAGER, "AllocateLease", &(pool, options))
}

/// Leases taken and dropped by their descriptors, beside a bare method that returns a descriptor.
pub(crate) fn leases(pool: &str, who: &str) -> Result<()> {
    let wire = &mut Wire::connect()?;
    let ours = allocate(pool)?;
    let theirs = Call::new(BARE, "Open", &())?;
    let held = Call::get(MANAGER, "ActiveLeases")?;
    let (mut daemon, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let begun = Instant::now();
        rate(wire, &ours, 4_000, IN_FLIGHT)?;
        // They are dropped only once the daemon says so.
        while wire.ask(&held)?.value() > 0 {
            if begun.elapsed() > LIMIT {
                return Err("leases are left that nobody holds".into());
            }
        }
        daemon.push(4_000.0 / begun.elapsed().as_secs_f64());
        bare.push(rate(wire, &theirs, 4_000, IN_FLIGHT)?);
    }
    let mut taken = Series::default();
    for _ in 0..500 {
        taken.add(one(wire, &ours)?);
        drop(wire.descriptor());
    }
    figure(&format!("leases.{who}.us"), micros(taken.median()));
    figure(&format!("leases.{who}.rate"), middle(daemon));
    figure(&format!("leases.{who}.bare.rate"), middle(bare));
    Ok(())
}

/// An engine's main process is killed: when systemd says so, and when the daemon does.
pub(crate) fn crash(pool: &str, times: usize) -> Result<()> {
    let wire = &mut Wire::connect()?;
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let start = Call::new(MANAGER, "StartPool", &(pool, options))?;
    let reset = Call::new(MANAGER, "ResetPool", &(pool,))?;
    let ready = Call::new(MANAGER, "WaitReady", &(pool, 20_000_000_u64))?;
    let pid = Call::get((DAEMON, &replica_path(pool), "org.llamaorch.PoolManager.Replica"), "MainPid")?;
    let manager = (SYSTEMD, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
    wire.ask(&Call::new(manager, "Subscribe", &())?)?;
    for rule in [
        format!("type='signal',sender='{DAEMON}',member='HealthChanged'"),
        format!("type='signal',sender='{SYSTEMD}',member='PropertiesChanged'"),
    ] {
        wire.ask(&Call::new(BUS, "AddMatch", &(rule,))?)?;
    }
    let unit = format!("llamaorch_2dengine_2d{pool}_2dr0");
    let (mut systemd, mut state, mut health) = (Series::default(), Series::default(), Series::default());
    for _ in 0..times {
        wire.ask(&ready)?;
        let main = wire.ask(&pid)?.value();
        // What is still said of the start is over by then.
        thread::sleep(Duration::from_millis(150));
        while wire.ask(&pid)?.value() != main {}
        let begun = Instant::now();
        kill(Pid::from_raw(i32::try_from(main)?), Signal::SIGKILL)?;
        let (mut seen, mut told) = (None, None);
        loop {
            let incoming = wire.message()?;
            if incoming.member == "PropertiesChanged" && incoming.path.contains(&unit) {
                seen.get_or_insert(begun.elapsed());
                // The first one is of the service's properties; the state comes with those of the unit.
                if incoming.text() == "org.freedesktop.systemd1.Unit" {
                    told.get_or_insert(begun.elapsed());
                }
            } else if incoming.member == "HealthChanged" && incoming.text() == pool {
                break;
            }
        }
        let (Some(seen), Some(told)) = (seen, told) else {
            return Err("the daemon knew before systemd said it".into());
        };
        systemd.add(seen);
        state.add(told);
        health.add(begun.elapsed());
        wire.ask(&reset)?;
        wire.ask(&start)?;
    }
    wire.ask(&ready)?;
    figure("crash.systemd.us", micros(systemd.median()));
    figure("crash.state.us", micros(state.median()));
    figure("crash.health.us", micros(health.median()));
    figure("crash.health.p99.us", micros(health.at(0.99)));
    figure("crash.times", real(health.count()));
    Ok(())
}

/// How long others wait while somebody floods: `GetHealth` and, in turns, the bus's own answer and login1's.
pub(crate) fn patience(pool: &str, during: &str, time: Duration) -> Result<()> {
    let health = Call::new(MANAGER, "GetHealth", &(pool,))?;
    patiently(during, health, time)
}

/// The same for a service that does nothing with a flood.
pub(crate) fn sink_patience(time: Duration) -> Result<()> {
    patiently("sink", Call::new((sink::NAME, sink::PLACE, sink::NAME), "GetHealth", &("live",))?, time)
}

fn patiently(during: &str, health: Call, time: Duration) -> Result<()> {
    let wire = &mut Wire::connect()?;
    let subjects = [
        ("health", health),
        ("bus", Call::new(BUS, "GetId", &())?),
        ("login1", Call::get(LOGIN, "KillUserProcesses")?),
    ];
    let mut times: HashMap<&str, Series> = HashMap::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        for (name, call) in &subjects {
            times.entry(name).or_default().add(one(wire, call)?);
        }
        thread::sleep(Duration::from_millis(1));
    }
    for (name, _) in &subjects {
        let times = times.remove(name).unwrap_or_default();
        figure(&format!("{during}.{name}.us"), micros(times.median()));
        figure(&format!("{during}.{name}.p99.us"), micros(times.at(0.99)));
        figure(&format!("{during}.{name}.worst.us"), micros(times.at(1.0)));
        figure(&format!("{during}.{name}.times"), real(times.count()));
    }
    Ok(())
}

/// Many leases are held and the daemon is killed: how long after the next one's start all of them are held by it, and
/// how long after they are dropped that is known.
pub(crate) fn adoption(pool: &str, count: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let wire = &mut Wire::connect()?;
    let rule =
        format!("type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{DAEMON}'");
    wire.ask(&Call::new(BUS, "AddMatch", &(rule,))?)?;
    let (take, held) = (allocate(pool)?, Call::get(MANAGER, "ActiveLeases")?);
    let mut leases = Vec::new();
    let begun = Instant::now();
    while leases.len() < count {
        wire.send(&take, IN_FLIGHT.min(count - leases.len()))?;
        let wanted = leases.len() + IN_FLIGHT.min(count - leases.len());
        while leases.len() < wanted {
            let incoming = wire.message()?;
            if incoming.kind == 3 {
                return Err(format!("{}: {}", incoming.error, incoming.text()).into());
            }
            while let Some(lease) = wire.descriptor() {
                leases.push(lease);
            }
        }
    }
    figure("adoption.taken.rate", real(count) / begun.elapsed().as_secs_f64());
    let service = (
        SYSTEMD,
        "/org/freedesktop/systemd1/unit/pool_2dmanagerd_2eservice",
        "org.freedesktop.systemd1.Service",
    );
    let main = wire.ask(&Call::get(service, "MainPID")?)?.value();
    let killed = now()?;
    kill(Pid::from_raw(i32::try_from(main)?), Signal::SIGKILL)?;
    let begun = Instant::now();
    let mut owners = 0;
    // It is gone, and it is back.
    while owners < 2 {
        if wire.message()?.member == "NameOwnerChanged" {
            owners += 1;
        }
        if begun.elapsed() > LIMIT {
            return Err("the daemon does not come back".into());
        }
    }
    let adopted = wire.ask(&held)?.value();
    let back = now()?;
    let started = wire.ask(&Call::get(service, "ExecMainStartTimestampMonotonic")?)?.long_value();
    let started = Duration::from_micros(started);
    figure("adoption.held", real(leases.len()));
    figure("adoption.adopted", f64::from(adopted));
    figure("adoption.ms", back.saturating_sub(started).as_secs_f64() * 1e3);
    figure("adoption.away.ms", back.saturating_sub(killed).as_secs_f64() * 1e3);
    let begun = Instant::now();
    drop(leases);
    while wire.ask(&held)?.value() > 0 {
        if begun.elapsed() > LIMIT {
            return Err("leases are left that nobody holds".into());
        }
    }
    figure("adoption.dropped.ms", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}
