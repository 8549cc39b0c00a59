//! Calls that wait for polkit, or for a person: what of them a connection and a user may have, and that others hardly
//! notice.

use crate::access::{
    DENIED, INTERACTION, called, reset, reset_with_a_person, serving, tainted, told, with_a_person,
};
use crate::bench::{Bench, MANAGER, NAME, wait_until};
use crate::polkit::{Asked, Polkit, SOMEBODY_ELSE, Says, Somebody};
use futures_util::StreamExt;
use futures_util::stream::select;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;
use zbus::message::{Flags, Message, Type};
use zbus::{Connection, MessageStream, Variant};

const LIMITS: &str = "org.freedesktop.DBus.Error.LimitsExceeded";

/// Has a person asked about a pool, and does not read the answer.
async fn send_with_a_person(bus: &Connection, pool: &str) {
    bus.send(&with_a_person(pool)).await.expect("the bus takes it");
}

#[tokio::test]
async fn only_so_many_calls_of_one_connection_wait_and_reading_goes_on() {
    let bench = Bench::new().await;
    bench.pool_file("a", "[leases]\ncapacity = 1\n");
    let _daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    let _polkit = Polkit::start(&bench, Says::Yes).await;
    let _lease = bench.api().allocate_lease("a").await.expect("there is one");
    let somebody = Somebody::connect(&bench).await;
    let waits = HashMap::from([("wait_usec", Variant::from(u64::MAX))]);
    for _ in 0..256 {
        let call = Message::method_call(MANAGER, "AllocateLease").destination(NAME).interface(NAME);
        somebody
            .bus
            .send(&call.build(&("a", &waits)).expect("the bus takes it"))
            .await
            .expect("the bus takes it");
    }
    let (name, text) = reset(&somebody.bus, "a").await.expect_err("it is refused");
    assert_eq!(name, LIMITS);
    assert!(text.contains("256 calls of this connection"), "{text}");
    assert!(called(&somebody.bus, "ListPools", &()).await.is_ok());
    assert!(called(&somebody.bus, "Explain", &("a",)).await.is_ok());
    let another = Somebody::connect(&bench).await;
    reset(&another.bus, "a").await.expect("others have their own");
    // Those that waited are answered, and there is room again.
    called(&bench.client, "StopPool", &("a", HashMap::<&str, Variant<'_>>::new())).await.expect("an answer");
    wait_until("there is room", async || reset(&somebody.bus, "a").await.is_ok()).await;
}

#[tokio::test]
async fn a_call_that_is_too_long_is_refused_before_anybody_is_asked_and_together_they_are_bounded() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Challenge).await;
    let somebody = Somebody::connect(&bench).await;
    let long = "x".repeat(64 << 10);
    for (bus, member) in [(&somebody.bus, "ResetPool"), (&bench.client, "ResetPool")] {
        let (name, text) = called(bus, member, &(&long,)).await.expect_err("it is refused");
        assert_eq!(name, LIMITS);
        assert!(text.contains("65536"), "{text}");
    }
    let (name, _) = called(&somebody.bus, "WaitReady", &(&long, 0_u64)).await.expect_err("it is refused");
    assert_eq!(name, LIMITS);
    assert!(polkit.asked().is_empty());
    // Four that a person is asked about, and no fifth.
    let long = "x".repeat(60 << 10);
    for _ in 0..4 {
        send_with_a_person(&somebody.bus, &long).await;
    }
    wait_until("the person is asked", async || polkit.has_been_asked(2)).await;
    let (name, text) = reset(&somebody.bus, &long).await.expect_err("it is refused");
    assert_eq!(name, LIMITS);
    assert!(text.contains("262144 bytes"), "{text}");
    assert_eq!(
        reset(&somebody.bus, "a").await.expect_err("it is refused").0,
        INTERACTION,
        "a short one has room"
    );
}

#[tokio::test]
async fn few_calls_of_a_user_wait_for_a_person_and_others_are_asked_meanwhile() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Challenge).await;
    // By several connections: it is the user who counts.
    let (first, second) = (Somebody::connect(&bench).await, Somebody::connect(&bench).await);
    let mut answers = select(MessageStream::from(&first.bus), MessageStream::from(&second.bus));
    for number in 0..9 {
        send_with_a_person(&first.bus, &format!("p{number}")).await;
        if number < 8 {
            send_with_a_person(&second.bus, &format!("q{number}")).await;
        }
    }
    // Sixteen wait.
    let refused = async {
        loop {
            let message = answers.next().await.expect("a message comes").expect("a message comes");
            if message.message_type() == Type::Error {
                return told(message.into());
            }
        }
    };
    let refused = timeout(Duration::from_secs(10), refused).await.expect("one is refused");
    assert_eq!(refused.0, LIMITS);
    assert!(refused.1.contains("of one user 16"), "{}", refused.1);
    let third = Somebody::connect(&bench).await;
    let (name, _) = reset_with_a_person(&third.bus, "a").await.expect_err("it is refused");
    assert_eq!(name, LIMITS);
    // Somebody else's is asked about at once.
    let mut asked = Vec::new();
    let other = Somebody::connect_as(&bench, SOMEBODY_ELSE).await;
    send_with_a_person(&other.bus, "a").await;
    wait_until("his person is asked", async || {
        asked.extend(polkit.asked());
        asked.iter().any(|asked| asked.with_a_person && asked.subject == other.name())
    })
    .await;
    let nobodys = |asked: &[Asked]| {
        asked.iter().filter(|asked| asked.with_a_person && asked.subject != other.name()).count()
    };
    assert_eq!(nobodys(&asked), 4);
    // What nobody waits for any more leaves its place to the next.
    drop(first);
    wait_until("the other connection's are asked about", async || {
        asked.extend(polkit.asked());
        asked.iter().filter(|asked| asked.with_a_person && asked.subject == second.name()).count() == 4
    })
    .await;
}

#[tokio::test]
async fn a_caller_whom_polkit_does_not_find_takes_nothing_from_others() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::NoSuchCaller).await;
    let (somebody, another) = (Somebody::connect(&bench).await, Somebody::connect(&bench).await);
    let (name, text) = reset(&somebody.bus, "a").await.expect_err("it is refused");
    assert_eq!(name, DENIED);
    assert!(text.contains("no such name"), "{text}");
    assert!(!tainted(&bench).await);
    polkit.says(Says::Yes);
    reset(&another.bus, "a").await.expect("polkit is there");
    // The same of one who has left indeed, while polkit thinks about it.
    polkit.asked();
    polkit.says(Says::Nothing);
    let call = Message::method_call(MANAGER, "ResetPool")
        .destination(NAME)
        .interface(NAME)
        .with_flags(Flags::NO_REPLY_EXPECTED);
    somebody.bus.send(&call.build(&("b",)).expect("the bus takes it")).await.expect("the bus takes it");
    wait_until("polkit is asked", async || polkit.has_been_asked(1)).await;
    drop(somebody);
    polkit.says(Says::NoSuchCaller);
    wait_until("its question is over", async || polkit.canceled().len() == 1).await;
    polkit.says(Says::Yes);
    reset(&another.bus, "b").await.expect("polkit is there");
    assert!(!tainted(&bench).await);
}
