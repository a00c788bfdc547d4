//! An HTTP/2 relay engine for gRPC.
//!
//! Its protocol layer is sans-IO: bytes and time come in, bytes and events go out. No sockets, no clock, no tasks. Only
//! [`driver`] has those: an event loop a core, which knows an [`Engine`](engine::Engine) and no HTTP/2.

pub mod driver;
pub mod engine;
pub mod connection;
pub mod fields;
pub mod frame;
pub mod hpack;
pub mod message;
