//! Rates out of figures that only grow: sans-IO, the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back rates look. All look equally far, so that a policy which divides one by another compares like with like.
pub(crate) const WINDOW: Duration = Duration::from_secs(5);

/// How long a sample serves before another is taken.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Figures since the start of the process, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) calls: u32,
    pub(crate) errors: u32,
    /// Time on processors, of all threads together.
    pub(crate) busy: Duration,
}

/// What happens in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    pub(crate) qps: f64,
    pub(crate) eps: f64,
    /// Processors in use.
    pub(crate) processors: f64,
}

/// The samples of the window, oldest first; never empty.
#[derive(Debug)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
}

impl History {
    pub(crate) fn new(first: Sample) -> Self {
        Self { samples: [first].into() }
    }

    /// Whether it is time for another sample.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.samples[self.samples.len() - 1].at) >= SAMPLE_EVERY
    }

    /// The rates up to a sample, which is due: over the window, or since the last sample if nobody looked for longer.
    pub(crate) fn push(&mut self, sample: Sample) -> Rates {
        while self.samples.len() > 1 && sample.at.saturating_duration_since(self.samples[0].at) > WINDOW {
            self.samples.pop_front();
        }
        let rates = rates(&self.samples[0], &sample);
        self.samples.push_back(sample);
        rates
    }
}

/// The counters wrap round; between two samples they do so at most once.
fn rates(from: &Sample, to: &Sample) -> Rates {
    let seconds = to.at.saturating_duration_since(from.at).as_secs_f64();
    Rates {
        qps: f64::from(to.calls.wrapping_sub(from.calls)) / seconds,
        eps: f64::from(to.errors.wrapping_sub(from.errors)) / seconds,
        processors: to.busy.saturating_sub(from.busy).as_secs_f64() / seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: Instant, millis: u64, calls: u32, errors: u32, busy_millis: u64) -> Sample {
        let at = start + Duration::from_millis(millis);
        Sample { at, calls, errors, busy: Duration::from_millis(busy_millis) }
    }

    #[test]
    fn rates_are_those_since_the_oldest_sample_of_the_window() {
        let start = Instant::now();
        let mut history = History::new(sample(start, 0, 0, 0, 0));
        assert!(!history.is_due(start + Duration::from_millis(499)));
        assert!(history.is_due(start + Duration::from_millis(500)));
        let second = history.push(sample(start, 1000, 100, 10, 500));
        assert_eq!(second, Rates { qps: 100.0, eps: 10.0, processors: 0.5 });
        let fifth = history.push(sample(start, 5000, 100, 10, 500));
        assert_eq!(fifth, Rates { qps: 20.0, eps: 2.0, processors: 0.1 });
        let sixth = history.push(sample(start, 6000, 200, 10, 10_500));
        assert_eq!(sixth, Rates { qps: 20.0, eps: 0.0, processors: 2.0 });
    }

    #[test]
    fn a_silence_longer_than_the_window_is_told_once_and_then_forgotten() {
        let start = Instant::now();
        let mut history = History::new(sample(start, 0, 0, 0, 0));
        assert_eq!(history.push(sample(start, 30_000, 30, 0, 0)).qps, 1.0);
        assert_eq!(history.push(sample(start, 30_500, 80, 0, 0)).qps, 100.0);
    }

    #[test]
    fn counters_may_wrap_round() {
        let start = Instant::now();
        let mut history = History::new(sample(start, 0, u32::MAX - 4, 0, 0));
        assert_eq!(history.push(sample(start, 1000, 5, 0, 0)).qps, 10.0);
    }
}
