use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::PeakEwmaConfig;
use crate::{Code, Observer, Outcome, Time};

/// The latency of an endpoint's calls: an exponentially weighted average that follows peaks at once.
///
/// Averages weigh by time, not by calls, so that many calls forget no faster than few. What is written together is not
/// read together: a pick in the middle of an update sees an average that has decayed a moment too much or too little.
#[derive(Debug)]
pub struct PeakLatency {
    /// Seconds, as the bits of an `f64`; [`UNMEASURED`] at first.
    average: AtomicU64,
    /// When it was true, in nanoseconds.
    as_of: AtomicU64,
    /// Of the config, each as the bits of an `f64`: seconds.
    decay: AtomicU64,
    penalty: AtomicU64,
}

/// The bits of an average that there is not yet: a NaN.
const UNMEASURED: u64 = u64::MAX;
/// No average is less, in seconds, so that endpoints that were idle for long still differ by their calls in flight.
const FLOOR: f64 = 1e-9;

impl PeakLatency {
    pub(super) fn new(config: &PeakEwmaConfig) -> Self {
        let latency = Self {
            average: AtomicU64::new(UNMEASURED),
            as_of: AtomicU64::new(0),
            decay: AtomicU64::new(0),
            penalty: AtomicU64::new(0),
        };
        latency.configure(config);
        latency
    }

    pub(super) fn configure(&self, config: &PeakEwmaConfig) {
        self.decay.store(config.decay.as_secs_f64().to_bits(), Relaxed);
        self.penalty.store(config.failure_penalty.as_secs_f64().to_bits(), Relaxed);
    }

    /// The average at `now`, in seconds: it decays while nothing is measured. `None` before the first measurement.
    pub(super) fn at(&self, now: Time) -> Option<f64> {
        let average = f64::from_bits(self.average.load(Relaxed));
        let age = now.since(Time::from_nanos(self.as_of.load(Relaxed)));
        (!average.is_nan()).then(|| (average * self.kept(age)).max(FLOOR))
    }

    /// The average as of the last measurement, in seconds.
    pub(super) fn last(&self) -> Option<f64> {
        Some(f64::from_bits(self.average.load(Relaxed))).filter(|average| !average.is_nan())
    }

    /// What a failed call counts as, in seconds.
    pub(super) fn penalty(&self) -> f64 {
        f64::from_bits(self.penalty.load(Relaxed))
    }

    /// The share of an average that is left after `age`.
    fn kept(&self, age: Duration) -> f64 {
        (-age.as_secs_f64() / f64::from_bits(self.decay.load(Relaxed))).exp()
    }

    fn measure(&self, latency: f64, at: Time) {
        // Exchanged, so that of calls that end at once each accounts for time of its own.
        let before = Time::from_nanos(self.as_of.fetch_max(at.as_nanos(), Relaxed));
        let kept = self.kept(at.since(before));
        let updated = self.average.fetch_update(Relaxed, Relaxed, |bits| {
            let average = f64::from_bits(bits);
            let follows = average.is_nan() || latency > average;
            Some(if follows { latency } else { average * kept + latency * (1.0 - kept) }.to_bits())
        });
        updated.expect("every value is replaced");
    }
}

impl Observer for PeakLatency {
    fn finished(&self, outcome: &Outcome) {
        let Some(at) = outcome.at else { return };
        let took = outcome.latency.map(|latency| latency.as_secs_f64());
        let counts_as = match outcome.code {
            // Says when the caller lost patience, not how fast the server is.
            Code::Cancelled => None,
            code if is_failure(code) => Some(took.unwrap_or(0.0).max(self.penalty())),
            _ => took,
        };
        if let Some(latency) = counts_as {
            self.measure(latency, at);
        }
    }
}

/// Whether a status says that the server is at fault, rather than the call.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn latency() -> PeakLatency {
        PeakLatency::new(&PeakEwmaConfig::default())
    }

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn end(latency: &PeakLatency, code: Code, took: u64, now: u64) {
        latency.finished(&Outcome::new(code).after(Duration::from_millis(took)).at(at(now)));
    }

    fn millis(latency: &PeakLatency, now: u64) -> Option<f64> {
        latency.at(at(now)).map(|seconds| (seconds * 1e6).round() / 1e3)
    }

    #[test]
    fn peaks_count_at_once_and_are_forgotten_slowly() {
        let latency = latency();
        assert_eq!(millis(&latency, 0), None);
        end(&latency, Code::Ok, 10, 0);
        end(&latency, Code::Ok, 100, 0);
        assert_eq!(millis(&latency, 0), Some(100.0));
        end(&latency, Code::Ok, 10, 10_000);
        assert_eq!(millis(&latency, 10_000), Some(43.109), "100/e + 10 (1 - 1/e) after one decay time");
        assert_eq!(millis(&latency, 20_000), Some(15.859), "and less while nothing is measured");
    }

    #[test]
    fn failures_count_as_the_penalty_and_cancelled_calls_not_at_all() {
        for (code, took, expected) in [
            (Code::Unavailable, 1, 5_000.0),
            (Code::Internal, 9_000, 9_000.0),
            (Code::NotFound, 1, 10.0),
            (Code::Cancelled, 9_000, 10.0),
        ] {
            let latency = latency();
            end(&latency, Code::Ok, 10, 0);
            end(&latency, code, took, 0);
            assert_eq!(millis(&latency, 0), Some(expected), "{code:?}");
        }
    }

    #[test]
    fn calls_of_which_nothing_was_measured_tell_nothing() {
        let latency = latency();
        latency.finished(&Outcome::new(Code::Ok));
        latency.finished(&Outcome::new(Code::Unavailable));
        latency.finished(&Outcome::new(Code::Ok).at(at(1)));
        assert_eq!(millis(&latency, 1), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_formula(calls in vec((0..5_000_u64, 0..1_000_u64), 1..50)) {
            let latency = latency();
            let (mut now, mut model) = (0, None::<f64>);
            for (wait, took) in calls {
                now += wait;
                end(&latency, Code::Ok, took, now);
                let kept = (-Duration::from_millis(wait).as_secs_f64() / 10.0).exp();
                let took = Duration::from_millis(took).as_secs_f64();
                model = Some(match model {
                    Some(average) if took <= average => average * kept + took * (1.0 - kept),
                    _ => took,
                });
                let (ours, theirs) = (latency.at(at(now)).unwrap(), model.unwrap().max(FLOOR));
                prop_assert!((ours - theirs).abs() < 1e-9, "{ours} for {theirs}");
            }
        }
    }
}
