//! Following what happens, over any number of daemons.
//!
//! Everything that a watcher hears comes out of one stream of its connection in the order in which the bus brought it,
//! the answer of `GetManagedObjects` among the signals: they are asked for first. What came before that answer may be
//! older than it, so it is followed on top of it before anything is told. From then on an event is a difference between
//! two states of the [`Mirror`]: a signal that comes twice, or tells what the answer had, is none, and what happened
//! while no daemon was there is what its successor's objects have otherwise. Signals count that come from the name's
//! owner alone, whatever others send here.
//!
//! It fails where the bus is lost, and where the daemon refuses to tell its objects.

use super::error::Error;
use super::event::{Event, Facts, happened_over_a_restart};
use super::mirror::{Mirror, Step};
use super::status::PoolStatus;
use super::{ROOT, SERVICE};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::num::NonZeroU32;
use zbus::fdo::ManagedObjects;
use zbus::message::{Flags, Message, Type};
use zbus::{Connection, MatchRule, MessageStream};

const BUS: &str = "org.freedesktop.DBus";

/// A follower of what happens: pools, their phases and health, jobs, leases, devices.
///
/// The first event says whether the daemon is there, and none is missed or told twice after that, also over a restart of
/// the daemon. It starts no daemon.
///
/// ```no_run
/// # async fn example() -> Result<(), pool_managerd::client::Error> {
/// let mut watcher = pool_managerd::client::Watcher::connect().await?;
/// loop {
///     println!("{:?}", watcher.next().await?);
/// }
/// # }
/// ```
pub struct Watcher {
    connection: Connection,
    messages: MessageStream,
    /// What is being sent; the rest waits for it.
    sending: Option<BoxFuture<'static, zbus::Result<()>>>,
    /// The question for the name's owner, until it is answered.
    owner_asked: Option<NonZeroU32>,
    /// The unique name whose signals are believed.
    owner: Option<String>,
    /// The question for the objects, until it is answered.
    objects_asked: Option<NonZeroU32>,
    /// The owner's signals that came before that answer.
    early: Vec<Message>,
    mirror: Mirror,
    /// Whether the mirror has been filled once.
    begun: bool,
    /// Whether the daemon is there, as it was told last.
    told: Option<bool>,
    events: VecDeque<Event>,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("owner", &self.owner)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl Watcher {
    /// Watches over a connection to the system bus of its own, at `DBUS_SYSTEM_BUS_ADDRESS` where that is set.
    ///
    /// # Errors
    /// The bus cannot be reached.
    pub async fn connect() -> Result<Watcher, Error> {
        Watcher::over(Connection::system().await.map_err(Error::Bus)?).await
    }

    /// Watches over a connection. While nobody asks for the [`next`](Watcher::next) event, the connection stands still once
    /// its queue is full: it is best the watcher's alone.
    ///
    /// # Errors
    /// The bus cannot be reached.
    pub async fn over(connection: Connection) -> Result<Watcher, Error> {
        let messages = MessageStream::from(&connection);
        let rules = [
            MatchRule::builder().msg_type(Type::Signal).sender(SERVICE).build()?,
            MatchRule::builder()
                .msg_type(Type::Signal)
                .sender(BUS)
                .interface(BUS)
                .member("NameOwnerChanged")
                .arg(0, SERVICE)
                .build()?,
        ];
        for rule in rules {
            let add = to_the_bus("AddMatch").with_flags(Flags::NO_REPLY_EXPECTED).build(&rule.to_string())?;
            connection.send(&add).await.map_err(Error::Bus)?;
        }
        let ask = to_the_bus("GetNameOwner").build(&SERVICE)?;
        connection.send(&ask).await.map_err(Error::Bus)?;
        Ok(Watcher {
            connection,
            messages,
            sending: None,
            owner_asked: Some(ask.primary_header().serial_num()),
            owner: None,
            objects_asked: None,
            early: Vec::new(),
            mirror: Mirror::default(),
            begun: false,
            told: None,
            events: VecDeque::new(),
        })
    }

    /// The daemon's objects as they are after the events told so far, and those that are to be told next.
    #[must_use]
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// How the pools stand, as the mirror has it.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.mirror.pools()
    }

    /// Waits for the next event. Nothing is lost where this is dropped.
    ///
    /// # Errors
    /// The bus is lost, or the daemon does not tell its objects.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some(sending) = &mut self.sending {
                let sent = sending.await;
                self.sending = None;
                sent.map_err(Error::Bus)?;
            }
            let message = match self.messages.next().await {
                Some(message) => message.map_err(Error::Bus)?,
                None => {
                    return Err(Error::Bus(zbus::Error::from(std::io::Error::from(
                        std::io::ErrorKind::ConnectionAborted,
                    ))));
                }
            };
            self.hear(message)?;
        }
    }

    /// The events as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> {
        stream::unfold(Some(self), async |watcher| {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    fn hear(&mut self, message: Message) -> Result<(), Error> {
        let header = message.header();
        let Some(sender) = header.sender().map(|name| name.as_str().to_owned()) else { return Ok(()) };
        let answers = header.reply_serial();
        match message.message_type() {
            Type::Signal if sender == BUS => self.owner_changed(&message),
            Type::Signal if self.owner.as_ref() == Some(&sender) => {
                if self.objects_asked.is_some() {
                    self.early.push(message);
                    return Ok(());
                }
                self.follow(&message)
            }
            Type::MethodReturn | Type::Error if answers.is_none() => Ok(()),
            Type::MethodReturn | Type::Error if answers == self.owner_asked && sender == BUS => {
                self.owner_asked = None;
                let owner: String = match message.message_type() {
                    // NameHasNoOwner.
                    Type::Error => String::new(),
                    _ => message.body().deserialize()?,
                };
                self.owned_by(owner)
            }
            Type::MethodReturn if answers == self.objects_asked && self.owner.as_ref() == Some(&sender) => {
                self.objects_asked = None;
                let objects: ManagedObjects = message.body().deserialize()?;
                self.begin(Mirror::of(objects))
            }
            Type::Error if answers == self.objects_asked => {
                self.objects_asked = None;
                match Error::from(zbus::Error::from(message.clone())) {
                    // It left without an answer, which its name tells next.
                    Error::DaemonAway(_) => Ok(()),
                    refused => Err(refused),
                }
            }
            _ => Ok(()),
        }
    }

    fn owner_changed(&mut self, signal: &Message) -> Result<(), Error> {
        if signal.header().member().map(|name| name.as_str()) != Some("NameOwnerChanged") {
            return Ok(());
        }
        let (name, _, new): (String, String, String) = signal.body().deserialize()?;
        // The first answer is newer than what comes before it.
        if name != SERVICE || self.owner_asked.is_some() { Ok(()) } else { self.owned_by(new) }
    }

    /// Somebody owns the name, or nobody: "".
    fn owned_by(&mut self, owner: String) -> Result<(), Error> {
        let owner = Some(owner).filter(|owner| !owner.is_empty());
        if owner == self.owner && owner.is_some() {
            return Ok(());
        }
        let left = self.owner.is_some() || owner.is_none();
        if left && self.told != Some(false) && (self.told.is_some() || owner.is_none()) {
            self.told = Some(false);
            self.events.push_back(Event::DaemonLeft);
        }
        self.early.clear();
        self.objects_asked = None;
        self.owner = owner;
        let Some(owner) = &self.owner else { return Ok(()) };
        let ask = Message::method_call(ROOT, "GetManagedObjects")
            .destination(owner.as_str())
            .interface("org.freedesktop.DBus.ObjectManager")
            .build(&())?;
        self.objects_asked = Some(ask.primary_header().serial_num());
        let connection = self.connection.clone();
        self.sending = Some(Box::pin(async move { connection.send(&ask).await }));
        Ok(())
    }

    /// All objects are known.
    fn begin(&mut self, mut mirror: Mirror) -> Result<(), Error> {
        let mut revoked = Vec::new();
        for signal in std::mem::take(&mut self.early) {
            if mirror.follow(&signal)?.is_none() {
                revoked.extend(revocation(&signal)?);
            }
        }
        self.told = Some(true);
        self.events.push_back(Event::DaemonCame);
        if self.begun {
            let paths: BTreeSet<&str> = self.mirror.paths().chain(mirror.paths()).collect();
            for path in paths {
                let (before, after) = (Facts::of(&self.mirror, path), Facts::of(&mirror, path));
                self.events.extend(happened_over_a_restart(before, after));
            }
        }
        self.events.extend(revoked);
        self.begun = true;
        self.mirror = mirror;
        Ok(())
    }

    fn follow(&mut self, signal: &Message) -> Result<(), Error> {
        if let Some(event) = revocation(signal)? {
            self.events.push_back(event);
            return Ok(());
        }
        let Some(step) = Step::read(signal)? else { return Ok(()) };
        let path = step.path().to_owned();
        let before = Facts::of(&self.mirror, &path);
        self.mirror.take(step);
        self.events.extend(Facts::happened(before, Facts::of(&self.mirror, &path)));
        Ok(())
    }
}

fn to_the_bus(member: &str) -> zbus::message::Builder<'_> {
    Message::method_call("/org/freedesktop/DBus", member).destination(BUS).interface(BUS)
}

/// A lease that was revoked, where a signal tells that.
fn revocation(signal: &Message) -> Result<Option<Event>, Error> {
    let header = signal.header();
    let name = (header.interface().map(|name| name.as_str()), header.member().map(|name| name.as_str()));
    if name != (Some(SERVICE), Some("LeaseRevoked")) {
        return Ok(None);
    }
    let (lease, pool, reason) = signal.body().deserialize()?;
    Ok(Some(Event::LeaseRevoked { lease, pool, reason }))
}
