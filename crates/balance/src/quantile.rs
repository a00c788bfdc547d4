use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Buckets an octave: a reading is at most 1/16 above the true quantile.
const FRACTION_BITS: u32 = 4;
/// From 1 µs to about 70 minutes.
const BUCKETS: usize = 32 << FRACTION_BITS;
/// Where all counts are halved, so that old samples fade: about this many count.
const FULL: u32 = 4_096;
/// Fewer samples than this say nothing of a tail.
const ENOUGH: u32 = 100;

/// A quantile of recent durations, such as a method's 95th percentile: any thread records, any thread reads.
///
/// Counts stand in buckets of exponentially growing width. Memory is about 2 KiB.
#[derive(Debug)]
pub struct LiveQuantile {
    buckets: Box<[AtomicU32]>,
    total: AtomicU32,
}

impl LiveQuantile {
    /// Without samples.
    pub fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(), total: AtomicU32::new(0) }
    }

    /// Takes in a duration.
    pub fn record(&self, duration: Duration) {
        self.buckets[bucket(duration)].fetch_add(1, Relaxed);
        if self.total.fetch_add(1, Relaxed) + 1 >= FULL {
            self.fade();
        }
    }

    /// The duration that `share` of the recent samples do not exceed, rounded up by at most 1/16; `None` while there
    /// are fewer than 100.
    pub fn read(&self, share: f64) -> Option<Duration> {
        let total = self.total.load(Relaxed);
        if total < ENOUGH {
            return None;
        }
        let wanted = f64::from(total) * share.clamp(0.0, 1.0);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count.load(Relaxed);
            if seen > 0 && f64::from(seen) >= wanted {
                return Some(upper_edge(index));
            }
        }
        // A reader between two writers may see fewer counts than their total.
        None
    }

    /// Halves every count. Samples of other threads in between may be lost or halved too: it is an estimate.
    fn fade(&self) {
        let mut total = 0;
        for bucket in &self.buckets {
            let half = bucket.load(Relaxed) / 2;
            bucket.store(half, Relaxed);
            total += half;
        }
        self.total.store(total, Relaxed);
    }
}

impl Default for LiveQuantile {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX));
    let octave = micros.ilog2();
    let scaled =
        if octave >= FRACTION_BITS { micros >> (octave - FRACTION_BITS) } else { micros << (FRACTION_BITS - octave) };
    let within = usize::try_from(scaled).unwrap_or(0) - (1 << FRACTION_BITS);
    (octave as usize) << FRACTION_BITS | within
}

fn upper_edge(bucket: usize) -> Duration {
    let (octave, within) = (bucket >> FRACTION_BITS, bucket & ((1 << FRACTION_BITS) - 1));
    let sixteenths = ((1_u64 << FRACTION_BITS) + within as u64 + 1) << octave;
    Duration::from_nanos((sixteenths * 1_000) >> FRACTION_BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_sorting_would_within_a_sixteenth(micros in prop::collection::vec(1_u64..10_000_000, 100..2_000)) {
            let quantile = LiveQuantile::new();
            for &micros in &micros {
                quantile.record(Duration::from_micros(micros));
            }
            let mut sorted = micros.clone();
            sorted.sort_unstable();
            let exact = sorted[(sorted.len() * 95).div_ceil(100) - 1];
            let read = quantile.read(0.95).unwrap().as_micros();
            let exact = u128::from(exact);
            prop_assert!(read >= exact && read <= exact + exact / 16 + 2, "{read} for {exact}");
        }
    }

    #[test]
    fn forgets_what_was_long_ago() {
        let quantile = LiveQuantile::new();
        assert_eq!(quantile.read(0.5), None);
        for _ in 0..10_000 {
            quantile.record(Duration::from_secs(1));
        }
        assert!(quantile.read(0.95).unwrap() >= Duration::from_secs(1));
        for _ in 0..40_000 {
            quantile.record(Duration::from_millis(1));
        }
        assert!(quantile.read(0.95).unwrap() < Duration::from_millis(2));
        quantile.record(Duration::ZERO);
        quantile.record(Duration::MAX);
    }
}
