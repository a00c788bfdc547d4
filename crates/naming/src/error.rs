use evenkeel_balance::Status;

/// Why a resolver has no new list: what failed, where, and how.
///
/// It never means that endpoints are gone. The channel keeps its last list, and the resolver keeps trying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ResolveError {
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// A sentence for a person.
    pub message: String,
}

impl ResolveError {
    /// An error of any kind. Two equal errors in a row are reported once, so leave times and counts out of `message`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The kinds of [`ResolveError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The name (NXDOMAIN) or the file does not exist.
    NotFound,
    /// The name exists and has no address.
    NoAddresses,
    /// No answer came in time.
    TimedOut,
    /// A server answered that it failed or refuses, such as SERVFAIL.
    Server,
    /// No server could be asked: no configuration, no network, a malformed answer. Or a file cannot be read.
    Unreachable,
    /// What was found is malformed: a service config's record, or a file.
    Invalid,
}

/// What calls fail with while there never was a list.
impl From<ResolveError> for Status {
    fn from(error: ResolveError) -> Self {
        Self::unavailable(error.message)
    }
}
