use std::{ops::Range, time::Duration};

use evenkeel_balance::{Entropy, Time};

/// A simulated server: how fast it is, and when it misbehaves. Times count from the start of the simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    service_time: Duration,
    priority: u32,
    dead: Vec<Range<Time>>,
    frozen: Vec<Range<Time>>,
    not_serving: Vec<Range<Time>>,
}

impl Server {
    /// A healthy server that works on a call for `service_time` ± 50 %.
    pub fn new(service_time: Duration) -> Self {
        Self { service_time, priority: 0, dead: Vec::new(), frozen: Vec::new(), not_serving: Vec::new() }
    }

    /// It works `factor` times as long on each call.
    ///
    /// # Panics
    ///
    /// Where `factor` is negative or not finite.
    #[must_use]
    pub fn slow(self, factor: f64) -> Self {
        Self { service_time: self.service_time.mul_f64(factor), ..self }
    }

    /// The resolver gives it this rank (`Endpoint::priority`). Default 0, the first.
    #[must_use]
    pub fn with_priority(self, priority: u32) -> Self {
        Self { priority, ..self }
    }

    /// Its process is gone during this time: its connections break, its calls fail, connecting is refused.
    #[must_use]
    pub fn dead(mut self, during: Range<Duration>) -> Self {
        self.dead.push(span(&during));
        self
    }

    /// During this time it dies over and over: gone for the first half of each `period`, back for the second.
    ///
    /// # Panics
    ///
    /// Where `period` is zero.
    #[must_use]
    pub fn flapping(mut self, period: Duration, during: Range<Duration>) -> Self {
        assert!(!period.is_zero(), "a server cannot flap with a period of zero");
        let mut down = during.start;
        while down < during.end {
            self = self.dead(down..(down + period / 2).min(during.end));
            down += period;
        }
        self
    }

    /// Its process is stopped during this time: it keeps its sockets and answers nothing, and goes on with its calls
    /// afterwards.
    #[must_use]
    pub fn frozen(mut self, during: Range<Duration>) -> Self {
        self.frozen.push(span(&during));
        self.frozen.sort_by_key(|span| span.start);
        self
    }

    /// Its health service says `NOT_SERVING` during this time; calls to it fare as ever.
    #[must_use]
    pub fn not_serving(mut self, during: Range<Duration>) -> Self {
        self.not_serving.push(span(&during));
        self
    }

    pub(crate) fn priority(&self) -> u32 {
        self.priority
    }

    /// The work of one call.
    pub(crate) fn work(&self, entropy: &mut Entropy) -> Duration {
        entropy.jitter(self.service_time, 0.5)
    }

    /// When `work` that begins at `at` is done, in view of the times when the process stands still.
    pub(crate) fn done_at(&self, at: Time, work: Duration) -> Time {
        let (mut at, mut left) = (at, work);
        for frozen in &self.frozen {
            if at + left < frozen.start || frozen.end <= at {
                continue;
            }
            left -= frozen.start.since(at);
            at = frozen.end;
        }
        at + left
    }

    pub(crate) fn is_dead(&self, at: Time) -> bool {
        self.dead.iter().any(|span| span.contains(&at))
    }

    pub(crate) fn is_serving(&self, at: Time) -> bool {
        !self.not_serving.iter().any(|span| span.contains(&at))
    }

    /// The moments when its process dies.
    pub(crate) fn deaths(&self) -> impl Iterator<Item = Time> {
        self.dead.iter().map(|span| span.start)
    }

    /// The moments when its health changes.
    pub(crate) fn health_changes(&self) -> impl Iterator<Item = Time> {
        self.not_serving.iter().flat_map(|span| [span.start, span.end])
    }
}

fn span(during: &Range<Duration>) -> Range<Time> {
    Time::ZERO + during.start..Time::ZERO + during.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + secs(seconds)
    }

    #[test]
    fn frozen_time_does_no_work() {
        let server = Server::new(secs(1)).frozen(secs(20)..secs(30)).frozen(secs(5)..secs(10));
        assert_eq!(server.done_at(at(1), secs(2)), at(3), "before");
        assert_eq!(server.done_at(at(4), secs(2)), at(11), "across");
        assert_eq!(server.done_at(at(7), secs(0)), at(10), "within");
        assert_eq!(server.done_at(at(4), secs(12)), at(31), "across both");
        assert_eq!(server.done_at(at(40), secs(1)), at(41), "after");
    }

    #[test]
    fn flapping_is_dying_over_and_over() {
        let server = Server::new(secs(1)).flapping(secs(4), secs(10)..secs(17));
        assert_eq!(server.deaths().collect::<Vec<_>>(), [at(10), at(14)]);
        let dead: Vec<_> = (9..18).filter(|&second| server.is_dead(at(second))).collect();
        assert_eq!(dead, [10, 11, 14, 15]);
    }
}
