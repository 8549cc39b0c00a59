//! Owns the descriptors of leases: a FIFO each, of which the daemon has the reading end and the holder the writing end.
//! A lease is over when the last copy of the writing end is closed, whatever became of its holder.
//!
//! The FIFOs lie in a folder that outlives the daemon, named by their leases: the next run opens each again and sees at
//! once whether somebody still holds it. The name has the lease's terms too. What a holder writes is never read, so it cannot keep the daemon busy.

#![allow(clippy::disallowed_methods, reason = "one task a lease, which only waits for its end")]

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, read};
use pool_core::lease::{Given, LeaseId};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// A lease's descriptor that could not be made, or the folder of them.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct LeaseError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A FIFO that is watched.
#[derive(Debug)]
struct Watched {
    task: AbortHandle,
    /// The name that it has in the folder.
    name: String,
}

/// The descriptors of all leases.
#[derive(Debug)]
pub struct Fifos {
    folder: PathBuf,
    watched: HashMap<LeaseId, Watched>,
    // No more entries than leases, which the core bounds.
    ended: (mpsc::UnboundedSender<LeaseId>, mpsc::UnboundedReceiver<LeaseId>),
}

impl Fifos {
    /// The FIFOs in the folder `leases` of a folder that outlives the daemon. Nothing is made before it is needed.
    #[must_use]
    pub fn below(runtime: &Path) -> Self {
        Fifos { folder: runtime.join("leases"), watched: HashMap::new(), ended: mpsc::unbounded_channel() }
    }

    /// The leases of an earlier run that are still held, from now on watched. What is over is removed; what is no lease
    /// is left alone, with a complaint.
    #[must_use]
    pub fn adopt(&mut self) -> (Vec<Given>, Vec<String>) {
        let (mut held, mut complaints) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (held, complaints),
            Err(error) => {
                complaints.push(format!("cannot list {}: {error}", self.folder.display()));
                return (held, complaints);
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Some(given) = entry.file_name().to_str().and_then(|name| name.parse::<Given>().ok()) else {
                complaints.push(format!("{} is no lease and is left alone", path.display()));
                continue;
            };
            match self.take_up(&given, &path) {
                Ok(true) => held.push(given),
                Ok(false) => drop(fs::remove_file(&path)),
                Err(error) => complaints.push(format!("{error}: {}", error.source)),
            }
        }
        held.sort_by(|one, other| one.id.cmp(&other.id));
        (held, complaints)
    }

    /// Makes a lease's FIFO and hands out its writing end.
    ///
    /// # Errors
    /// It could not be made; nothing of it is left.
    pub fn open(&mut self, given: &Given) -> Result<OwnedFd, LeaseError> {
        let path = self.folder.join(given.to_string());
        match self.make(given, &path) {
            Ok(writer) => Ok(writer),
            Err(error) => {
                drop(fs::remove_file(&path));
                Err(error)
            }
        }
    }

    /// Ends a lease's FIFO: its holder sees that by the end of the other side.
    pub fn close(&mut self, id: &LeaseId) {
        if let Some(Watched { task, name }) = self.watched.remove(id) {
            task.abort();
            // It may be gone already.
            drop(fs::remove_file(self.folder.join(name)));
        }
    }

    /// Keeps a lease's FIFO with other terms.
    ///
    /// # Errors
    /// Its name could not be changed: the next run of the daemon would go by the terms that it had.
    pub fn renew(&mut self, given: &Given) -> Result<(), LeaseError> {
        let Some(watched) = self.watched.get_mut(&given.id) else { return Ok(()) };
        let name = given.to_string();
        let (from, path) = (self.folder.join(&watched.name), self.folder.join(&name));
        fs::rename(from, &path).map_err(|source| LeaseError { what: "rename the FIFO to", path, source })?;
        watched.name = name;
        Ok(())
    }

    /// The next lease whose holder let go of it.
    pub async fn ended(&mut self) -> Option<LeaseId> {
        self.ended.1.recv().await
    }

    /// One that has ended already.
    pub fn has_ended(&mut self) -> Option<LeaseId> {
        self.ended.1.try_recv().ok()
    }

    fn make(&mut self, given: &Given, path: &Path) -> Result<OwnedFd, LeaseError> {
        let failed =
            |what| move |errno: nix::Error| LeaseError { what, path: path.to_owned(), source: errno.into() };
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match mkfifo(path, mode) {
            Err(nix::Error::ENOENT) => {
                self.make_folder()?;
                mkfifo(path, mode).map_err(failed("make the FIFO"))?;
            }
            made => made.map_err(failed("make the FIFO"))?,
        }
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let reader = open(path, flags | OFlag::O_RDONLY, Mode::empty()).map_err(failed("read"))?;
        let writer = open(path, flags | OFlag::O_WRONLY, Mode::empty()).map_err(failed("write"))?;
        self.watch(given, path, reader)?;
        Ok(writer)
    }

    fn make_folder(&self) -> Result<(), LeaseError> {
        let failed = |source| LeaseError { what: "make the folder", path: self.folder.clone(), source };
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).map_err(failed)
            }
            made => made.map_err(failed),
        }
    }

    /// Opens a FIFO of an earlier run; false where nobody holds it.
    fn take_up(&mut self, given: &Given, path: &Path) -> Result<bool, LeaseError> {
        let failed =
            |errno: nix::Error| LeaseError { what: "open", path: path.to_owned(), source: errno.into() };
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
        let reader = open(path, flags, Mode::empty()).map_err(failed)?;
        // Somebody who holds it may have written into it; the kernel keeps no more than it takes a few reads for.
        let mut buffer = [0; 4096];
        loop {
            match read(reader.as_fd(), &mut buffer) {
                Ok(0) => return Ok(false),
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => break,
                Err(errno) => return Err(failed(errno)),
            }
        }
        self.watch(given, path, reader)?;
        Ok(true)
    }

    fn watch(&mut self, given: &Given, path: &Path, reader: OwnedFd) -> Result<(), LeaseError> {
        #[allow(
            deprecated,
            reason = "what its successor leaves to the caller, an owned descriptor keeps by itself"
        )]
        let reader = AsyncFd::with_interest(reader, Interest::READABLE).map_err(|source| LeaseError {
            what: "watch",
            path: path.to_owned(),
            source,
        })?;
        let (ended, lease) = (self.ended.0.clone(), given.id.clone());
        let task = tokio::spawn(async move {
            // An event that is no end is something written: it is left where it is, and the next one waited for.
            while let Ok(mut guard) = reader.ready(Interest::READABLE).await {
                if guard.ready().is_read_closed() {
                    break;
                }
                guard.clear_ready();
            }
            if ended.send(lease).is_err() {
                tracing::debug!("a lease ended after the loop did");
            }
        });
        let watched = Watched { task: task.abort_handle(), name: given.to_string() };
        self.watched.insert(given.id.clone(), watched);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool_core::lease::Terms;
    use pool_core::name::Usec;
    use std::io::Write;
    use std::time::Duration;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("pool-leases-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder of the test's own");
            Folder(path)
        }

        fn files(&self) -> usize {
            fs::read_dir(self.0.join("leases")).map_or(0, Iterator::count)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn lease(number: u64) -> LeaseId {
        LeaseId { replica: "chat-r0".parse().expect("a valid name"), number }
    }

    fn given(number: u64) -> Given {
        let terms = Terms { uid: 7, until: Some(Usec(number)), holder: "a test".to_owned() };
        Given { id: lease(number), terms }
    }

    async fn next(fifos: &mut Fifos) -> Option<LeaseId> {
        tokio::time::timeout(Duration::from_millis(300), fifos.ended()).await.ok().flatten()
    }

    #[tokio::test]
    async fn a_lease_ends_with_the_last_copy_of_its_descriptor() {
        let folder = Folder::new("copies");
        let mut fifos = Fifos::below(&folder.0);
        let writer = fifos.open(&given(1)).expect("a FIFO");
        let copy = writer.try_clone().expect("a copy");
        drop(writer);
        assert_eq!(next(&mut fifos).await, None, "a copy is still open");
        drop(copy);
        assert_eq!(next(&mut fifos).await, Some(lease(1)));
        fifos.close(&lease(1));
        assert_eq!(folder.files(), 0);
    }

    #[tokio::test]
    async fn what_a_holder_writes_neither_ends_its_lease_nor_keeps_anybody_busy() {
        let folder = Folder::new("written");
        let mut fifos = Fifos::below(&folder.0);
        let mut writer = fs::File::from(fifos.open(&given(2)).expect("a FIFO"));
        while writer.write(&[0; 4096]).is_ok() {}
        assert_eq!(next(&mut fifos).await, None);
        drop(writer);
        assert_eq!(next(&mut fifos).await, Some(lease(2)));
    }

    #[tokio::test]
    async fn the_next_run_knows_which_leases_are_still_held() {
        let folder = Folder::new("adopted");
        let mut before = Fifos::below(&folder.0);
        let (held, written, dropped) = (
            before.open(&given(1)).expect("a FIFO"),
            before.open(&given(2)).expect("a FIFO"),
            before.open(&given(3)).expect("a FIFO"),
        );
        fs::File::from(written.try_clone().expect("a copy")).write_all(b"x").expect("somebody reads");
        for watched in before.watched.values() {
            watched.task.abort();
        }
        tokio::task::yield_now().await;
        drop(before);
        tokio::task::yield_now().await;
        drop(dropped);
        fs::write(folder.0.join("leases/README"), "").expect("a folder of the test's own");
        let mut after = Fifos::below(&folder.0);
        let (adopted, complaints) = after.adopt();
        assert_eq!(adopted, [given(1), given(2)]);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert_eq!(folder.files(), 3, "what is over is gone");
        drop(held);
        assert_eq!(next(&mut after).await, Some(lease(1)));
        drop(written);
        assert_eq!(next(&mut after).await, Some(lease(2)));
    }

    #[tokio::test]
    async fn a_closed_lease_is_told_of_no_more() {
        let folder = Folder::new("closed");
        let mut fifos = Fifos::below(&folder.0);
        let writer = fifos.open(&given(1)).expect("a FIFO");
        fifos.close(&lease(1));
        drop(writer);
        assert_eq!(next(&mut fifos).await, None);
        assert_eq!(folder.files(), 0);
    }

    #[tokio::test]
    async fn a_renewed_lease_is_adopted_on_its_new_terms() {
        let folder = Folder::new("renewed");
        let mut before = Fifos::below(&folder.0);
        let held = before.open(&given(1)).expect("a FIFO");
        let terms = Terms { until: None, ..given(1).terms };
        let renewed = Given { id: lease(1), terms };
        before.renew(&renewed).expect("it is there");
        before.renew(&given(2)).expect("what is over is not renewed, which is no error");
        assert_eq!(folder.files(), 1);
        let (adopted, complaints) = Fifos::below(&folder.0).adopt();
        assert_eq!((adopted, complaints), (vec![renewed], Vec::new()));
        drop(held);
        assert_eq!(next(&mut before).await, Some(lease(1)));
        before.close(&lease(1));
        assert_eq!(folder.files(), 0);
    }

    #[tokio::test]
    async fn the_folder_is_for_the_daemon_alone() {
        let folder = Folder::new("mode");
        let mut fifos = Fifos::below(&folder.0);
        let _held = fifos.open(&given(1)).expect("a FIFO");
        assert_eq!(
            fs::metadata(folder.0.join("leases")).expect("it is there").permissions().mode() & 0o777,
            0o700
        );
    }
}
