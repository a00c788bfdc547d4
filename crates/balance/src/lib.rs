//! Evenkeel's balancing core: policies, pickers and connectivity as pure state machines.

mod endpoint;
mod status;

pub use endpoint::{Address, Endpoint};
pub use status::{Code, Status};
