//! A load-balancing gRPC channel for tonic's generated clients.
//!
//! [`Channel`] is the whole of it for a user.
//!
//! # Layers and interceptors
//!
//! A channel is a [`tower_service::Service`], and everything that wraps one wraps it: the layers of tower and
//! `tower-http`, and tonic's interceptors. What they do, they do once for each call, however often it is retried or hedged
//! inside. A layer that adds a header:
//!
//! ```no_run
//! # use evenkeel_proto::demo::echo_client::EchoClient;
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use http::{HeaderValue, Request, header::AUTHORIZATION};
//!
//! let token = HeaderValue::from_static("Bearer …");
//! let channel = evenkeel_channel::Channel::builder("dns:///echo.internal:50051").build()?;
//! let service = tower::ServiceBuilder::new()
//!     .map_request(move |mut request: Request<tonic::body::Body>| {
//!         request.headers_mut().insert(AUTHORIZATION, token.clone());
//!         request
//!     })
//!     .service(channel);
//! let client = EchoClient::new(service);
//! # Ok(()) }
//! ```
//!
//! An interceptor is the shorter way where only metadata and extensions matter. [`HashKey`], [`WaitForReady`] and
//! [`PinnedTo`] are such extensions, and so hold for every call of a client:
//!
//! ```no_run
//! # use evenkeel_proto::demo::echo_client::EchoClient;
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use evenkeel_channel::{Channel, HashKey, WaitForReady};
//! use tonic::{Request, Status};
//!
//! let channel = Channel::builder("dns:///echo.internal:50051").policy("ring_hash").build()?;
//! let client = EchoClient::with_interceptor(channel, |mut request: Request<()>| {
//!     let user = request.metadata().get("x-user").ok_or_else(|| Status::unauthenticated("no x-user"))?;
//!     let key = HashKey::new(user.as_bytes().to_vec());
//!     request.extensions_mut().insert(key);
//!     request.extensions_mut().insert(WaitForReady(true));
//!     Ok(request)
//! });
//! # Ok(()) }
//! ```
//!
//! The channel adds no trace context to requests: which one is the program's choice. With W3C's, it is such an
//! interceptor too: `request.metadata_mut().insert("traceparent", …)`, with the value from the tracer in use.
//!
//! # Logs and spans
//!
//! By `tracing`, under two targets, so that a filter such as `evenkeel::channel=info,evenkeel::call=debug` tells them apart:
//!
//! | target | level | what |
//! |---|---|---|
//! | `evenkeel::channel` | WARN | what needs somebody: a service config that was refused, a server that cannot be health-checked |
//! | `evenkeel::channel` | INFO | every decision: an endpoint that goes out or comes back, the channel's state, what a policy does, with its reason |
//! | `evenkeel::channel` | DEBUG | the course of things: load reports that ended |
//! | `evenkeel::call` | DEBUG | the span `call` (`method`, `target`, `status`), and in it a span `attempt` for each (`endpoint`, `previous`, `status`) |
//! | `evenkeel::call` | TRACE | retries, with the status that called for them |
//!
//! A span lasts from the call's beginning to the end of its response, and has `status` then, gRPC's name of the code; what
//! is given up has `CANCELLED`. Where DEBUG is off, a call's spans cost a look at a flag.
//!
//! # Metrics
//!
//! By the `metrics` facade, with the names of gRFCs A66, A78, A91, A94 and A96; METRICS.md lists them. What is known of the
//! channel itself is in [`Channel::explain`], [`Channel::reports`], [`Channel::calls`] and [`Channel::sockets`], and the
//! crate `evenkeel-channelz` serves it to `grpcdebug`.
//!
//! # Inside
//!
//! In the order of a call's life: `call` places it by the picker of
//! a `snapshot` and makes its attempts, `request` sends it, the crate `evenkeel-transport` carries it, `body` reads the response, and
//! `following` sees to what must happen when it ends. Beside that, in the order of a change's life: `connection` and
//! `health_watch` and `load_watch` see it and send a `message`, `driver` feeds it to the balancing
//! core (`evenkeel-balance`) and publishes the next snapshot and [`Report`]. `shared` is what both sides hold. `placement` is for
//! calls that somebody else carries, on connections that `dialling` opens.

mod body;
mod builder;
mod call;
mod cascade;
mod channel;
mod checks;
mod connection;
mod deadline;
mod dialling;
mod driver;
mod endpoint_source;
mod explain;
mod following;
mod framing;
mod health_watch;
mod idle;
mod lanes;
mod load_report;
mod load_watch;
mod message;
mod method;
mod metrics;
mod overrides;
mod placement;
mod report;
mod request;
mod shared;
mod snapshot;
mod tally;

pub use body::ResponseBody;
pub use builder::{BuildError, Builder};
pub use cascade::{DeadlineBody, DeadlineFuture, DeadlineLayer, WithDeadline};
pub use channel::{Channel, WeakChannel};
pub use dialling::{DataDialError, DataSocket, Dialled};
pub use explain::Explanation;
pub use load_report::{LOAD_REPORT_TRAILER, read_load_report};
pub use method::{AttemptCost, Repeats};
pub use overrides::{CallPriority, HashKey, PinnedTo, WaitForReady};
pub use placement::{PlacedCall, Placer, Versions};
pub use report::Report;
pub use request::ReplayLimits;
pub use tally::CallCounts;

pub use evenkeel_balance as balance;
pub use evenkeel_checker as checker;
pub use evenkeel_naming as naming;
pub use evenkeel_transport::{ConnectProxy, ConnectProxyError, DialError, SocketReport, StreamCounts};
#[cfg(feature = "tls")]
pub use evenkeel_transport::{Handshake, Tls, TlsError};
