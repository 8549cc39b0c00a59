//! Owns the death of a run of the daemon, as by SIGKILL: at a poll of its loop or at a call, from which on nothing of
//! it does anything any more. Tasks that it leaves behind wait for ever.

use crate::dice::Dice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// When a run dies by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// Not.
    Never,
    /// When it makes its n-th call.
    AtCall(u64),
    /// In the n-th poll of its loop, before anything that it did there could have an effect outside.
    AtPoll(u64),
}

impl Doom {
    pub fn by(dice: &mut Dice) -> Doom {
        let soon = |dice: &mut Dice| {
            let most = *dice.pick(&[3, 10, 40, 150]);
            1 + u64::try_from(dice.roll(most)).unwrap()
        };
        match dice.roll(5) {
            0 => Doom::AtCall(soon(dice)),
            1 | 2 => Doom::AtPoll(soon(dice) * 2),
            _ => Doom::Never,
        }
    }
}

/// Where a run of the daemon ends.
#[derive(Debug, Clone)]
pub struct Grave(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    doom: Doom,
    calls: AtomicU64,
    polls: AtomicU64,
    dead: AtomicBool,
    in_order: AtomicBool,
    spared: AtomicBool,
    died: Notify,
    files: Vec<PathBuf>,
    before: Mutex<Vec<Option<Vec<u8>>>>,
    dice: Mutex<Dice>,
}

impl Grave {
    /// `folder` is where the run saves things.
    pub fn new(doom: Doom, folder: &Path, dice: Dice) -> Grave {
        Grave(Arc::new(Inner {
            doom,
            calls: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            in_order: AtomicBool::new(false),
            spared: AtomicBool::new(false),
            died: Notify::new(),
            // In the order in which a turn writes them.
            files: ["wishes.json", "pools.json"].map(|file| folder.join(file)).to_vec(),
            before: Mutex::new(Vec::new()),
            dice: Mutex::new(dice),
        }))
    }

    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Whether even what it had said already is not heard.
    pub fn is_silent(&self) -> bool {
        self.is_dead() && !self.0.in_order.load(Ordering::Relaxed)
    }

    /// It has ended, and what it said before is heard.
    pub fn lay_down(&self) {
        self.0.in_order.store(true, Ordering::Relaxed);
        self.kill();
    }

    pub fn kill(&self) {
        self.0.dead.store(true, Ordering::Relaxed);
        self.0.died.notify_one();
    }

    /// It does not die by itself any more.
    pub fn spare(&self) {
        self.0.spared.store(true, Ordering::Relaxed);
    }

    fn doomed(&self, to: Doom) -> bool {
        self.0.doom == to && !self.0.spared.load(Ordering::Relaxed)
    }

    pub async fn died(&self) {
        if !self.is_dead() {
            self.0.died.notified().await;
        }
    }

    /// It has made a call.
    pub fn called(&self) {
        let calls = self.0.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.doomed(Doom::AtCall(calls)) {
            self.kill();
        }
    }

    /// Its loop is about to be polled.
    pub fn before_poll(&self) {
        let polls = self.0.polls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.doomed(Doom::AtPoll(polls)) {
            *self.0.before.lock().unwrap() =
                self.0.files.iter().map(|file| std::fs::read(file).ok()).collect();
        }
    }

    /// It was polled. If it is to die there, some of the files that it wrote were not written, the last ones first.
    pub fn after_poll(&self) {
        if !self.doomed(Doom::AtPoll(self.0.polls.load(Ordering::Relaxed))) {
            return;
        }
        self.kill();
        let before = self.0.before.lock().unwrap();
        let written = self.0.dice.lock().unwrap().roll(before.len() + 1);
        for (file, content) in self.0.files.iter().zip(before.iter()).skip(written) {
            match content {
                Some(content) => std::fs::write(file, content).unwrap(),
                None if file.exists() => std::fs::remove_file(file).unwrap(),
                None => {}
            }
        }
    }
}
