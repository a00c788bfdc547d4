//! Why a case did not hold.

use std::fmt::Debug;

use evenkeel_channel::BuildError;
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("a call failed with {:?}: {}", .0.code(), .0.message())]
    Call(#[from] Status),
    #[error("the channel cannot be built: {0}")]
    Channel(#[from] BuildError),
    #[error("{failed} calls failed, and {allowed} may; the last: {last}")]
    Soak { failed: u32, allowed: u32, last: Box<Failure> },
    #[error("{what}: got {got}, want {wanted}")]
    Unexpected { what: &'static str, got: String, wanted: String },
}

/// What a case comes to.
pub(crate) type Outcome = Result<(), Failure>;

/// Fails unless `got` is what is wanted.
pub(crate) fn expect<T: PartialEq + Debug>(what: &'static str, got: &T, wanted: &T) -> Outcome {
    if got == wanted {
        return Ok(());
    }
    Err(unexpected(what, got, wanted))
}

/// Fails unless the call failed with this code.
pub(crate) fn expect_code<T: Debug>(
    what: &'static str,
    ended: Result<T, Status>,
    code: Code,
) -> Result<Status, Failure> {
    match ended {
        Err(status) if status.code() == code => Ok(status),
        other => Err(unexpected(what, &other, &code)),
    }
}

pub(crate) fn unexpected(what: &'static str, got: &impl Debug, wanted: &impl Debug) -> Failure {
    Failure::Unexpected { what, got: format!("{got:?}"), wanted: format!("{wanted:?}") }
}
