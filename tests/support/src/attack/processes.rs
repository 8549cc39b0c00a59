//! Owns acts on other processes, on this one's rights, and on what it may use.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::RwLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Done, Refusal, number, raw, text};

pub(super) fn act(way: &str, arguments: &[String]) -> Option<Done> {
    Some(match way {
        "signal" => signal(arguments),
        "pidfd-signal" => pidfd_signal(arguments),
        "trace" => trace(arguments),
        "read-memory" => read_memory(arguments),
        "take-descriptor" => take_descriptor(arguments),
        "set-uid" => raw::setuid(0).map(|()| "is root".to_owned()).map_err(Into::into),
        "run-set-uid" => run_set_uid(arguments),
        "priority" => raw::setpriority(-10).map(|()| "raised it".to_owned()).map_err(Into::into),
        "realtime" => raw::realtime().map(|()| "is a realtime task".to_owned()).map_err(Into::into),
        "cpu" => cpu(arguments),
        "threads" => threads(arguments),
        "burn" => burn(arguments),
        "allocate" => allocate(arguments),
        "run" => run(arguments),
        _ => return None,
    })
}

fn pid(arguments: &[String]) -> Result<Pid, Refusal> {
    number(arguments, 0).map(Pid::from_raw)
}

/// Sends a signal: `signal PID NAME`.
fn signal(arguments: &[String]) -> Done {
    let name = text(arguments, 1)?;
    let signal =
        Signal::from_str(name).map_err(|_| Refusal::Word("USAGE", format!("{name:?} is no signal")))?;
    kill(pid(arguments)?, signal)?;
    Ok("sent it".to_owned())
}

fn pidfd_signal(arguments: &[String]) -> Done {
    raw::pidfd_signal(pid(arguments)?.as_raw())?;
    Ok("may signal it".to_owned())
}

fn trace(arguments: &[String]) -> Done {
    raw::trace(pid(arguments)?.as_raw())?;
    Ok("traces it".to_owned())
}

/// Reads another process's memory. An address that is not mapped comes after the question whether it may.
fn read_memory(arguments: &[String]) -> Done {
    match raw::read_memory(pid(arguments)?.as_raw()) {
        Ok(()) | Err(Errno::EFAULT) => Ok("may read it".to_owned()),
        Err(errno) => Err(errno.into()),
    }
}

fn take_descriptor(arguments: &[String]) -> Done {
    raw::take_descriptor(pid(arguments)?.as_raw())?;
    Ok("took it".to_owned())
}

/// Runs a copy of `id` that belongs to root and runs as its owner.
fn run_set_uid(arguments: &[String]) -> Done {
    let output = Command::new(text(arguments, 0)?).arg("--user").stdin(Stdio::null()).output()?;
    let user = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if user == "0" { Ok("ran as root".to_owned()) } else { Err(Refusal::Word("UNCHANGED", user)) }
}

/// Runs on that CPU alone.
fn cpu(arguments: &[String]) -> Done {
    let mut set = CpuSet::new();
    set.set(number(arguments, 0)?)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok("runs there".to_owned())
}

/// Has that many threads at once.
fn threads(arguments: &[String]) -> Done {
    let count: u32 = number(arguments, 0)?;
    // Shut for as long as there are to be more.
    let gate = RwLock::new(());
    let shut = gate.write();
    thread::scope(|scope| {
        let mut outcome = Ok(format!("had {count}"));
        for started in 0..count {
            let thread = thread::Builder::new().stack_size(64 << 10);
            if let Err(error) = thread.spawn_scoped(scope, || drop(gate.read())) {
                eprintln!("no more after {started} threads");
                outcome = Err(error.into());
                break;
            }
        }
        drop(shut);
        outcome
    })
}

/// Computes in that many threads until a file is there, or so many seconds are over, and asks for every CPU again and again:
/// `burn THREADS SECONDS FILE`. Says which CPUs it ran on.
fn burn(arguments: &[String]) -> Done {
    let (count, seconds): (u32, u64) = (number(arguments, 0)?, number(arguments, 1)?);
    let (stop, end) = (Path::new(text(arguments, 2)?), Instant::now() + Duration::from_secs(seconds));
    let mut seen = BTreeSet::new();
    thread::scope(|scope| {
        let burners: Vec<_> = (0..count).map(|_| scope.spawn(|| burn_until(end, stop))).collect();
        for burner in burners {
            seen.extend(burner.join().unwrap_or_default());
        }
    });
    let seen: Vec<_> = seen.into_iter().map(|cpu| cpu.to_string()).collect();
    Ok(format!("ran on {}", seen.join(",")))
}

fn burn_until(end: Instant, stop: &Path) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut round = 0_usize;
    while Instant::now() < end && !stop.exists() {
        round = round.wrapping_add(1);
        let mut wanted = CpuSet::new();
        // Refused for all but its own.
        wanted.set(round % 8).and_then(|()| sched_setaffinity(Pid::from_raw(0), &wanted)).unwrap_or_default();
        for step in 0..200_000_u32 {
            std::hint::black_box(step.wrapping_mul(2_654_435_761));
            if step % 20_000 == 0 {
                seen.extend(sched_getcpu());
            }
        }
    }
    seen
}

/// Uses that many MiB of memory.
fn allocate(arguments: &[String]) -> Done {
    let size: usize = number(arguments, 0)?;
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for block in 0..size {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(1 << 20).map_err(|_| Errno::ENOMEM)?;
        bytes.resize(1 << 20, u8::try_from(block % 251).unwrap_or(1) | 1);
        blocks.push(bytes);
    }
    let sum: u64 = blocks.iter().filter_map(|block| block.last()).map(|&byte| u64::from(byte)).sum();
    Ok(format!("used {size} MiB ({sum})"))
}

/// Runs a program that does it.
fn run(arguments: &[String]) -> Done {
    let program = text(arguments, 0)?;
    let output = Command::new(program).args(arguments.iter().skip(1)).stdin(Stdio::null()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    // The bus's names are in the words of who asked it.
    let denied = ["access denied", "authentication required", "interactive authentication", "not permitted"];
    let lower = errors.to_lowercase();
    let word = if denied.iter().any(|denied| lower.contains(denied)) { "DENIED" } else { "FAILED" };
    Err(Refusal::Word(word, errors))
}
