use std::{
    array,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use crate::{PickArgs, entropy::remix};

/// Numbers the picks of a picker: on each lane, each gets the next number, which wraps around.
#[derive(Debug)]
pub(super) struct Turns([Place; PickArgs::LANES]);

/// How far a lane has come, on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Place(AtomicU32);

impl Turns {
    /// Counts from places drawn from `seed`: many clients that start alike, and their threads, are to start at different
    /// ones.
    pub(super) fn new(mut seed: u64) -> Self {
        Self(array::from_fn(|_| {
            let start = (seed >> 32) as u32;
            seed = remix(seed);
            Place(AtomicU32::new(start))
        }))
    }

    /// The next number of `lane`.
    pub(super) fn next(&self, lane: usize) -> u32 {
        self.0[lane % PickArgs::LANES].0.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_counts_for_itself() {
        let turns = Turns::new(7 << 32 | 1);
        assert_eq!((turns.next(0), turns.next(0)), (7, 8));
        let second = turns.next(1);
        assert_ne!(second, 9);
        assert_eq!((turns.next(1), turns.next(0)), (second.wrapping_add(1), 9));
    }
}
