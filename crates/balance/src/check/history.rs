use std::{collections::VecDeque, fmt};

use super::{CallsSeen, CheckFailure};
use crate::Time;

/// What the checks of a thing make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckVerdict {
    /// No probe has ended yet.
    Pending,
    /// It is well.
    Healthy,
    /// Its probes fail, but its calls succeed: it stays in use, and somebody should look at the probes.
    Disputed,
    /// It is to get no calls.
    Unhealthy,
}

impl CheckVerdict {
    /// Whether it may get calls: [`Healthy`](Self::Healthy) or [`Disputed`](Self::Disputed).
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy | Self::Disputed)
    }

    /// The value of a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Healthy => "healthy",
            Self::Disputed => "disputed",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Why a verdict was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckReason {
    /// No probe has ended: it counts as the settings say.
    Unprobed,
    /// This many probes in a row were answered.
    Answered(u32),
    /// The server says that it serves, and had said that it does not.
    Serving,
    /// The server says that it does not serve.
    NotServing,
    /// The server does not know the service.
    ServiceUnknown,
    /// Probes failed.
    Failed {
        /// How many in a row.
        times: u32,
        /// How the last one failed.
        last: CheckFailure,
    },
    /// Probes failed, and calls went well.
    CallsSucceed {
        /// The calls since the probe before.
        calls: CallsSeen,
        /// How the last probe failed.
        last: CheckFailure,
    },
}

impl fmt::Display for CheckReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unprobed => f.write_str("no probe has ended yet"),
            Self::Answered(1) => f.write_str("a probe was answered"),
            Self::Answered(times) => write!(f, "{times} probes in a row were answered"),
            Self::Serving => f.write_str("the server reports SERVING again"),
            Self::NotServing => f.write_str("the server reports NOT_SERVING"),
            Self::ServiceUnknown => f.write_str("the server does not know the service"),
            Self::Failed { times: 1, last } => write!(f, "a probe failed: {last}"),
            Self::Failed { times, last } => write!(f, "{times} probes in a row failed, the last one: {last}"),
            Self::CallsSucceed { calls: CallsSeen { succeeded, failed }, last } => {
                write!(
                    f,
                    "probes fail, but of the calls since the last one {succeeded} went well and {failed} failed; the probe: {last}"
                )
            }
        }
    }
}

/// A change of a verdict, or of the reason for being unhealthy; in that case `from` equals `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When it happened.
    pub at: Time,
    /// The verdict before.
    pub from: CheckVerdict,
    /// The verdict after.
    pub to: CheckVerdict,
    /// Why.
    pub reason: CheckReason,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}: {}", self.at, self.from, self.to, self.reason)
    }
}

/// The last transitions of a checked thing, oldest first. Those that no longer fit are counted.
#[derive(Clone, Debug)]
pub struct History {
    transitions: VecDeque<Transition>,
    capacity: usize,
    dropped: u64,
}

impl History {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { transitions: VecDeque::new(), capacity, dropped: 0 }
    }

    /// The transitions that are kept, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Transition> + ExactSizeIterator {
        self.transitions.iter()
    }

    /// How many older ones are no longer kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn push(&mut self, transition: Transition) {
        self.transitions.push_back(transition);
        if self.transitions.len() > self.capacity {
            self.transitions.pop_front();
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transition(at: u64) -> Transition {
        let (from, to) = (CheckVerdict::Pending, CheckVerdict::Healthy);
        Transition { at: Time::from_nanos(at), from, to, reason: CheckReason::Answered(1) }
    }

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let mut history = History::new(2);
        (1..=5).for_each(|at| history.push(transition(at)));
        assert_eq!(history.iter().map(|t| t.at.as_nanos()).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(history.dropped(), 3);
        let mut none = History::new(0);
        none.push(transition(1));
        assert_eq!((none.iter().len(), none.dropped()), (0, 1));
    }

    #[test]
    fn a_transition_reads_as_a_sentence() {
        assert_eq!(transition(1_500_000_000).to_string(), "1.500000000s pending → healthy: a probe was answered");
    }
}
