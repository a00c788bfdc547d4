use std::{fmt, iter::Sum, sync::Arc};

use super::Percent;
use crate::Load;

/// Counts the calls of an address, from one subchannel to the next.
#[derive(Debug)]
pub(super) struct Tally {
    load: Arc<Load>,
    /// What of `load` has been taken.
    taken: Calls,
    /// What earlier loads had beyond that when they were left.
    left: Calls,
}

impl Tally {
    /// Counts what finishes from now on.
    pub(super) fn new(load: Arc<Load>) -> Self {
        let taken = Calls::of(&load);
        Self { load, taken, left: Calls::default() }
    }

    /// The address has a subchannel with this load. It is another one than before where all policies had let go of the
    /// address in between; calls that still run on the old one are lost to us.
    pub(super) fn follow(&mut self, load: Arc<Load>) {
        if Arc::ptr_eq(&load, &self.load) {
            return;
        }
        let left = self.take();
        *self = Self { load, taken: Calls::default(), left };
    }

    /// What has finished since the last time.
    pub(super) fn take(&mut self) -> Calls {
        let now = Calls::of(&self.load);
        let fresh = now.minus(std::mem::replace(&mut self.taken, now));
        std::mem::take(&mut self.left).plus(fresh)
    }
}

/// How many calls ended well, and how many did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    succeeded: u64,
    failed: u64,
}

impl Calls {
    fn of(load: &Load) -> Self {
        Self { succeeded: load.succeeded(), failed: load.failed() }
    }

    fn plus(self, other: Self) -> Self {
        Self { succeeded: self.succeeded + other.succeeded, failed: self.failed + other.failed }
    }

    fn minus(self, other: Self) -> Self {
        Self { succeeded: self.succeeded - other.succeeded, failed: self.failed - other.failed }
    }

    pub(super) fn total(self) -> u64 {
        self.succeeded + self.failed
    }

    /// The share that ended well; NaN where there were none.
    #[allow(clippy::cast_precision_loss, reason = "calls of one interval")]
    pub(super) fn success_rate(self) -> f64 {
        self.succeeded as f64 / self.total() as f64
    }

    pub(super) fn fails_more_than(self, percent: u64) -> bool {
        self.failed * 100 > percent * self.total()
    }
}

impl Sum for Calls {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} calls succeeded", Percent(self.success_rate()), self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(load: &Load, succeeded: u64, failed: u64) {
        for ok in (0..succeeded).map(|_| true).chain((0..failed).map(|_| false)) {
            load.begin();
            load.end(ok);
        }
    }

    #[test]
    fn a_tally_follows_an_address_from_one_subchannel_to_the_next() {
        let (first, second) = (Arc::new(Load::default()), Arc::new(Load::default()));
        serve(&first, 9, 9);
        let mut tally = Tally::new(Arc::clone(&first));
        serve(&first, 3, 1);
        tally.follow(Arc::clone(&first));
        assert_eq!(tally.take(), Calls { succeeded: 3, failed: 1 });
        serve(&first, 2, 0);
        serve(&second, 0, 5);
        tally.follow(second);
        assert_eq!(tally.take(), Calls { succeeded: 2, failed: 5 });
        assert_eq!(tally.take(), Calls::default());
    }
}
