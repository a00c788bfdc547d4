use std::fmt;

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// It answered as a healthy thing does: SERVING, or whatever stands for that in another protocol.
    Serving,
    /// It says of itself that it does not serve.
    NotServing,
    /// It answered that it does not know the service that was asked about.
    ServiceUnknown,
    /// There was no answer of use.
    Failed(CheckFailure),
    /// The peer left the connection in an orderly way before it answered (GOAWAY, or the end of a kept HTTP/1.1
    /// connection): that says nothing of its health.
    Drained,
}

impl CheckOutcome {
    /// The value of a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NotServing => "not_serving",
            Self::ServiceUnknown => "service_unknown",
            Self::Failed(failure) => failure.kind.label(),
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving => f.write_str("SERVING"),
            Self::NotServing => f.write_str("NOT_SERVING"),
            Self::ServiceUnknown => f.write_str("SERVICE_UNKNOWN"),
            Self::Failed(failure) => failure.fmt(f),
            Self::Drained => f.write_str("the peer left the connection before it answered"),
        }
    }
}

/// What a driver that probes for the core has to tell of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckNews {
    /// The probe that was asked for has ended.
    Ended(CheckOutcome),
    /// The server says so of itself, unasked, as a health Watch does.
    Said(Statement),
    /// What the probes go over broke between two of them: the next one is due.
    Lost,
}

/// What a server says of itself; see [`Check::hear`](crate::Check::hear).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// It serves.
    Serving,
    /// It does not.
    NotServing,
    /// It does not know the service.
    ServiceUnknown,
}

impl From<Statement> for CheckOutcome {
    fn from(statement: Statement) -> Self {
        match statement {
            Statement::Serving => Self::Serving,
            Statement::NotServing => Self::NotServing,
            Statement::ServiceUnknown => Self::ServiceUnknown,
        }
    }
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct CheckFailure {
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// What failed, at which step, in words for a person.
    pub detail: String,
}

impl CheckFailure {
    /// A failure of any kind.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// The kinds of failure of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// Nobody listens.
    Refused,
    /// The address cannot be reached, or this machine could not try.
    Unreachable,
    /// No answer within the time-out.
    TimedOut,
    /// The TLS handshake failed.
    Tls,
    /// The connection was reset or closed without a word.
    Closed,
    /// What came is not the protocol that was expected.
    Protocol,
    /// The answer is a status that does not pass.
    Status,
}

impl FailureKind {
    /// The value of a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Status => "status",
        }
    }
}

/// The calls to a thing that ended since its probe before, as its user counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallsSeen {
    /// Those that went well.
    pub succeeded: u64,
    /// Those that failed as a failing server makes them fail.
    pub failed: u64,
}

impl CallsSeen {
    /// No calls at all: checks alone decide.
    pub const NONE: Self = Self { succeeded: 0, failed: 0 };

    /// Whether they speak for the thing: more went well than failed.
    pub fn vouch(&self) -> bool {
        self.succeeded > self.failed
    }
}
