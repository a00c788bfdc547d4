use crate::{CallsSeen, Check, CheckNews, CheckSettings, CheckVerdict, Connectivity, Entropy, Load, Time, Transition};

/// The active checks of an address, and the calls that speak for it or against it.
///
/// They are the address's, not a connection's: they go on while none is up, and know by then what to make of the next.
#[derive(Debug)]
pub(super) struct Checked {
    check: Check,
    /// Calls that had succeeded and failed when the last probe ended.
    counted: CallsSeen,
}

impl Checked {
    /// # Panics
    /// Where the settings make no sense: they are validated when they are set.
    pub(super) fn new(settings: CheckSettings, now: Time, load: &Load, entropy: &mut Entropy) -> Self {
        let check = Check::new(settings, now, entropy).expect("validated when they were set");
        Self { check, counted: calls(load) }
    }

    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    /// Starts a probe if one is due: it has until the time returned.
    pub(super) fn poll(&mut self, now: Time) -> Option<Time> {
        self.check.poll(now)
    }

    pub(super) fn handle(
        &mut self,
        now: Time,
        news: CheckNews,
        load: &Load,
        entropy: &mut Entropy,
    ) -> Option<Transition> {
        let outcome = match news {
            CheckNews::Ended(outcome) => outcome,
            CheckNews::Said(statement) => return self.check.hear(now, statement),
            CheckNews::Lost => {
                self.check.hasten(now);
                return None;
            }
        };
        if self.check.next_timeout().is_some() {
            // A probe of checks that have been replaced.
            return None;
        }
        let calls = calls(load);
        let before = std::mem::replace(&mut self.counted, calls);
        let seen = CallsSeen { succeeded: calls.succeeded - before.succeeded, failed: calls.failed - before.failed };
        self.check.handle(now, outcome, seen, entropy)
    }

    /// What the checks say, where they keep a connection from being used.
    pub(super) fn objection(&self) -> Option<String> {
        (!self.check.verdict().is_healthy()).then(|| format!("check: {}", self.check.reason()))
    }

    /// What the checks make of a connection that is otherwise READY.
    pub(super) fn connectivity(&self) -> Connectivity {
        match self.check.verdict() {
            CheckVerdict::Pending => Connectivity::Connecting,
            CheckVerdict::Healthy | CheckVerdict::Disputed => Connectivity::Ready,
            CheckVerdict::Unhealthy => Connectivity::TransientFailure,
        }
    }
}

/// Every status but OK counts as a failure: the core does not know which of them are the caller's own fault.
fn calls(load: &Load) -> CallsSeen {
    CallsSeen { succeeded: load.succeeded(), failed: load.failed() }
}
