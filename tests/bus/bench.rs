//! The bench that a test works at: a private bus, the fake systemd on it, folders, and the daemon.

use crate::broker;
use crate::systemd::{FakeSystemd, ROOT};
use futures_util::StreamExt;
use pool_managerd::client::Client;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use zbus::{Connection, MessageStream, connection};

pub const NAME: &str = "org.llamaorch.PoolManager";
pub const MANAGER: &str = "/org/llamaorch/PoolManager";

/// Of a pool file: a drain that hardly waits for clients without leases.
pub const SETTLE: &str = "\
[drain]
settle = \"200ms\"
[health]
interval = \"100ms\"
timeout = \"100ms\"
";

pub struct Bench {
    pub folder: PathBuf,
    pub bus: Bus,
    pub systemd: FakeSystemd,
    pub systemd_bus: Connection,
    pub client: Connection,
}

/// A bus of this test's own.
pub struct Bus {
    child: Child,
    pub address: String,
    /// What a dbus-broker lives by.
    _controller: Option<UnixStream>,
}

impl Bus {
    /// The one that `POOL_TEST_BUS` names, else dbus-daemon.
    fn start(folder: &Path) -> Bus {
        match std::env::var("POOL_TEST_BUS").as_deref() {
            Err(_) | Ok("dbus-daemon") => Bus::daemon(folder),
            Ok("dbus-broker") => {
                let socket = folder.join("bus");
                let (child, controller) = broker::start(&socket);
                let address = format!("unix:path={}", socket.display());
                Bus { child, address, _controller: Some(controller) }
            }
            Ok(other) => panic!("POOL_TEST_BUS names {other}; there are dbus-daemon and dbus-broker"),
        }
    }

    fn daemon(folder: &Path) -> Bus {
        let config = folder.join("bus.conf");
        let socket = folder.join("bus");
        let text = format!(
            "<busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow own=\"*\"/><allow user=\"*\"/><allow send_destination=\"*\" eavesdrop=\"false\"/><allow receive_sender=\"*\"/>\
             </policy><limit name=\"max_replies_per_connection\">4096</limit></busconfig>",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let spawned = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            // It has a line for every call that it refuses.
            .stderr(fs::File::create(folder.join("bus.log")).expect("a file of the test's own"))
            .spawn();
        let mut child = spawned.expect("dbus-daemon is needed: apt-get install dbus-daemon");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Bus { child, address: line.trim().to_owned(), _controller: None }
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        let path = self.address.strip_prefix("unix:path=").expect("a socket in the file system");
        Path::new(path.split(',').next().unwrap_or_default())
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

impl Bench {
    /// A bus with a systemd on it, and no daemon yet.
    pub async fn new() -> Bench {
        let systemd = FakeSystemd::default();
        let mut bench = Bench::without_systemd().await;
        bench.systemd_bus = connection::Builder::address(bench.bus.address.as_str())
            .serve_at(ROOT, systemd.clone())
            .name("org.freedesktop.systemd1")
            .build()
            .await
            .unwrap();
        bench.systemd = systemd;
        bench
    }

    pub async fn without_systemd() -> Bench {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pool-bus-{}-{number}", std::process::id()));
        for below in ["etc/llamaorch/pools.d", "etc/llamaorch/engines.d", "run", "state"] {
            fs::create_dir_all(folder.join(below)).unwrap();
        }
        fs::write(
            folder.join("etc/llamaorch/engines.d/test.toml"),
            "program = \"server\"\n[health]\npath = \"/health\"\n",
        )
        .unwrap();
        let bus = Bus::start(&folder);
        let client = connection::Builder::address(bus.address.as_str()).build().await.unwrap();
        Bench { folder, bus, systemd: FakeSystemd::default(), systemd_bus: client.clone(), client }
    }

    pub fn pool_file(&self, id: &str, more: &str) {
        self.pool_on(id, "none", more);
    }

    /// A pool with that device.
    pub fn pool_on(&self, id: &str, device: &str, more: &str) {
        let text = format!("engine = \"test\"\nmodel = \"file:/srv/m\"\ndevices = [\"{device}\"]\n{more}");
        fs::write(self.folder.join(format!("etc/llamaorch/pools.d/{id}.toml")), text).unwrap();
    }

    /// States that this host has the devices `GPU-0` and so on.
    pub fn devices(&self, count: u32) {
        let device = |index| {
            format!("[[device]]\nuuid = \"GPU-{index}\"\nindex = {index}\nnodes = [\"/dev/nvidia{index}\"]\n")
        };
        let all: String = (0..count).map(device).collect();
        let text = format!("common = [\"/dev/nvidiactl\"]\n{all}");
        fs::write(self.folder.join("etc/llamaorch/devices.toml"), text).expect("a file of the test's own");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pool-managerd"));
        command
            .arg("--root")
            .arg(&self.folder)
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus.address)
            .env("RUNTIME_DIRECTORY", self.folder.join("run"))
            .env("STATE_DIRECTORY", self.folder.join("state"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stderr(Stdio::piped());
        command
    }

    /// Runs a daemon that is expected to end by itself.
    pub async fn daemon_that_ends(&self) -> Output {
        // Beside this thread, which the systemd of this bench runs on.
        let mut command = self.command();
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// Starts the daemon and waits until it has its name.
    pub async fn daemon(&self) -> Daemon {
        let daemon = Daemon(self.command().spawn().unwrap());
        let bus = zbus::fdo::DBusProxy::new(&self.client).await.unwrap();
        wait_until("the daemon has its name", async || {
            bus.name_has_owner(NAME.try_into().unwrap()).await.unwrap()
        })
        .await;
        daemon
    }

    /// The public client, as a Rust program uses it.
    pub fn api(&self) -> Client {
        Client::over(self.client.clone())
    }

    /// Runs `poolctl` beside this thread, which the systemd of this bench runs on.
    pub async fn poolctl(&self, arguments: &[&str]) -> Output {
        let mut command = self.poolctl_command(arguments);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    pub fn poolctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_poolctl"));
        command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus.address);
        command
    }

    /// Everything that the daemon signals from now on.
    pub async fn signals(&self) -> MessageStream {
        let rule =
            zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(NAME).build().unwrap();
        MessageStream::for_match_rule(rule, &self.client, Some(4096.try_into().unwrap())).await.unwrap()
    }

    pub async fn property(&self, path: &str, interface: &str, name: &str) -> zbus::OwnedVariant {
        let reply = self
            .client
            .call_method(Some(NAME), path, Some("org.freedesktop.DBus.Properties"), "Get", &(interface, name))
            .await
            .unwrap();
        reply.body().deserialize().unwrap()
    }

    pub async fn phase(&self, pool: &str) -> String {
        let path = format!("{MANAGER}/pool/{pool}");
        self.property(&path, "org.llamaorch.PoolManager.Pool", "Phase").await.try_into().unwrap()
    }

    pub async fn wait_phase(&self, pool: &str, phase: &str) {
        wait_until(&format!("{pool} is {phase}"), async || self.phase(pool).await == phase).await;
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

pub struct Daemon(pub Child);

impl Daemon {
    /// Waits for its end; its exit code and what it said.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

/// What `/proc` says of the daemon's memory, in KiB.
pub fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.0.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel says it");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The next signal of that name, within a time in which it should come.
pub async fn signal(signals: &mut MessageStream, member: &str) -> zbus::message::Message {
    let next = async {
        loop {
            let signal = signals.next().await.unwrap().unwrap();
            if signal.header().member().is_some_and(|name| name.as_str() == member) {
                return signal;
            }
        }
    };
    let within = Duration::from_secs(10);
    tokio::time::timeout(within, next).await.unwrap_or_else(|_| panic!("no signal {member} comes"))
}

pub async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "it never holds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
