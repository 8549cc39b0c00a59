//! How much the daemon logs, asked and told over the bus.

use crate::bench::{Bench, NAME};
use crate::polkit::{Polkit, Says, Somebody};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbus::{Connection, DBusError, Variant};

const PATH: &str = "/org/freedesktop/LogControl1";
const INTERFACE: &str = "org.freedesktop.LogControl1";

async fn set(bus: &Connection, name: &str, value: &str) -> Result<(), String> {
    let body = (INTERFACE, name, Variant::from(value));
    let properties = "org.freedesktop.DBus.Properties";
    match bus.call_method(Some(NAME), PATH, Some(properties), "Set", &body).await {
        Ok(_) => Ok(()),
        Err(zbus::Error::MethodError(name, _, _)) => Err(name.to_string()),
        Err(zbus::Error::FDO(error)) => Err(error.name().to_string()),
        Err(other) => panic!("{other}"),
    }
}

async fn text(bench: &Bench, name: &str) -> String {
    bench.property(PATH, INTERFACE, name).await.try_into().expect("it is of that type")
}

async fn reload(bench: &Bench) {
    let manager = bench.api().manager().await.expect("the daemon answers");
    manager.reload_configuration().await.expect("the daemon answers");
}

#[tokio::test]
async fn root_says_how_much_is_logged_and_everybody_may_see_it() {
    let bench = Bench::new().await;
    let daemon = bench.daemon().await;
    assert_eq!(text(&bench, "LogLevel").await, "info");
    assert_eq!(text(&bench, "LogTarget").await, "console");
    assert_eq!(text(&bench, "SyslogIdentifier").await, "pool-managerd");
    let denied = Err("org.freedesktop.DBus.Error.AccessDenied".to_owned());
    let invalid = Err("org.freedesktop.DBus.Error.InvalidArgs".to_owned());
    // Whatever polkit says of anything.
    let _polkit = Polkit::start(&bench, Says::Yes).await;
    let somebody = Somebody::connect(&bench).await;
    assert_eq!(set(&somebody.bus, "LogLevel", "debug").await, denied);
    assert_eq!(set(&somebody.bus, "LogTarget", "console").await, denied);
    assert_eq!(set(&bench.client, "LogLevel", "loud").await, invalid);
    assert_eq!(set(&bench.client, "LogTarget", "journal").await, invalid);
    assert_eq!(set(&bench.client, "LogTarget", "console").await, Ok(()));
    assert_eq!(text(&bench, "LogLevel").await, "info");
    bench.pool_file("quiet", "");
    assert_eq!(set(&bench.client, "LogLevel", "err").await, Ok(()));
    reload(&bench).await;
    bench.wait_phase("quiet", "ready").await;
    // News leave before their lines are written, and those before the next question is taken in.
    reload(&bench).await;
    bench.pool_file("loud", "");
    assert_eq!(set(&bench.client, "LogLevel", "debug").await, Ok(()));
    assert_eq!(text(&bench, "LogLevel").await, "debug");
    reload(&bench).await;
    bench.wait_phase("loud", "ready").await;
    kill(Pid::from_raw(i32::try_from(daemon.0.id()).expect("a process id")), Signal::SIGTERM)
        .expect("it runs");
    let (_, said) = daemon.end().await;
    assert!(said.contains("engine loud-r0"), "{said}");
    assert!(!said.contains("engine quiet-r0"), "{said}");
}
