use std::time::Duration;

use crate::{
    Code, Entropy, RetryPolicy, RetryThrottling,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// What a server said about trying again: the `grpc-retry-pushback-ms` trailer (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing: the policy's own backoff holds.
    None,
    /// Try again after this long.
    After(Duration),
    /// Do not try again.
    Never,
}

impl Pushback {
    /// The meaning of the trailer's value: a whole number of milliseconds; anything else is [`Pushback::Never`].
    pub fn parse(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::None };
        let millis = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok());
        millis.map_or(Self::Never, |millis| Self::After(Duration::from_millis(u64::from(millis))))
    }
}

/// The retries of one call: how many attempts it has made, and whether it may make another (gRFC A6).
#[derive(Clone, Debug)]
pub struct Retries {
    attempts: u32,
    /// Attempts since the server last set the pace: pushback starts the backoff anew.
    in_a_row: u32,
}

impl Retries {
    /// A call whose first attempt is being made.
    pub fn new() -> Self {
        Self { attempts: 1, in_a_row: 0 }
    }

    /// Attempts made before the present one: the value of `grpc-previous-rpc-attempts`.
    pub fn previous(&self) -> u32 {
        self.attempts - 1
    }

    /// Whether a call whose attempt ended with `code` is tried again, and after how long.
    pub fn after(
        &mut self,
        policy: &RetryPolicy,
        throttle: Option<&RetryThrottle>,
        code: Code,
        pushback: Pushback,
        entropy: &mut Entropy,
    ) -> Option<Duration> {
        let retryable = policy.retryable.contains(&code);
        if !retryable && pushback != Pushback::Never {
            return None;
        }
        let allowed = throttle.is_none_or(RetryThrottle::failed);
        if !retryable || !allowed || self.attempts >= policy.max_attempts {
            return None;
        }
        let delay = match pushback {
            Pushback::Never => return None,
            Pushback::After(delay) => {
                self.in_a_row = 0;
                delay
            }
            Pushback::None => {
                self.in_a_row += 1;
                policy.backoff.delay(self.in_a_row, entropy)
            }
        };
        self.attempts += 1;
        Some(delay)
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::new()
    }
}

/// The retry tokens of a channel: failures spend them, successes earn them back (gRFC A6).
#[derive(Debug)]
pub struct RetryThrottle {
    /// In thousandths of a token.
    tokens: AtomicU64,
    max: u64,
    ratio: u64,
}

impl RetryThrottle {
    /// A full bucket.
    pub fn new(config: RetryThrottling) -> Self {
        let max = thousandths(config.max_tokens);
        Self { tokens: AtomicU64::new(max), max, ratio: thousandths(config.token_ratio) }
    }

    /// An attempt succeeded.
    pub fn succeeded(&self) {
        self.change(|tokens| tokens.saturating_add(self.ratio).min(self.max));
    }

    /// An attempt failed in a way that calls for a retry. Returns whether the retry may be made.
    pub fn failed(&self) -> bool {
        self.change(|tokens| tokens.saturating_sub(1_000)) > self.max / 2
    }

    /// Whether a retry or a hedge may be made now.
    pub fn allows(&self) -> bool {
        self.tokens.load(Relaxed) > self.max / 2
    }

    fn change(&self, by: impl Fn(u64) -> u64) -> u64 {
        let before = self.tokens.fetch_update(Relaxed, Relaxed, |tokens| Some(by(tokens)));
        by(before.unwrap_or_else(|tokens| tokens))
    }
}

fn thousandths(tokens: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the config is checked: 0 < tokens <= 1000"
    )]
    let thousandths = (tokens * 1_000.0).round() as u64;
    thousandths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backoff;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 3,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 2.0, 0.0),
            retryable: vec![Code::Unavailable],
        }
    }

    #[test]
    fn a6_retries_retryable_codes_up_to_the_limit_with_growing_delays() {
        let (mut retries, mut entropy) = (Retries::new(), Entropy::new(1));
        let mut next = |code| retries.after(&policy(), None, code, Pushback::None, &mut entropy);
        assert_eq!(next(Code::Internal), None);
        assert_eq!(next(Code::Unavailable), Some(Duration::from_millis(100)));
        assert_eq!(next(Code::Unavailable), Some(Duration::from_millis(200)));
        assert_eq!(next(Code::Unavailable), None, "three attempts were made");
        assert_eq!(retries.previous(), 2);
    }

    #[test]
    fn a6_pushback_overrides_the_backoff_and_starts_it_anew() {
        let (mut retries, mut entropy) = (Retries::new(), Entropy::new(1));
        let mut next = |pushback| retries.after(&policy(), None, Code::Unavailable, pushback, &mut entropy);
        let second = Duration::from_secs(1);
        assert_eq!(next(Pushback::After(second)), Some(second));
        assert_eq!(next(Pushback::None), Some(Duration::from_millis(100)));
        assert_eq!(Retries::new().after(&policy(), None, Code::Unavailable, Pushback::Never, &mut entropy), None);
        assert_eq!(Pushback::parse(Some(b"250")), Pushback::After(Duration::from_millis(250)));
        assert_eq!((Pushback::parse(Some(b"-1")), Pushback::parse(Some(b"x"))), (Pushback::Never, Pushback::Never));
        assert_eq!(Pushback::parse(None), Pushback::None);
    }

    #[test]
    fn a6_throttle_stops_retries_at_half_and_recovers_with_successes() {
        let throttle = RetryThrottle::new(RetryThrottling { max_tokens: 4.0, token_ratio: 0.5 });
        assert!(throttle.failed(), "3 of 4 left");
        assert!(!throttle.failed(), "2 of 4 left: not above half");
        assert!(!throttle.failed(), "1 of 4 left");
        for _ in 0..3 {
            throttle.succeeded();
        }
        assert!(!throttle.failed(), "1.5 of 4 left");
        for _ in 0..100 {
            throttle.succeeded();
        }
        assert!(throttle.failed(), "never above its maximum: 3 of 4 left");
        assert!(!throttle.failed());
    }
}
