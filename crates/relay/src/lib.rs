//! An HTTP/2 relay engine for gRPC.
//!
//! Its protocol layer is sans-IO: bytes and time come in, bytes and events go out. No sockets, no clock, no tasks. Only
//! [`driver`] has those: an event loop a core, which knows an [`Engine`](engine::Engine) and no HTTP/2.
//!
//! From the wire up: `frame` and `fields` are what bytes mean, [`hpack`] packs header lists, a [`connection`] is one peer's
//! HTTP/2 in either role, [`message`] is what gRPC asks of it, and a [`relay`] pairs the streams of clients with those of
//! endpoints.

pub mod connection;
pub mod driver;
pub mod engine;
pub mod fields;
pub mod frame;
pub mod hpack;
pub mod message;
pub mod relay;
