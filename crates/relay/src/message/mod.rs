//! What gRPC requires of messages, beyond what HTTP/2 does of their frames.

mod lengths;
mod request;
mod status;
mod timeout;

pub use lengths::{Lengths, TooLong};
pub use request::{Refusal, Request};
pub use status::{HeadStatus, write_status};
pub use timeout::{Timeout, write_timeout};
