use std::time::Duration;

use crate::Entropy;

/// How long to wait between attempts: `initial × multiplier^n`, at most `max`, each ± `jitter`.
///
/// The default is gRPC's connection backoff: 1 s × 1.6 up to 120 s, ± 20 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    multiplier: f64,
    jitter: f64,
}

impl Backoff {
    /// A backoff from `initial` to `max`, growing by `multiplier`, each delay × U(1 − `jitter`, 1 + `jitter`).
    ///
    /// A multiplier below 1 is taken as 1, a `max` below `initial` as `initial`, a jitter outside 0..=1 as its
    /// nearest bound: a backoff never shrinks and is never negative.
    pub fn new(initial: Duration, max: Duration, multiplier: f64, jitter: f64) -> Self {
        Self { initial, max: max.max(initial), multiplier: multiplier.max(1.0), jitter: jitter.clamp(0.0, 1.0) }
    }

    /// The first delay, before jitter.
    pub fn initial(&self) -> Duration {
        self.initial
    }

    /// The delay after `failures` failures in a row; none after 0.
    pub fn delay(&self, failures: u32, entropy: &mut Entropy) -> Duration {
        let Some(exponent) = failures.checked_sub(1) else { return Duration::ZERO };
        let grown = self.initial.as_secs_f64() * self.multiplier.powi(exponent.min(1_000).cast_signed());
        let capped = Duration::from_secs_f64(grown.min(self.max.as_secs_f64()));
        entropy.jitter(capped, self.jitter)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(120), 1.6, 0.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_grows_as_the_connection_backoff_document_says() {
        let mut entropy = Entropy::new(5);
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, &mut entropy), Duration::ZERO);
        for (failures, base) in
            [(1, 1.0), (2, 1.6), (3, 2.56), (10, 68.719), (11, 109.951), (12, 120.0), (4_000, 120.0)]
        {
            let delay = backoff.delay(failures, &mut entropy).as_secs_f64();
            assert!((0.799 * base..=1.201 * base).contains(&delay), "after {failures}: {delay}");
        }
    }

    #[test]
    fn nonsense_is_bounded() {
        let backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(1), 0.0, 7.0);
        let delay = backoff.delay(9, &mut Entropy::new(1));
        assert!(delay <= Duration::from_secs(4));
    }
}
