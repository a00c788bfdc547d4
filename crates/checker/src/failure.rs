//! Outcomes, in words.

use std::ops::RangeInclusive;

use evenkeel_balance::{CheckFailure, CheckOutcome, FailureKind};

/// How much of an answer's body is read, in bytes. One that is longer costs its connection, or its stream.
pub(crate) const MAX_BODY: usize = 64 * 1024;

pub(crate) fn failed(kind: FailureKind, detail: impl Into<String>) -> CheckOutcome {
    CheckOutcome::Failed(CheckFailure::new(kind, detail))
}

/// What a status of HTTP means.
pub(crate) fn of_status(status: u16, passes: &RangeInclusive<u16>) -> CheckOutcome {
    if passes.contains(&status) {
        return CheckOutcome::Serving;
    }
    let (first, last) = (passes.start(), passes.end());
    failed(FailureKind::Status, format!("it answers with HTTP status {status}, and {first} to {last} passes"))
}

/// How far a probe has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Connecting,
    #[cfg(feature = "tls")]
    Securing,
    Asked,
}

/// A probe that was not over by its deadline.
pub(crate) fn timed_out(step: Step, peer_has_spoken: bool) -> CheckOutcome {
    let waited_for = match (step, peer_has_spoken) {
        (Step::Connecting, _) => "no connection within the time-out",
        #[cfg(feature = "tls")]
        (Step::Securing, _) => "connected, but no TLS handshake within the time-out",
        (Step::Asked, false) => "connected, but not a byte within the time-out: it hangs, or speaks another protocol",
        (Step::Asked, true) => "asked, but no answer within the time-out",
    };
    failed(FailureKind::TimedOut, waited_for)
}
