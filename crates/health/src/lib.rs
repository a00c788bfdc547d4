//! The grpc.health.v1 service for tonic servers, and a drain that ends them without losing a call.
//!
//! Three lines make a server tell its health and leave in order:
//!
//! ```no_run
//! # use evenkeel_proto::demo::{EchoReply, EchoRequest, echo_server::{Echo, EchoServer}};
//! # use tonic::{Request, Response, Status, Streaming, transport::Server};
//! # type Replies = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<EchoReply, Status>> + Send>>;
//! # struct MyEcho;
//! # #[tonic::async_trait]
//! # impl Echo for MyEcho {
//! #     async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
//! #         let EchoRequest { message, payload, .. } = request.into_inner();
//! #         Ok(Response::new(EchoReply { message, payload, backend: "a".into() }))
//! #     }
//! #     async fn client_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
//! #         Err(Status::unimplemented("only Unary"))
//! #     }
//! #     type ServerStreamStream = Replies;
//! #     async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
//! #         Err(Status::unimplemented("only Unary"))
//! #     }
//! #     type BidiStreamStream = Replies;
//! #     async fn bidi_stream(&self, _: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
//! #         Err(Status::unimplemented("only Unary"))
//! #     }
//! # }
//! use evenkeel_health::Drain;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let server = Server::builder().add_service(EchoServer::new(MyEcho));
//!     let address = "127.0.0.1:50051".parse()?;
//!
//!     let (reporter, health) = evenkeel_health::service();
//!     reporter.set_serving::<EchoServer<MyEcho>>();
//!     let drain = reporter.drain_on_signal(Drain::default())?;
//!
//!     drain.run(|signal| server.add_service(health).serve_with_shutdown(address, signal)).await?;
//!     Ok(())
//! }
//! ```
//!
//! The whole server, whose name is `""`, is SERVING from the start. No status is computed from others: a caller is
//! told about exactly the name that it asks for.
//!
//! # Limits
//! What a caller can make the server hold is bounded: [`Limits`] for the number of `Watch` streams, a request of 4 KiB,
//! and 256 bytes for the name of a service that is not registered (`Watch` keeps that name while it waits). A slow
//! watcher costs the same as a fast one: it has no queue, and gets the latest status when it next reads. A connection is
//! known by what `evenkeel::server` tells of it, or else by the address that tonic tells; callers of which neither is
//! known, as on a Unix socket under tonic's own server, share only the limit of all. Other streams a connection are the
//! server's to bound: `evenkeel::server` does, and tonic's has `Server::max_concurrent_streams`.
//!
//! # Reflection
//! [`FILE_DESCRIPTOR_SET`] describes the service to `tonic-reflection`, by its `register_encoded_file_descriptor_set`.

mod caller;
mod drain;
mod metrics;
#[cfg(test)]
mod model;
mod registry;
mod reporter;
pub mod self_check;
mod service;
mod status;
mod watch;

pub use drain::{Drain, DrainError, Draining};
pub use reporter::Reporter;
pub use service::{HealthService, Limits, service, service_with};
pub use status::ServingStatus;
pub use watch::WatchStream;

/// The descriptors of `grpc.health.v1`, an encoded `google.protobuf.FileDescriptorSet`.
pub use evenkeel_proto::HEALTH_DESCRIPTOR_SET as FILE_DESCRIPTOR_SET;

/// The generated server that carries a [`HealthService`], as tonic's `add_service` takes it.
pub use evenkeel_proto::health::health_server::HealthServer;
