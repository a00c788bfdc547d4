use std::time::Instant;

use evenkeel_balance::Time;
use tokio::time::Instant as TokioInstant;

/// Turns the machine's clock into the core's [`Time`]: nanoseconds since the clock was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { epoch: TokioInstant::now().into_std() }
    }

    /// The time since the start.
    pub fn now(self) -> Time {
        Time::ZERO + TokioInstant::now().into_std().saturating_duration_since(self.epoch)
    }

    /// When it was started: its [`Time::ZERO`].
    pub fn epoch(self) -> Instant {
        self.epoch
    }

    /// The moment at which a tokio timer for `time` fires.
    pub fn instant(self, time: Time) -> TokioInstant {
        TokioInstant::from_std(self.epoch + time.since(Time::ZERO))
    }
}
