//! A gRPC proxy: each call of each client connection is placed by Evenkeel's channel on its own.
//!
//! In the order of a call: `listener` accepts the connection, `server` speaks HTTP/2 with the client, `relay` hands
//! each call to the [`Channel`](evenkeel_channel::Channel) and its response back. Nothing is buffered whole: a side
//! that reads slowly slows the side that sends.

mod listener;
mod relay;
mod server;

pub use listener::Proxy;
pub use server::Settings;
