//! Owns the socket on which probers report numbers of their engines. Who sent a datagram is taken from the kernel, never
//! from what it says: the process's cgroup names the unit. So an engine can lie about itself alone.
//!
//! The socket lies in a folder of its own, which is all that a unit sees of the daemon's; a new daemon makes the socket
//! anew, and the folder stays.

use crate::ports::Probers;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
};
use pool_core::name::UnitName;
use pool_core::replica::Report;
use pool_core::unit::{SLICE, pool_slice};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::Instant;

/// The longest report that the core takes.
const LONGEST: usize = 4096;
/// Of one unit a report in this time is taken in, in the long run; a prober sends half as many at most.
const EVERY: Duration = Duration::from_millis(50);
/// So many may come at once, for rounds are not equally long.
const BURST: u32 = 4;

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the report socket {}", path.display())]
pub struct ReportSocketError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The socket.
#[derive(Debug)]
pub struct Reports {
    socket: UnixDatagram,
    /// Where processes are looked up.
    proc: PathBuf,
    /// Until when each unit has had its share.
    shares: BTreeMap<UnitName, Instant>,
}

/// What was received, and from which process.
#[derive(Debug)]
struct Datagram {
    sender: i32,
    text: Vec<u8>,
}

impl Reports {
    /// Makes the socket `report/socket` below a folder that outlives the daemon, for everybody to write to.
    ///
    /// # Errors
    /// It could not be made.
    pub fn below(runtime: &Path) -> Result<Self, ReportSocketError> {
        let folder = runtime.join("report");
        let path = folder.join("socket");
        let failed = |source| ReportSocketError { path: path.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
        setsockopt(&socket, PassCred, &true).map_err(|errno| failed(errno.into()))?;
        Ok(Reports { socket, proc: PathBuf::from("/proc"), shares: BTreeMap::new() })
    }

    /// The report in a datagram, if it is one of a unit of ours that has not sent too many.
    fn read(&mut self, datagram: &Datagram) -> Option<(UnitName, Report)> {
        let report = Report::parse(str::from_utf8(&datagram.text).ok()?).ok()?;
        let unit = unit_of(&self.proc, datagram.sender)?;
        self.has_share(&unit, Instant::now()).then_some((unit, report))
    }

    /// Whether one more of that unit is taken in, which it then is.
    fn has_share(&mut self, unit: &UnitName, now: Instant) -> bool {
        self.shares.retain(|_, until| *until > now);
        let until = self.shares.get(unit).copied().unwrap_or(now) + EVERY;
        let has = until <= now + EVERY * BURST;
        if has {
            self.shares.insert(unit.clone(), until);
        }
        has
    }
}

impl Probers for Reports {
    /// The next report of a unit of ours. What comes from elsewhere, is no report, or is one too many, is dropped.
    async fn next(&mut self) -> io::Result<(UnitName, Report)> {
        loop {
            let datagram = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await?;
            if let Some(report) = datagram.and_then(|datagram| self.read(&datagram)) {
                return Ok(report);
            }
            tracing::debug!("a report of nobody's, one that is none, or one too many was dropped");
            // A flood of these must not keep the loop from anything else.
            tokio::task::yield_now().await;
        }
    }
}

/// One datagram; `None`: what came is none that could be a report. An error is the socket's own.
fn receive(socket: &UnixDatagram) -> io::Result<Option<Datagram>> {
    let mut bytes = [0; LONGEST];
    // The kernel puts the credentials first. They leave no room for descriptors, so that those of a stranger are closed
    // before they become ours.
    let mut space = cmsg_space!(UnixCredentials);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
        Err(Errno::EINTR | Errno::ENOMEM | Errno::ENOBUFS) => return Ok(None),
        received => received?,
    };
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Ok(None);
    }
    let sender = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    let text = message.iovs().flatten().copied().collect();
    Ok(sender.map(|sender| Datagram { sender, text }))
}

/// The unit of ours whose cgroup a process is in.
fn unit_of(proc: &Path, pid: i32) -> Option<UnitName> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    // The line of the one hierarchy of version 2, or of systemd's own beside others of version 1; on a host with both,
    // one of them names no unit.
    let path = |line: &str| {
        let systemd = || line.split_once(":name=systemd:").map(|(_, path)| path.to_owned());
        line.strip_prefix("0::").map(str::to_owned).or_else(systemd)
    };
    // Only in our slice: a user to whom a cgroup is delegated may name one in it as he likes. A unit lies in its pool's
    // slice; one that an earlier version of the daemon started lies beside those.
    let unit = |path: String| {
        let below = path.strip_prefix('/')?.strip_prefix(SLICE)?.strip_prefix('/')?;
        let mut parts = below.split('/');
        let first = parts.next()?;
        if let Ok(unit) = first.parse() {
            return Some(unit);
        }
        let unit: UnitName = parts.next()?.parse().ok()?;
        (pool_slice(&unit.replica.pool) == first).then_some(unit)
    };
    text.lines().filter_map(path).find_map(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};
    use std::os::unix::net::UnixDatagram;

    const UNIT: &str = "llamaorch-engine-chat-r0.g1.service";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("pool-report-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder of the test's own");
            Folder(path)
        }

        /// The socket below it, and one of a prober: this process, in its unit's cgroup.
        fn beside_a_prober(&self) -> (Reports, UnixDatagram) {
            let mut reports = Reports::below(&self.0).expect("a socket");
            reports.proc = self.proc(&format!("0::/llamaorch.slice/llamaorch-chat.slice/{UNIT}\n"));
            (reports, UnixDatagram::unbound().expect("a socket"))
        }

        /// A `/proc` in which this process is in that cgroup.
        fn proc(&self, cgroup: &str) -> PathBuf {
            let own = self.0.join("proc").join(std::process::id().to_string());
            fs::create_dir_all(&own).expect("a folder of the test's own");
            fs::write(own.join("cgroup"), cgroup).expect("a folder of the test's own");
            self.0.join("proc")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    async fn next(reports: &mut Reports) -> Option<(UnitName, Report)> {
        tokio::time::timeout(Duration::from_millis(300), reports.next())
            .await
            .ok()
            .map(|report| report.expect("the socket works"))
    }

    #[tokio::test]
    async fn a_report_is_of_the_unit_whose_process_sent_it() {
        let folder = Folder::new("own");
        let (mut reports, prober) = folder.beside_a_prober();
        let socket = folder.0.join("report/socket");
        prober.send_to(b"no report", &socket).expect("it is heard");
        prober.send_to(b"\xff\xfe", &socket).expect("it is heard");
        prober.send_to(&[b'x'; 4096], &socket).expect("it is heard");
        let text = format!("INVOCATION_ID={}\nIN_FLIGHT=3\n", "ab".repeat(16));
        prober.send_to(text.as_bytes(), &socket).expect("it is heard");
        let (unit, report) = next(&mut reports).await.expect("a report");
        assert_eq!((unit.to_string().as_str(), report.in_flight), (UNIT, Some(3)));
    }

    fn text(in_flight: usize) -> String {
        format!("INVOCATION_ID={}\nIN_FLIGHT={in_flight}\n", "ab".repeat(16))
    }

    /// What a datagram brings that the receiver did not ask for: the writing end of a pipe, of which no other copy is left.
    fn send_descriptor(prober: &UnixDatagram, socket: &Path) -> std::io::PipeReader {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let address = UnixAddr::new(socket).expect("a short path");
        let rights = [ControlMessage::ScmRights(&[writer.as_raw_fd()])];
        let text = text(9);
        let slices = [io::IoSlice::new(text.as_bytes())];
        sendmsg(prober.as_raw_fd(), &slices, &rights, MsgFlags::empty(), Some(&address))
            .expect("it is heard");
        reader
    }

    #[tokio::test]
    async fn a_datagram_that_is_cut_off_is_dropped_and_the_next_one_heard() {
        let folder = Folder::new("cut");
        let (mut reports, prober) = folder.beside_a_prober();
        let socket = folder.0.join("report/socket");
        let mut reader = send_descriptor(&prober, &socket);
        let long = |length: usize| format!("{}X={}\n", text(8), "x".repeat(length - text(8).len() - 3));
        prober.send_to(long(LONGEST + 1).as_bytes(), &socket).expect("it is heard");
        prober.send_to(long(LONGEST + 1_000).as_bytes(), &socket).expect("it is heard");
        prober.send_to(long(4096).as_bytes(), &socket).expect("it is heard");
        assert_eq!(
            next(&mut reports).await.expect("a report").1.in_flight,
            Some(8),
            "the longest that there is"
        );
        prober.send_to(text(3).as_bytes(), &socket).expect("it is heard");
        assert_eq!(next(&mut reports).await.expect("a report").1.in_flight, Some(3));
        let read = tokio::task::spawn_blocking(move || io::Read::read(&mut reader, &mut [0]));
        let ended = tokio::time::timeout(Duration::from_secs(3), read).await;
        assert!(matches!(ended, Ok(Ok(Ok(0)))), "somebody holds the descriptor: {ended:?}");
    }

    #[tokio::test]
    async fn of_a_flood_of_one_unit_few_are_taken_in_and_each_lets_others_run() {
        let folder = Folder::new("flood");
        let (mut reports, prober) = folder.beside_a_prober();
        prober.set_nonblocking(true).expect("a socket");
        let socket = folder.0.join("report/socket");
        let (mut taken, mut polls) = (0, 0);
        let begun = std::time::Instant::now();
        while taken < 2 * BURST {
            while prober.send_to(text(1).as_bytes(), &socket).is_ok() {}
            tokio::select! {
                biased;
                report = reports.next() => taken += u32::from(report.is_ok()),
                () = tokio::task::yield_now() => polls += 1,
            }
        }
        assert!(begun.elapsed() >= EVERY * BURST, "{taken} of a flood of {:?}", begun.elapsed());
        assert!(polls > taken, "{polls}");
        tokio::time::sleep(EVERY * BURST).await;
        while next(&mut reports).await.is_some() {}
        for round in 0..10 {
            prober.send_to(text(round).as_bytes(), &socket).expect("it is heard");
            assert_eq!(next(&mut reports).await.expect("a report").1.in_flight, u32::try_from(round).ok());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test]
    async fn what_comes_from_elsewhere_is_dropped() {
        let folder = Folder::new("other");
        let mut reports = Reports::below(&folder.0).expect("a socket");
        reports.proc = folder.proc("0::/user.slice/session-1.scope\n");
        let text = format!("INVOCATION_ID={}\nIN_FLIGHT=3\n", "ab".repeat(16));
        UnixDatagram::unbound()
            .expect("a socket")
            .send_to(text.as_bytes(), folder.0.join("report/socket"))
            .expect("it is heard");
        assert_eq!(next(&mut reports).await, None);
    }

    #[tokio::test]
    async fn the_socket_of_an_earlier_run_is_made_anew() {
        let folder = Folder::new("anew");
        drop(Reports::below(&folder.0).expect("a socket"));
        let reports = Reports::below(&folder.0);
        assert!(reports.is_ok(), "{reports:?}");
        let mode = fs::metadata(folder.0.join("report/socket")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
    }

    #[test]
    fn a_process_of_a_worker_below_its_unit_is_of_that_unit() {
        let folder = Folder::new("below");
        let pid = i32::try_from(std::process::id()).expect("a process id");
        let proc = folder.proc(&format!("3:cpu:/x\n1:name=systemd:/llamaorch.slice/{UNIT}/worker\n"));
        assert_eq!(unit_of(&proc, pid).expect("a unit of ours").to_string(), UNIT);
        assert_eq!(unit_of(&proc, 0), None);
        let proc = folder.proc(&format!("0::/llamaorch.slice/llamaorch-chat.slice/{UNIT}/worker\n"));
        assert_eq!(unit_of(&proc, pid).expect("a unit of ours").to_string(), UNIT, "in its pool's slice");
        let proc = folder.proc(&format!("0::/llamaorch.slice/llamaorch-other.slice/{UNIT}\n"));
        assert_eq!(unit_of(&proc, pid), None, "in another pool's slice");
        let proc = folder.proc(&format!("9:name=systemd:/\n1:cpu:/\n0::/llamaorch.slice/{UNIT}\n"));
        assert_eq!(unit_of(&proc, pid).expect("a unit of ours").to_string(), UNIT, "beside version 1");
    }

    #[test]
    fn a_cgroup_that_is_only_named_like_a_unit_is_none() {
        let folder = Folder::new("alike");
        let pid = i32::try_from(std::process::id()).expect("a process id");
        for above in ["/user.slice/user-1000.slice/user@1000.service", "/user.slice/llamaorch.slice", ""] {
            let proc = folder.proc(&format!("0::{above}/{UNIT}\n"));
            assert_eq!(unit_of(&proc, pid), None, "{above}");
        }
    }
}
