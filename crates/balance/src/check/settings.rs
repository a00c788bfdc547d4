use std::time::Duration;

/// How often a thing is checked, and how many outcomes it takes to change its standing.
///
/// With the defaults a hung server is out 2.1 s after it hung, at the latest
/// ([`detects_within`](Self::detects_within)), and in again at most 1.5 s after it is well
/// ([`returns_within`](Self::returns_within)).
///
/// ```
/// # use evenkeel_balance::CheckSettings;
/// # use std::time::Duration;
/// let mut settings = CheckSettings::default();
/// settings.interval = Duration::from_secs(5);
/// settings.validate()?;
/// assert_eq!(settings.detects_within(), Duration::from_millis(6_500));
/// # Ok::<(), evenkeel_balance::CheckSettingsError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CheckSettings {
    /// From the start of one probe to the start of the next, while all is well. Default 1 s. At least
    /// [`MIN_INTERVAL`](Self::MIN_INTERVAL).
    pub interval: Duration,
    /// Both intervals are multiplied by U(1 − jitter, 1 + jitter), so that many checks do not end up in step. Default
    /// 0.1; at most 0.5.
    pub jitter: f64,
    /// The interval while a probe has failed or the thing is unhealthy. Default 250 ms, at most `interval`. It too is
    /// counted from the start of the probe before, so that one that timed out is followed at once. When many things
    /// fail together, this is what sets the load: 1,000 of them at 250 ms are 4,000 probes a second.
    pub failing_interval: Duration,
    /// A probe without an answer for this long has failed; it includes the time to connect. Default 500 ms. Shorter
    /// than the slowest healthy answer, and a busy server is taken out, which makes the others busier.
    pub timeout: Duration,
    /// Answers in a row that bring back what had failed. Default 2.
    pub rise: u32,
    /// Failures in a row that take it out. Default 2: one lost packet is no outage.
    pub fall: u32,
    /// What it counts as before the first probe. Default [`Initial::Pending`].
    pub initial: Initial,
    /// The first probe starts at a random moment within this time. Default 0: at once. Where one process has
    /// thousands of checks, their `interval` spreads them evenly.
    pub spread: Duration,
    /// How many transitions the [`History`](crate::History) keeps; at least the last one. Default 64.
    pub history: usize,
}

/// What a thing counts as before its first probe has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initial {
    /// As nothing yet: the first outcome alone decides, without `rise` or `fall`.
    #[default]
    Pending,
    /// As healthy, until `fall` failures in a row.
    Healthy,
    /// As unhealthy, until `rise` answers in a row.
    Unhealthy,
}

/// What is wrong with [`CheckSettings`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckSettingsError {
    /// `rise` or `fall` is 0.
    #[error("{0} of a check is 0, so its standing would change without an outcome: it must be at least 1")]
    NoThreshold(&'static str),
    /// A time is too long.
    #[error("{name} of a check is {value:?}, longer than times can be reckoned with: at most {max:?}", max = CheckSettings::MAX_TIME)]
    TooLong {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: Duration,
    },
    /// An interval or the time-out is too short.
    #[error("{name} of a check is {value:?}, which would keep the machine busy with nothing else: at least {min:?}", min = CheckSettings::MIN_INTERVAL)]
    TooShort {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: Duration,
    },
    /// `failing_interval` is longer than `interval`.
    #[error(
        "failing_interval of a check is {failing:?}, longer than its interval {interval:?}: make it shorter, or the same"
    )]
    FailingSlower {
        /// `failing_interval`.
        failing: Duration,
        /// `interval`.
        interval: Duration,
    },
    /// `jitter` is not in 0..=0.5.
    #[error("jitter of a check is {0}, but it is a fraction of the interval from 0 to 0.5")]
    Jitter(f64),
}

impl CheckSettings {
    /// The least interval and the least time-out: 10 ms.
    pub const MIN_INTERVAL: Duration = Duration::from_millis(10);

    /// The longest of each of its times: a year.
    pub const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

    /// Probes every `interval`; a `failing_interval` that would be longer is as long.
    pub fn every(interval: Duration) -> Self {
        let settings = Self::default();
        Self { interval, failing_interval: settings.failing_interval.min(interval), ..settings }
    }

    /// Whether they make sense.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), CheckSettingsError> {
        for (name, threshold) in [("rise", self.rise), ("fall", self.fall)] {
            if threshold == 0 {
                return Err(CheckSettingsError::NoThreshold(name));
            }
        }
        let times =
            [("interval", self.interval), ("failing_interval", self.failing_interval), ("timeout", self.timeout)];
        for (name, value) in times {
            if value < Self::MIN_INTERVAL {
                return Err(CheckSettingsError::TooShort { name, value });
            }
        }
        for (name, value) in times.into_iter().chain([("spread", self.spread)]) {
            if value > Self::MAX_TIME {
                return Err(CheckSettingsError::TooLong { name, value });
            }
        }
        if self.failing_interval > self.interval {
            return Err(CheckSettingsError::FailingSlower { failing: self.failing_interval, interval: self.interval });
        }
        if (0.0..=0.5).contains(&self.jitter) { Ok(()) } else { Err(CheckSettingsError::Jitter(self.jitter)) }
    }

    /// The longest time from the moment that a healthy thing stops answering until it is unhealthy, where its calls do
    /// not say otherwise.
    pub fn detects_within(&self) -> Duration {
        self.longest(self.interval) + self.failing_steps(self.fall.saturating_sub(1)) + self.timeout
    }

    /// The longest time from the moment that an unhealthy thing answers again until it is healthy.
    pub fn returns_within(&self) -> Duration {
        self.failing_steps(self.rise) + self.timeout
    }

    /// The longest time in which so many probes begin, one after the other, while they fail.
    fn failing_steps(&self, probes: u32) -> Duration {
        self.longest(self.failing_interval).max(self.timeout) * probes
    }

    fn longest(&self, interval: Duration) -> Duration {
        interval.mul_f64(1.0 + self.jitter)
    }
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            jitter: 0.1,
            failing_interval: Duration::from_millis(250),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 2,
            initial: Initial::Pending,
            spread: Duration::ZERO,
            history: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_keep_their_promises() {
        let settings = CheckSettings::default();
        settings.validate().unwrap();
        assert_eq!(settings.detects_within(), Duration::from_millis(2_100));
        assert_eq!(settings.returns_within(), Duration::from_millis(1_500));
    }

    #[test]
    fn the_largest_settings_there_are_can_be_reckoned_with() {
        let most = CheckSettings::MAX_TIME;
        let (interval, failing_interval, timeout) = (most, most, most);
        let settings =
            CheckSettings { interval, failing_interval, timeout, rise: u32::MAX, fall: u32::MAX, ..Default::default() };
        settings.validate().unwrap();
        assert!(settings.detects_within() > most && settings.returns_within() > most);
    }

    #[test]
    fn an_interval_below_the_failing_one_shortens_that() {
        let settings = CheckSettings::every(Duration::from_millis(50));
        settings.validate().unwrap();
        assert_eq!(settings.failing_interval, Duration::from_millis(50));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = |change: fn(&mut CheckSettings)| {
            let mut settings = CheckSettings::default();
            change(&mut settings);
            settings.validate().unwrap_err().to_string()
        };
        assert!(error(|s| s.rise = 0).starts_with("rise of a check is 0"));
        assert!(error(|s| s.fall = 0).starts_with("fall of a check is 0"));
        assert!(error(|s| s.interval = Duration::ZERO).starts_with("interval of a check is 0ns"));
        assert!(error(|s| s.timeout = Duration::from_millis(9)).contains("at least 10ms"));
        assert!(error(|s| s.failing_interval = Duration::from_secs(2)).contains("longer than its interval 1s"));
        assert!(error(|s| s.interval = Duration::MAX).contains("longer than times can be reckoned with"));
        assert!(error(|s| s.timeout = Duration::MAX).starts_with("timeout of a check is"));
        assert!(error(|s| s.spread = Duration::MAX).starts_with("spread of a check is"));
        assert!(error(|s| s.jitter = f64::NAN).starts_with("jitter of a check is NaN"));
        assert!(error(|s| s.jitter = 0.6).contains("from 0 to 0.5"));
    }
}
