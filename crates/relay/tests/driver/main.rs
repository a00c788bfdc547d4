//! The event loop with real sockets and an engine that is a toy.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod certificates;
mod dialling;
mod ending;
mod running;
mod tls;
mod toy;
mod traffic;
