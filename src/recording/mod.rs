//! Owns the record of what the loop took in: the last inputs, in a bounded ring of two files in `/run`, each beginning
//! with the state that its first input met. So the record of any trouble can be stepped through again.
//!
//! Every line is JSON: a [`RecordHead`], then inputs. A record that cannot be written stops nothing; it is complained of once.

use pool_core::host::{RECORD_VERSION, RecordHead};
use pool_core::name::Usec;
use pool_core::{Input, State};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file that is written now.
pub const CURRENT: &str = "record.jsonl";
/// The file before it.
pub const PREVIOUS: &str = "record.previous.jsonl";
/// One that is not whole yet.
const NEXT: &str = "record.new";

/// At most so many inputs in a file.
const INPUTS: u32 = 4096;
/// At most so many bytes in a file, the state at its beginning apart.
const BYTES: usize = 8 * 1024 * 1024;
/// How long nothing is begun after a failure.
const REST: Usec = Usec::from_secs(10);

/// A record that is being written.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    file: Option<Current>,
    /// Not before this time is a file begun: it takes the whole state, and there was no room for it a moment ago.
    not_before: Usec,
    complained: bool,
}

/// The file that is written now.
#[derive(Debug)]
struct Current {
    file: File,
    /// Its length.
    length: u64,
    inputs: u32,
    /// What of it is inputs.
    bytes: usize,
}

impl Recorder {
    /// Records in that folder.
    #[must_use]
    pub fn below(runtime: &Path) -> Self {
        Recorder { folder: runtime.to_owned(), file: None, not_before: Usec(0), complained: false }
    }

    /// Records an input before it is taken in.
    pub fn record(&mut self, state: &State, input: &Input) {
        if let Err(error) = self.write(state, input) {
            self.not_before = input.mono.plus(REST);
            if !self.complained {
                tracing::warn!("inputs cannot be recorded in {}: {error}", self.folder.display());
            }
            self.complained = true;
        }
    }

    fn write(&mut self, state: &State, input: &Input) -> io::Result<()> {
        let line = line(input)?;
        if let Some(mut current) = self.file.take_if(|current| !current.is_full()) {
            // What comes behind a gap needs a state of its own, so the file goes on if it took this one alone.
            current.add(&line)?;
            self.file = Some(current);
        } else if input.mono >= self.not_before {
            self.file = Some(Current::begin(&self.folder, state, &line)?);
        }
        Ok(())
    }
}

impl Current {
    /// Begins a file with its first input; what was the current one is the previous one once the new one is whole.
    fn begin(folder: &Path, state: &State, first: &[u8]) -> io::Result<Current> {
        let next = folder.join(NEXT);
        remove(&next)?;
        // Pool files may hold what is nobody else's business.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&next)?;
        let begun = Current { file, length: 0, inputs: 0, bytes: 0 }.with_head(state, first);
        let in_place = begun.and_then(|begun| put_in_place(folder).map(|()| begun));
        if in_place.is_err() {
            // It takes room from others.
            drop(fs::remove_file(&next));
        }
        in_place
    }

    fn with_head(mut self, state: &State, first: &[u8]) -> io::Result<Current> {
        let daemon = env!("CARGO_PKG_VERSION").to_owned();
        let head = line(&RecordHead { version: RECORD_VERSION, daemon, state: state.clone() })?;
        self.file.write_all(&head)?;
        self.length = head.len() as u64;
        self.add(first)?;
        Ok(self)
    }

    fn is_full(&self) -> bool {
        self.inputs >= INPUTS || self.bytes >= BYTES
    }

    fn add(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            self.take_back();
            return Err(error);
        }
        self.length += line.len() as u64;
        self.inputs += 1;
        self.bytes += line.len();
        Ok(())
    }

    /// Takes back what was written of a line that is not whole: no reader could make sense of it.
    fn take_back(&self) {
        if let Err(error) = self.file.set_len(self.length) {
            tracing::debug!("a part of a line stays in the record: {error}");
        }
    }
}

fn put_in_place(folder: &Path) -> io::Result<()> {
    let current = folder.join(CURRENT);
    match fs::rename(&current, folder.join(PREVIOUS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::rename(folder.join(NEXT), current)
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn line(of: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(of)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool_core::Event;
    use pool_core::host::TimerId;
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

    fn input(second: u64) -> Input {
        let event = Event::TimerFired(TimerId(second));
        Input { mono: Usec::from_secs(second), real: Usec(0), seed: 0, event }
    }

    #[test]
    fn what_is_good_stays_while_nothing_can_be_written() {
        let folder = std::env::temp_dir().join(format!("pool-record-full-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder of the test's own");
        fs::write(folder.join(PREVIOUS), "good").expect("a file");
        let mut recorder = Recorder::below(&folder);
        let state = State::default();
        let path = folder.join(CURRENT);
        recorder.record(&state, &input(1));
        recorder.record(&state, &input(2));
        let before = lines(&path);
        let previous = fs::read(folder.join(PREVIOUS)).expect("a file");
        // No room for a line of input, nor for a head.
        recorder.file.as_mut().expect("a record").file =
            File::options().write(true).open("/dev/full").expect("it is there");
        let obstacle = folder.join(NEXT);
        fs::create_dir(&obstacle).expect("a folder of the test's own");
        for second in 3..=40 {
            recorder.record(&state, &input(second));
        }
        assert_eq!(
            (lines(&path), fs::read(folder.join(PREVIOUS)).expect("a file")),
            (before.clone(), previous)
        );
        // There is room again, and it is not looked for at each input.
        fs::remove_dir(&obstacle).expect("a folder of the test's own");
        recorder.record(&state, &input(41));
        assert_eq!(lines(&path), before, "it was tried a moment ago");
        recorder.record(&state, &input(60));
        recorder.record(&state, &input(61));
        assert_eq!((lines(&path).len(), lines(&folder.join(PREVIOUS))), (3, before));
        assert!(!obstacle.exists());
        fs::remove_dir_all(folder).expect("a folder of the test's own");
    }

    #[test]
    fn a_line_that_was_written_in_part_is_taken_back() {
        let folder = std::env::temp_dir().join(format!("pool-record-part-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder of the test's own");
        let mut recorder = Recorder::below(&folder);
        recorder.record(&State::default(), &input(1));
        let before = lines(&folder.join(CURRENT));
        let current = recorder.file.as_mut().expect("a record");
        current.file.write_all(b"{\"mono").expect("a part of a line");
        current.take_back();
        assert_eq!(lines(&folder.join(CURRENT)), before);
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
