//! Who follows signals knows what a fresh look shows, at any moment, whatever happens meanwhile.

use crate::bench::{Bench, MANAGER, NAME, SETTLE};
use futures_util::StreamExt;
use pool_managerd::client::Mirror;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};
use zbus::fdo::ManagedObjects;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, Variant, connection};

const POOLS: u64 = 200;
const LONG: Duration = Duration::from_secs(60);

/// A connection that folds all that it hears from the daemon, and everything in the order in which it came.
struct Follower {
    bus: Connection,
    messages: MessageStream,
    mirror: Mirror,
    signals: u64,
}

impl Follower {
    /// Follows before there is a daemon: so it begins with nothing.
    async fn begin(bench: &Bench) -> Follower {
        let builder = connection::Builder::address(bench.bus.address.as_str());
        // While the test does something else, nobody reads.
        let bus =
            builder.max_queued(100_000.try_into().expect("not 0")).build().await.expect("the bus is there");
        let rule = zbus::MatchRule::builder()
            .msg_type(Type::Signal)
            .path_namespace(MANAGER)
            .build()
            .expect("a rule");
        let messages = MessageStream::from(&bus);
        let proxy = zbus::fdo::DBusProxy::new(&bus).await.expect("a proxy");
        proxy.add_match_rule(rule).await.expect("the bus takes it");
        Follower { bus, messages, mirror: Mirror::default(), signals: 0 }
    }

    /// What a fresh look shows beside what was folded up to its answer: where they differ.
    async fn differences(&mut self) -> Vec<String> {
        let call = Message::method_call(MANAGER, "GetManagedObjects")
            .destination(NAME)
            .interface("org.freedesktop.DBus.ObjectManager")
            .build(&())
            .expect("a message");
        self.bus.send(&call).await.expect("the bus is there");
        let serial = Some(call.primary_header().serial_num());
        loop {
            let within = Duration::from_secs(20);
            let next = tokio::time::timeout(within, self.messages.next()).await.expect("an answer comes");
            let message = next.expect("the bus is there").expect("a message");
            if message.message_type() == Type::Signal {
                self.mirror.follow(&message).expect("a body that reads");
                self.signals += 1;
            } else if message.header().reply_serial() == serial {
                let objects: ManagedObjects = message.body().deserialize().expect("the objects");
                return self.mirror.differences(&Mirror::of(objects));
            }
        }
    }
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Asks for something and does not wait for the answer, which may be a refusal.
async fn ask<B>(bench: &Bench, member: &str, body: &B)
where
    B: serde::Serialize + zbus::DynamicType,
{
    let call = Message::method_call(MANAGER, member).destination(NAME).interface(NAME).build(body);
    bench.client.send(&call.expect("a message")).await.expect("the bus is there");
}

/// Does something to a pool.
async fn stir(bench: &Bench, dice: &mut Dice) {
    let id = format!("p{}", dice.below(POOLS));
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    match dice.below(10) {
        0..=2 => ask(bench, "StartPool", &(&id, &options)).await,
        3 => ask(bench, "StopPool", &(&id, &options)).await,
        4 => ask(bench, "DrainPool", &(&id, 100_000_u64, &options)).await,
        5..=7 => {
            let prefix = format!("llamaorch-engine-{id}-r");
            let running = {
                let book = bench.systemd.book.lock().expect("no other test has it");
                book.units.keys().find(|unit| unit.starts_with(&prefix)).cloned()
            };
            if let Some(unit) = running {
                let said = crate::systemd::say(&bench.systemd_bus, None, &unit, "failed", "failed", 0);
                said.await.expect("the bus is there");
            }
        }
        kind => {
            let file = bench.folder.join(format!("etc/llamaorch/pools.d/{id}.toml"));
            if kind == 8 && file.exists() {
                fs::remove_file(file).expect("a file of the test's own");
            } else {
                pool_file(bench, &id, 1 + dice.below(3));
            }
            ask(bench, "ReloadConfiguration", &()).await;
        }
    }
}

fn pool_file(bench: &Bench, id: &str, replicas: u64) {
    bench.pool_file(id, &format!("replicas = {replicas}\nactivation = \"manual\"\n{SETTLE}"));
}

#[tokio::test]
async fn who_follows_signals_from_nothing_on_knows_at_any_moment_what_a_fresh_look_shows() {
    let bench = Bench::new().await;
    let mut follower = Follower::begin(&bench).await;
    let mut dice = Dice(1);
    for number in 0..POOLS {
        pool_file(&bench, &format!("p{number}"), 1 + dice.below(2));
    }
    let _daemon = bench.daemon().await;
    let begun = Instant::now();
    let (mut checks, mut most) = (0_u64, 0);
    while begun.elapsed() < LONG {
        for _ in 0..dice.below(40) {
            stir(&bench, &mut dice).await;
        }
        let differences = follower.differences().await;
        assert!(differences.is_empty(), "after {checks} checks: {differences:#?}");
        checks += 1;
        most = most.max(follower.mirror.paths().count());
    }
    println!(
        "{checks} fresh looks at up to {most} objects were what {} signals came to, in {:.0} s",
        follower.signals,
        begun.elapsed().as_secs_f64()
    );
    assert!(checks > 20 && follower.signals > 300 && most > 400, "hardly anything happened");
}
