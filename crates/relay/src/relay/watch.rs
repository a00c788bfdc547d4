//! A connection to an endpoint, watched for silence.

use std::sync::Arc;

use evenkeel_balance::{
    ConnectionId, Keepalive, KeepaliveSettings, KeepaliveVerdict, Load, Progress, ProgressSettings, Suspicion, Time,
    Traffic, Verdict,
};

/// What the relay knows of a connection to an endpoint beside what HTTP/2 does.
#[derive(Debug)]
pub(crate) struct Line {
    /// The connection by which the balancer knows the endpoint.
    pub(crate) id: ConnectionId,
    pub(crate) since: Time,
    /// Whether a call has gone over it.
    pub(crate) has_carried: bool,
    progress: Progress,
    suspicion: Suspicion,
    /// Calls no longer go here: what becomes of those that run says nothing of the endpoint.
    is_left: bool,
    keepalive: Keepalive,
    unanswered_since: Option<Time>,
    received_at: Time,
    replied_at: Time,
    /// A PING is on its way.
    is_probing: bool,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Well,
    Ping,
    Stalled { silent_since: Time },
    Recovered,
    Dead(&'static str),
}

impl Line {
    pub(crate) fn new(
        now: Time,
        id: ConnectionId,
        load: Arc<Load>,
        (progress, keepalive): (ProgressSettings, KeepaliveSettings),
    ) -> Self {
        Self {
            id,
            since: now,
            has_carried: false,
            progress: Progress::new(progress),
            suspicion: Suspicion::new(load),
            is_left: false,
            keepalive: Keepalive::new(keepalive),
            unanswered_since: None,
            received_at: now,
            replied_at: Time::ZERO,
            is_probing: false,
        }
    }

    /// A call is being sent, beside so many others.
    pub(crate) fn sent(&mut self, now: Time, others: usize) {
        self.has_carried = true;
        if others == 0 || self.unanswered_since.is_none() {
            self.unanswered_since = Some(now);
        }
    }

    /// Bytes have come.
    pub(crate) fn received(&mut self, now: Time) {
        self.received_at = now;
        // After the answer to a PING, silence is the server taking its time; after anything else it may be a hang.
        let answered = std::mem::take(&mut self.is_probing);
        self.unanswered_since = if answered { None } else { Some(now) };
    }

    /// Head or data of a response have come.
    pub(crate) fn replied(&mut self) {
        self.replied_at = self.received_at;
    }

    /// Whether the peer owes a sign of life.
    pub(crate) fn is_suspect(&self) -> bool {
        self.progress.is_suspect()
    }

    /// No more calls go here: there is another connection, or none.
    pub(crate) fn leave(&mut self) {
        self.is_left = true;
        self.suspicion.set(false);
    }

    /// Judges the connection, on which so many streams are open.
    pub(crate) fn judge(&mut self, now: Time, streams: usize) -> Watched {
        let in_use = streams > 0;
        let ping = match self.keepalive.judge(now, self.received_at, in_use) {
            KeepaliveVerdict::Dead => return Watched::Dead("keepalive: no answer to a PING"),
            KeepaliveVerdict::Ping => true,
            KeepaliveVerdict::Well => false,
        };
        let traffic = Traffic {
            unanswered_since: self.unanswered_since.filter(|_| in_use),
            received_at: self.received_at,
            replied_at: self.replied_at,
        };
        let judged = match self.progress.judge(now, &traffic) {
            Verdict::Well if ping => Watched::Ping,
            Verdict::Well => Watched::Well,
            Verdict::Probe => Watched::Ping,
            Verdict::Stalled => {
                Watched::Stalled { silent_since: traffic.unanswered_since.unwrap_or(traffic.received_at) }
            }
            Verdict::Recovered => Watched::Recovered,
            Verdict::Dead => Watched::Dead("no byte came while calls were outstanding"),
        };
        self.is_probing |= judged == Watched::Ping;
        self.suspicion.set(!self.is_left && self.progress.is_suspect());
        judged
    }
}
