//! Load reports from tonic servers (ORCA, gRFC A51), by which clients give busy servers fewer calls.
//!
//! A report says how busy the server is and what it gets done. It goes out in the trailers of each call
//! (`endpoint-load-metrics-bin`), and to whoever asks on a stream of its own
//! (`xds.service.orca.v3.OpenRcaService/StreamCoreMetrics`). Three lines turn both on:
//!
//! ```no_run
//! # use evenkeel_proto::demo::{EchoReply, EchoRequest, echo_server::{Echo, EchoServer}};
//! # use tonic::{Response, Status, Streaming};
//! # type Replies = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<EchoReply, Status>> + Send>>;
//! use evenkeel_orca::{CallRecorder, Recorder};
//! use tonic::{Request, transport::Server};
//!
//! # struct MyEcho;
//! # #[tonic::async_trait]
//! # impl Echo for MyEcho {
//! async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
//!     // Optional: what this very call costs.
//!     if let Some(call) = CallRecorder::of(&request) {
//!         call.set_request_cost("bytes", 3487.0).map_err(|error| Status::internal(error.to_string()))?;
//!     }
//!     Ok(Response::new(EchoReply::default()))
//! }
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
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let load = Recorder::new();
//!     Server::builder()
//!         .layer(load.layer())
//!         .add_service(load.service())
//!         .add_service(EchoServer::new(MyEcho))
//!         .serve("127.0.0.1:50051".parse()?)
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! Processor and memory use, calls and failures a second are [measured](Measures). The application can
//! [`set`](Recorder::set) any [`Metric`] in their place, for the server or for one call.
//!
//! # Which calls fail
//! Those that end with `UNKNOWN`, `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE` or
//! `DATA_LOSS`. Every other code is an answer, and a call that its client gave up is no failure of the server's.
//!
//! # Costs
//! The process is measured when a report is made, at most twice a second, by reading some files of `/proc` and
//! `/sys/fs/cgroup`: there is no task, and an idle server does nothing. A call costs three atomic additions, two
//! uncontended locks, and about 50 bytes of trailer.

#![cfg_attr(test, allow(clippy::float_cmp, reason = "the tests' figures come out exactly"))]

mod call;
mod counts;
mod history;
mod layer;
mod metrics;
mod recorder;
mod service;

pub use call::CallRecorder;
pub use layer::{Layer, ReportingBody, ResponseFuture, Service};
pub use metrics::{Metric, OutOfRange};
pub use recorder::{Measures, Recorder};
pub use service::{OpenRcaService, Reports};

/// A report as it goes over the wire, where 0 stands for what is not reported.
pub use evenkeel_proto::orca::OrcaLoadReport as LoadReport;

/// The generated server that carries an [`OpenRcaService`], as tonic's `add_service` takes it.
pub use evenkeel_proto::orca::open_rca_service_server::OpenRcaServiceServer;
