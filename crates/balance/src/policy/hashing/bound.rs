use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{ConfigError, Load, Time};

/// How full an endpoint may be: at most so many times its fair share of the calls in flight (Mirrokni, Thorup and
/// Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Bound {
    /// Above 100, or equal.
    percent: u32,
}

impl Bound {
    /// A bound of `percent` of the fair share; 0 for none.
    ///
    /// # Errors
    ///
    /// Where it is from 1 to 99: then there would be calls without a place.
    pub(in crate::policy) fn of(percent: u32) -> Result<Option<Self>, ConfigError> {
        match percent {
            0 => Ok(None),
            1..100 => Err(ConfigError::new(
                "hashBalanceFactor",
                format!("is {percent}, must be at least 100: percent of an endpoint's fair share (or 0 for no bound)"),
            )),
            _ => Ok(Some(Self { percent })),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "calls walk past endpoints with over {} % of their fair share of the calls in flight", self.percent)
    }
}

/// How many calls are in flight, as far as a picker knows.
///
/// To have every call count itself would make all threads write one cache line. So the endpoints' own counters are
/// added up instead, by whichever pick comes when an interval of 1 µs an endpoint is over: some 5 % of one core even
/// if each counter is in another core's cache, and less where picks are rare. In between, the total is off by the calls
/// that have begun or ended since.
#[derive(Debug)]
pub(super) struct Tally {
    bound: Bound,
    /// Of all endpoints that calls might go to.
    weight: u64,
    total: AtomicU64,
    /// When to add up again, in nanoseconds since the driver's epoch.
    due: AtomicU64,
    interval: Duration,
}

impl Tally {
    /// For so many endpoints of so much weight.
    pub(super) fn new(bound: Bound, endpoints: usize, weight: u64) -> Self {
        let interval = Duration::from_micros(endpoints as u64);
        Self { bound, weight, total: AtomicU64::new(0), due: AtomicU64::new(0), interval }
    }

    /// How full an endpoint may be now, the call to be placed included.
    pub(super) fn limit<'a>(&self, now: Time, loads: impl Iterator<Item = &'a Load>) -> Limit {
        let due = self.due.load(Relaxed);
        let next = (now + self.interval).as_nanos();
        // One pick wins and adds up, the others go on with what is known.
        if now.as_nanos() >= due && self.due.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            self.total.store(loads.map(|load| u64::from(load.in_flight())).sum(), Relaxed);
        }
        let calls = u128::from(self.total.load(Relaxed) + 1);
        Limit { calls: calls * u128::from(self.bound.percent), weight: u128::from(self.weight) * 100 }
    }

    /// The total looks out of date: it is added up again in a quarter of the interval.
    pub(super) fn hasten(&self, now: Time) {
        self.due.fetch_min((now + self.interval / 4).as_nanos(), Relaxed);
    }
}

/// So many calls for so much weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    calls: u128,
    weight: u128,
}

impl Limit {
    /// Whether an endpoint of this weight has room for one more call: fewer than ⌈calls × its share of the weight⌉.
    pub(super) fn has_room(self, load: &Load, weight: u32) -> bool {
        u128::from(load.in_flight()) * self.weight < self.calls * u128::from(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an endpoint with so many calls, one of two of equal weight, has room.
    fn has_room(tally: &Tally, micros: u64, in_flight: u32, total: &[Load]) -> bool {
        let limit = tally.limit(Time::from_nanos(micros * 1_000), total.iter());
        let load = Load::default();
        (0..in_flight).for_each(|_| load.begin());
        limit.has_room(&load, 1)
    }

    #[test]
    fn calls_are_added_up_once_an_interval_and_sooner_if_the_total_looks_out_of_date() {
        let tally = Tally::new(Bound { percent: 100 }, 40, 2);
        let loads = [Load::default()];
        assert!(has_room(&tally, 0, 0, &loads) && !has_room(&tally, 0, 1, &loads));
        (0..9).for_each(|_| loads[0].begin());
        assert!(!has_room(&tally, 39, 1, &loads), "not yet");
        assert!(has_room(&tally, 40, 4, &loads) && !has_room(&tally, 40, 5, &loads), "half of ten");
        (0..10).for_each(|_| loads[0].begin());
        tally.hasten(Time::from_nanos(41_000));
        assert!(!has_room(&tally, 50, 5, &loads) && has_room(&tally, 51, 9, &loads));
        // It is not put off by being hastened again and again.
        tally.hasten(Time::from_nanos(60_000));
        tally.hasten(Time::from_nanos(69_000));
        (0..10).for_each(|_| loads[0].begin());
        assert!(has_room(&tally, 70, 14, &loads));
    }

    #[test]
    fn a_bound_below_the_fair_share_is_refused() {
        assert_eq!((Bound::of(0), Bound::of(100)), (Ok(None), Ok(Some(Bound { percent: 100 }))));
        assert_eq!(Bound::of(99).map_err(|error| error.path().to_owned()), Err("hashBalanceFactor".to_owned()));
    }
}
