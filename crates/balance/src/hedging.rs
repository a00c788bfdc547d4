//! Hedging: sending a call again before its first attempt has failed, and taking whichever answers first (gRFC A6).

use std::time::Duration;

use crate::{
    Code, HedgingPolicy, Pushback, RetryThrottle, Time,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The attempts of one hedged call: how many there are, when the next one is due, and what an answer means.
///
/// ```text
///   attempt 1 ──delay──► attempt 2 ──delay──► attempt 3 …        one succeeds, or fails for good ► the rest are off
///                 └─ one fails without prejudice: the next starts at once
/// ```
#[derive(Clone, Debug)]
pub struct Hedges {
    delay: Duration,
    max_attempts: u32,
    started: u32,
    running: u32,
    /// When the next attempt starts, if nothing happens until then. `None`: never.
    next_at: Option<Time>,
}

/// What the failure of an attempt means for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Other attempts are running or due; the call goes on.
    GoesOn,
    /// The call has failed with this attempt's status: it is fatal, or it was the last attempt.
    IsFinal,
}

impl Hedges {
    /// A call whose first attempt starts now.
    pub fn new(policy: &HedgingPolicy, delay: Duration, now: Time) -> Self {
        let mut hedges = Self { delay, max_attempts: policy.max_attempts, started: 0, running: 0, next_at: None };
        hedges.start(now);
        hedges
    }

    /// Attempts made before the present one: the value of `grpc-previous-rpc-attempts`.
    pub fn previous(&self) -> u32 {
        self.started - 1
    }

    /// When the next attempt is due.
    pub fn next_at(&self) -> Option<Time> {
        self.next_at
    }

    /// Starts the next attempt if it is due and allowed. A due attempt that the throttle or the budget forbids is not
    /// made, and none after it.
    pub fn poll_start(&mut self, now: Time, allowed: impl FnOnce() -> bool) -> bool {
        if self.next_at.is_none_or(|at| at > now) {
            return false;
        }
        if !allowed() {
            self.next_at = None;
            return false;
        }
        self.start(now);
        true
    }

    fn start(&mut self, now: Time) {
        self.started += 1;
        self.running += 1;
        // A delay without end means: never.
        let goes_on = self.started < self.max_attempts && self.delay < Duration::MAX;
        self.next_at = goes_on.then(|| now + self.delay);
    }

    /// An attempt has failed.
    pub fn failed(
        &mut self,
        now: Time,
        policy: &HedgingPolicy,
        throttle: Option<&RetryThrottle>,
        code: Code,
        pushback: Pushback,
    ) -> Failure {
        self.running -= 1;
        let fatal = !policy.non_fatal.contains(&code);
        if (!fatal || pushback == Pushback::Never)
            && let Some(throttle) = throttle
        {
            throttle.failed();
        }
        if fatal {
            return Failure::IsFinal;
        }
        self.next_at = self.next_at.and_then(|_| match pushback {
            Pushback::None => Some(now),
            Pushback::After(delay) => Some(now + delay),
            Pushback::Never => None,
        });
        if self.running == 0 && self.next_at.is_none() { Failure::IsFinal } else { Failure::GoesOn }
    }

    /// Only one attempt goes on: the request cannot be sent again.
    pub fn commit(&mut self) {
        (self.running, self.next_at) = (1, None);
    }

    /// Whether no attempt is running and none will be started.
    pub fn is_over(&self) -> bool {
        self.running == 0 && self.next_at.is_none()
    }
}

/// Keeps hedges to a share of the calls: each call earns a fraction of a hedge, each hedge spends a whole one.
#[derive(Debug)]
pub struct HedgeBudget {
    /// In millionths of a hedge.
    saved: AtomicU64,
}

/// How many hedges may be saved up, so that a burst of slow calls after a quiet time is hedged too.
const MAX_SAVED: u64 = 10 * MILLION;
const MILLION: u64 = 1_000_000;

impl HedgeBudget {
    /// One hedge, to begin with.
    pub fn new() -> Self {
        Self { saved: AtomicU64::new(MILLION) }
    }

    /// A call begins, and earns `share` of a hedge: 0.05 adds at most 5 % of load.
    pub fn earn(&self, share: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
        let share = (share.clamp(0.0, 1.0) * 1_000_000.0).round() as u64;
        // The update always succeeds: the closure never refuses.
        let _ = self.saved.fetch_update(Relaxed, Relaxed, |saved| Some((saved + share).min(MAX_SAVED)));
    }

    /// Spends a hedge, if there is one.
    pub fn spend(&self) -> bool {
        self.saved.fetch_update(Relaxed, Relaxed, |saved| saved.checked_sub(MILLION)).is_ok()
    }
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RetryThrottling;

    const DELAY: Duration = Duration::from_millis(10);

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn policy() -> HedgingPolicy {
        HedgingPolicy { max_attempts: 3, delay: DELAY, non_fatal: vec![Code::Unavailable], adaptive: None }
    }

    fn failed(hedges: &mut Hedges, now: Time, code: Code, pushback: Pushback) -> Failure {
        hedges.failed(now, &policy(), None, code, pushback)
    }

    #[test]
    fn a6_hedges_start_one_delay_apart_up_to_the_limit() {
        let mut hedges = Hedges::new(&policy(), DELAY, at(0));
        assert!(!hedges.poll_start(at(9), || true));
        assert!(hedges.poll_start(at(10), || true));
        assert!(!hedges.poll_start(at(10), || true));
        assert_eq!(hedges.next_at(), Some(at(20)));
        assert!(hedges.poll_start(at(20), || true));
        assert_eq!((hedges.next_at(), hedges.previous()), (None, 2));
    }

    #[test]
    fn a6_a_non_fatal_status_starts_the_next_hedge_at_once_and_a_fatal_one_ends_the_call() {
        let mut hedges = Hedges::new(&policy(), DELAY, at(0));
        assert_eq!(failed(&mut hedges, at(3), Code::Unavailable, Pushback::None), Failure::GoesOn);
        assert!(hedges.poll_start(at(3), || true));
        assert_eq!(hedges.next_at(), Some(at(13)), "the delay counts from the last start");
        assert_eq!(failed(&mut hedges, at(4), Code::Internal, Pushback::None), Failure::IsFinal);
    }

    #[test]
    fn a6_the_last_attempts_failure_is_the_calls() {
        let mut hedges = Hedges::new(&policy(), DELAY, at(0));
        assert!(hedges.poll_start(at(10), || true) && hedges.poll_start(at(20), || true));
        for expected in [Failure::GoesOn, Failure::GoesOn, Failure::IsFinal] {
            assert_eq!(failed(&mut hedges, at(21), Code::Unavailable, Pushback::None), expected);
        }
        assert!(hedges.is_over());
    }

    #[test]
    fn a6_pushback_delays_the_next_hedge_or_forbids_it() {
        let mut hedges = Hedges::new(&policy(), DELAY, at(0));
        let pushed = Pushback::After(Duration::from_millis(50));
        assert_eq!(failed(&mut hedges, at(1), Code::Unavailable, pushed), Failure::GoesOn);
        assert_eq!(hedges.next_at(), Some(at(51)));
        assert!(hedges.poll_start(at(51), || true));
        assert_eq!(failed(&mut hedges, at(52), Code::Unavailable, Pushback::Never), Failure::IsFinal);
    }

    #[test]
    fn a6_the_throttle_forbids_hedges_and_hears_of_failures() {
        let throttle = RetryThrottle::new(RetryThrottling { max_tokens: 2.0, token_ratio: 0.5 });
        let mut hedges = Hedges::new(&policy(), DELAY, at(0));
        assert!(throttle.allows());
        let failure = hedges.failed(at(1), &policy(), Some(&throttle), Code::Unavailable, Pushback::None);
        assert_eq!(failure, Failure::GoesOn);
        assert!(!hedges.poll_start(at(1), || throttle.allows()), "1 of 2 tokens is not above half");
        assert!(hedges.is_over());
    }

    #[test]
    fn a_budget_keeps_hedges_to_their_share_of_the_calls() {
        let budget = HedgeBudget::new();
        let hedges = (0..10_000)
            .filter(|_| {
                budget.earn(0.05);
                budget.spend()
            })
            .count();
        assert_eq!(hedges, 501, "5 %, and the one that it starts with");
    }
}
