//! `org.freedesktop.DBus.ObjectManager`: all objects in one answer, without anybody having to wait for that.
//!
//! On a large host the answer has megabytes. It is put together from the objects' own parts, each serialized when it is
//! asked for after its object has changed, a few at a time between other callers' calls. Answers leave one after the
//! other, each once the bus has taken the one before.
//!
//! What is answered is never older than a signal that came before it: the last part is read, all are joined and the answer
//! is handed over without a pause in which the publisher could run.

use super::access::Access;
use super::error::Error;
use super::raw;
use super::socket::Outbox;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zbus::message::{Flags, Header, Message};
use zbus::names::{InterfaceName, MemberName};
use zbus::object_server::{DispatchResult, Interface, SignalEmitter};
use zbus::wire::serialized::Context;
use zbus::wire::{NATIVE_ENDIAN, to_bytes};
use zbus::{BoxDBusError, Connection, ObjectPath, ObjectServer, OwnedVariant, Variant, fdo};

const SIGNATURE: &str = "a{oa{sa{sv}}}";
/// At most so many calls of one connection wait for an answer.
const OF_A_CONNECTION: usize = 4;
/// The longest answer: dbus-daemon throws off who sends more than 32 MiB.
const LONGEST: usize = (32 << 20) - 4_096;
/// So many objects are read before others get their turn.
const AT_A_TIME: usize = 8;

const XML: &str = r#"<interface name="org.freedesktop.DBus.ObjectManager">
  <method name="GetManagedObjects">
    <arg type="a{oa{sa{sv}}}" direction="out"/>
  </method>
  <signal name="InterfacesAdded">
    <arg name="object_path" type="o"/>
    <arg name="interfaces_and_properties" type="a{sa{sv}}"/>
  </signal>
  <signal name="InterfacesRemoved">
    <arg name="object_path" type="o"/>
    <arg name="interfaces" type="as"/>
  </signal>
</interface>
"#;

type Reading<'a> = Pin<Box<dyn Future<Output = zbus::Result<Vec<u8>>> + Send + 'a>>;
/// How an object of some kind is read.
type Read = for<'a> fn(&'a Connection, &'a str) -> Reading<'a>;

/// What is served, as the publisher keeps it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Served(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    all: BTreeMap<String, Part>,
    /// Those that are to be read anew.
    stale: Vec<String>,
    /// The whole answer, where nothing has changed since.
    body: Option<Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Part {
    read: Read,
    /// The object as it stands in the answer; `None`: it is to be read, or is being read.
    bytes: Option<Vec<u8>>,
    /// Whether it is among the stale ones: then what is being read of it is out of date.
    stale: bool,
}

impl Served {
    /// An object with one interface came.
    pub(super) fn added<I: Interface>(&self, path: &str) {
        let mut parts = self.parts();
        parts.body = None;
        parts.stale.push(path.to_owned());
        parts.all.insert(path.to_owned(), Part { read: read::<I>, bytes: None, stale: true });
    }

    /// It has changed.
    pub(super) fn changed(&self, path: &str) {
        let mut parts = self.parts();
        let Some(part) = parts.all.get_mut(path) else { return };
        part.bytes = None;
        if !std::mem::replace(&mut part.stale, true) {
            parts.body = None;
            parts.stale.push(path.to_owned());
        }
    }

    /// It is gone.
    pub(super) fn removed(&self, path: &str) {
        let mut parts = self.parts();
        parts.body = None;
        parts.all.remove(path);
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some that are to be read, and how.
    fn stale(&self) -> Vec<(String, Read)> {
        let mut parts = self.parts();
        let from = parts.stale.len().saturating_sub(AT_A_TIME);
        let mut some = Vec::new();
        for path in parts.stale.split_off(from) {
            // One that went and came again is there twice.
            if let Some(part) = parts.all.get_mut(&path).filter(|part| part.stale) {
                part.stale = false;
                some.push((path, part.read));
            }
        }
        some
    }

    fn was_read(&self, path: &str, bytes: Vec<u8>) {
        if let Some(part) = self.parts().all.get_mut(path).filter(|part| !part.stale) {
            part.bytes = Some(bytes);
        }
    }

    /// The whole answer; `None`: something is to be read first.
    fn body(&self) -> Option<Arc<Vec<u8>>> {
        let mut parts = self.parts();
        if let Some(body) = &parts.body {
            return Some(body.clone());
        }
        if !parts.stale.is_empty() {
            return None;
        }
        let body = Arc::new(join(parts.all.values().filter_map(|part| part.bytes.as_deref())));
        parts.body = Some(body.clone());
        Some(body)
    }
}

/// An array of dictionary entries that were serialized each by itself, at a place that 8 divides.
fn join<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    // Its length, and what brings the first entry to its place.
    const BEGIN: usize = 8;
    let mut body = vec![0; BEGIN];
    for part in parts {
        body.resize(body.len().next_multiple_of(8), 0);
        body.extend_from_slice(part);
    }
    // No message may be longer.
    let length = u32::try_from(body.len() - BEGIN).unwrap_or(u32::MAX);
    if let Some(place) = body.get_mut(..4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
    body
}

/// Reads an object, as an entry of the answer.
fn read<'a, I: Interface>(connection: &'a Connection, path: &'a str) -> Reading<'a> {
    Box::pin(async move {
        let server = connection.object_server();
        let object = server.interface::<_, I>(path).await?;
        let properties = object.get().await.get_all(server, connection, None, object.signal_emitter()).await;
        let interfaces = HashMap::from([(I::name(), properties.map_err(zbus::Error::from)?)]);
        let entry = (ObjectPath::try_from(path)?, interfaces);
        Ok(to_bytes(Context::new(NATIVE_ENDIAN, 0), &entry)?.to_vec())
    })
}

/// The object manager.
pub(super) struct Objects {
    served: Served,
    access: Access,
    outbox: Outbox,
    /// Answers leave one after the other.
    turn: tokio::sync::Mutex<()>,
    /// How many of whose calls wait.
    asking: Mutex<HashMap<String, usize>>,
    budgets: Mutex<Budgets>,
}

/// How much of this each user has had lately, in bytes: for as long as a long answer passes through the bus, everybody
/// waits. Root has as much as he asks for.
#[derive(Debug, Default)]
struct Budgets(HashMap<u32, (f64, Instant)>);

impl Budgets {
    /// What a user may have at once.
    const AT_ONCE: f64 = 16.0 * 1_048_576.0;
    /// And what comes to that in a second.
    const A_SECOND: f64 = 2.0 * 1_048_576.0;

    /// Spends so many bytes of a user's, which may be more than are left.
    #[allow(clippy::cast_precision_loss, reason = "no answer is so long")]
    fn spend(&mut self, uid: u32, bytes: usize, now: Instant) -> Result<(), Error> {
        let left = |(left, at): (f64, Instant)| {
            (left + Self::A_SECOND * now.saturating_duration_since(at).as_secs_f64()).min(Self::AT_ONCE)
        };
        // Whoever has all of it need not be remembered.
        self.0.retain(|_, known| left(*known) < Self::AT_ONCE);
        let has = self.0.get(&uid).map_or(Self::AT_ONCE, |known| left(*known));
        if has <= 0.0 {
            let wait = Duration::from_secs_f64(-has / Self::A_SECOND) + Duration::from_millis(1);
            return Err(Error::limits_exceeded(format!(
                "uid {uid} had all objects too often lately; ask again in {} ms, or follow the signals",
                wait.as_millis()
            )));
        }
        self.0.insert(uid, (has - bytes as f64, now));
        Ok(())
    }
}

/// A call that waits for its answer; it is over when this goes.
struct Asks<'a> {
    asking: &'a Mutex<HashMap<String, usize>>,
    sender: String,
}

impl<'a> Asks<'a> {
    /// Counts one, so that nobody's many are before another's one.
    fn enter(asking: &'a Mutex<HashMap<String, usize>>, sender: &str) -> Result<Self, Error> {
        let mut all = asking.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(sender.to_owned()).or_default();
        if *own >= OF_A_CONNECTION {
            return Err(Error::limits_exceeded(format!(
                "{OF_A_CONNECTION} such calls of this connection wait; wait for an answer first"
            )));
        }
        *own += 1;
        Ok(Asks { asking, sender: sender.to_owned() })
    }
}

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        let mut all = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.sender) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.sender);
            }
        }
    }
}

impl Objects {
    pub(super) fn new(served: Served, access: Access, outbox: Outbox) -> Self {
        Objects {
            served,
            access,
            outbox,
            turn: tokio::sync::Mutex::new(()),
            asking: Mutex::default(),
            budgets: Mutex::default(),
        }
    }

    async fn answer(&self, connection: &Connection, call: &Message) -> Result<(), BoxDBusError> {
        let header = call.header();
        // It counts among the calls of its connection that wait.
        let caller = self.access.identify(&header).await;
        let caller = caller.map_err(|error| Box::new(error) as BoxDBusError)?;
        let sender = header.sender().map_or("", |sender| sender.as_str());
        let _asks = Asks::enter(&self.asking, sender).map_err(|error| Box::new(error) as BoxDBusError)?;
        let _turn = self.turn.lock().await;
        self.outbox.room().await;
        let body = loop {
            for (path, read) in self.served.stale() {
                match read(connection, &path).await {
                    Ok(bytes) => self.served.was_read(&path, bytes),
                    // It went in this very moment.
                    Err(zbus::Error::InterfaceNotFound) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // From here on there is no pause before the answer is handed over.
            match self.served.body() {
                Some(body) => break body,
                None => tokio::task::yield_now().await,
            }
        };
        if header.primary().flags().contains(Flags::NO_REPLY_EXPECTED) {
            return Ok(());
        }
        if body.len() > LONGEST {
            let text = format!(
                "all objects have {} bytes, more than a message may; ask for single ones, see ListPools",
                body.len()
            );
            return Err(Box::new(Error::limits_exceeded(text)));
        }
        if !self.access.is_root(&caller) {
            let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
            let spent = budgets.spend(caller.uid, body.len(), Instant::now());
            spent.map_err(|error| Box::new(error) as BoxDBusError)?;
        }
        let reply = raw::reply(&header, &body, SIGNATURE)?;
        Ok(connection.send(&reply).await?)
    }
}

#[async_trait::async_trait]
impl Interface for Objects {
    fn name() -> InterfaceName<'static> {
        <fdo::ObjectManager as Interface>::name()
    }

    async fn get(
        &self,
        _: &str,
        _: &ObjectServer,
        _: &Connection,
        _: Option<&Header<'_>>,
        _: &SignalEmitter<'_>,
    ) -> Option<Result<OwnedVariant, BoxDBusError>> {
        None
    }

    async fn get_all(
        &self,
        _: &ObjectServer,
        _: &Connection,
        _: Option<&Header<'_>>,
        _: &SignalEmitter<'_>,
    ) -> fdo::Result<HashMap<String, OwnedVariant>> {
        Ok(HashMap::new())
    }

    async fn set_mut(
        &mut self,
        _: &str,
        _: &Variant<'_>,
        _: &ObjectServer,
        _: &Connection,
        _: Option<&Header<'_>>,
        _: &SignalEmitter<'_>,
    ) -> Option<Result<(), BoxDBusError>> {
        None
    }

    fn call<'call>(
        &'call self,
        _: &'call ObjectServer,
        connection: &'call Connection,
        call: &'call Message,
        name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        if name != "GetManagedObjects" {
            return DispatchResult::NotFound;
        }
        DispatchResult::Async(Box::pin(self.answer(connection, call)))
    }

    fn call_mut<'call>(
        &'call mut self,
        _: &'call ObjectServer,
        _: &'call Connection,
        _: &'call Message,
        _: MemberName<'call>,
    ) -> DispatchResult<'call> {
        DispatchResult::NotFound
    }

    fn introspect_to_writer(&self, writer: &mut dyn Write, level: usize) {
        for line in XML.lines() {
            // To a string, which takes all.
            writeln!(writer, "{:level$}{line}", "").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_user_has_so_much_at_once_and_then_so_much_a_second() {
        let (mut budgets, now) = (Budgets::default(), Instant::now());
        let mebibytes = |count: usize| count << 20;
        for _ in 0..3 {
            budgets.spend(7, mebibytes(6), now).expect("there is some left");
        }
        let refused = budgets.spend(7, mebibytes(6), now).expect_err("none is left");
        assert_eq!(zbus::DBusError::name(&refused).as_str(), "org.freedesktop.DBus.Error.LimitsExceeded");
        let said = zbus::DBusError::description(&refused).expect("words").to_owned();
        assert!(said.contains("uid 7") && said.contains("in 1001 ms"), "{said}");
        budgets.spend(8, mebibytes(6), now).expect("others have their own");
        budgets.spend(7, mebibytes(6), now + Duration::from_millis(999)).expect_err("there is a debt");
        budgets.spend(7, mebibytes(6), now + Duration::from_millis(1_001)).expect("it is paid");
        // Nobody saves up, and nobody is remembered for ever.
        let later = now + Duration::from_secs(3_600);
        budgets.spend(9, 1, later).expect("there is some");
        assert_eq!(budgets.0.len(), 1);
    }

    type All<'a> = BTreeMap<ObjectPath<'a>, HashMap<&'a str, HashMap<&'a str, Variant<'a>>>>;

    #[test]
    fn entries_that_were_serialized_each_by_itself_are_the_array_that_zbus_makes_of_all() {
        let context = Context::new(NATIVE_ENDIAN, 0);
        for count in [0, 1, 2, 5] {
            let paths: Vec<String> = (0..count).map(|n| format!("/a/{}", "x".repeat(n + 1))).collect();
            let mut all = All::new();
            let mut parts = Vec::new();
            for (n, path) in paths.iter().enumerate() {
                let path = ObjectPath::try_from(path.as_str()).expect("a path");
                let properties = HashMap::from([("Name", Variant::from("y".repeat(n)))]);
                let entry = (path.clone(), HashMap::from([("a.b", properties)]));
                parts.push(to_bytes(context, &entry).expect("it is serialized").to_vec());
                all.insert(path, entry.1);
            }
            let joined = join(parts.iter().map(Vec::as_slice));
            let expected = to_bytes(context, &all).expect("it is serialized").to_vec();
            // An empty array ends with its length; what follows of it is nothing.
            assert_eq!(joined.get(..expected.len()), Some(expected.as_slice()), "{count} objects");
            if count > 0 {
                assert_eq!(joined.len(), expected.len());
            }
        }
    }
}
