use crate::entropy::remix;

/// Picks indices in proportion to weights, spread out evenly: a static stride scheduler.
///
/// Every pick has a number. It belongs to an index (the number modulo the indices) and a round (the quotient). An
/// index of weight w is taken in w rounds of [`FULL`], in those in which `w · round` wraps around; in the others the
/// next number has its turn. Indices of equal weight are taken in every round: round robin.
///
/// So a pick writes nothing but the number, and needs no lock.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Strides(Vec<u16>);

/// The weight of the heaviest index.
const FULL: u64 = u16::MAX as u64;
/// Shifts neighbours against each other, so that they do not pass on the same rounds.
const SHIFT: u64 = FULL / 2;

impl Strides {
    /// `weights` are above 0 and finite; only their proportions count.
    pub(super) fn new(weights: &[f64]) -> Self {
        let heaviest = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        // The heaviest must come out as FULL and none as 0: each round then takes at least one, and each has its turn.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to FULL")]
        let scaled = |weight: &f64| (weight / heaviest * f64::from(u16::MAX)).round().max(1.0) as u16;
        Self(weights.iter().map(scaled).collect())
    }

    /// The share of picks that each index gets.
    pub(super) fn shares(&self) -> impl Iterator<Item = f64> {
        let sum: f64 = self.0.iter().map(|&weight| f64::from(weight)).sum();
        self.0.iter().map(move |&weight| f64::from(weight) / sum)
    }

    /// An index that is drawn by lot, in proportion to the weights.
    pub(super) fn draw(&self, mut entropy: u64) -> usize {
        self.pick(|| {
            entropy = remix(entropy);
            (entropy >> 32) as u32
        })
    }

    /// The index of the next pick; 0 where there are none. `next` gives the numbers.
    pub(super) fn pick(&self, mut next: impl FnMut() -> u32) -> usize {
        let n = self.0.len().max(1) as u64;
        let mut last = 0;
        // Alone, a thread meets the heaviest index within one round. Threads that take numbers from each other may miss
        // it, and whatever they have then must do.
        for _ in 0..2 * n {
            let number = u64::from(next());
            let (round, index) = (number / n, number % n);
            #[allow(clippy::cast_possible_truncation, reason = "below the length, which is a usize")]
            let at = index as usize;
            last = at;
            let weight = self.0.get(at).copied().map_or(FULL, u64::from);
            if (weight * round + index * SHIFT) % FULL >= FULL - weight {
                break;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn counts(strides: &Strides, picks: u32) -> Vec<u32> {
        let mut counts = vec![0; strides.0.len()];
        let mut number = 0_u32;
        for _ in 0..picks {
            counts[strides.pick(|| {
                number += 1;
                number - 1
            })] += 1;
        }
        counts
    }

    #[test]
    fn equal_weights_take_turns() {
        let strides = Strides::new(&[7.5, 7.5, 7.5]);
        let mut number = 0;
        let picks: Vec<_> = (0..7)
            .map(|_| {
                strides.pick(|| {
                    number += 1;
                    number - 1
                })
            })
            .collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn weights_that_would_scale_to_nothing_or_to_infinity_do_not_hang() {
        for weights in [&[f64::MAX, f64::MIN_POSITIVE][..], &[1e-300, 1e-300], &[f64::MAX; 3], &[1.0], &[]] {
            let strides = Strides::new(weights);
            assert!(weights.is_empty() || strides.0.contains(&u16::MAX), "{strides:?}");
            for start in [0, 1, u32::MAX - 1, u32::MAX] {
                let mut number = start;
                let picked = strides.pick(|| {
                    number = number.wrapping_add(1);
                    number
                });
                assert!(picked < weights.len().max(1));
            }
        }
    }

    #[test]
    fn numbers_that_always_miss_the_heaviest_do_not_hang() {
        let strides = Strides::new(&[1e9, 1.0]);
        assert_eq!(strides.pick(|| 1), 1);
    }

    proptest! {
        /// Over all rounds each index is taken in as many as its weight says.
        #[test]
        fn picks_are_in_proportion_to_weights(weights in vec(1.0..100.0_f64, 1..8)) {
            let picks = 20_000;
            let sum: f64 = weights.iter().sum();
            for (count, weight) in counts(&Strides::new(&weights), picks).into_iter().zip(&weights) {
                let expected = f64::from(picks) * weight / sum;
                prop_assert!((f64::from(count) - expected).abs() <= 3.0 + expected * 0.01, "{count} for {expected}");
            }
        }

        /// Nobody waits much longer than its share says.
        #[test]
        fn picks_are_spread_out(weights in vec(1.0..10.0_f64, 2..6)) {
            let strides = Strides::new(&weights);
            let shares: Vec<_> = strides.shares().collect();
            let mut number = 0;
            let mut waiting = vec![0.0; weights.len()];
            for _ in 0..2_000 {
                let picked = strides.pick(|| { number += 1; number - 1 });
                for (index, wait) in waiting.iter_mut().enumerate() {
                    *wait = if index == picked { 0.0 } else { *wait + shares[index] };
                    prop_assert!(*wait <= 3.0, "{index} of {shares:?} is {wait} turns late");
                }
            }
        }
    }
}
