//! Who may do what: what polkit is asked, how often, and what comes of each of its answers.

use crate::bench::{Bench, Daemon, MANAGER, NAME, wait_until};
use crate::methods::{self, Does};
use crate::polkit::{self, Asked, NOBODY, Polkit, Says, Somebody};
use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::time::Instant;
use zbus::message::{Flags, Message};
use zbus::{Connection, DBusError, OwnedVariant, Variant};

pub const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
pub const INTERACTION: &str = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";
const MANAGE: &str = "org.llamaorch.PoolManager.manage";
const LEASE: &str = "org.llamaorch.PoolManager.lease";

/// A daemon with the ready pools `a` and `b`.
pub async fn serving() -> (Bench, Daemon) {
    let bench = Bench::new().await;
    bench.devices(1);
    bench.pool_file("a", "");
    bench.pool_file("b", "");
    let daemon = bench.daemon().await;
    bench.wait_phase("a", "ready").await;
    bench.wait_phase("b", "ready").await;
    (bench, daemon)
}

/// What comes of a call: nothing, or the error's name and text.
pub async fn called(
    bus: &Connection,
    member: &str,
    body: &(impl serde::Serialize + zbus::DynamicType),
) -> Result<Message, (String, String)> {
    bus.call_method(Some(NAME), MANAGER, Some(NAME), member, body).await.map_err(told)
}

pub fn told(error: zbus::Error) -> (String, String) {
    match error {
        zbus::Error::MethodError(name, text, _) => (name.to_string(), text.unwrap_or_default()),
        zbus::Error::FDO(error) => {
            (error.name().to_string(), error.description().unwrap_or_default().to_owned())
        }
        other => panic!("{other}"),
    }
}

pub async fn reset(bus: &Connection, pool: &str) -> Result<(), (String, String)> {
    called(bus, "ResetPool", &(pool,)).await.map(drop)
}

pub fn with_a_person(pool: &str) -> Message {
    Message::method_call(MANAGER, "ResetPool")
        .destination(NAME)
        .interface(NAME)
        .with_flags(Flags::ALLOW_INTERACTIVE_AUTH)
        .build(&(pool,))
        .expect("a call")
}

/// The same by a caller who would have a person asked.
pub async fn reset_with_a_person(bus: &Connection, pool: &str) -> Result<(), (String, String)> {
    answer(bus, with_a_person(pool)).await.map(drop)
}

async fn answer(bus: &Connection, call: Message) -> Result<Message, (String, String)> {
    let mut replies = zbus::MessageStream::from(bus);
    bus.send(&call).await.expect("the bus takes it");
    let serial = Some(call.primary_header().serial_num());
    loop {
        let message = futures_util::StreamExt::next(&mut replies)
            .await
            .expect("a message comes")
            .expect("a message comes");
        if message.header().reply_serial() == serial {
            return match message.message_type() {
                zbus::message::Type::Error => Err(told(message.into())),
                _ => Ok(message),
            };
        }
    }
}

async fn lease(bus: &Connection, pool: &str) -> Result<Message, (String, String)> {
    called(bus, "AllocateLease", &(pool, HashMap::<&str, Variant<'_>>::new())).await
}

pub async fn tainted(bench: &Bench) -> bool {
    let words: Vec<String> =
        bench.property(MANAGER, NAME, "Tainted").await.try_into().expect("it is of that type");
    words.iter().any(|word| word == "polkit-missing")
}

#[tokio::test]
async fn polkit_is_asked_once_for_each_caller_action_and_pool() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Nothing).await;
    let somebody = Somebody::connect(&bench).await;
    // Those that come while the question is under way share it.
    let many = join_all((0..20).map(|_| reset(&somebody.bus, "a")));
    let answered = async {
        wait_until("polkit was asked", async || polkit.has_been_asked(1)).await;
        polkit.says(Says::Yes);
    };
    let (done, ()) = tokio::join!(many, answered);
    assert_eq!(done, vec![Ok(()); 20]);
    reset(&somebody.bus, "a").await.expect("it is allowed");
    let asked = polkit.asked();
    let expected = Asked {
        subject: somebody.name(),
        action: MANAGE.to_owned(),
        pool: "a".to_owned(),
        with_a_person: false,
        id: asked[0].id.clone(),
    };
    assert_eq!(asked, [expected]);
    // Another pool, another action and another caller are other questions: a rule may tell them apart.
    reset(&somebody.bus, "b").await.expect("it is allowed");
    lease(&somebody.bus, "a").await.expect("it is allowed");
    let another = Somebody::connect(&bench).await;
    reset(&another.bus, "a").await.expect("it is allowed");
    let asked: Vec<_> =
        polkit.asked().into_iter().map(|asked| (asked.subject, asked.action, asked.pool)).collect();
    assert_eq!(
        asked,
        [
            (somebody.name(), MANAGE.to_owned(), "b".to_owned()),
            (somebody.name(), LEASE.to_owned(), "a".to_owned()),
            (another.name(), MANAGE.to_owned(), "a".to_owned()),
        ]
    );
}

#[tokio::test]
async fn what_polkit_said_is_forgotten_when_it_says_that_something_changed_or_is_another() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Yes).await;
    let somebody = Somebody::connect(&bench).await;
    reset(&somebody.bus, "a").await.expect("it is allowed");
    polkit.says(Says::No);
    reset(&somebody.bus, "a").await.expect("it is allowed");
    polkit.signal_changed().await;
    wait_until("it is refused", async || reset(&somebody.bus, "a").await.is_err()).await;
    assert_eq!(reset(&somebody.bus, "a").await.expect_err("it is refused").0, DENIED);
    drop(polkit);
    let another = Polkit::start(&bench, Says::Yes).await;
    wait_until("it is allowed", async || reset(&somebody.bus, "a").await.is_ok()).await;
    assert_eq!(another.asked().len(), 1);
}

#[tokio::test]
async fn a_polkit_that_says_again_and_again_that_something_changed_is_not_asked_each_time() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Yes).await;
    let somebody = Somebody::connect(&bench).await;
    // Says who may, and writes nothing: nobody reads the daemon's lines here.
    let release = async || {
        let error = called(&somebody.bus, "ReleaseLease", &("a-r0.0000000000000001",))
            .await
            .expect_err("it is refused");
        error.0
    };
    let begun = Instant::now();
    for _ in 0..300 {
        polkit.signal_changed().await;
        assert!(release().await.ends_with("NoSuchLease"));
    }
    let (asked, tenths) = (polkit.asked().len(), begun.elapsed().as_millis() / 100);
    assert!(asked as u128 <= tenths + 3, "asked {asked} times in {tenths} tenths of a second");
    // The last one counts too.
    polkit.says(Says::No);
    polkit.signal_changed().await;
    polkit.signal_changed().await;
    wait_until("it is refused", async || release().await == DENIED).await;
}

#[tokio::test]
async fn signals_that_only_claim_to_be_polkits_or_the_buss_change_nothing() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Yes).await;
    let somebody = Somebody::connect(&bench).await;
    reset(&somebody.bus, "a").await.expect("it is allowed");
    polkit.asked();
    let waits = called(&somebody.bus, "WaitReady", &("c", 0_u64)).await.expect_err("it is refused");
    assert!(waits.0.ends_with("NoSuchPool"), "{waits:?}");
    let bus = zbus::fdo::DBusProxy::new(&bench.client).await.expect("the bus is there");
    let forger = Somebody::connect(&bench).await;
    for name in bus.list_names().await.expect("the bus is there") {
        let to = Some(name.as_str()).filter(|name| name.starts_with(':'));
        if to.is_none() {
            continue;
        }
        forger
            .bus
            .emit_signal(to, polkit::PATH, polkit::INTERFACE, "Changed", &())
            .await
            .expect("the bus takes it");
        for gone in [somebody.name(), polkit::NAME.to_owned()] {
            let body = (gone.as_str(), gone.as_str(), "");
            let from = "org.freedesktop.DBus";
            forger
                .bus
                .emit_signal(to, "/org/freedesktop/DBus", from, "NameOwnerChanged", &body)
                .await
                .expect("the bus takes it");
        }
    }
    // The forged ones came before this: the bus keeps the order of one sender's messages.
    lease(&forger.bus, "a").await.expect("it is allowed");
    reset(&somebody.bus, "a").await.expect("it is allowed");
    let asked = polkit.asked();
    assert_eq!(asked.iter().map(|asked| asked.subject.clone()).collect::<Vec<_>>(), [forger.name()]);
    // The control: from polkit itself it is believed.
    polkit.signal_changed().await;
    wait_until("polkit is asked anew", async || {
        reset(&somebody.bus, "a").await.expect("it is allowed");
        polkit.has_been_asked(1)
    })
    .await;
}

#[tokio::test]
async fn a_person_is_asked_where_the_call_allows_it_and_what_he_says_is_not_kept() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Challenge).await;
    let somebody = Somebody::connect(&bench).await;
    let (name, text) = reset(&somebody.bus, "a").await.expect_err("it is refused");
    assert_eq!(name, INTERACTION);
    assert!(text.contains(MANAGE), "{text}");
    assert!(polkit.asked().iter().all(|asked| !asked.with_a_person));
    // He refuses, is asked again, and allows it this once.
    for says in [Says::No, Says::Yes, Says::No] {
        polkit.person_says(says);
        let done = reset_with_a_person(&somebody.bus, "a").await;
        let asked = polkit.asked();
        assert!(
            asked.iter().any(|asked| asked.with_a_person && asked.subject == somebody.name()),
            "{asked:?}"
        );
        assert_eq!(
            done.map_err(|told| told.0),
            if says == Says::Yes { Ok(()) } else { Err(DENIED.to_owned()) }
        );
    }
    // Without an agent there is nobody to ask.
    polkit.person_says(Says::Challenge);
    let (name, text) = reset_with_a_person(&somebody.bus, "a").await.expect_err("it is refused");
    assert_eq!(name, INTERACTION);
    assert!(text.contains("agent"), "{text}");
    // What he allows and polkit keeps, polkit says the next time by itself.
    polkit.person_says(Says::Yes);
    reset_with_a_person(&somebody.bus, "a").await.expect("it is allowed");
    polkit.says(Says::Yes);
    polkit.asked();
    reset(&somebody.bus, "a").await.expect("it is allowed");
    reset_with_a_person(&somebody.bus, "a").await.expect("it is allowed");
    assert_eq!(polkit.asked().iter().map(|asked| asked.with_a_person).collect::<Vec<_>>(), [false]);
}

#[tokio::test]
async fn a_question_of_a_caller_that_leaves_is_taken_back() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Challenge).await;
    let somebody = Somebody::connect(&bench).await;
    somebody.bus.send(&with_a_person("a")).await.expect("the bus takes it");
    wait_until("the person is asked", async || polkit.has_been_asked(2)).await;
    let id = polkit.asked()[1].id.clone();
    assert!(polkit.canceled().is_empty());
    drop(somebody);
    wait_until("the question is taken back", async || polkit.canceled() == [id.clone()]).await;
}

#[tokio::test]
async fn a_polkit_that_hangs_keeps_nobody_but_its_callers_and_those_not_for_long() {
    let (bench, _daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::Nothing).await;
    let somebody = Somebody::connect(&bench).await;
    let refused = async { reset(&somebody.bus, "a").await.expect_err("it is refused") };
    let meanwhile = async {
        wait_until("polkit was asked", async || polkit.has_been_asked(1)).await;
        reset(&bench.client, "a").await.expect("it is allowed");
        assert!(called(&somebody.bus, "ListPools", &()).await.is_ok());
        assert!(!tainted(&bench).await);
    };
    let ((name, text), ()) = tokio::join!(refused, meanwhile);
    assert_eq!(name, DENIED);
    assert!(text.contains("does not answer") && text.contains("polkit.service"), "{text}");
    wait_until("it is published", async || tainted(&bench).await).await;
    wait_until("the question is taken back", async || polkit.canceled().len() == 1).await;
    // The next ones are refused without waiting, and polkit is left alone for a while.
    assert_eq!(reset(&somebody.bus, "a").await.expect_err("it is refused").0, DENIED);
    assert!(polkit.has_been_asked(1));
    reset(&bench.client, "a").await.expect("it is allowed");
    // Another one is asked at once.
    drop(polkit);
    let another = Polkit::start(&bench, Says::Yes).await;
    wait_until("it is allowed", async || reset(&somebody.bus, "a").await.is_ok()).await;
    assert!(!tainted(&bench).await);
    drop(another);
}

#[tokio::test]
async fn without_polkit_root_alone_may_and_the_others_are_told_what_to_do() {
    let (bench, _daemon) = serving().await;
    assert!(tainted(&bench).await, "it is known from the start");
    let somebody = Somebody::connect(&bench).await;
    let (name, text) = reset(&somebody.bus, "a").await.expect_err("it is refused");
    assert_eq!(name, DENIED);
    assert!(text.contains("install and start polkit"), "{text}");
    reset(&bench.client, "a").await.expect("it is allowed");
    assert!(called(&somebody.bus, "GetHealth", &("a",)).await.is_ok());
    let generation = async || -> u64 {
        bench.property(MANAGER, NAME, "Generation").await.try_into().expect("it is of that type")
    };
    let before = generation().await;
    let mut signals = bench.signals().await;
    let polkit = Polkit::start(&bench, Says::Yes).await;
    let said = crate::bench::signal(&mut signals, "PropertiesChanged").await;
    let body = said.body();
    let (_, changed, _): (String, HashMap<String, OwnedVariant>, Vec<String>) =
        body.deserialize().expect("a body as in the XML");
    assert_eq!(changed.keys().collect::<Vec<_>>(), ["Tainted"]);
    assert_eq!(generation().await, before + 1, "it was published");
    assert!(!tainted(&bench).await);
    reset(&somebody.bus, "a").await.expect("it is allowed");
    drop(polkit);
    wait_until("it is published", async || tainted(&bench).await).await;
    assert_eq!(reset(&somebody.bus, "a").await.expect_err("it is refused").0, DENIED);
}

#[tokio::test]
async fn a_refusal_is_told_to_the_journal_once_with_who_it_was() {
    let (bench, daemon) = serving().await;
    let polkit = Polkit::start(&bench, Says::No).await;
    let somebody = Somebody::connect(&bench).await;
    for _ in 0..3 {
        reset(&somebody.bus, "a").await.expect_err("it is refused");
        lease(&somebody.bus, "a").await.expect_err("it is refused");
    }
    drop(polkit);
    kill(Pid::from_raw(i32::try_from(daemon.0.id()).expect("a process id")), Signal::SIGTERM)
        .expect("it runs");
    let (_, said) = daemon.end().await;
    for action in [MANAGE, LEASE] {
        let lines: Vec<_> =
            said.lines().filter(|line| line.contains(&format!("not allow {action}"))).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains(&format!("refused to user {NOBODY}")), "{}", lines[0]);
    }
}

#[tokio::test]
async fn every_method_that_does_more_than_read_is_asked_about_as_its_action() {
    let (bench, _daemon) = serving().await;
    let job = called(&bench.client, "StartPool", &("a", HashMap::<&str, Variant<'_>>::new()))
        .await
        .expect("an answer");
    let job: zbus::OwnedObjectPath = job.body().deserialize().expect("a body as in the XML");
    let polkit = Polkit::start(&bench, Says::No).await;
    for method in methods::all() {
        let path = match method.interface.strip_prefix(NAME).expect("it is there") {
            "" => MANAGER.to_owned(),
            ".Pool" => format!("{MANAGER}/pool/a"),
            ".Replica" => format!("{MANAGER}/replica/a_2dr0"),
            ".Job" => job.to_string(),
            ".Device" => format!("{MANAGER}/device/GPU_2d0"),
            other => panic!("{other}: say which object has it"),
        };
        // Each by a caller of its own: what was said of one action is kept.
        let somebody = Somebody::connect(&bench).await;
        let answer = answer(&somebody.bus, method.call(&path, "a", Flags::empty())).await.map(drop);
        let what = format!("{}.{}", method.interface, method.name);
        let asked: Vec<String> = polkit.asked().into_iter().map(|asked| asked.action).collect();
        match method.does {
            Does::Reads => {
                assert_eq!(answer, Ok(()), "{what}");
                assert!(asked.is_empty(), "{what}: {asked:?}");
            }
            Does::Changes(action) => {
                assert_eq!(answer.map_err(|told| told.0), Err(DENIED.to_owned()), "{what}");
                assert_eq!(asked, [action], "{what}");
            }
        }
    }
}
