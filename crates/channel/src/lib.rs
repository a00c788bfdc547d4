//! A load-balancing gRPC channel for tonic's generated clients.
//!
//! [`Channel`] is the whole of it for a user. Inside, in the order of a call's life: `call` places it by the picker of
//! a `snapshot` and makes its attempts, `request` sends it, `transport` carries it, `body` reads the response, and
//! `following` sees to what must happen when it ends. Beside that, in the order of a change's life: `connection` and
//! `health_watch` and `load_watch` (over a `server_stream`) see it and send a `message`, `driver` feeds it to the balancing core (`evenkeel-balance`) and publishes
//! the next snapshot and [`Report`]. `shared` is what both sides hold.

mod body;
mod builder;
mod call;
mod cascade;
mod channel;
mod clock;
mod connection;
mod deadline;
mod driver;
mod explain;
mod following;
mod framing;
mod health_watch;
mod lanes;
mod load_report;
mod load_watch;
mod message;
mod method;
mod metrics;
mod overrides;
mod report;
mod request;
mod server_stream;
mod shared;
mod snapshot;
mod socket;
mod tally;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod wire_status;

pub use body::ResponseBody;
pub use builder::{BuildError, Builder};
pub use cascade::{DeadlineBody, DeadlineFuture, DeadlineLayer, WithDeadline};
pub use channel::{Channel, WeakChannel};
pub use explain::Explanation;
pub use overrides::{CallPriority, HashKey, PinnedTo, WaitForReady};
pub use report::Report;
pub use request::ReplayLimits;
pub use socket::{SocketReport, StreamCounts};
pub use tally::CallCounts;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};

pub use evenkeel_balance as balance;
pub use evenkeel_naming as naming;
