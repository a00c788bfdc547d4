use std::time::Duration;

const MULTIPLIER: f64 = 1.6;
const JITTER: f64 = 0.2;

/// The growing delays between failed attempts (gRPC's connection backoff).
#[derive(Debug)]
pub(super) struct Backoff {
    initial: Duration,
    max: Duration,
    /// The next delay before jitter.
    base: Duration,
}

impl Backoff {
    pub(super) fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, base: initial.min(max) }
    }

    /// The delay after one more failure. `entropy` in 0..1 places it between 80 % and 120 % of its base.
    pub(super) fn next(&mut self, entropy: f64) -> Duration {
        let delay = self.base.mul_f64(1.0 - JITTER + 2.0 * JITTER * entropy);
        self.base = self.base.mul_f64(MULTIPLIER).min(self.max);
        delay
    }

    pub(super) fn reset(&mut self) {
        self.base = self.initial.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        let delays: Vec<_> = (0..5).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(delays, [1000, 1600, 2560, 4000, 4000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(800));
        assert_eq!(backoff.next(1.0), Duration::from_millis(1920));
    }
}
