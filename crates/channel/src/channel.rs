use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use evenkeel_balance::{Input, Status, Time};
use http::{Request, Response, Uri, header, request, uri};
use http_body::Body;
use tokio::sync::{mpsc::UnboundedSender, watch};
use tower_service::Service;

use crate::{Builder, Report, ResponseBody, call, clock::Clock, driver::Message, snapshot::Snapshot};

/// A gRPC channel: calls made on it are spread over the healthy endpoints of its target.
///
/// Cheap to clone; clones share endpoints and connections, which close when the last clone is gone and its calls have
/// ended. It connects when it is first used. Generated clients of tonic take it as they take tonic's own channel:
///
/// ```no_run
/// # use evenkeel_proto::demo::echo_client::EchoClient;
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#;
/// let channel = evenkeel_channel::Channel::builder("dns:///echo.internal:50051").service_config(config)?.build()?;
/// let client = EchoClient::new(channel);
/// # Ok(()) }
/// ```
///
/// A call never fails with an error of the transport: whatever goes wrong reaches the caller as a gRPC status.
#[derive(Clone)]
pub struct Channel {
    core: Arc<Core>,
}

impl Channel {
    /// Starts to describe a channel to `target`, such as `dns:///name:port`, `ipv4:10.0.0.1:80,10.0.0.2:80`,
    /// `unix:/run/echo.sock` or `host:port`.
    pub fn builder(target: impl Into<String>) -> Builder {
        Builder::new(target.into())
    }

    /// Connects now rather than with the first call.
    pub fn connect(&self) {
        self.core.exit_idle();
    }

    /// What the channel knows of its endpoints, now and at each change.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.core.reports.clone()
    }

    /// The present moment on the clock that reports count on.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }

    pub(crate) fn new(core: Core) -> Self {
        Self { core: Arc::new(core) }
    }
}

impl<B> Service<Request<B>> for Channel
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: fmt::Display,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    /// Always ready: a call waits for its endpoint by itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = Arc::clone(&self.core);
        Box::pin(async move { Ok(call::run(core, request).await) })
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("target", &self.core.shared.target).finish_non_exhaustive()
    }
}

/// What calls work with: the data plane's side of a channel.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    /// The one strong sender: when it goes, the driver ends.
    pub(crate) driver: UnboundedSender<Message>,
    pub(crate) reports: watch::Receiver<Arc<Report>>,
}

/// What calls and the driver share.
pub(crate) struct Shared {
    pub(crate) target: String,
    pub(crate) authority: uri::Authority,
    pub(crate) clock: Clock,
    seed: u64,
    draws: AtomicU64,
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
}

impl std::ops::Deref for Core {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Core {
    /// Has the driver connect, if it has not begun to.
    pub(crate) fn exit_idle(&self) {
        // Fails only where the runtime is shutting down, which ends the caller too.
        let _ = self.driver.send(Message::Input(Input::ExitIdle));
    }
}

impl Shared {
    pub(crate) fn new(target: String, authority: uri::Authority, seed: u64, first: Snapshot) -> Self {
        let snapshot = ArcSwap::from_pointee(first);
        let (clock, draws, version) = (Clock::start(), AtomicU64::new(0), watch::Sender::new(0));
        Self { target, authority, clock, seed, draws, snapshot, version }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let version = snapshot.version;
        self.snapshot.store(Arc::new(snapshot));
        self.version.send_replace(version);
    }

    /// Waits for a snapshot that is newer than `version`.
    pub(crate) async fn newer_than(&self, version: u64) -> Result<(), Status> {
        let mut versions = self.version.subscribe();
        let newer = versions.wait_for(|newest| *newest > version).await;
        newer.map(drop).map_err(|_| Status::unavailable("the channel is shutting down"))
    }

    /// 64 random bits: the seed's stream, in the order of the draws.
    pub(crate) fn random(&self) -> u64 {
        let draw = self.draws.fetch_add(1, Relaxed);
        evenkeel_balance::Entropy::new(self.seed.wrapping_add(draw.wrapping_mul(0x9E37_79B9_7F4A_7C15))).next_u64()
    }

    /// Fills in what a generated client leaves to its channel: scheme, authority and user agent. A request that has
    /// an authority comes from further away, and keeps what it brought.
    pub(crate) fn complete(&self, head: &mut request::Parts) {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        if parts.authority.is_none() {
            let agent = header::HeaderValue::from_static(concat!("evenkeel/", env!("CARGO_PKG_VERSION")));
            head.headers.entry(header::USER_AGENT).or_insert(agent);
        }
        parts.scheme.get_or_insert(uri::Scheme::HTTP);
        parts.authority.get_or_insert_with(|| self.authority.clone());
        parts.path_and_query.get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(parts).expect("scheme, authority and path are all there");
    }
}
