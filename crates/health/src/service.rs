use evenkeel_proto::health::health_server::{Health, HealthServer};
use evenkeel_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use tonic::{Request, Response, Status};

use crate::caller::Caller;
use crate::registry::{MAX_UNREGISTERED_NAME, Refusal, Registry};
use crate::{Reporter, ServingStatus, WatchStream, metrics};

/// A health service with the default [`Limits`], and the reporter that sets what it tells.
pub fn service() -> (Reporter, HealthServer<HealthService>) {
    service_with(Limits::default())
}

/// A health service with limits of your own, and the reporter that sets what it tells.
pub fn service_with(limits: Limits) -> (Reporter, HealthServer<HealthService>) {
    metrics::describe();
    let reporter = Reporter::new(Registry::new(limits));
    let server = HealthServer::new(HealthService { reporter: reporter.clone() });
    (reporter, server.max_decoding_message_size(MAX_REQUEST))
}

/// What callers may hold open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many `Watch` streams may be open on the server; more are refused with `RESOURCE_EXHAUSTED`. Default 4096.
    ///
    /// A gRPC client that checks health keeps one open per connection, and takes the backend for unhealthy when it is
    /// refused: keep this above the number of clients. A stream costs about 7 KB, nearly all of it tonic's.
    pub max_watchers: usize,
    /// How many of them may be one connection's; more are refused with `RESOURCE_EXHAUSTED`. Default 100.
    ///
    /// A client has one for each service that it watches on the connection. A proxy may carry those of all its clients.
    pub max_watchers_per_connection: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_watchers: 4096, max_watchers_per_connection: 100 }
    }
}

/// Answers grpc.health.v1's `Check`, `Watch` and `List`.
#[derive(Clone, Debug)]
pub struct HealthService {
    reporter: Reporter,
}

/// The longest request in bytes; it holds a service's name and nothing else. Longer ones fail with `OUT_OF_RANGE`, which
/// is tonic's choice.
const MAX_REQUEST: usize = 4096;

/// The most services that `List` answers with (gRFC A90).
const MAX_LISTED: usize = 100;

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.reporter.status(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found("this server has not registered that service: check the service's full name"))
            }
            status => Ok(Response::new(HealthCheckResponse { status: status.number() })),
        }
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<WatchStream>, Status> {
        let caller = Caller::of(&request);
        let stream = WatchStream::new(self.reporter.clone(), &request.get_ref().service, caller);
        let stream = stream.inspect_err(|refusal| metrics::watch_refused(refusal.label()))?;
        Ok(Response::new(stream))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let registry = self.reporter.lock();
        if registry.registered().nth(MAX_LISTED).is_some() {
            let message = format!("this server has more than {MAX_LISTED} services: Check those of interest");
            return Err(Status::resource_exhausted(message));
        }
        let reply = |status: ServingStatus| HealthCheckResponse { status: status.number() };
        let statuses = registry.registered().map(|(name, status)| (name.to_owned(), reply(status))).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NameTooLong => Self::invalid_argument(format!(
                "the name of a service that is not registered may have {MAX_UNREGISTERED_NAME} bytes: shorten it"
            )),
            Refusal::TooManyWatchers => {
                Self::resource_exhausted("too many Watch streams are open on this server: use Check, or try later")
            }
            Refusal::TooManyOfCaller => {
                Self::resource_exhausted("too many Watch streams are open on this connection: watch each service once")
            }
            Refusal::Closed => Self::unavailable("the server is draining: watch another backend"),
        }
    }
}
