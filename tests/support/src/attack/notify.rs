//! Owns acts that speak for somebody else: to systemd as another unit, to the daemon as another prober; and the one that
//! ends the engine's own prober.

use std::fs;
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, UnixCredentials, sendmsg};
use nix::unistd::{Pid, getgid, getuid};

use super::{Done, Refusal, number, raw, text};

/// Where systemd listens, whatever an engine's environment says.
const NOTIFY: &str = "/run/systemd/notify";
/// How long systemd may take to read it.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Where the daemon listens to probers.
const REPORT: &str = "/run/pool-managerd/report/socket";

pub(super) fn act(way: &str, arguments: &[String]) -> Option<Done> {
    Some(match way {
        "notify" => notify(arguments),
        "notify-as" => notify_as(arguments),
        "report" => report(arguments),
        "flood" => flood(arguments),
        "kill-prober" => kill_prober(),
        _ => return None,
    })
}

/// Tells systemd something: `notify WORD…`, each word a line.
fn notify(arguments: &[String]) -> Done {
    let socket = UnixDatagram::unbound()?;
    socket.send_to(arguments.join("\n").as_bytes(), NOTIFY)?;
    await_read(&socket)?;
    Ok("systemd has read it".to_owned())
}

/// Waits until systemd has read what was sent, by a descriptor that it closes then: newer ones take no word of a process
/// that has ended meanwhile.
fn await_read(socket: &UnixDatagram) -> Result<(), Refusal> {
    let (mut ours, its) = UnixStream::pair()?;
    let passed = [its.as_raw_fd()];
    let barrier = [IoSlice::new(b"BARRIER=1")];
    let address = UnixAddr::new(NOTIFY)?;
    sendmsg(
        socket.as_raw_fd(),
        &barrier,
        &[ControlMessage::ScmRights(&passed)],
        MsgFlags::empty(),
        Some(&address),
    )?;
    drop(its);
    ours.set_read_timeout(Some(READ_LIMIT))?;
    ours.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The same with another process's credentials: `notify-as PID WORD…`.
fn notify_as(arguments: &[String]) -> Done {
    let socket = UnixDatagram::unbound()?;
    let said = arguments.get(1..).unwrap_or_default().join("\n");
    let credentials = raw::credentials(number(arguments, 0)?, getuid().as_raw(), getgid().as_raw());
    let address = UnixAddr::new(NOTIFY)?;
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(said.as_bytes())],
        &[ControlMessage::ScmCredentials(&UnixCredentials::from(credentials))],
        MsgFlags::empty(),
        Some(&address),
    )?;
    await_read(&socket)?;
    Ok("systemd has read it".to_owned())
}

/// Sends the daemon a report: `report TEXT`.
fn report(arguments: &[String]) -> Done {
    UnixDatagram::unbound()?.send_to(text(arguments, 0)?.as_bytes(), REPORT)?;
    Ok("sent".to_owned())
}

/// Sends as much as goes to both for so many seconds, and says how much that was.
fn flood(arguments: &[String]) -> Done {
    let end = Instant::now() + Duration::from_secs(number(arguments, 0)?);
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(Duration::from_millis(100)))?;
    let (mut told, mut reported, mut refused) = (0_u64, 0_u64, 0_u64);
    while Instant::now() < end {
        let status = format!("STATUS=flood {told}\nEXTEND_TIMEOUT_USEC=1000000");
        let sent = [
            (socket.send_to(status.as_bytes(), NOTIFY), &mut told),
            (socket.send_to(b"no report at all", REPORT), &mut reported),
        ];
        for (sent, count) in sent {
            if sent.is_ok() { *count += 1 } else { refused += 1 }
        }
    }
    Ok(format!("{told} to systemd, {reported} to the daemon, {refused} did not go"))
}

/// Kills the prober, which runs as the same user in the same unit.
fn kill_prober() -> Done {
    let probers = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|&byte| byte == 0);
        let is_prober = words.next()? == b"pool-helper" && words.next()? == b"probe";
        is_prober.then(|| Pid::from_raw(pid))
    });
    let probers: Vec<Pid> = probers.collect();
    if probers.is_empty() {
        return Err(Refusal::Word("NO-PROBER", String::new()));
    }
    for &prober in &probers {
        kill(prober, Signal::SIGKILL)?;
    }
    Ok(format!("killed {}", probers.len()))
}
