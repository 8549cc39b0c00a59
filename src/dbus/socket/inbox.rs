//! What the bus has sent and nobody has taken yet: bytes in, messages out, in an order that is fair to all callers.
//!
//! What one connection sends keeps its order. What several send takes turns, so that a caller who sends ten thousand at
//! once waits for them himself and the others do not. What nobody can send unasked goes first, in order: the bus's own
//! signals, and answers to us.
//!
//! Nothing that a caller sends may keep zbus from reading on. It has no descriptors left, and no header fields that only a
//! later version of the specification knows, which is to be ignored; what is no message even then is dropped.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use zbus::Variant;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{Endian, to_bytes};

/// At most so many calls of one connection are kept. One more is refused.
pub(super) const CALLS: usize = 1024;
/// Nor is one more kept from so many bytes on.
const BYTES: usize = 1 << 20;
/// Of a message, what comes before its header's fields.
const FIXED: usize = 16;
/// The type of a method call.
const CALL: u8 = 1;
/// The type of a signal.
const SIGNAL: u8 = 4;
/// The flag of a call whose caller wants no answer.
const NO_REPLY_EXPECTED: u8 = 1;
/// The bus itself.
const BUS: &str = "org.freedesktop.DBus";
/// The field that names who sent it.
const SENDER: u8 = 7;
/// The field that says how many descriptors belong to it.
const DESCRIPTORS: u8 = 9;
/// The fields that are known.
const KNOWN: std::ops::RangeInclusive<u8> = 1..=DESCRIPTORS;

/// In which order messages are handed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::dbus) enum Order {
    /// Callers take turns.
    #[default]
    Turns,
    /// As they came: nobody calls.
    AsTheyCame,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    order: Order,
    /// The beginning of a message of which the rest has not come.
    rest: Vec<u8>,
    first: VecDeque<Vec<u8>>,
    calls: HashMap<Arc<str>, Calls>,
    /// Who has calls here, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    refused: VecDeque<Refused>,
}

/// Those of one connection.
#[derive(Debug)]
struct Calls {
    caller: Arc<str>,
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// What is kept of a call that there was no room for: as much as its answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// Who called, by unique name.
    pub(super) caller: Arc<str>,
    /// The call's number.
    pub(super) serial: NonZeroU32,
}

impl Inbox {
    /// An empty one.
    pub(super) fn new(order: Order) -> Self {
        Inbox { order, ..Inbox::default() }
    }

    /// Takes in what came. The descriptors that came with it are closed: no method takes one, and no answer has one.
    pub(super) fn take_in(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        drop(descriptors);
        // Mostly, nothing is left of before and messages are whole.
        if self.rest.is_empty() {
            let taken = self.split(bytes);
            self.rest.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        } else {
            let mut all = std::mem::take(&mut self.rest);
            all.extend_from_slice(bytes);
            let taken = self.split(&all);
            all.drain(..taken);
            self.rest = all;
        }
    }

    /// Puts every whole message where it belongs; how many bytes that were.
    fn split(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(message) = bytes.get(at..).and_then(|rest| rest.get(..length(rest)?)) {
            at += message.len();
            if self.put(message).is_none() {
                tracing::debug!("something came over the bus that is no message");
            }
        }
        at
    }

    /// Puts a message where it belongs; `None`: it is none. What is refused is not copied: a flood is mostly that, and
    /// others wait behind it.
    fn put(&mut self, message: &[u8]) -> Option<()> {
        let mended;
        let (message, header) = match fields(message) {
            Some(header) => (message, header),
            None => {
                mended = without_unknown(message)?;
                (mended.as_slice(), fields(&mended)?)
            }
        };
        let (kind, flags) = (*message.get(1)?, *message.get(2)?);
        let by_anybody = matches!(kind, CALL | SIGNAL) && self.order == Order::Turns;
        let Some(caller) = header.sender.filter(|sender| by_anybody && *sender != BUS) else {
            self.first.push_back(without_descriptors(message, &header)?);
            return Some(());
        };
        let calls = match self.calls.get_mut(caller) {
            Some(calls) => calls,
            None => {
                let caller = Arc::<str>::from(caller);
                self.turns.push_back(caller.clone());
                let calls = Calls { caller: caller.clone(), messages: VecDeque::new(), bytes: 0 };
                self.calls.entry(caller).or_insert(calls)
            }
        };
        if calls.messages.len() >= CALLS || calls.bytes >= BYTES {
            // Nobody waits for what comes of a signal.
            if kind == CALL && flags & NO_REPLY_EXPECTED == 0 {
                let serial = u32::try_from(number(message, 8)?).ok().and_then(NonZeroU32::new)?;
                self.refused.push_back(Refused { caller: calls.caller.clone(), serial });
            }
            return Some(());
        }
        let message = without_descriptors(message, &header)?;
        calls.bytes += message.len();
        calls.messages.push_back(message);
        Some(())
    }

    /// The next message.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(message) = self.first.pop_front() {
            return Some(message);
        }
        let caller = self.turns.pop_front()?;
        let calls = self.calls.get_mut(&caller)?;
        let message = calls.messages.pop_front()?;
        calls.bytes -= message.len();
        if calls.messages.is_empty() {
            self.calls.remove(&caller);
        } else {
            self.turns.push_back(caller);
        }
        Some(message)
    }

    /// How many calls there are that there was no room for.
    pub(super) fn to_refuse(&self) -> usize {
        self.refused.len()
    }

    /// A call that there was no room for, and whose caller wants to know that.
    pub(super) fn refused(&mut self) -> Option<Refused> {
        self.refused.pop_front()
    }
}

/// The length of the message that these bytes begin with, where it can be told.
fn length(bytes: &[u8]) -> Option<usize> {
    let fields = number(bytes, 12)?;
    let body = number(bytes, 4)?;
    FIXED.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)
}

/// A number in the byte order that the message has.
fn number(message: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = message.get(at..at.checked_add(4)?)?.try_into().ok()?;
    let number =
        if message.first() == Some(&b'B') { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    usize::try_from(number).ok()
}

/// What matters of a message's header.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields<'a> {
    /// Who sent it, in the bus's own words.
    sender: Option<&'a str>,
    /// Where it says how many descriptors belong to it.
    descriptors: Option<usize>,
}

/// A copy that says that no descriptors belong to it.
fn without_descriptors(message: &[u8], header: &Fields<'_>) -> Option<Vec<u8>> {
    let mut copy = message.to_vec();
    if let Some(at) = header.descriptors {
        copy.get_mut(at..at + 4)?.fill(0);
    }
    Some(copy)
}

/// The same message with the fields alone that are known.
fn without_unknown(message: &[u8]) -> Option<Vec<u8>> {
    let endian = if message.first() == Some(&b'B') { Endian::Big } else { Endian::Little };
    let at = FIXED - 4;
    let end = FIXED.checked_add(number(message, at)?)?;
    let context = Context::new(endian, at);
    let data = Data::new(message.get(at..end)?, context);
    let (mut fields, _): (Vec<(u8, Variant<'_>)>, usize) = data.deserialize().ok()?;
    fields.retain(|(code, _)| KNOWN.contains(code));
    let mut mended = message.get(..at)?.to_vec();
    mended.extend_from_slice(to_bytes(context, &fields).ok()?.bytes());
    mended.resize(mended.len().checked_next_multiple_of(8)?, 0);
    mended.extend_from_slice(message.get(end.checked_next_multiple_of(8)?..)?);
    Some(mended)
}

/// Reads a message's header; `None` where it has anything that is not known. The bus hands on valid messages alone.
fn fields(message: &[u8]) -> Option<Fields<'_>> {
    let end = FIXED.checked_add(number(message, 12)?)?;
    let mut fields = Fields::default();
    let mut at = FIXED;
    // A field: its code, its type as a signature of one letter (length, letter, 0), its value; the next one begins at a
    // multiple of 8.
    while at < end {
        let (code, kind, value) = (*message.get(at)?, message.get(at + 2)?, at + 4);
        if !KNOWN.contains(&code) || message.get(at + 1) != Some(&1) {
            return None;
        }
        let after = match kind {
            b's' | b'o' => {
                let (from, length) = (value + 4, number(message, value)?);
                let to = from.checked_add(length)?;
                if code == SENDER {
                    fields.sender = std::str::from_utf8(message.get(from..to)?).ok();
                }
                to + 1
            }
            b'g' => value + 1 + usize::from(*message.get(value)?) + 1,
            b'u' => {
                if code == DESCRIPTORS {
                    fields.descriptors = Some(value);
                }
                value + 4
            }
            // No other type is known in a header.
            _ => return None,
        };
        at = after.checked_next_multiple_of(8)?;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::raw;
    use zbus::Message;
    use zbus::message::Flags;

    fn call(from: &str, member: &str) -> Vec<u8> {
        let message = Message::method_call("/a/b", member).sender(from).interface("a.b").destination(":1.5");
        message.build(&("an argument", 5_u8)).expect("a message").data().bytes().to_vec()
    }

    fn signal(from: &str) -> Vec<u8> {
        let message = Message::signal("/a", "a.b", "Signal").sender(from);
        message.build(&()).expect("a message").data().bytes().to_vec()
    }

    fn drained(inbox: &mut Inbox) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| inbox.next()).collect()
    }

    #[test]
    fn callers_take_turns_and_what_is_no_call_goes_first() {
        let mut inbox = Inbox::default();
        let many: Vec<_> = (0..4).map(|n| call(":1.1", &format!("Many{n}"))).collect();
        inbox.take_in(&many.concat(), Vec::new());
        let (one, signal) = (call(":1.2", "One"), signal(BUS));
        inbox.take_in(&[one.clone(), signal.clone()].concat(), Vec::new());
        let [a, b, c, d] = <[Vec<u8>; 4]>::try_from(many).expect("four");
        assert_eq!(drained(&mut inbox), [signal, a, one, b, c, d]);
        assert_eq!((inbox.calls.len(), inbox.turns.len()), (0, 0), "nothing is kept of who has nothing here");
    }

    #[test]
    fn messages_that_come_in_pieces_are_put_together() {
        let messages = [call(":1.1", "A"), signal(":1.2"), call(":1.1", "B")];
        for piece in 1..50 {
            let mut inbox = Inbox::default();
            for bytes in messages.concat().chunks(piece) {
                inbox.take_in(bytes, Vec::new());
            }
            assert_eq!(drained(&mut inbox).len(), 3, "in pieces of {piece}");
            assert!(inbox.rest.is_empty());
        }
    }

    #[test]
    fn a_caller_has_so_many_calls_here_and_others_theirs() {
        let mut inbox = Inbox::default();
        for _ in 0..CALLS + 3 {
            inbox.take_in(&call(":1.1", "A"), Vec::new());
        }
        inbox.take_in(&call(":1.2", "B"), Vec::new());
        let serial = 77.try_into().expect("not 0");
        for flags in [Flags::NO_AUTO_START, Flags::NO_AUTO_START | Flags::NO_REPLY_EXPECTED] {
            let call = Message::method_call("/a", "A").sender(":1.1").serial(serial).with_flags(flags);
            inbox.take_in(call.build(&()).expect("a message").data(), Vec::new());
        }
        let refused: Vec<_> = std::iter::from_fn(|| inbox.refused()).collect();
        let last = Refused { caller: ":1.1".into(), serial };
        assert_eq!((refused.len(), refused.last()), (4, Some(&last)), "who wants no answer gets none");
        assert_eq!(drained(&mut inbox).len(), CALLS + 1);
        inbox.take_in(&call(":1.1", "A"), Vec::new());
        assert!(inbox.refused().is_none() && inbox.next().is_some());
    }

    #[test]
    fn long_calls_are_counted_by_their_length_too() {
        let mut inbox = Inbox::default();
        let long =
            Message::method_call("/a", "A").sender(":1.1").build(&"x".repeat(BYTES)).expect("a message");
        for _ in 0..3 {
            inbox.take_in(long.data(), Vec::new());
        }
        assert!(inbox.next().is_some() && inbox.next().is_none(), "one is always kept");
        assert_eq!(std::iter::from_fn(|| inbox.refused()).count(), 2);
    }

    #[test]
    fn who_sent_it_is_read_in_either_byte_order() {
        for endian in [zbus::wire::Endian::Little, zbus::wire::Endian::Big] {
            let message = Message::method_call("/a", "A").sender(":1.77").endian(endian);
            let message = message.build(&("b",)).expect("a message");
            let bytes = message.data().bytes();
            let sender = Some(":1.77");
            assert_eq!(fields(bytes), Some(Fields { sender, descriptors: None }));
            assert_eq!(length(bytes), Some(bytes.len()));
        }
        let of_nobody = Message::method_call("/a", "A").build(&()).expect("a message");
        assert_eq!(fields(of_nobody.data()), Some(Fields::default()));
    }

    #[test]
    fn a_message_that_came_with_descriptors_is_one_without() {
        let descriptor = || OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
        let (one, two) = (descriptor(), descriptor());
        let body = ("call", zbus::Fd::from(&one), zbus::Fd::from(&two));
        for builder in [Message::method_call("/a", "A"), Message::signal("/a", "a.b", "B")] {
            let message = builder.sender(":1.1").build(&body).expect("a message").data().bytes().to_vec();
            assert!(raw::message(message.clone()).is_err(), "zbus misses the descriptors");
            for piece in [1, 7, 1_000] {
                let mut inbox = Inbox::default();
                for bytes in message.chunks(piece) {
                    inbox.take_in(bytes, vec![descriptor()]);
                }
                let came = raw::message(inbox.next().expect("it came")).expect("it is one");
                assert_eq!(came.header().sender().expect("a sender").as_str(), ":1.1");
            }
        }
    }

    /// The message with one more field, of which this version of the specification knows nothing.
    fn with_unknown(message: &Message, endian: Endian, first: bool) -> Vec<u8> {
        let bytes = message.data().bytes();
        let end = FIXED + number(bytes, 12).expect("a length");
        let context = Context::new(endian, 12);
        let data = Data::new(bytes.get(12..end).expect("fields"), context);
        let (mut fields, _): (Vec<(u8, Variant<'_>)>, usize) = data.deserialize().expect("fields");
        let value = Variant::from(vec![("a", 1_u64), ("b", 2)]);
        fields.insert(if first { 0 } else { fields.len() }, (77, value));
        let mut longer = bytes.get(..12).expect("a header").to_vec();
        longer.extend_from_slice(to_bytes(context, &fields).expect("fields").bytes());
        longer.resize(longer.len().next_multiple_of(8), 0);
        longer.extend_from_slice(bytes.get(end.next_multiple_of(8)..).expect("a body"));
        longer
    }

    #[test]
    fn fields_that_are_not_known_are_ignored() {
        for endian in [Endian::Little, Endian::Big] {
            let message =
                Message::method_call("/a/b", "Member").sender(":1.1").interface("a.b").endian(endian);
            let message = message.build(&("an argument", 5_u8)).expect("a message");
            for first in [true, false] {
                let odd = with_unknown(&message, endian, first);
                assert!(raw::message(odd.clone()).is_err(), "zbus does not ignore them");
                let mut inbox = Inbox::default();
                inbox.take_in(&odd, Vec::new());
                assert!(inbox.first.is_empty(), "it is its sender's");
                let came = raw::message(inbox.next().expect("it came")).expect("it is one");
                assert_eq!(came.body().deserialize::<(&str, u8)>().expect("a body"), ("an argument", 5));
                assert_eq!(came.header().member().expect("a member").as_str(), "Member");
            }
        }
    }

    #[test]
    fn signals_of_anybody_take_turns_and_are_bounded_and_those_of_the_bus_go_first() {
        let mut inbox = Inbox::default();
        for _ in 0..CALLS + 3 {
            inbox.take_in(&signal(":1.1"), Vec::new());
        }
        let (one, bus) = (call(":1.2", "One"), signal(BUS));
        inbox.take_in(&[one.clone(), bus.clone()].concat(), Vec::new());
        assert_eq!(inbox.to_refuse(), 0, "nobody waits for what comes of a signal");
        let came = drained(&mut inbox);
        assert_eq!((came.len(), came.first(), came.get(2)), (CALLS + 2, Some(&bus), Some(&one)));
        // Where nobody calls, nothing of what the service manager says may be missed.
        let mut inbox = Inbox::new(Order::AsTheyCame);
        for _ in 0..CALLS + 3 {
            inbox.take_in(&signal(":1.1"), Vec::new());
        }
        assert_eq!(drained(&mut inbox).len(), CALLS + 3);
    }
}
