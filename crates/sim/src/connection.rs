use std::collections::BTreeSet;

use evenkeel_balance::{Progress, ProgressSettings, Time, Traffic, Verdict};

/// A simulated connection, or the attempt to make it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Where it leads.
    pub(crate) server: usize,
    pub(crate) state: State,
    /// Whether it carries a health Watch.
    pub(crate) watches: bool,
    /// The calls that it carries.
    pub(crate) calls: BTreeSet<usize>,
    progress: Progress,
    traffic: Traffic,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Dialling,
    Open,
    /// Closed by the core, and waiting for its last calls.
    Draining,
}

impl Connection {
    pub(crate) fn new(server: usize, settings: ProgressSettings) -> Self {
        Self {
            server,
            state: State::Dialling,
            watches: false,
            calls: BTreeSet::new(),
            progress: Progress::new(settings),
            traffic: Traffic::default(),
        }
    }

    /// A call has been sent.
    pub(crate) fn sent(&mut self, now: Time, call: usize) {
        self.calls.insert(call);
        self.traffic.unanswered_since.get_or_insert(now);
    }

    /// The reply to a call has come in.
    pub(crate) fn replied(&mut self, now: Time, call: usize) {
        self.calls.remove(&call);
        self.traffic.replied_at = now;
        self.heard(now);
    }

    /// Some byte has come in.
    pub(crate) fn heard(&mut self, now: Time) {
        self.traffic.received_at = now;
        self.traffic.unanswered_since = None;
    }

    /// Whether the peer is alive, as far as one can tell.
    pub(crate) fn judge(&mut self, now: Time) -> Verdict {
        self.progress.judge(now, &self.traffic)
    }

    /// When to judge again if nothing is heard until then.
    pub(crate) fn judge_at(&self) -> Option<Time> {
        self.progress.next_timeout(&self.traffic)
    }
}
