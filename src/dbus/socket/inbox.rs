//! What the bus has sent and nobody has taken yet: bytes in, messages out, in an order that is fair to all callers.
//!
//! The calls of one connection keep their order. Those of several take turns, so that a caller who sends ten thousand at
//! once waits for them himself and the others do not. What is no call (answers to us, signals) goes first, in order.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// At most so many calls of one connection are kept. One more is refused.
pub(super) const CALLS: usize = 1024;
/// Nor is one more kept from so many bytes on.
const BYTES: usize = 1 << 20;
/// Of a message, what comes before its header's fields.
const FIXED: usize = 16;
/// A method call's type.
const CALL: u8 = 1;
/// The field that names who sent it.
const SENDER: u8 = 7;
/// The field that says how many descriptors belong to it.
const DESCRIPTORS: u8 = 9;

/// A message, and the descriptors that came with it.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The beginning of a message of which the rest has not come.
    rest: Vec<u8>,
    /// Those of messages that are not whole yet. They come in the order of the messages, and not after them.
    descriptors: VecDeque<OwnedFd>,
    first: VecDeque<Came>,
    calls: HashMap<Arc<str>, Calls>,
    /// Who has calls here, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    refused: VecDeque<Vec<u8>>,
}

/// Those of one connection.
#[derive(Debug, Default)]
struct Calls {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Inbox {
    /// Takes in what came, with the descriptors that came with it.
    pub(super) fn take_in(&mut self, bytes: &[u8], descriptors: impl IntoIterator<Item = OwnedFd>) {
        self.descriptors.extend(descriptors);
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
            self.put(message.to_vec());
        }
        at
    }

    fn put(&mut self, message: Vec<u8>) {
        let fields = fields(&message).unwrap_or_default();
        let count = fields.descriptors.min(self.descriptors.len());
        let descriptors: Vec<OwnedFd> = self.descriptors.drain(..count).collect();
        let Some(caller) = fields.sender.filter(|_| message.get(1) == Some(&CALL)) else {
            return self.first.push_back(Came { bytes: message, descriptors });
        };
        // No method takes one.
        drop(descriptors);
        let calls = match self.calls.get_mut(caller) {
            Some(calls) => calls,
            None => {
                let caller = Arc::<str>::from(caller);
                self.turns.push_back(caller.clone());
                self.calls.entry(caller).or_default()
            }
        };
        if calls.messages.len() >= CALLS || calls.bytes >= BYTES {
            return self.refused.push_back(message);
        }
        calls.bytes += message.len();
        calls.messages.push_back(message);
    }

    /// The next message.
    pub(super) fn next(&mut self) -> Option<Came> {
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
        Some(Came { bytes: message, descriptors: Vec::new() })
    }

    /// How many calls there are that there was no room for.
    pub(super) fn to_refuse(&self) -> usize {
        self.refused.len()
    }

    /// A call that there was no room for.
    pub(super) fn refused(&mut self) -> Option<Vec<u8>> {
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
    /// How many descriptors belong to it.
    descriptors: usize,
}

/// Reads a message's header. The bus hands on valid messages alone.
fn fields(message: &[u8]) -> Option<Fields<'_>> {
    let end = FIXED.checked_add(number(message, 12)?)?;
    let mut fields = Fields::default();
    let mut at = FIXED;
    // A field: its code, its type as a signature of one letter (length, letter, 0), its value; the next one begins at a
    // multiple of 8.
    while at < end {
        let (code, kind, value) = (*message.get(at)?, message.get(at + 2)?, at + 4);
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
                    fields.descriptors = number(message, value)?;
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
    use std::os::fd::AsRawFd;
    use zbus::Message;

    fn call(from: &str, member: &str) -> Vec<u8> {
        let message = Message::method_call("/a/b", member).sender(from).interface("a.b").destination(":1.5");
        message.build(&("an argument", 5_u8)).expect("a message").data().bytes().to_vec()
    }

    fn signal(from: &str) -> Vec<u8> {
        let message = Message::signal("/a", "a.b", "Signal").sender(from);
        message.build(&()).expect("a message").data().bytes().to_vec()
    }

    fn drained(inbox: &mut Inbox) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| inbox.next()).map(|came| came.bytes).collect()
    }

    #[test]
    fn callers_take_turns_and_what_is_no_call_goes_first() {
        let mut inbox = Inbox::default();
        let many: Vec<_> = (0..4).map(|n| call(":1.1", &format!("Many{n}"))).collect();
        inbox.take_in(&many.concat(), []);
        let (one, signal) = (call(":1.2", "One"), signal(":1.1"));
        inbox.take_in(&[one.clone(), signal.clone()].concat(), []);
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
                inbox.take_in(bytes, []);
            }
            assert_eq!(drained(&mut inbox).len(), 3, "in pieces of {piece}");
            assert!(inbox.rest.is_empty());
        }
    }

    #[test]
    fn a_caller_has_so_many_calls_here_and_others_theirs() {
        let mut inbox = Inbox::default();
        for _ in 0..CALLS + 3 {
            inbox.take_in(&call(":1.1", "A"), []);
        }
        inbox.take_in(&call(":1.2", "B"), []);
        assert_eq!(std::iter::from_fn(|| inbox.refused()).count(), 3);
        assert_eq!(drained(&mut inbox).len(), CALLS + 1);
        inbox.take_in(&call(":1.1", "A"), []);
        assert!(inbox.refused().is_none() && inbox.next().is_some());
    }

    #[test]
    fn long_calls_are_counted_by_their_length_too() {
        let mut inbox = Inbox::default();
        let long =
            Message::method_call("/a", "A").sender(":1.1").build(&"x".repeat(BYTES)).expect("a message");
        for _ in 0..3 {
            inbox.take_in(long.data(), []);
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
            assert_eq!(fields(bytes), Some(Fields { sender: Some(":1.77"), descriptors: 0 }));
            assert_eq!(length(bytes), Some(bytes.len()));
        }
        let of_nobody = Message::method_call("/a", "A").build(&()).expect("a message");
        assert_eq!(fields(of_nobody.data()), Some(Fields::default()));
    }

    #[test]
    fn descriptors_go_to_the_message_that_they_came_with_and_those_of_calls_are_closed() {
        let descriptor = || OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
        let with = |builder: zbus::message::Builder<'_>, member: &str| {
            let (one, two) = (descriptor(), descriptor());
            let body = (member, zbus::Fd::from(&one), zbus::Fd::from(&two));
            builder.sender(":1.1").build(&body).expect("a message").data().bytes().to_vec()
        };
        let call = with(Message::method_call("/a", "A"), "call");
        let first = with(Message::signal("/a", "a.b", "B"), "first");
        let second = with(Message::signal("/a", "a.b", "B"), "second");
        for piece in [1, 7, 100, 1_000] {
            let mut inbox = Inbox::default();
            let all: Vec<OwnedFd> = (0..6).map(|_| descriptor()).collect();
            let numbers: Vec<i32> = all.iter().map(AsRawFd::as_raw_fd).collect();
            let mut all = Some(all);
            for bytes in [call.clone(), first.clone(), second.clone(), signal(":1.1")].concat().chunks(piece)
            {
                inbox.take_in(bytes, all.take().unwrap_or_default());
            }
            let came: Vec<Vec<i32>> = std::iter::from_fn(|| inbox.next())
                .map(|came| came.descriptors.iter().map(AsRawFd::as_raw_fd).collect())
                .collect();
            assert_eq!(came, [numbers[2..4].to_vec(), numbers[4..].to_vec(), vec![], vec![]]);
            assert!(inbox.descriptors.is_empty());
        }
    }
}
