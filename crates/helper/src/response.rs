//! Owns the reading of an HTTP/1 answer: its status, and its body by length, chunks or the end of the connection.

use std::io;

use crate::http::Want;

/// The longest status line that is looked at.
pub(crate) const LINE: usize = 512;
/// The longest head of an answer.
const HEAD: usize = 64 * 1024;
/// The longest answer, head and all.
pub(crate) const LONGEST: usize = 1 << 20;

/// The answer in what was received; `None` while it is not complete.
pub(crate) fn parse(received: &[u8], ended: bool, want: Want) -> io::Result<Option<(u16, Vec<u8>)>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let more = |limit: usize| if ended || received.len() >= limit { Err(bad()) } else { Ok(None) };
    let Some(line) = received.iter().position(|&byte| byte == b'\n') else { return more(LINE) };
    let status = received.get(..line).and_then(status).ok_or_else(bad)?;
    if want == Want::Status {
        return Ok(Some((status, Vec::new())));
    }
    let Some((head, body)) = split(received, b"\r\n\r\n").or_else(|| split(received, b"\n\n")) else {
        return more(HEAD);
    };
    let header = |wanted: &str| {
        let head = str::from_utf8(head).ok()?;
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        fields
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
            .next()
    };
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return match joined(body).ok_or_else(bad)? {
            Some(body) => Ok(Some((status, body))),
            None => more(LONGEST),
        };
    }
    match header("content-length") {
        Some(length) => {
            let length: usize = length.parse().map_err(|_| bad())?;
            match body.get(..length) {
                Some(body) => Ok(Some((status, body.to_vec()))),
                None => more(LONGEST),
            }
        }
        None if ended => Ok(Some((status, body.to_vec()))),
        None => more(LONGEST),
    }
}

fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + separator.len()..)?))
}

/// The chunks of a body as one: `Some(None)` while the last is not there, `None` for what are no chunks.
fn joined(mut rest: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some((line, after)) = split(rest, b"\r\n") else { return Some(None) };
        let size = str::from_utf8(line).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok().filter(|&size| size <= LONGEST)?;
        if size == 0 {
            return Some(Some(body));
        }
        let (Some(chunk), Some(after)) = (after.get(..size), after.get(size + 2..)) else {
            return Some(None);
        };
        body.extend(chunk);
        rest = after;
    }
}

/// The code of an HTTP/1 status line.
fn status(line: &[u8]) -> Option<u16> {
    let line = str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.split(' ').next()?;
    let digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") || !digits {
        return None;
    }
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_has_a_code() {
        for (line, code) in [
            ("HTTP/1.1 200 OK\r", 200),
            ("HTTP/1.0 503 Service Unavailable", 503),
            ("HTTP/1.1 200", 200),
            ("HTTP/1.1 200\r", 200),
            ("HTTP/1.1 204 \r", 204),
        ] {
            assert_eq!(status(line.as_bytes()), Some(code), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_status_line_has_none() {
        for line in
            ["", "200 OK", "HTTP/1.1", "HTTP/1.1 2000 OK", "HTTP/1.1 +20 OK", "HTTP/2 200", "SSH-2.0 200 x"]
        {
            assert_eq!(status(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(status(b"HTTP/1.1 200 \xff"), None);
    }

    fn body(received: &str, ended: bool) -> Option<Option<String>> {
        let parsed = parse(received.as_bytes(), ended, Want::Body).ok()?;
        Some(parsed.map(|(_, body)| String::from_utf8(body).expect("text")))
    }

    #[test]
    fn a_body_ends_by_its_length_its_last_chunk_or_the_end() {
        let whole = |text: &str| Some(Some(text.to_owned()));
        let more = Some(None);
        for (received, open, ended) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", whole("abc"), whole("abc")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", more.clone(), None),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc", None, None),
            ("HTTP/1.0 200 OK\n\nabc", more.clone(), whole("abc")),
            ("HTTP/1.1 200 OK\r\n\r\n", more.clone(), whole("")),
            ("HTTP/1.1 200 OK\r\nX: y\r\n", more.clone(), None),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
                whole("abcd"),
                whole("abcd"),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1", more.clone(), None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", None, None),
        ] {
            assert_eq!(body(received, false), open, "{received:?}");
            assert_eq!(body(received, true), ended, "{received:?}");
        }
    }

    #[test]
    fn an_answer_without_end_is_cut_off() {
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        let long = format!("{head}{}", "x".repeat(LONGEST));
        assert_eq!(body(&long, false), None);
        assert_eq!(body(&format!("HTTP/1.1 200 OK\r\n{}", "x".repeat(HEAD)), false), None);
        let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n{}", "x".repeat(LONGEST));
        assert_eq!(body(&announced, false), None);
    }
}
