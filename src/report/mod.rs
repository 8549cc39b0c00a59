//! Owns the socket on which probers report numbers of their engines. Who sent a datagram is taken from the kernel, never
//! from what it says: the process's cgroup names the unit. So an engine can lie about itself alone.
//!
//! The socket lies in a folder of its own, which is all that a unit sees of the daemon's; a new daemon makes the socket
//! anew, and the folder stays.

use crate::ports::Probers;
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
};
use pool_core::name::UnitName;
use pool_core::replica::Report;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The longest report.
const LONGEST: usize = 1024;

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
        Ok(Reports { socket, proc: PathBuf::from("/proc") })
    }
}

impl Probers for Reports {
    /// The next report of a unit of ours. What comes from elsewhere, or is no report, is dropped.
    async fn next(&mut self) -> io::Result<(UnitName, Report)> {
        loop {
            let received = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await;
            let (sender, text) = match received {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                received => received?,
            };
            let unit = sender.and_then(|pid| unit_of(&self.proc, pid));
            match (unit, Report::parse(&text)) {
                (Some(unit), Ok(report)) => return Ok((unit, report)),
                _ => tracing::debug!("a report of nobody's, or that is none, was dropped"),
            }
        }
    }
}

/// One datagram, and the process that sent it.
fn receive(socket: &UnixDatagram) -> io::Result<(Option<i32>, String)> {
    let mut bytes = [0; LONGEST];
    let mut space = cmsg_space!(UnixCredentials);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let sender = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    let text: Vec<u8> = message.iovs().flatten().copied().collect();
    let text = String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((sender, text))
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
    let unit = |path: String| path.split('/').rev().find_map(|part| part.parse().ok());
    text.lines().filter_map(path).find_map(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    const UNIT: &str = "llamaorch-engine-chat-r0.g1.service";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("pool-report-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder of the test's own");
            Folder(path)
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
        let mut reports = Reports::below(&folder.0).expect("a socket");
        reports.proc = folder.proc(&format!("0::/llamaorch.slice/{UNIT}\n"));
        let prober = UnixDatagram::unbound().expect("a socket");
        let socket = folder.0.join("report/socket");
        prober.send_to(b"no report", &socket).expect("it is heard");
        prober.send_to(b"\xff\xfe", &socket).expect("it is heard");
        prober.send_to(&[b'x'; 4096], &socket).expect("it is heard");
        let text = format!("INVOCATION_ID={}\nIN_FLIGHT=3\n", "ab".repeat(16));
        prober.send_to(text.as_bytes(), &socket).expect("it is heard");
        let (unit, report) = next(&mut reports).await.expect("a report");
        assert_eq!((unit.to_string().as_str(), report.in_flight), (UNIT, Some(3)));
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
        let proc = folder.proc(&format!("3:cpu:/x\n1:name=systemd:/a/{UNIT}/worker\n"));
        assert_eq!(unit_of(&proc, pid).expect("a unit of ours").to_string(), UNIT);
        assert_eq!(unit_of(&proc, 0), None);
        let proc = folder.proc(&format!("9:name=systemd:/\n1:cpu:/\n0::/llamaorch.slice/{UNIT}\n"));
        assert_eq!(unit_of(&proc, pid).expect("a unit of ours").to_string(), UNIT, "beside version 1");
    }
}
