//! Active health checks: when to probe a thing, and what to make of the outcomes.

mod history;
#[cfg(test)]
mod model;
mod outcome;
mod settings;

use std::mem::discriminant;

pub use history::{CheckReason, CheckVerdict, History, Transition};
pub use outcome::{CallsSeen, CheckFailure, CheckNews, CheckOutcome, FailureKind, Statement};
pub use settings::{CheckSettings, CheckSettingsError, Initial};

use crate::{Entropy, Time};

/// The checks of one thing: an endpoint, say, or a process.
///
/// Two questions are kept apart:
///
/// - **Can it be reached?** That is measured, and measurements err. So it takes [`fall`](CheckSettings::fall) failures
///   in a row to conclude that it cannot, and [`rise`](CheckSettings::rise) answers in a row to conclude that it can
///   again. `NOT_SERVING` is an answer too.
/// - **What does it say of itself?** A statement has no error to guard against: `NOT_SERVING` takes it out at once, and
///   SERVING brings it back at once, if it could be reached all the while.
///
/// ```text
///             first answer             fall failures in a row,
///                                      and no calls vouch for it
///   PENDING ─────────────────► UP ───────────────────────────────► DOWN
///      │                        ▲                                   ▲ │
///      │                        └────── rise answers in a row ──────┼─┘
///      └──────────────────── first failure ─────────────────────────┘
///
///   unhealthy = DOWN, or UP and its last statement is not SERVING
/// ```
///
/// # Calls are trusted over checks
///
/// A probe is a sample of what a server does for its clients; calls are the thing itself. Where the two disagree (a
/// gray failure), this holds:
///
/// 1. Probes that fail take nothing out whose calls succeed: more calls went well than failed since the probe before.
///    The verdict is then [`CheckVerdict::Disputed`], until a probe is answered or calls no longer vouch. What is
///    already out is not brought back by calls: they are stragglers.
/// 2. `NOT_SERVING` is always obeyed. A server that drains still answers its calls well.
/// 3. An answered probe says nothing for a server whose calls fail: it does not end an ejection by outlier detection,
///    nor count as a success there. Endpoints are used if both agree to it.
///
/// # Driving it
///
/// At [`next_timeout`](Self::next_timeout) call [`poll`](Self::poll). If it gives a deadline, probe, and tell
/// [`handle`](Self::handle) the outcome, by the deadline at the latest. There is one probe at a time.
///
/// ```
/// use evenkeel_balance::{CallsSeen, Check, CheckOutcome, CheckSettings, CheckVerdict, Entropy, Time};
///
/// let mut entropy = Entropy::new(7);
/// let mut check = Check::new(CheckSettings::default(), Time::ZERO, &mut entropy)?;
/// let deadline = check.poll(Time::ZERO).expect("the first probe starts at once");
/// let transition = check.handle(deadline, CheckOutcome::NotServing, CallsSeen::NONE, &mut entropy).unwrap();
/// assert_eq!(transition.to, CheckVerdict::Unhealthy);
/// assert_eq!(transition.reason.to_string(), "the server reports NOT_SERVING");
/// # Ok::<(), evenkeel_balance::CheckSettingsError>(())
/// ```
#[derive(Debug)]
pub struct Check {
    settings: CheckSettings,
    reach: Reach,
    stated: Statement,
    verdict: CheckVerdict,
    reason: CheckReason,
    since: Time,
    history: History,
    /// When the last probe started.
    started: Option<Time>,
    /// When the next one starts; `None` while one is on its way.
    next: Option<Time>,
    /// Whether the probe before ended as [`CheckOutcome::Drained`].
    drained: bool,
}

/// Whether it can be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reach {
    Pending,
    /// With the failures since the last answer; at `fall` or above only where calls vouch.
    Up {
        failures: u32,
    },
    /// With the answers since the last failure.
    Down {
        answers: u32,
    },
}

impl Check {
    /// Begins at `now`: the first probe starts within [`CheckSettings::spread`].
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn new(settings: CheckSettings, now: Time, entropy: &mut Entropy) -> Result<Self, CheckSettingsError> {
        settings.validate()?;
        let (reach, verdict) = match settings.initial {
            Initial::Pending => (Reach::Pending, CheckVerdict::Pending),
            Initial::Healthy => (Reach::Up { failures: 0 }, CheckVerdict::Healthy),
            Initial::Unhealthy => (Reach::Down { answers: 0 }, CheckVerdict::Unhealthy),
        };
        Ok(Self {
            settings,
            reach,
            stated: Statement::Serving,
            verdict,
            reason: CheckReason::Unprobed,
            since: now,
            history: History::new(settings.history.max(1)),
            started: None,
            next: Some(now + settings.spread.mul_f64(entropy.unit())),
            drained: false,
        })
    }

    /// What it goes by.
    pub fn settings(&self) -> &CheckSettings {
        &self.settings
    }

    /// What the checks make of it.
    pub fn verdict(&self) -> CheckVerdict {
        self.verdict
    }

    /// Why.
    pub fn reason(&self) -> &CheckReason {
        &self.reason
    }

    /// Since when, for this reason.
    pub fn since(&self) -> Time {
        self.since
    }

    /// The transitions so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// When to [`poll`](Self::poll) next; `None` while a probe is on its way.
    pub fn next_timeout(&self) -> Option<Time> {
        self.next
    }

    /// Starts a probe if one is due: it has until the time returned.
    pub fn poll(&mut self, now: Time) -> Option<Time> {
        self.next.take_if(|next| *next <= now)?;
        self.started = Some(now);
        Some(now + self.settings.timeout)
    }

    /// Takes in how the probe ended, and which calls ended since the probe before.
    ///
    /// A [`Drained`](CheckOutcome::Drained) connection counts as nothing, and the next probe starts at once. Drained
    /// twice in a row, with no answer on either connection, it is a failure: nobody would be served there.
    pub fn handle(
        &mut self,
        now: Time,
        outcome: CheckOutcome,
        calls: CallsSeen,
        entropy: &mut Entropy,
    ) -> Option<Transition> {
        let drained_before = std::mem::replace(&mut self.drained, outcome == CheckOutcome::Drained);
        let transition = match outcome {
            CheckOutcome::Drained if !drained_before => {
                self.next = Some(now);
                return None;
            }
            CheckOutcome::Drained => {
                let detail = "the peer leaves each connection before it answers";
                self.failed(now, CheckFailure::new(FailureKind::Closed, detail), calls)
            }
            CheckOutcome::Failed(failure) => self.failed(now, failure, calls),
            CheckOutcome::Serving => self.answered(now, Statement::Serving),
            CheckOutcome::NotServing => self.answered(now, Statement::NotServing),
            CheckOutcome::ServiceUnknown => self.answered(now, Statement::ServiceUnknown),
        };
        self.wait(now, entropy);
        transition
    }

    /// Takes in what the server says of itself between probes, as a health Watch does. It may come while a probe is on
    /// its way. It is no answer to one: what is out because it could not be reached stays out. Only where no probe has ended
    /// yet, it decides.
    pub fn hear(&mut self, now: Time, statement: Statement) -> Option<Transition> {
        if self.reach == Reach::Pending {
            return self.answered(now, statement);
        }
        self.stated = statement;
        self.conclude(now, CheckReason::Serving)
    }

    /// Probes sooner than planned, since something looks wrong: a connection broke, say. Not sooner than
    /// [`failing_interval`](CheckSettings::failing_interval) after the start of the probe before.
    pub fn hasten(&mut self, now: Time) {
        let soonest = self.started.map_or(now, |started| (started + self.settings.failing_interval).max(now));
        self.next = self.next.map(|next| next.min(soonest));
    }

    fn answered(&mut self, now: Time, statement: Statement) -> Option<Transition> {
        self.stated = statement;
        let answers = match self.reach {
            Reach::Down { answers } => answers + 1,
            Reach::Pending | Reach::Up { .. } => 1,
        };
        let is_back = !matches!(self.reach, Reach::Down { .. }) || answers >= self.settings.rise;
        self.reach = if is_back { Reach::Up { failures: 0 } } else { Reach::Down { answers } };
        let was_stated = matches!(self.reason, CheckReason::NotServing | CheckReason::ServiceUnknown);
        self.conclude(now, if was_stated { CheckReason::Serving } else { CheckReason::Answered(answers) })
    }

    fn failed(&mut self, now: Time, last: CheckFailure, calls: CallsSeen) -> Option<Transition> {
        let times = match self.reach {
            Reach::Up { failures } => failures.saturating_add(1),
            Reach::Pending | Reach::Down { .. } => 1,
        };
        let stays = times < self.settings.fall || calls.vouch();
        self.reach = match self.reach {
            Reach::Up { .. } if stays => Reach::Up { failures: times },
            _ => Reach::Down { answers: 0 },
        };
        let is_down = matches!(self.reach, Reach::Down { .. });
        let reason =
            if is_down { CheckReason::Failed { times, last } } else { CheckReason::CallsSucceed { calls, last } };
        self.conclude(now, reason)
    }

    /// The verdict as things stand. `news` is the reason, unless the server's own statement is.
    fn conclude(&mut self, now: Time, news: CheckReason) -> Option<Transition> {
        let (to, reason) = match (self.reach, self.stated) {
            (Reach::Pending, _) => (CheckVerdict::Pending, news),
            (Reach::Down { .. }, _) => (CheckVerdict::Unhealthy, news),
            (Reach::Up { .. }, Statement::NotServing) => (CheckVerdict::Unhealthy, CheckReason::NotServing),
            (Reach::Up { .. }, Statement::ServiceUnknown) => (CheckVerdict::Unhealthy, CheckReason::ServiceUnknown),
            (Reach::Up { failures }, Statement::Serving) if failures >= self.settings.fall => {
                (CheckVerdict::Disputed, news)
            }
            (Reach::Up { .. }, Statement::Serving) => (CheckVerdict::Healthy, news),
        };
        let is_bad_news =
            matches!(reason, CheckReason::Failed { .. } | CheckReason::NotServing | CheckReason::ServiceUnknown);
        let is_other_cause = is_bad_news && discriminant(&reason) != discriminant(&self.reason);
        if to == self.verdict && !(to == CheckVerdict::Unhealthy && is_other_cause) {
            return None;
        }
        let transition = Transition { at: now, from: self.verdict, to, reason: reason.clone() };
        (self.verdict, self.reason, self.since) = (to, reason, now);
        self.history.push(transition.clone());
        Some(transition)
    }

    /// Plans the next probe.
    fn wait(&mut self, now: Time, entropy: &mut Entropy) {
        let is_well = self.reach == Reach::Up { failures: 0 } && self.verdict == CheckVerdict::Healthy;
        let interval = if is_well { self.settings.interval } else { self.settings.failing_interval };
        let next = self.started.unwrap_or(now) + entropy.jitter(interval, self.settings.jitter);
        self.next = Some(next.max(now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        CheckVerdict::{Disputed, Healthy, Pending, Unhealthy},
        *,
    };

    const CALLS: CallsSeen = CallsSeen { succeeded: 3, failed: 2 };

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn refused() -> CheckOutcome {
        CheckOutcome::Failed(CheckFailure::new(FailureKind::Refused, "connection refused"))
    }

    /// A check without jitter, so that times are exact.
    fn check(initial: Initial) -> Check {
        let settings = CheckSettings { initial, jitter: 0.0, ..CheckSettings::default() };
        Check::new(settings, at(0), &mut Entropy::new(1)).unwrap()
    }

    /// Lets probes end so, one after the other, and returns the verdict.
    fn after(check: &mut Check, calls: CallsSeen, outcomes: impl IntoIterator<Item = CheckOutcome>) -> CheckVerdict {
        for outcome in outcomes {
            let now = check.next_timeout().unwrap();
            check.poll(now).expect("it is due");
            check.handle(now, outcome, calls, &mut Entropy::new(1));
        }
        check.verdict()
    }

    #[test]
    fn pending_is_decided_by_the_first_outcome_and_no_other() {
        assert_eq!(check(Initial::Pending).verdict(), Pending);
        assert_eq!(after(&mut check(Initial::Pending), CallsSeen::NONE, [CheckOutcome::Serving]), Healthy);
        assert_eq!(after(&mut check(Initial::Pending), CALLS, [refused()]), Unhealthy);
        assert_eq!(after(&mut check(Initial::Pending), CALLS, [CheckOutcome::Drained]), Pending);
    }

    #[test]
    fn other_initial_states_wait_for_fall_and_rise() {
        let mut assumed_well = check(Initial::Healthy);
        assert_eq!(after(&mut assumed_well, CallsSeen::NONE, [refused()]), Healthy);
        assert_eq!(after(&mut assumed_well, CallsSeen::NONE, [CheckOutcome::Serving, refused()]), Healthy);
        assert_eq!(after(&mut assumed_well, CallsSeen::NONE, [refused()]), Unhealthy);
        let mut assumed_ill = check(Initial::Unhealthy);
        assert_eq!(after(&mut assumed_ill, CallsSeen::NONE, [CheckOutcome::Serving]), Unhealthy);
        assert_eq!(after(&mut assumed_ill, CallsSeen::NONE, [CheckOutcome::Serving]), Healthy);
        assert_eq!(assumed_ill.reason(), &CheckReason::Answered(2));
    }

    #[test]
    fn one_probe_at_a_time_and_sooner_while_it_fails() {
        let mut check = check(Initial::Pending);
        let entropy = &mut Entropy::new(1);
        assert_eq!(check.poll(at(0)), Some(at(500)));
        assert_eq!((check.poll(at(1)), check.next_timeout()), (None, None));
        check.handle(at(40), CheckOutcome::Serving, CallsSeen::NONE, entropy);
        assert_eq!(check.next_timeout(), Some(at(1_000)), "counted from the start of the probe");
        assert_eq!(check.poll(at(999)), None);
        assert_eq!(check.poll(at(1_001)), Some(at(1_501)));
        check.handle(at(1_010), refused(), CallsSeen::NONE, entropy);
        assert_eq!(check.next_timeout(), Some(at(1_251)));
        check.poll(at(1_251));
        check.handle(at(1_751), refused(), CallsSeen::NONE, entropy);
        assert_eq!(check.next_timeout(), Some(at(1_751)), "one that timed out is followed at once");
    }

    #[test]
    fn a_drained_connection_counts_as_nothing_and_is_followed_at_once_but_not_for_ever() {
        let mut check = check(Initial::Healthy);
        assert_eq!(after(&mut check, CallsSeen::NONE, [refused(), CheckOutcome::Drained]), Healthy);
        assert_eq!(check.next_timeout(), Some(at(250)));
        assert_eq!(after(&mut check, CallsSeen::NONE, [CheckOutcome::Serving, CheckOutcome::Drained]), Healthy);
        assert_eq!(after(&mut check, CallsSeen::NONE, [CheckOutcome::Drained]), Healthy, "the first failure");
        assert_eq!(after(&mut check, CallsSeen::NONE, [CheckOutcome::Drained]), Unhealthy);
        assert!(check.reason().to_string().contains("leaves each connection"));
    }

    #[test]
    fn a_statement_takes_effect_at_once_both_ways() {
        let mut check = check(Initial::Pending);
        assert_eq!(after(&mut check, CALLS, [CheckOutcome::Serving, CheckOutcome::NotServing]), Unhealthy);
        assert_eq!(after(&mut check, CALLS, [CheckOutcome::Serving]), Healthy);
        assert_eq!(check.reason(), &CheckReason::Serving);
        assert_eq!(check.hear(at(9_000), Statement::ServiceUnknown).unwrap().to, Unhealthy);
        assert_eq!(check.hear(at(9_001), Statement::ServiceUnknown), None);
        assert_eq!(check.hear(at(9_002), Statement::Serving).unwrap().to, Healthy);
        assert_eq!(check.since(), at(9_002));
    }

    #[test]
    fn what_could_not_be_reached_returns_by_rise_whatever_it_says() {
        let mut check = check(Initial::Pending);
        assert_eq!(after(&mut check, CallsSeen::NONE, [refused(), CheckOutcome::Serving]), Unhealthy);
        assert_eq!(check.hear(at(300), Statement::Serving), None, "no answer to a probe");
        assert_eq!(after(&mut check, CallsSeen::NONE, [CheckOutcome::NotServing]), Unhealthy);
        assert_eq!(check.reason(), &CheckReason::NotServing, "it is reached again, and has another cause");
        assert_eq!(after(&mut check, CallsSeen::NONE, [CheckOutcome::Serving]), Healthy);
    }

    #[test]
    fn calls_that_succeed_keep_a_thing_whose_probes_fail() {
        let mut check = check(Initial::Healthy);
        assert_eq!(after(&mut check, CALLS, [refused(), refused(), refused()]), Disputed);
        assert!(check.verdict().is_healthy());
        assert!(check.reason().to_string().contains("3 went well and 2 failed; the probe: connection refused"));
        assert_eq!(after(&mut check, CallsSeen { succeeded: 2, failed: 2 }, [refused()]), Unhealthy);
        assert_eq!(after(&mut check, CALLS, [refused()]), Unhealthy, "stragglers bring nothing back");
        let verdicts: Vec<_> = check.history().iter().map(|t| (t.from, t.to)).collect();
        assert_eq!(verdicts, [(Healthy, Disputed), (Disputed, Unhealthy)]);
    }

    #[test]
    fn an_answer_ends_a_dispute_and_a_statement_overrules_calls() {
        let mut check = check(Initial::Healthy);
        assert_eq!(after(&mut check, CALLS, [refused(), refused(), CheckOutcome::Serving]), Healthy);
        assert_eq!(after(&mut check, CALLS, [refused(), refused()]), Disputed);
        assert_eq!(after(&mut check, CALLS, [CheckOutcome::NotServing]), Unhealthy);
    }

    #[test]
    fn a_hastened_probe_keeps_the_failing_interval() {
        let mut check = check(Initial::Pending);
        after(&mut check, CallsSeen::NONE, [CheckOutcome::Serving]);
        check.hasten(at(100));
        assert_eq!(check.next_timeout(), Some(at(250)));
        check.hasten(at(240));
        assert_eq!(check.poll(at(250)), Some(at(750)));
        check.hasten(at(260));
        assert_eq!(check.next_timeout(), None, "one is on its way");
    }

    #[test]
    fn many_checks_start_spread_over_the_time_given() {
        let settings = CheckSettings { spread: Duration::from_secs(5), ..CheckSettings::default() };
        let entropy = &mut Entropy::new(4);
        let mut seconds = [0; 5];
        for _ in 0..5_000 {
            let first = Check::new(settings, at(0), entropy).unwrap().next_timeout().unwrap();
            seconds[usize::try_from(first.as_nanos() / 1_000_000_000).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|n| (900..1_100).contains(n)), "{seconds:?}");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let settings = CheckSettings { rise: 0, ..CheckSettings::default() };
        assert!(Check::new(settings, at(0), &mut Entropy::new(1)).is_err());
    }
}
