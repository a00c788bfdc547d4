//! Serves tonic's services over connections that gRPC's own servers would keep: they reach an age, are left when idle,
//! are kept alive, have limits, and a client that PINGs too often is told to slow down.
//!
//! ```no_run
//! # use evenkeel_proto::demo::echo_server::{Echo, EchoServer};
//! # async fn serve(echo: impl Echo) -> std::io::Result<()> {
//! use std::time::Duration;
//!
//! use evenkeel_server::{Listener, Server};
//! use tonic::service::Routes;
//!
//! let listener = Listener::bind("[::]:50051".parse().expect("an address")).await?;
//! let routes = Routes::new(EchoServer::new(echo));
//! Server::new(listener, routes).max_connection_age(Duration::from_secs(30 * 60)).serve().await
//! # }
//! ```
//!
//! Any tower service that tonic could serve can be served, so tower's layers are put around the routes. What tonic puts
//! around them is there: the connection's addresses in a request's extensions, and the caller's deadline (here for the whole
//! call, not only up to its response's head). A [`ConnectionId`] is in the extensions, too.
//!
//! # Hostile clients
//! One that does not speak HTTP/2 within [`Server::handshake_timeout`] is closed; streams of a connection, connections and
//! header lists are limited. Beyond that the limits of the `h2` crate hold, against rapid resets and floods of
//! CONTINUATION, for example.

mod accept;
mod connection;
mod deadline;
mod facts;
mod identity;
mod lifetime;
mod listener;
mod metrics;
mod server;
mod settings;
#[cfg(feature = "tls")]
mod tls;
mod wire;

pub use identity::ConnectionId;
pub use listener::Listener;
pub use server::Server;
pub use wire::PermittedPings;
