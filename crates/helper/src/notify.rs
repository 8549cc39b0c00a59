//! Owns what is said to systemd: one datagram a call, and status texts that stay one line.

use std::path::Path;

/// The longest status text, in bytes.
const LONGEST: usize = 512;
/// The longest path inside a text: the remedy behind it must still fit.
const LONGEST_PATH: usize = 120;

/// The variables by which a service manager is found. An engine must not see them: a library that speaks the protocol
/// would report readiness before the model is loaded.
pub(crate) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// One assignment of a notification.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State<'a> {
    Ready,
    Status(&'a str),
    /// The engine gets on; systemd ends it where this is not said often enough.
    Watchdog,
    /// systemd shall end the engine as if it had not been said.
    Trigger,
    /// Microseconds; `sd_notify`'s own variant ends at 71 minutes.
    ExtendTimeout(u64),
}

/// Sends all of them in one datagram and says whether systemd has it. A failure is printed: there is nobody else to tell.
pub(crate) fn send(states: &[State<'_>]) -> bool {
    let lines: Vec<String> = states
        .iter()
        .map(|state| match state {
            State::Ready => "READY=1".to_owned(),
            State::Watchdog => "WATCHDOG=1".to_owned(),
            State::Trigger => "WATCHDOG=trigger".to_owned(),
            State::Status(text) => format!("STATUS={}", one_line(text)),
            State::ExtendTimeout(usec) => format!("EXTEND_TIMEOUT_USEC={usec}"),
        })
        .collect();
    let custom: Vec<sd_notify::NotifyState<'_>> =
        lines.iter().map(|line| sd_notify::NotifyState::Custom(line)).collect();
    match sd_notify::notify(&custom) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("systemd could not be told {lines:?}: {error}");
            false
        }
    }
}

/// One line of at most 512 bytes. Control characters go: a file name with a line break must not become an assignment.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    line.truncate(boundary_before(&line, LONGEST));
    line
}

/// A path as it stands in a text: a long one loses its middle.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.len() <= LONGEST_PATH {
        return text.into_owned();
    }
    let (start, _) = text.split_at(boundary_before(&text, LONGEST_PATH / 3));
    let (_, end) = text.split_at(boundary_before(&text, text.len() - LONGEST_PATH / 2));
    format!("{start}…{end}")
}

/// The last place at or before `at` where the text may be cut.
fn boundary_before(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_cannot_start_an_assignment() {
        assert_eq!(one_line("no model /a\nREADY=1"), "no model /a READY=1");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let line = one_line(&"ä".repeat(400));
        assert_eq!(line.len(), 512);
        let line = one_line(&format!("x{}", "ä".repeat(400)));
        assert_eq!(line.len(), 511);
    }

    #[test]
    fn a_long_path_keeps_both_ends() {
        let path = format!("/srv/{}/model.gguf", "ü".repeat(300));
        let text = shown(Path::new(&path));
        assert!(text.len() < 128, "{text}");
        assert!(text.starts_with("/srv/") && text.ends_with("/model.gguf"), "{text}");
        assert_eq!(shown(Path::new("/srv/a")), "/srv/a");
    }
}
