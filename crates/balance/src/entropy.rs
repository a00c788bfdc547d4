use std::time::Duration;

/// A seeded stream of random numbers (`SplitMix64`; Steele, Lea and Flood 2014).
///
/// The same seed gives the same stream on every machine, so a seed explains every decision that was drawn from it.
/// It is for spreading load, not for secrets.
#[derive(Clone, Debug)]
pub struct Entropy(u64);

impl Entropy {
    /// The stream of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The same stream, `draws` numbers later.
    #[must_use]
    pub const fn skip(self, draws: u64) -> Self {
        Self(self.0.wrapping_add(draws.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        finalize(self.0)
    }

    /// A number in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        scale(self.next_u64(), n)
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        // The upper 53 bits are all that an f64's mantissa holds.
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
        let mantissa = (self.next_u64() >> 11) as f64;
        mantissa / 9_007_199_254_740_992.0
    }

    /// `duration` × U(1 − `fraction`, 1 + `fraction`).
    pub fn jitter(&mut self, duration: Duration, fraction: f64) -> Duration {
        duration.mul_f64((1.0 + fraction * (2.0 * self.unit() - 1.0)).max(0.0))
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Maps 64 random bits onto `0..n` without a division (Lemire 2019; the bias is below n / 2⁶⁴).
pub(crate) fn scale(bits: u64, n: usize) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "the product's upper half is below n, which is a usize")]
    let index = ((u128::from(bits) * n as u128) >> 64) as usize;
    index
}

/// The next independent 64 bits after `bits`, for a picker that needs several draws from one number.
pub(crate) fn remix(bits: u64) -> u64 {
    finalize(bits.wrapping_add(0x9E37_79B9_7F4A_7C15))
}

fn finalize(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_stream() {
        let stream = |seed| {
            let mut entropy = Entropy::new(seed);
            [entropy.next_u64(), entropy.next_u64(), entropy.next_u64()]
        };
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
        let mut later = Entropy::new(7).skip(2);
        assert_eq!(later.next_u64(), stream(7)[2]);
        // The published first output of SplitMix64 for seed 0.
        assert_eq!(Entropy::new(0).next_u64(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut entropy = Entropy::new(1);
        let mut hits = [0_u32; 7];
        for _ in 0..7_000 {
            hits[entropy.below(7)] += 1;
        }
        assert!(hits.iter().all(|&n| (850..1_150).contains(&n)), "{hits:?}");
        assert_eq!(entropy.below(0), 0);
    }

    #[test]
    fn jitter_stays_within_its_fraction() {
        let mut entropy = Entropy::new(3);
        let second = Duration::from_secs(1);
        for _ in 0..1_000 {
            let jittered = entropy.jitter(second, 0.2);
            assert!(jittered >= second.mul_f64(0.8) && jittered <= second.mul_f64(1.2), "{jittered:?}");
        }
    }

    #[test]
    fn shuffle_permutes() {
        let mut items: Vec<u32> = (0..50).collect();
        Entropy::new(9).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
