//! A polkit that answers as the test says, and remembers what it was asked; and connections of other users, since root
//! is never asked for.

use crate::bench::Bench;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedVariant, connection, fdo};

pub const NAME: &str = "org.freedesktop.PolicyKit1";
pub const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
pub const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";

/// Users that are not root. The bus takes only those that the host knows; these every Debian has (`nobody`, `daemon`).
pub const NOBODY: u32 = 65534;
pub const SOMEBODY_ELSE: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Yes,
    No,
    /// A person would have to be asked.
    Challenge,
    /// That the caller is not there, in the bus's words.
    NoSuchCaller,
    /// Nothing, until the test says something else.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub subject: String,
    pub action: String,
    pub pool: String,
    pub with_a_person: bool,
    pub id: String,
}

#[derive(Clone)]
pub struct FakePolkit {
    /// What it says by itself, and what the person says.
    says: watch::Sender<(Says, Says)>,
    asked: Arc<Mutex<Vec<Asked>>>,
    canceled: Arc<Mutex<Vec<String>>>,
}

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl FakePolkit {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        details: HashMap<String, String>,
        flags: u32,
        id: String,
    ) -> fdo::Result<((bool, bool, HashMap<String, String>),)> {
        assert_eq!(subject.0, "system-bus-name", "a process is no subject");
        let subject: String = subject.1["name"]
            .try_clone()
            .expect("it is of that type")
            .try_into()
            .expect("it is of that type");
        let pool = details.get("pool").cloned().unwrap_or_default();
        let with_a_person = flags & 1 != 0;
        let unknown = format!("Could not get UID of name '{subject}': no such name");
        self.asked.lock().expect("no test has panicked with it").push(Asked {
            subject,
            action,
            pool,
            with_a_person,
            id,
        });
        let mut says = self.says.subscribe();
        let mine = |says: &(Says, Says)| if with_a_person { says.1 } else { says.0 };
        let said = mine(&says.wait_for(|says| mine(says) != Says::Nothing).await.expect("it is not dropped"));
        if said == Says::NoSuchCaller {
            return Err(fdo::Error::NameHasNoOwner(unknown));
        }
        Ok(((said == Says::Yes, said == Says::Challenge, HashMap::new()),))
    }

    fn cancel_check_authorization(&self, id: String) {
        self.canceled.lock().expect("no test has panicked with it").push(id);
    }

    #[zbus(signal)]
    async fn changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

/// A [`FakePolkit`] that owns the name, for as long as this is kept.
pub struct Polkit {
    pub fake: FakePolkit,
    pub bus: Connection,
}

impl Polkit {
    pub async fn start(bench: &Bench, says: Says) -> Polkit {
        let fake = FakePolkit {
            says: watch::Sender::new((says, Says::Nothing)),
            asked: Arc::default(),
            canceled: Arc::default(),
        };
        let bus = connection::Builder::address(bench.bus.address.as_str())
            .serve_at(PATH, fake.clone())
            .name(NAME)
            .build()
            .await
            .expect("the bus is there");
        Polkit { fake, bus }
    }

    pub fn says(&self, says: Says) {
        self.fake.says.send_modify(|now| now.0 = says);
    }

    pub fn person_says(&self, says: Says) {
        self.fake.says.send_modify(|now| now.1 = says);
    }

    /// What it was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.fake.asked.lock().expect("no test has panicked with it"))
    }

    pub fn has_been_asked(&self, times: usize) -> bool {
        self.fake.asked.lock().expect("no test has panicked with it").len() == times
    }

    pub fn canceled(&self) -> Vec<String> {
        self.fake.canceled.lock().expect("no test has panicked with it").clone()
    }

    pub async fn signal_changed(&self) {
        let emitter = SignalEmitter::new(&self.bus, PATH).expect("a path");
        FakePolkit::changed(&emitter).await.expect("the bus takes it");
    }
}

/// A connection of a user that is not root. It leaves the bus with this.
pub struct Somebody {
    pub bus: Connection,
    bridge: Child,
}

impl Somebody {
    pub async fn connect(bench: &Bench) -> Somebody {
        Somebody::connect_as(bench, NOBODY).await
    }

    pub async fn connect_as(bench: &Bench, user: u32) -> Somebody {
        let bus = zbus::fdo::DBusProxy::new(&bench.client).await.expect("the bus is there");
        let own = bench.client.unique_name().expect("a connection of a bus has a name").into();
        let uid = bus.get_connection_unix_user(own).await.expect("the bus is there");
        assert_eq!(uid, 0, "these tests become another user: run them as root");
        // The bus sees who opened the connection, which is the bridge.
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let bridge = Command::new("systemd-stdio-bridge")
            .arg(format!("--bus-path={}", bench.bus.address))
            .uid(user)
            .gid(user)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().expect("a copy"))))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("systemd-stdio-bridge is needed: apt-get install systemd");
        let bus = connection::Builder::unix_stream(ours).build().await.expect("the bus is there");
        Somebody { bus, bridge }
    }

    pub fn name(&self) -> String {
        self.bus.unique_name().expect("a connection of a bus has a name").to_string()
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        self.bridge.kill().expect("it runs");
        self.bridge.wait().expect("it was started");
    }
}
