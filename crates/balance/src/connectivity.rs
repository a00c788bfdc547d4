use std::fmt;

/// The state of a subchannel or a channel (gRPC's connectivity semantics).
///
/// ```text
///            connect()             connected
///   IDLE ─────────────► CONNECTING ─────────► READY
///    ▲                    │    ▲                │ connection lost, GOAWAY
///    │ backoff is over    ▼    │                │
///    ├──────── TRANSIENT_FAILURE                │
///    └──────────────────────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connectivity {
    /// No connection and none wanted yet.
    Idle,
    /// A connection is being made, or a made one has yet to prove that it serves.
    Connecting,
    /// Calls can be sent.
    Ready,
    /// The last attempt failed; the next one waits for its backoff.
    TransientFailure,
}

impl Connectivity {
    /// The state of a group whose members are in `states` (gRFC A61): READY if any is; else CONNECTING if any is;
    /// else IDLE if any is; else, also for no members at all, `TRANSIENT_FAILURE`.
    pub fn aggregate(states: impl IntoIterator<Item = Self>) -> Self {
        let mut most_useful = Self::TransientFailure;
        for state in states {
            if state == Self::Ready {
                // Groups may be large, and this is what they mostly are.
                return state;
            }
            if state.precedence() < most_useful.precedence() {
                most_useful = state;
            }
        }
        most_useful
    }

    fn precedence(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Connecting => 1,
            Self::Idle => 2,
            Self::TransientFailure => 3,
        }
    }

    /// gRPC's name, such as `TRANSIENT_FAILURE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Connecting => "CONNECTING",
            Self::Ready => "READY",
            Self::TransientFailure => "TRANSIENT_FAILURE",
        }
    }
}

impl fmt::Display for Connectivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Connectivity::{self, Connecting, Idle, Ready, TransientFailure};

    #[test]
    fn a61_aggregation_prefers_the_most_useful_state() {
        assert_eq!(Connectivity::aggregate([TransientFailure, Idle, Connecting, Ready]), Ready);
        assert_eq!(Connectivity::aggregate([TransientFailure, Idle, Connecting]), Connecting);
        assert_eq!(Connectivity::aggregate([TransientFailure, Idle]), Idle);
        assert_eq!(Connectivity::aggregate([TransientFailure]), TransientFailure);
        assert_eq!(Connectivity::aggregate([]), TransientFailure);
    }
}
