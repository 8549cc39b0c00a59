//! Owns the record of what the loop took in: the last inputs, in a bounded ring of two files in `/run`, each beginning
//! with the state that its first input met. So the record of any trouble can be stepped through again.
//!
//! Every line is JSON: a [`RecordHead`], then inputs. A record that cannot be written stops nothing; it is complained of once.

use pool_core::host::{RECORD_VERSION, RecordHead};
use pool_core::{Input, State};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file that is written now.
pub const CURRENT: &str = "record.jsonl";
/// The file before it.
pub const PREVIOUS: &str = "record.previous.jsonl";

/// At most so many inputs in a file.
const INPUTS: u32 = 4096;
/// At most so many bytes in a file, the state at its beginning apart.
const BYTES: usize = 8 * 1024 * 1024;

/// A record that is being written.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    file: Option<File>,
    inputs: u32,
    bytes: usize,
    complained: bool,
}

impl Recorder {
    /// Records in that folder.
    #[must_use]
    pub fn below(runtime: &Path) -> Self {
        Recorder { folder: runtime.to_owned(), file: None, inputs: 0, bytes: 0, complained: false }
    }

    /// Records an input before it is taken in.
    pub fn record(&mut self, state: &State, input: &Input) {
        if let Err(error) = self.write(state, input) {
            self.file = None;
            if !self.complained {
                tracing::warn!("inputs cannot be recorded in {}: {error}", self.folder.display());
            }
            self.complained = true;
        }
    }

    fn write(&mut self, state: &State, input: &Input) -> io::Result<()> {
        if self.inputs >= INPUTS || self.bytes >= BYTES {
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = begin(&self.folder, state)?;
                (self.inputs, self.bytes) = (0, 0);
                self.file.insert(file)
            }
        };
        let mut line = serde_json::to_vec(input)?;
        line.push(b'\n');
        file.write_all(&line)?;
        self.inputs += 1;
        self.bytes += line.len();
        Ok(())
    }
}

/// Begins a file; what was the current one is the previous one from now on.
fn begin(folder: &Path, state: &State) -> io::Result<File> {
    let current = folder.join(CURRENT);
    match fs::rename(&current, folder.join(PREVIOUS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Pool files may hold what is nobody else's business.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&current)?;
    let daemon = env!("CARGO_PKG_VERSION").to_owned();
    let head = RecordHead { version: RECORD_VERSION, daemon, state: state.clone() };
    let mut line = serde_json::to_vec(&head)?;
    line.push(b'\n');
    file.write_all(&line)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool_core::Event;
    use pool_core::host::TimerId;
    use pool_core::name::Usec;
    use std::io::{BufRead, BufReader};

    fn lines(file: &Path) -> Vec<String> {
        BufReader::new(File::open(file).expect("a record")).lines().map(|line| line.expect("text")).collect()
    }

    #[test]
    fn the_ring_keeps_the_last_inputs_and_the_state_that_each_file_begins_with() {
        let folder = std::env::temp_dir().join(format!("pool-record-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder of the test's own");
        let mut recorder = Recorder::below(&folder);
        let mut state = State::default();
        for n in 0..u64::from(INPUTS) * 2 + 5 {
            state.starts = n;
            let event = Event::TimerFired(TimerId(n));
            recorder.record(&state, &Input { mono: Usec(n), real: Usec(n), seed: n, event });
        }
        let (current, previous) = (lines(&folder.join(CURRENT)), lines(&folder.join(PREVIOUS)));
        assert_eq!(
            (current.len(), previous.len()),
            (6, usize::try_from(INPUTS).expect("a small number") + 1)
        );
        let head: RecordHead = serde_json::from_str(&current[0]).expect("JSON of ours");
        let first: Input = serde_json::from_str(&current[1]).expect("JSON of ours");
        assert_eq!((head.version, head.state.starts), (RECORD_VERSION, u64::from(INPUTS) * 2));
        assert_eq!(first.mono, Usec(u64::from(INPUTS) * 2), "the first input met that state");
        fs::remove_dir_all(folder).expect("a folder of the test's own");
    }

    #[test]
    fn a_record_that_cannot_be_written_stops_nothing() {
        let mut recorder = Recorder::below(Path::new("/proc/nowhere"));
        let event = Event::TimerFired(TimerId(1));
        recorder.record(&State::default(), &Input { mono: Usec(0), real: Usec(0), seed: 0, event });
        assert!(recorder.file.is_none() && recorder.complained);
    }
}
