//! The event loop with real sockets and an engine that is a toy.

mod dialling;
mod ending;
mod running;
mod tls;
mod toy;
mod traffic;
