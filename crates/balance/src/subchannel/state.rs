use std::{sync::Arc, time::Duration};

use super::{
    checked::Checked,
    id::{ConnectionId, SubchannelId},
};
use crate::{Address, Connectivity, Load, Time, further::Further, health::Health, time::earliest};

/// What is known of a subchannel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubchannelState {
    /// The state of the connection alone: what `pick_first` goes by (gRFC A17 keeps health from it).
    pub connection: Connectivity,
    /// The connection's state with health, progress, ejections and trust taken into account: what petiole policies go
    /// by.
    pub service: Connectivity,
    /// What `service` would be if no policy trusted the address in spite of its condition.
    pub untrusted: Connectivity,
    /// Whether the connection is up and has fallen silent, which is why `service` is CONNECTING.
    pub stalled: bool,
    /// Since when `service` is READY, or since when it is not: the steps of a reconnect do not count.
    pub since: Time,
    /// Why: the last error, the health report, or how it came to be connected.
    pub reason: String,
}

/// One address and the state of its connection.
#[derive(Debug)]
pub(super) struct Subchannel {
    pub(super) address: Address,
    /// How many policies hold it.
    pub(super) holders: u32,
    /// Names the attempt or connection that the state is about: the first one.
    pub(super) attempt: u32,
    /// How many attempts there have been.
    pub(super) attempts: u32,
    pub(super) further: Further,
    /// Failed attempts since the last useful connection.
    pub(super) failures: u32,
    /// Since when the address is known.
    pub(super) created: Time,
    /// When the last connection that carried calls was lost.
    pub(super) lost_at: Option<Time>,
    pub(super) state: State,
    pub(super) since: Time,
    pub(super) reason: String,
    /// The state that the decision log has.
    pub(super) noted: Connectivity,
    pub(super) opinion: Opinion,
    pub(super) checked: Option<Checked>,
    /// How often the server is to report its load out of band.
    pub(super) load_interval: Option<Duration>,
    pub(super) load: Arc<Load>,
}

/// What policies hold against an address or for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Opinion {
    /// Ejections in force, and the reason for the last one.
    pub(super) ejections: u32,
    pub(super) reason: String,
    /// Policies that would rather have this endpoint than none.
    pub(super) trusted: u32,
}

#[derive(Debug)]
pub(super) enum State {
    Idle,
    Connecting { deadline: Time },
    Ready(Box<Ready>),
    TransientFailure { retry_at: Time },
}

/// What is known of a live connection.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) health: Health,
    pub(super) stalled: Option<String>,
    pub(super) since: Time,
    /// Calls begun on the subchannel before this connection.
    pub(super) started: u64,
}

impl Ready {
    pub(super) fn connectivity(&self) -> Connectivity {
        match self.health.connectivity() {
            // A silent connection may yet speak: its calls queue rather than fail while nothing better is there.
            Connectivity::Ready if self.stalled.is_some() => Connectivity::Connecting,
            health => health,
        }
    }

    pub(super) fn reason(&self) -> String {
        self.stalled.clone().unwrap_or_else(|| format!("connected; {}", self.health))
    }
}

impl Subchannel {
    pub(super) fn new(now: Time, address: Address, opinion: Opinion) -> Self {
        Self {
            address,
            holders: 1,
            attempt: 0,
            attempts: 0,
            further: Further::default(),
            failures: 0,
            created: now,
            lost_at: None,
            state: State::Idle,
            since: now,
            reason: "not connected yet".to_owned(),
            noted: Connectivity::Idle,
            opinion,
            checked: None,
            load_interval: None,
            load: Arc::default(),
        }
    }

    pub(super) fn next_attempt(&mut self) -> u32 {
        self.attempts = self.attempts.wrapping_add(1);
        self.attempts
    }

    /// The one place where the connection's state changes.
    pub(super) fn become_(&mut self, now: Time, state: State, reason: String) {
        let before = self.service();
        self.state = state;
        self.reason = reason;
        self.note_service(now, before);
    }

    pub(super) fn note_service(&mut self, now: Time, before: Connectivity) {
        let ready = Connectivity::Ready;
        if (before == ready) != (self.service() == ready) {
            self.since = now;
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        let check = self.checked.as_ref().and_then(|checked| checked.check().next_timeout());
        earliest(earliest(self.own_timeout(), check), self.further.next_timeout())
    }

    pub(super) fn own_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Idle => None,
            State::Connecting { deadline } => Some(*deadline),
            State::TransientFailure { retry_at } => Some(*retry_at),
            State::Ready(ready) => ready.health.next_timeout(),
        }
    }

    /// The attempt or connection under way, if there is one.
    pub(super) fn connection(&self, subchannel: SubchannelId) -> Option<ConnectionId> {
        matches!(self.state, State::Connecting { .. } | State::Ready(_))
            .then_some(ConnectionId { subchannel, attempt: self.attempt })
    }

    pub(super) fn state(&self) -> SubchannelState {
        SubchannelState {
            connection: self.raw(),
            service: self.service(),
            untrusted: self.untrusted(),
            stalled: self.is_stalled(),
            since: self.since,
            reason: self.reason(),
        }
    }

    /// Why its state is what it is, by the same precedence.
    fn reason(&self) -> String {
        match &self.state {
            _ if self.opinion.ejections > 0 => self.opinion.reason.clone(),
            State::Ready(ready) if ready.connectivity() == Connectivity::Ready => {
                let objection = self.checked.as_ref().and_then(Checked::objection);
                objection.unwrap_or_else(|| self.reason.clone())
            }
            _ => self.reason.clone(),
        }
    }

    pub(super) fn is_stalled(&self) -> bool {
        matches!(&self.state, State::Ready(ready) if ready.stalled.is_some())
    }

    pub(super) fn raw(&self) -> Connectivity {
        match self.state {
            State::Idle => Connectivity::Idle,
            State::Connecting { .. } => Connectivity::Connecting,
            State::Ready(_) => Connectivity::Ready,
            State::TransientFailure { .. } => Connectivity::TransientFailure,
        }
    }

    pub(super) fn service(&self) -> Connectivity {
        match &self.state {
            State::Ready(_) if self.opinion.trusted > 0 => Connectivity::Ready,
            _ => self.untrusted(),
        }
    }

    pub(super) fn untrusted(&self) -> Connectivity {
        match &self.state {
            State::Ready(_) if self.opinion.ejections > 0 => Connectivity::TransientFailure,
            State::Ready(ready) => match (ready.connectivity(), &self.checked) {
                (Connectivity::Ready, Some(checked)) => checked.connectivity(),
                (connectivity, _) => connectivity,
            },
            _ => self.raw(),
        }
    }
}
