use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use evenkeel_balance::{Entropy, PickArgs};

/// A lane for each thread that makes calls, so that no two of them write to the same place. Threads beyond the last
/// lane share.
#[derive(Debug)]
pub(crate) struct Lanes {
    seed: u64,
    /// The thread of each lane; 0 while it has none. Lanes are taken in order, so one thread alone is always on the
    /// first, and its seed explains what it does.
    owners: [AtomicU64; PickArgs::LANES],
    draws: [Draws; PickArgs::LANES],
}

/// How many numbers a lane has drawn from the channel's stream.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Draws(AtomicU64);

/// The lanes draw from one stream, each from a stretch of its own of this length.
const STRETCH: u64 = 1 << 48;

impl Lanes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, owners: Default::default(), draws: Default::default() }
    }

    /// The lane of the calling thread.
    pub(crate) fn mine(&self) -> usize {
        let thread = THREAD.with(|thread| *thread);
        let mine = self.owners.iter().position(|owner| {
            let found = owner.load(Relaxed);
            found == thread || (found == 0 && owner.compare_exchange(0, thread, Relaxed, Relaxed).is_ok())
        });
        #[allow(clippy::cast_possible_truncation, reason = "any lane will do")]
        mine.unwrap_or(thread as usize % PickArgs::LANES)
    }

    /// 64 random bits: the next of `lane`.
    pub(crate) fn random(&self, lane: usize) -> u64 {
        let draw = self.draws[lane].0.fetch_add(1, Relaxed);
        Entropy::new(self.seed).skip((lane as u64).wrapping_mul(STRETCH).wrapping_add(draw)).next_u64()
    }

    /// How many numbers all lanes have drawn. Each call draws some, so that an equal count means none since.
    pub(crate) fn drawn(&self) -> u64 {
        self.draws.iter().fold(0, |sum, draws| sum.wrapping_add(draws.0.load(Relaxed)))
    }
}

thread_local! {
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Relaxed)
    };
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, thread};

    use super::*;

    #[test]
    fn one_thread_draws_the_stream_of_the_seed() {
        let (lanes, mut stream) = (Lanes::new(7), Entropy::new(7));
        for _ in 0..10 {
            assert_eq!(lanes.random(lanes.mine()), stream.next_u64());
        }
    }

    #[test]
    fn threads_have_lanes_of_their_own_until_there_are_no_more() {
        let lanes = Lanes::new(7);
        let taken = || thread::scope(|scope| scope.spawn(|| (lanes.mine(), lanes.mine())).join().unwrap());
        let taken: Vec<_> = (0..2 * PickArgs::LANES).map(|_| taken()).collect();
        assert!(taken.iter().all(|(first, second)| first == second && *first < PickArgs::LANES));
        let first: BTreeSet<_> = taken[..PickArgs::LANES].iter().map(|(lane, _)| *lane).collect();
        assert_eq!(first.len(), PickArgs::LANES);
    }
}
