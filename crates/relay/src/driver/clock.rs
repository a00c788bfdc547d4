use std::time::Instant;

use evenkeel_balance::Time;

/// Turns the machine's clock into [`Time`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(super) fn since(epoch: Instant) -> Self {
        Self { epoch }
    }

    pub(super) fn now(self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }
}
