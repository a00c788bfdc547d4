//! Evenkeel keeps gRPC services available and steady. This is the library for services built on tonic.
//!
//! # Calling a service
//!
//! [`Channel`] spreads the calls of a generated client over the healthy instances of a service, call by call:
//!
//! ```no_run
//! # use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#;
//! let channel = evenkeel::Channel::builder("dns:///echo.internal:50051").service_config(config)?.build()?;
//! let mut client = EchoClient::new(channel);
//!
//! let reply = client.unary(EchoRequest { message: "hello".to_owned(), ..Default::default() }).await?;
//! # Ok(()) }
//! ```
//!
//! # Serving one
//!
//! [`health`] tells callers whether the service can take calls, and drains it so that a restart fails none:
//!
//! ```no_run
//! # use evenkeel_proto::demo::echo_server::{Echo, EchoServer};
//! # async fn serve(address: std::net::SocketAddr, echo: impl Echo) -> Result<(), Box<dyn std::error::Error>> {
//! let (reporter, health) = evenkeel::health::service();
//! let server = tonic::transport::Server::builder().add_service(health).add_service(EchoServer::new(echo));
//! reporter.drain_on_signal(Default::default())?.run(|drained| server.serve_with_shutdown(address, drained)).await?;
//! # Ok(()) }
//! ```
//!
//! [`server`] serves over connections that have an age and limits, and [`health::self_check`] has the service look after
//! what it needs:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use evenkeel_proto::demo::echo_server::{Echo, EchoServer};
//! # async fn serve<E: Echo>(listener: tokio::net::TcpListener, echo: E) -> Result<(), Box<dyn std::error::Error>> {
//! use evenkeel::health::self_check::{needs, tcp};
//!
//! let (reporter, health) = evenkeel::health::service();
//! let checks = reporter.self_checks().check("database", tcp("db.internal:5432").every(Duration::from_secs(5)));
//! let _running = checks.service::<EchoServer<E>>(needs(["database"])).start()?;
//!
//! let routes = tonic::service::Routes::new(health).add_service(EchoServer::new(echo));
//! let server = evenkeel::server::Server::new(listener, routes).max_connection_age(Duration::from_secs(30 * 60));
//! reporter.drain_on_signal(Default::default())?.run(|drained| server.serve_with_shutdown(drained)).await?;
//! # Ok(()) }
//! ```
//!
//! [`orca`] tells them how busy it is, by which they give busy servers fewer calls:
//!
//! ```no_run
//! # use evenkeel_proto::demo::echo_server::{Echo, EchoServer};
//! # async fn serve(address: std::net::SocketAddr, echo: impl Echo) -> Result<(), tonic::transport::Error> {
//! let load = evenkeel::orca::Recorder::new();
//! let server = tonic::transport::Server::builder().layer(load.layer()).add_service(load.service());
//! server.add_service(EchoServer::new(echo)).serve(address).await
//! # }
//! ```

pub use evenkeel_channel::{
    BuildError, Builder, CallPriority, Channel, ConnectProxy, ConnectProxyError, DeadlineLayer, Explanation, HashKey,
    PinnedTo, ReplayLimits, Report, ResponseBody, WaitForReady, balance, checker, naming,
};

#[cfg(feature = "tls")]
pub use evenkeel_channel::{Tls, TlsError};

/// channelz (gRFC A14): what the process's channels are doing, for `grpcdebug`.
pub mod channelz {
    pub use evenkeel_channelz::*;
}

/// The `grpc.health.v1` service: reporter, Check, Watch, List, self-checks and drain.
pub mod health {
    pub use evenkeel_health::*;
}

/// Load reports (ORCA): in each call's trailers, and on a stream of their own.
pub mod orca {
    pub use evenkeel_orca::*;
}

/// A server whose connections reach an age, are kept alive, and are limited; for any service that tonic could serve.
pub mod server {
    pub use evenkeel_server::*;
}
