//! What calls on several threads share is made of this. `loom/` compiles the same sources with primitives of its own, and
//! tries every order of events.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};

pub(crate) use tokio::sync::oneshot;
