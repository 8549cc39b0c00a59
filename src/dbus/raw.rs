//! What somebody has to vouch for: messages made of bytes, descriptors made of numbers.

#![allow(
    unsafe_code,
    reason = "nothing but the caller's word says that bytes are a message, or that a number is a descriptor of ours"
)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use zbus::message::{Header, Message};
use zbus::wire::Endian;
use zbus::wire::serialized::{Context, Data};

/// A message that the bus handed on.
pub(super) fn message(bytes: Vec<u8>) -> zbus::Result<Message> {
    let endian = if bytes.first() == Some(&b'B') { Endian::Big } else { Endian::Little };
    // SAFETY: the bus hands on valid messages alone, and these bytes are one of them.
    unsafe { Message::from_bytes(Data::new(bytes, Context::new(endian, 0))) }
}

/// The answer to a call whose body was serialized before, in this machine's byte order.
pub(super) fn reply(to: &Header<'_>, body: &[u8], signature: &'static str) -> zbus::Result<Message> {
    // SAFETY: the caller's bytes are what zbus serialized for that signature; there are no descriptors in them.
    unsafe { Message::method_return(to).build_raw_body(body, signature, Vec::new()) }
}

/// A descriptor that the kernel has just handed to this process.
pub(super) fn descriptor(number: RawFd) -> OwnedFd {
    // SAFETY: it came with a message a moment ago, so it is open and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
