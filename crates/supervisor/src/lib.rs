//! Runs services as child processes: starts, watches, restarts and stops them.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "evenkeel-supervisor runs on Linux alone: it finds every process of a service through /proc, \
     as its subreaper, which other systems do not have"
);

pub mod control;
mod decide;
mod driver;
pub mod process;

pub use decide::{
    Action, Input, Level, Note, Order, OrderError, Published, ReplicaName, ReplicaStatus, RunId, ServiceStatus,
    Supervisor,
};
pub use driver::{Ended, Handle, start};
