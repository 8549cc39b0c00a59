//! Who may do what on a real machine, by the real polkit: each of these with both programs that can be the system bus.

use crate::host::{Host, NAME, POOL, REPLICA, ROOT, Turn, host_with, text};
use crate::methods::{self, Does};
use crate::users::{ALICE, EVE, MALLORY, Somebody, connections_of, make, none};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;
use xtask::sandbox::Bus;
use zbus::message::Flags;
use zbus::{OwnedFd, OwnedObjectPath, OwnedVariant, Variant};

const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
const INTERACTION: &str = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";
const JOB: &str = "org.llamaorch.PoolManager.Job";

macro_rules! on_both_buses {
    ($($test:ident => $name_on_broker:ident, $name_on_daemon:ident;)*) => {$(
        #[test]
        fn $name_on_broker() {
            $test(&machine(Bus::Broker));
        }

        #[test]
        fn $name_on_daemon() {
            $test(&machine(Bus::Daemon));
        }
    )*};
}

on_both_buses! {
    strangers => strangers_may_look_and_nothing_else_on_dbus_broker,
        strangers_may_look_and_nothing_else_on_dbus_daemon;
    operators => members_of_llamaorch_operate_pools_on_dbus_broker,
        members_of_llamaorch_operate_pools_on_dbus_daemon;
    without_polkit => without_polkit_root_alone_may_on_dbus_broker,
        without_polkit_root_alone_may_on_dbus_daemon;
    forgery => signals_forged_by_a_user_change_nothing_on_dbus_broker,
        signals_forged_by_a_user_change_nothing_on_dbus_daemon;
}

fn machine(bus: Bus) -> Turn {
    let host = host_with(bus);
    // What it is about: the bus is the one that was asked for.
    let pid = host.shell("systemctl show -P MainPID dbus.service");
    let program = host.shell(&format!("cat /proc/{}/comm", pid.trim()));
    assert!(program.starts_with(bus.name()), "{program}");
    make(&host);
    host
}

/// The objects of pool `id` and of a job of it, by interface.
fn objects(host: &Host, id: &str) -> HashMap<&'static str, String> {
    let job: OwnedObjectPath = host.manager("StartPool", &(id, none()));
    HashMap::from([
        (NAME, ROOT.to_owned()),
        (POOL, format!("{ROOT}/pool/{id}")),
        (REPLICA, format!("{ROOT}/replica/{id}_2dr0")),
        (JOB, job.to_string()),
    ])
}

/// The jobs that there are.
fn jobs(host: &Host) -> Vec<String> {
    let objects: HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>> =
        host.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &()).expect("an answer");
    let mut jobs: Vec<_> =
        objects.keys().map(ToString::to_string).filter(|path| path.contains("/job/")).collect();
    jobs.sort();
    jobs
}

fn strangers(host: &Host) {
    let pool = host.conformance("open", &[]);
    pool.wait_ready();
    let objects = objects(host, "open");
    let before = (pool.invocation(0), pool.number("RestartCount"), jobs(host));
    // polkit reads new rules by itself, soon.
    let mallory = Somebody::connect(host, MALLORY);
    host.wait_until("the rule is in force", || {
        mallory.call(ROOT, NAME, "ResetPool", &("open",)).expect_err("it is refused").0 == DENIED
    });
    let eve = Somebody::connect(host, EVE);
    let mut refused = 0;
    for method in methods::all() {
        // Where there is no device, none has methods.
        let Some(path) = objects.get(method.interface.as_str()) else {
            assert!(method.interface.ends_with(".Device"), "{method:?}: say which object has it");
            continue;
        };
        for (user, who, flags, error) in [
            (EVE, &eve, Flags::empty(), INTERACTION),
            // There is no agent to ask with.
            (EVE, &eve, Flags::ALLOW_INTERACTIVE_AUTH, INTERACTION),
            (MALLORY, &mallory, Flags::empty(), DENIED),
            (MALLORY, &mallory, Flags::ALLOW_INTERACTIVE_AUTH, DENIED),
        ] {
            let answer = who.send(&method.call(path, "open", flags));
            let what = format!("{user}: {}.{} {flags:?}: {answer:?}", method.interface, method.name);
            match method.does {
                Does::Reads => assert!(answer.is_ok(), "{what}"),
                Does::Changes(action) => {
                    let (name, text) = answer.expect_err(&what);
                    assert_eq!(name, error, "{what}");
                    assert!(text.contains(action), "{what}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 40, "{refused}");
    let properties = "org.freedesktop.DBus.Properties";
    assert!(eve.call(&objects[POOL], properties, "Get", &(POOL, "Phase")).is_ok());
    assert!(eve.call(ROOT, properties, "GetAll", &(NAME,)).is_ok());
    assert!(eve.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &()).is_ok());
    assert!(eve.call(ROOT, "org.freedesktop.DBus.Introspectable", "Introspect", &()).is_ok());
    assert_eq!(
        (pool.invocation(0), pool.number("RestartCount")),
        (before.0, before.1),
        "nothing has changed"
    );
    let new: Vec<_> = jobs(host).into_iter().filter(|job| !before.2.contains(job)).collect();
    assert!(new.is_empty(), "{new:?}");
    assert_eq!((pool.text("Phase"), pool.number("ActiveLeases")), ("ready".to_owned(), 0));
    let journal = host.sandbox.journal(&["-u", "pool-managerd", "-o", "verbose"]).expect("a journal");
    let uid = host.shell("id -u eve");
    assert!(journal.contains(&format!("CALLER_UID={}", uid.trim())), "{journal}");
    assert!(journal.contains("ACTION=org.llamaorch.PoolManager.manage"), "{journal}");
    // As a user sees it.
    let stopped =
        host.run(&["setpriv", "--reuid=eve", "--regid=eve", "--init-groups", "poolctl", "stop", "open"]);
    assert_eq!(stopped.status.code(), Some(77), "{}", text(&stopped.stderr));
}

fn operators(host: &Host) {
    let pool = host.conformance("team", &[]);
    pool.wait_ready();
    let alice = Somebody::connect(host, ALICE);
    let done = |answer: Result<zbus::message::Message, (String, String)>| {
        let job: OwnedObjectPath =
            answer.expect("it is allowed").body().deserialize().expect("a body as in the XML");
        let ended = alice.call(job.as_str(), JOB, "Wait", &()).expect("an answer");
        let result: String = ended.body().deserialize().expect("a body as in the XML");
        assert_eq!(result, "done");
    };
    let lease = alice.call(ROOT, NAME, "AllocateLease", &("team", none())).expect("there is one");
    let (id, endpoint, descriptor): (String, String, OwnedFd) =
        lease.body().deserialize().expect("a body as in the XML");
    assert_eq!(host.http("GET", &format!("{endpoint}/health")).0, 200);
    assert_eq!(pool.number("ActiveLeases"), 1);
    alice.call(ROOT, NAME, "ReleaseLease", &(id.as_str(),)).expect("it is held");
    host.wait_until("the lease is over", || pool.number("ActiveLeases") == 0);
    drop(descriptor);
    done(alice.call(ROOT, NAME, "DrainPool", &("team", 1_000_000_u64, none())));
    assert_eq!(pool.text("Phase"), "stopped");
    done(alice.call(ROOT, NAME, "StartPool", &("team", none())));
    assert!(pool.flag("Ready"));
    alice.call(ROOT, NAME, "SetHealth", &("elsewhere", true, true)).expect("it is allowed");
    let (live, ready): (bool, bool) = host.manager("GetHealth", &("elsewhere",));
    assert!(live && ready);
    alice.call(ROOT, NAME, "UnregisterPool", &("elsewhere",)).expect("it is hers");
    alice.call(ROOT, NAME, "ReloadConfiguration", &()).expect("it is allowed");
}

fn without_polkit(host: &Host) {
    let pool = host.conformance("alone", &[]);
    pool.wait_ready();
    let tainted = || {
        let words: Vec<String> = host.property(ROOT, NAME, "Tainted");
        words.iter().any(|word| word == "polkit-missing")
    };
    assert!(!tainted(), "one that can be started is not missing");
    host.shell("systemctl mask --runtime --now polkit.service");
    for user in [EVE, ALICE] {
        let somebody = Somebody::connect(host, user);
        let (name, text) = somebody.call(ROOT, NAME, "ResetPool", &("alone",)).expect_err("it is refused");
        assert_eq!(name, DENIED, "{user}: {text}");
        assert!(text.contains("start polkit"), "{user}: {text}");
        assert!(somebody.call(ROOT, NAME, "GetHealth", &("alone",)).is_ok());
    }
    host.wait_until("it is published", tainted);
    let _: () = host.manager("ResetPool", &("alone",));
    host.shell("systemctl unmask --runtime polkit.service; systemctl start polkit.service");
    host.wait_until("polkit is found", || !tainted());
    let alice = Somebody::connect(host, ALICE);
    alice.call(ROOT, NAME, "ResetPool", &("alone",)).expect("it is as it was made");
}

fn forgery(host: &Host) {
    let pool = host.conformance("forged", &[]);
    pool.wait_ready();
    let before = (pool.invocation(0), pool.number("RestartCount"));
    let unit = pool.unit(0);
    let unit_path = format!("/org/freedesktop/systemd1/unit/{}", pool_core::name::path_element(&unit));
    let eve = Somebody::connect(host, EVE);
    let connections = connections_of(host, host.daemon_pid());
    assert_eq!(connections.len(), 2, "systemd's client and who serves");
    let properties = "org.freedesktop.DBus.Properties";
    for to in &connections {
        let engine_failed = || {
            let service: HashMap<&str, Variant<'_>> =
                HashMap::from([("MainPID", Variant::from(0_u32)), ("Result", Variant::from("signal"))]);
            let of_unit: HashMap<&str, Variant<'_>> = HashMap::from([
                ("ActiveState", Variant::from("failed")),
                ("SubState", Variant::from("failed")),
            ]);
            let none: &[&str] = &[];
            let interface = "org.freedesktop.systemd1.Service";
            eve.tell(to, &unit_path, properties, "PropertiesChanged", &(interface, service, none));
            let interface = "org.freedesktop.systemd1.Unit";
            eve.tell(to, &unit_path, properties, "PropertiesChanged", &(interface, of_unit, none));
            let manager = "org.freedesktop.systemd1.Manager";
            let job: OwnedObjectPath =
                "/org/freedesktop/systemd1/job/1".try_into().expect("it is of that type");
            let removed = (1_u32, job, unit.as_str(), "failed");
            eve.tell(to, "/org/freedesktop/systemd1", manager, "JobRemoved", &removed);
            let unit_object: OwnedObjectPath = unit_path.as_str().try_into().expect("it is of that type");
            let gone = (unit.as_str(), unit_object);
            eve.tell(to, "/org/freedesktop/systemd1", manager, "UnitRemoved", &gone);
        };
        engine_failed();
        // And once more as who claims to be systemd from now on.
        let owner = ("org.freedesktop.systemd1", "", eve.name());
        eve.tell(to, "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", &owner);
        engine_failed();
    }
    // The control, which the daemon hears after all of that: systemd says the like of an engine that was killed. The
    // bus has taken what eve sent when it answers her.
    assert!(eve.call(ROOT, "org.freedesktop.DBus.Peer", "Ping", &()).is_ok());
    assert_eq!(
        (pool.invocation(0), pool.number("RestartCount"), pool.flag("Ready")),
        (before.0, before.1, true)
    );
    host.kill(pool.main_pid(0), Signal::SIGKILL);
    host.wait_until("its end is seen", || pool.number("RestartCount") > before.1);
    pool.wait_ready();
    assert_eq!(pool.number("RestartCount"), before.1 + 1, "only the end that was one counts");
}

#[test]
fn systemctl_sets_how_much_is_logged() {
    let host = machine(Bus::Broker);
    let level = "systemctl service-log-level pool-managerd.service";
    assert_eq!(host.shell(level).trim(), "info");
    host.shell(&format!("{level} debug"));
    assert_eq!(host.shell(level).trim(), "debug");
    assert_eq!(host.shell("systemctl service-log-target pool-managerd.service").trim(), "journal");
    let refused = host.run(&["systemctl", "service-log-target", "pool-managerd.service", "kmsg"]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("kmsg"), "{}", text(&refused.stderr));
    let as_eve = ["setpriv", "--reuid=eve", "--regid=eve", "--init-groups"];
    let eve = host
        .run(&[&as_eve[..], &["systemctl", "service-log-level", "pool-managerd.service", "err"]].concat());
    assert!(!eve.status.success(), "{}", text(&eve.stdout));
    assert_eq!(host.shell(level).trim(), "debug");
    host.shell(&format!("{level} info"));
}

/// Runs `poolctl` on a terminal as a member of group sudo, who gives this password when he is asked for one; what the
/// terminal showed, and the exit code.
fn on_a_terminal(host: &Host, arguments: &str, password: &str) -> (String, Option<i32>) {
    let command = format!("setpriv --reuid=bob --regid=bob --init-groups poolctl {arguments}");
    let mut child = host
        .sandbox
        .command(&["script", "--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut keyboard = child.stdin.take().expect("it is as it was made");
    let mut screen = child.stdout.take().expect("it is as it was made");
    let mut shown = String::new();
    let (asked, is_asked) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // What is typed before the agent has turned the echo off it throws away: typed until all is over.
        scope.spawn(move || {
            let mut waits = is_asked.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected);
            while waits != Err(mpsc::RecvTimeoutError::Disconnected) {
                if keyboard.write_all(format!("{password}\n").as_bytes()).is_err() {
                    return;
                }
                waits = is_asked.recv_timeout(Duration::from_millis(300));
            }
        });
        let mut told = false;
        let mut some = [0_u8; 256];
        while let Ok(read @ 1..) = screen.read(&mut some) {
            shown += &text(&some[..read]);
            if !told && shown.contains("Password:") {
                told = true;
                asked.send(()).expect("somebody types");
            }
        }
        drop(asked);
    });
    (shown, child.wait().expect("it is as it was made").code())
}

#[test]
fn on_a_terminal_a_person_is_asked_for_a_password() {
    let host = machine(Bus::Broker);
    host.shell("id bob || useradd --groups sudo bob; echo bob:secret | chpasswd");
    let pool = host.conformance("typed", &[]);
    pool.wait_ready();
    let (shown, code) = on_a_terminal(&host, "reset typed", "wrong");
    assert_eq!(code, Some(77), "{shown}");
    assert!(shown.contains("operate the LLM engines of pool 'typed'"), "{shown}");
    let (shown, code) = on_a_terminal(&host, "reset typed", "secret");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Password:"), "{shown}");
    let (shown, code) = on_a_terminal(&host, "status typed", "none");
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("Password:"), "{shown}");
}
