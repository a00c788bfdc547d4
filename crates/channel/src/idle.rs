use std::time::Duration;

use evenkeel_balance::Time;

/// Notices that nobody has used a channel for a period, by a look at its counters once a period. Calls write nothing for
/// it; in return the channel may be unused for up to two periods before that shows.
#[derive(Debug)]
pub(crate) struct IdleWatch {
    period: Option<Duration>,
    next: Option<Look>,
}

/// When to look again, and what was seen at the last look.
#[derive(Debug)]
struct Look {
    at: Time,
    usage: Usage,
}

/// How much a channel has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Calls that run now.
    pub(crate) running: u64,
    /// Grows with each call that is placed, or is to be.
    pub(crate) begun: u64,
}

impl IdleWatch {
    /// For a channel that is not in use yet. Without a `period`, it is never found idle.
    pub(crate) fn new(period: Option<Duration>) -> Self {
        Self { period, next: None }
    }

    /// The channel is in use from now on.
    pub(crate) fn start(&mut self, now: Time, usage: Usage) {
        self.next = self.period.map(|period| Look { at: now + period, usage });
    }

    /// When to look.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.next.as_ref().map(|look| look.at)
    }

    /// Whether the channel has not been used for a period. Then it is not asked again until [`start`](Self::start).
    pub(crate) fn is_idle(&mut self, now: Time, usage: Usage) -> bool {
        let Some(look) = self.next.take_if(|look| look.at <= now) else { return false };
        let is_idle = usage.running == 0 && usage == look.usage;
        if !is_idle {
            self.start(now, usage);
        }
        is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Time {
        Time::ZERO + Duration::from_secs(60 * minutes)
    }

    fn usage(running: u64, begun: u64) -> Usage {
        Usage { running, begun }
    }

    #[test]
    fn a_period_without_a_call_is_idle_and_a_running_call_is_a_use() {
        let mut watch = IdleWatch::new(Some(Duration::from_secs(30 * 60)));
        assert_eq!(watch.next_timeout(), None, "asleep");
        watch.start(at(0), usage(0, 0));
        assert!(!watch.is_idle(at(29), usage(0, 0)), "too early");
        assert!(!watch.is_idle(at(30), usage(0, 1)), "a call came and went");
        assert!(!watch.is_idle(at(60), usage(1, 2)));
        assert!(!watch.is_idle(at(90), usage(1, 2)), "a call takes its time");
        assert!(!watch.is_idle(at(120), usage(0, 2)), "it has ended in this period");
        assert!(watch.is_idle(at(150), usage(0, 2)));
        assert_eq!(watch.next_timeout(), None, "told once");
    }

    #[test]
    fn without_a_period_it_is_never_idle() {
        let mut watch = IdleWatch::new(None);
        watch.start(at(0), usage(0, 0));
        assert_eq!(watch.next_timeout(), None);
        assert!(!watch.is_idle(at(9_999), usage(0, 0)));
    }
}
