//! Owns chance: a script is its seed. Every part of a script rolls dice of its own, so that one which rolls more often
//! does not change what the others do.

use std::time::Duration;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of one part of a script.
    pub fn new(seed: u64, part: &str) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for byte in part.bytes() {
            dice.0 = dice.0.rotate_left(8) ^ u64::from(byte);
            dice.next();
        }
        dice
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(sides).unwrap()).unwrap()
    }

    /// Whether something happens that does so `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.roll(among.len())]
    }

    /// One of them, by the weights beside them.
    pub fn weighed<'a, T>(&mut self, among: &'a [(usize, T)]) -> &'a T {
        let mut rolled = self.roll(among.iter().map(|(weight, _)| weight).sum());
        for (weight, what) in among {
            match rolled.checked_sub(*weight) {
                Some(rest) => rolled = rest,
                None => return what,
            }
        }
        unreachable!("less was rolled than all weights are together")
    }

    /// A time between two numbers of milliseconds.
    pub fn millis(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_millis(u64::try_from(least + self.roll(most - least + 1)).unwrap())
    }

    /// How long something takes that is quick as a rule.
    pub fn delay(&mut self) -> Duration {
        match self.roll(20) {
            0..=12 => self.millis(0, 3),
            13..=17 => self.millis(1, 100),
            _ => self.millis(100, 3_000),
        }
    }
}
