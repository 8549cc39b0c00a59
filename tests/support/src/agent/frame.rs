//! Owns the form of what host and guest say to each other on the machine's one port: frames, each of a command.
//!
//! A frame is the command's number, its kind, the length of its body (little endian, 9 bytes in all) and the body. Both
//! ends are of one build, so there is no version; what makes no sense ends the conversation.

use std::io::{self, Read, Write};

/// The longest body that is sent; longer data is cut into several frames.
pub const LONGEST: usize = 64 * 1024;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To the host: the guest listens.
    Hello,
    /// To the guest: run this. The body is the command line as a JSON list.
    Run,
    /// To the guest: bytes for the command's standard input.
    Input,
    /// To the guest: no more input.
    Close,
    /// To the guest: kill the command and what it started in its process group.
    Kill,
    /// To the host: bytes of its standard output.
    Output,
    /// To the host: bytes of its standard error.
    Errors,
    /// To the host: it has ended. The body is its wait status, four bytes.
    Exit,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hello,
        Self::Run,
        Self::Input,
        Self::Close,
        Self::Kill,
        Self::Output,
        Self::Errors,
        Self::Exit,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Hello => 0,
            Self::Run => 1,
            Self::Input => 2,
            Self::Close => 3,
            Self::Kill => 4,
            Self::Output => 5,
            Self::Errors => 6,
            Self::Exit => 7,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which command it belongs to.
    pub command: u32,
    /// What it is for.
    pub kind: Kind,
    /// What it carries.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame without a body.
    #[must_use]
    pub fn bare(command: u32, kind: Kind) -> Self {
        Frame { command, kind, body: Vec::new() }
    }

    /// The next frame; `None` where the other end closed between two.
    ///
    /// # Errors
    ///
    /// Where reading fails, or what came is no frame.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 9];
        let mut filled = 0;
        while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match from.read(rest)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        let [a, b, c, d, code, e, f, g, h] = head;
        let length = u32::from_le_bytes([e, f, g, h]);
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code);
        let length = usize::try_from(length).ok().filter(|&length| length <= LONGEST);
        let (Some(kind), Some(length)) = (kind, length) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no frame: {head:?}")));
        };
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        Ok(Some(Frame { command: u32::from_le_bytes([a, b, c, d]), kind, body }))
    }

    /// Sends it, in one write: frames of several threads must not mix.
    ///
    /// # Errors
    ///
    /// Where writing fails, or the body is too long.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.body.len()).ok().filter(|_| self.body.len() <= LONGEST);
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too long a frame"))?;
        let mut bytes = self.command.to_le_bytes().to_vec();
        bytes.push(self.kind.code());
        bytes.extend(length.to_le_bytes());
        bytes.extend(&self.body);
        to.write_all(&bytes)?;
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let sent = [
            Frame { command: 7, kind: Kind::Run, body: b"[\"true\"]".to_vec() },
            Frame::bare(u32::MAX, Kind::Close),
            Frame { command: 0, kind: Kind::Output, body: vec![0; LONGEST] },
        ];
        let mut bytes = Vec::new();
        for frame in &sent {
            frame.write(&mut bytes).expect("written");
        }
        let mut reader = bytes.as_slice();
        for frame in sent {
            assert_eq!(Frame::read(&mut reader).expect("read"), Some(frame));
        }
        assert_eq!(Frame::read(&mut reader).expect("the end"), None);
    }

    #[test]
    fn half_a_frame_and_no_frame_are_errors() {
        let mut bytes = Vec::new();
        Frame { command: 1, kind: Kind::Exit, body: vec![0; 4] }.write(&mut bytes).expect("written");
        for cut in 1..bytes.len() {
            Frame::read(&mut &bytes[..cut]).expect_err("half a frame");
        }
        bytes[4] = 200;
        Frame::read(&mut bytes.as_slice()).expect_err("an unknown kind");
        let long = Frame { command: 1, kind: Kind::Input, body: vec![0; LONGEST + 1] };
        long.write(&mut Vec::new()).expect_err("too long");
    }
}
