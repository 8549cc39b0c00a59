//! Owns a model's SHA-256: how it is written, and the check of a file against it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pool_core::refusal::Refusal;
use sha2::{Digest as _, Sha256};

use crate::model::{self, Subject};
use crate::notify::shown;
use crate::refused::Refused;

const BUFFER: usize = 1 << 20;

/// A SHA-256, written `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn parse(text: &str) -> Option<Digest> {
        let digits = text.strip_prefix("sha256:")?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Refuses a file that is not the expected one. `advanced` is called after every piece, with the bytes read so far.
pub(crate) fn check(model: &Path, expected: Digest, mut advanced: impl FnMut(u64)) -> Result<(), Refused> {
    if model.is_dir() {
        return Err(Refused::new(
            Refusal::Preflight,
            format!(
                "model {} is a folder, and a digest belongs to one file; remove `digest` from the pool file",
                shown(model)
            ),
        ));
    }
    let mut file =
        File::open(model).map_err(|error| model::unreadable(Subject::model(model), model, error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(model::unreadable(Subject::model(model), model, error)),
        };
        if count == 0 {
            break;
        }
        hash.update(buffer.get(..count).unwrap_or_default());
        total += count as u64;
        advanced(total);
    }
    let found = Digest(hash.finalize().into());
    if found == expected {
        return Ok(());
    }
    Err(Refused::new(
        Refusal::DigestMismatch,
        format!(
            "model {} is {found}, but the pool file says {expected}; fetch the model again, or correct `digest`",
            shown(model)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_reads_back_in_lower_case() {
        assert_eq!(Digest::parse(ABC).expect("a digest").to_string(), ABC);
        let upper = format!("sha256:{}", ABC["sha256:".len()..].to_uppercase());
        assert_eq!(Digest::parse(&upper).expect("a digest").to_string(), ABC);
    }

    #[test]
    fn what_is_no_digest_is_not_one() {
        for text in
            ["", "sha256:", "sha512:00", &ABC[7..], &ABC[..70], &format!("{ABC}00"), &ABC.replace("ba", "+a")]
        {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_is_compared_with_its_digest() {
        let path = std::env::temp_dir().join(format!("digest-{}", std::process::id()));
        std::fs::write(&path, "abc").expect("a file");
        let mut read = 0;
        check(&path, Digest::parse(ABC).expect("a digest"), |bytes| read = bytes).expect("the same");
        assert_eq!(read, 3);
        std::fs::write(&path, "abd").expect("a file");
        let refused = check(&path, Digest::parse(ABC).expect("a digest"), |_| ()).expect_err("another");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(refused.refusal(), Refusal::DigestMismatch);
        assert!(
            refused.text().contains(ABC) && refused.text().contains("sha256:a52d159f"),
            "{}",
            refused.text()
        );
    }
}
