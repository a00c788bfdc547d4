use std::time::Duration;

use crate::{Backoff, Entropy, Time, time::earliest};

/// The further connections of a subchannel, beside its first one (gRFC A105): made one at a time, when the calls of all
/// that there are have taken every stream that the server allows.
#[derive(Debug, Default)]
pub(crate) struct Further {
    /// By the numbers of their attempts, the oldest first.
    connections: Vec<u32>,
    /// The attempt under way, and when it has taken too long.
    attempt: Option<(u32, Time)>,
    /// Failed attempts in a row, and when there may be another.
    failures: u32,
    not_before: Option<Time>,
    /// Calls have asked for a connection that may not be tried yet.
    is_wanted: bool,
}

/// What has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FurtherEnd {
    Attempt,
    Connection,
}

impl Further {
    /// Calls wait for streams. Whether an attempt may start now, where `most` connections are allowed beside the first.
    pub(crate) fn ask(&mut self, now: Time, most: usize) -> bool {
        if self.attempt.is_some() || self.connections.len() >= most {
            return false;
        }
        self.is_wanted = self.not_before.is_some_and(|at| at > now);
        !self.is_wanted
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether an attempt is under way.
    pub(crate) fn is_trying(&self) -> bool {
        self.attempt.is_some()
    }

    /// The attempt under way, if it would be one more than `most`: to be given up.
    pub(crate) fn superfluous(&mut self, most: usize) -> Option<u32> {
        let one_more = self.connections.len() >= most;
        self.attempt.take_if(|_| one_more).map(|(attempt, _)| attempt)
    }

    pub(crate) fn start(&mut self, attempt: u32, deadline: Time) {
        self.attempt = Some((attempt, deadline));
        (self.not_before, self.is_wanted) = (None, false);
    }

    /// Whether `attempt` was the one under way, which has made its connection.
    pub(crate) fn connected(&mut self, attempt: u32) -> bool {
        let is_ours = self.attempt.take_if(|(under_way, _)| *under_way == attempt).is_some();
        if is_ours {
            self.connections.push(attempt);
            self.failures = 0;
        }
        is_ours
    }

    /// What `attempt` was if it was one of these, which has failed or whose connection has ended.
    pub(crate) fn ended(
        &mut self,
        now: Time,
        attempt: u32,
        backoff: &Backoff,
        entropy: &mut Entropy,
    ) -> Option<FurtherEnd> {
        if self.attempt.take_if(|(under_way, _)| *under_way == attempt).is_some() {
            self.failures = self.failures.saturating_add(1);
            let delay: Duration = backoff.delay(self.failures, entropy);
            self.not_before = Some(now + delay);
            return Some(FurtherEnd::Attempt);
        }
        let place = self.connections.iter().position(|&connection| connection == attempt)?;
        self.connections.remove(place);
        Some(FurtherEnd::Connection)
    }

    /// The oldest, which becomes the first.
    pub(crate) fn promote(&mut self) -> Option<u32> {
        (!self.connections.is_empty()).then(|| self.connections.remove(0))
    }

    /// All of them, and the attempt under way, to be closed.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = u32> + use<> {
        let all = std::mem::take(self);
        all.connections.into_iter().chain(all.attempt.map(|(attempt, _)| attempt))
    }

    /// The attempt that has taken too long.
    pub(crate) fn overdue(&self, now: Time) -> Option<u32> {
        self.attempt.filter(|(_, deadline)| *deadline <= now).map(|(attempt, _)| attempt)
    }

    /// Whether a connection that calls have asked for may be tried now.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.is_wanted && self.not_before.is_some_and(|at| at <= now)
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let retry = self.not_before.filter(|_| self.is_wanted);
        earliest(self.attempt.map(|(_, deadline)| deadline), retry)
    }
}
