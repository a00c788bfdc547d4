use std::time::{Instant, SystemTime};

use evenkeel_balance::Time;
use tokio::time::Instant as TokioInstant;

/// Turns the machine's clock into the core's [`Time`]: nanoseconds since the channel was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    wall: SystemTime,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { epoch: TokioInstant::now().into_std(), wall: SystemTime::now() }
    }

    pub(crate) fn now(self) -> Time {
        Time::ZERO + TokioInstant::now().into_std().saturating_duration_since(self.epoch)
    }

    /// `time` by the wall clock as it stood when the channel was made, so that one moment is always shown the same.
    pub(crate) fn wall(self, time: Time) -> SystemTime {
        let since = time.since(Time::ZERO);
        self.wall.checked_add(since).unwrap_or(self.wall)
    }

    /// The moment at which a tokio timer for `time` fires.
    pub(crate) fn instant(self, time: Time) -> TokioInstant {
        TokioInstant::from_std(self.epoch + time.since(Time::ZERO))
    }
}
