use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use evenkeel_balance::{Connectivity, Input, Time};
use http::{Request, Response};
use http_body::Body;
use tokio::sync::{oneshot, watch};
use tower_service::Service;

use evenkeel_transport::SocketReport;

use crate::{
    body::ResponseBody,
    builder::{BuildError, Builder},
    call,
    explain::Explanation,
    message::Message,
    report::Report,
    shared::Core,
    tally::CallCounts,
};

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
/// A request's body has to be [`Unpin`], as those of generated clients are; any other is once it is boxed.
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

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Connects now rather than with the first call.
    pub fn connect(&self) {
        self.core.exit_idle();
    }

    /// Sends all calls to one group of endpoints from now on, by an operator's word; `None` leaves it to the policy again.
    /// Holds until the next switch, whatever the resolver and the service config say meanwhile; calls that run stay where
    /// they are.
    ///
    /// A group is named by the rank of its endpoints: 0 for the channel's target, 1 for its first
    /// [`standby`](Builder::standby), or what the resolver gives them as their
    /// [`priority`](evenkeel_balance::Endpoint::priority). The policy `failover` heeds it, no other does. While the group is
    /// wholly out, calls fare as the policy's `whenAllOut` says; while nothing has that rank, they are placed as if there
    /// had been no switch. The decision log says so.
    pub fn switch_to(&self, group: Option<u32>) {
        // Fails only where the runtime is shutting down, which ends the callers too.
        let _ = self.core.driver.send(Message::Input(Input::SwitchTo(group)));
    }

    /// What the channel knows of its endpoints, now and at each change.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.core.reports.clone()
    }

    /// The channel's state.
    pub fn connectivity(&self) -> Connectivity {
        self.core.snapshot().update.connectivity
    }

    /// Waits until the channel's state is another than `known`, and returns it.
    pub async fn connectivity_other_than(&self, known: Connectivity) -> Connectivity {
        loop {
            let snapshot = self.core.snapshot();
            let present = snapshot.update.connectivity;
            // A channel that shuts down with its runtime has no other state to wait for.
            if present != known || self.core.newer_than(snapshot.version).await.is_err() {
                return present;
            }
        }
    }

    /// Why calls go where they go: every endpoint, which are out and since when, the last error, the policies, and the
    /// last decisions. `None` while the runtime is shutting down.
    ///
    /// ```no_run
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let channel = evenkeel_channel::Channel::builder("dns:///echo.internal:50051").build()?;
    /// if let Some(explanation) = channel.explain().await {
    ///     println!("{explanation}");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn explain(&self) -> Option<Explanation> {
        let (sender, answer) = oneshot::channel();
        self.core.driver.send(Message::Explain(sender)).ok()?;
        answer.await.ok()
    }

    /// How many calls were made on the channel and its clones.
    pub fn calls(&self) -> CallCounts {
        self.core.methods.calls()
    }

    /// The connections that take calls now, by subchannel.
    pub fn sockets(&self) -> Vec<SocketReport> {
        self.core.snapshot().sockets()
    }

    /// The present moment on the clock that reports count on.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }

    /// A moment on that clock by the wall clock: [`Time::ZERO`] is when the channel was made.
    pub fn wall_clock(&self, time: Time) -> SystemTime {
        self.core.wall_clock(time)
    }

    /// A handle that does not keep the channel alive.
    pub fn downgrade(&self) -> WeakChannel {
        WeakChannel { core: Arc::downgrade(&self.core) }
    }
}

/// A handle to a [`Channel`] that does not keep it alive, as an observer wants it.
#[derive(Clone)]
pub struct WeakChannel {
    core: Weak<Core>,
}

impl WeakChannel {
    /// The channel, while somebody holds it.
    pub fn upgrade(&self) -> Option<Channel> {
        self.core.upgrade().map(|core| Channel { core })
    }

    /// Whether this is a handle to `channel` or, what is the same, to a clone of it.
    pub fn is_of(&self, channel: &Channel) -> bool {
        std::ptr::eq(self.core.as_ptr(), Arc::as_ptr(&channel.core))
    }
}

impl fmt::Debug for WeakChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakChannel").field("channel", &self.upgrade()).finish()
    }
}

impl Builder {
    /// Builds the channel. It connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`BuildError`] where the target, the authority or the policy's config is invalid.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Channel, BuildError> {
        Ok(Channel { core: Arc::new(self.start()?) })
    }
}

impl<B> Service<Request<B>> for Channel
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
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
        Box::pin(call::run(Arc::clone(&self.core), request))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("target", &self.core.shared.target).finish_non_exhaustive()
    }
}
