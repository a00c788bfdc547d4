//! The calls of a channel, all together: for whoever asks, not for the metrics.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use evenkeel_balance::{PickArgs, Time};

/// How many calls a channel has made, as their callers saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallCounts {
    /// Calls begun, those that have not ended included.
    pub started: u64,
    /// Calls that ended with status OK.
    pub succeeded: u64,
    /// Calls that ended with any other status, cancelled ones included.
    pub failed: u64,
    /// When the last one began.
    pub last_started: Option<Time>,
}

/// A counter for each thread, so that calls on one do not wait for those on another.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    lanes: [Lane; PickArgs::LANES],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Nanoseconds of the channel's clock.
    last_started: AtomicU64,
}

impl Tally {
    pub(crate) fn started(&self, lane: usize, now: Time) {
        let lane = &self.lanes[lane];
        lane.started.fetch_add(1, Relaxed);
        lane.last_started.fetch_max(now.as_nanos(), Relaxed);
    }

    pub(crate) fn ended(&self, lane: usize, ok: bool) {
        let lane = &self.lanes[lane];
        let counter = if ok { &lane.succeeded } else { &lane.failed };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> CallCounts {
        let sum = |of: fn(&Lane) -> &AtomicU64| self.lanes.iter().map(|lane| of(lane).load(Relaxed)).sum();
        // Ends before beginnings: no call is seen to have ended before it began.
        let (succeeded, failed) = (sum(|lane| &lane.succeeded), sum(|lane| &lane.failed));
        let started = sum(|lane| &lane.started);
        let last: [u64; PickArgs::LANES] = array::from_fn(|lane| self.lanes[lane].last_started.load(Relaxed));
        let last_started = last.into_iter().max().filter(|_| started > 0).map(Time::from_nanos);
        CallCounts { started, succeeded, failed, last_started }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_up() {
        let tally = Tally::default();
        assert_eq!(tally.counts(), CallCounts::default());
        tally.started(0, Time::from_nanos(7));
        tally.started(3, Time::from_nanos(5));
        tally.ended(1, true);
        tally.ended(3, false);
        let last_started = Some(Time::from_nanos(7));
        assert_eq!(tally.counts(), CallCounts { started: 2, succeeded: 1, failed: 1, last_started });
    }
}
