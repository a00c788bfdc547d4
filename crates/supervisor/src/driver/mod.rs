//! Does what is decided: processes, checks, and the endpoints that take calls.
//!
//! One task owns the [`Supervisor`](crate::Supervisor) and turns its actions into deeds (`engine`). Each start of a
//! replica has a task of its own (`tend`), which tells what becomes of the process. Others hold a [`Handle`].

mod engine;
mod handle;
mod launch;
mod tend;

pub use engine::start;
pub use handle::{Ended, Handle};
