//! What is decided: a state machine without a clock, entropy, processes or sockets.
//!
//! [`Supervisor`] holds every service and its replicas. Its driver passes in an [`Input`] for each thing that happens,
//! does each [`Action`] that comes out, and calls [`handle_timeout`](Supervisor::handle_timeout) at
//! [`next_timeout`](Supervisor::next_timeout). The life of one replica is in `replica`, the order of many in `service`,
//! and the restart of all of them in `roll`.

mod action;
#[cfg(test)]
mod clock;
mod name;
mod order;
mod promotion;
mod replica;
mod roll;
mod service;
mod state;
mod status;
mod supervisor;
#[cfg(test)]
mod tests;

pub use action::{Action, Input, Level, Note, Published};
pub use name::{ReplicaName, RunId};
pub use order::{Order, OrderError};
pub use status::{ReplicaStatus, ServiceStatus};
pub use supervisor::Supervisor;
