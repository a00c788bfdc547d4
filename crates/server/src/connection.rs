//! One connection, from its handshake to its end.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use crate::deadline::{self, Within};
use crate::facts::{Calls, Facts};
use crate::identity::ConnectionId;
use crate::lifetime::{Lifetime, Reason, Step, Times};
use crate::listener::{Peer, Socket};
use crate::metrics;
use crate::settings::Settings;
#[cfg(feature = "tls")]
use crate::tls;
use crate::wire::Wire;

type BoxError = Box<dyn Error + Send + Sync>;

/// Serves a connection until it ends, or has to be closed.
pub(crate) async fn serve<S, B>(socket: Socket, service: S, settings: Arc<Settings>, down: watch::Receiver<bool>)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let _open = metrics::Open::count();
    let id = ConnectionId::next();
    if let Err(error) = socket.set_nodelay() {
        tracing::debug!(connection = %id, %error, "the connection had ended when it was accepted");
        return;
    }
    let accepted = Instant::now();
    #[cfg(feature = "tls")]
    let Some(socket) = tls::secured(socket, &settings, id, down.clone()).await else { return };
    let facts = Arc::new(Facts::new(accepted));
    let life = Lifetime::new(accepted, times(&settings));
    let conduct = Conduct { id, life, facts: facts.clone(), timer: None };
    let served = Served { service, id, peer: socket.peer() };
    match drive(protocol(socket, served, &settings, facts), conduct, down).await {
        End::Cut(reason) => {
            metrics::cut_off(reason);
            tracing::debug!(connection = %id, %reason, "connection closed by the server");
        }
        End::Itself(Ok(())) => tracing::trace!(connection = %id, "connection ended"),
        End::Itself(Err(error)) => tracing::debug!(connection = %id, %error, "connection failed"),
    }
}

type Http2<S> = http2::Connection<TokioIo<Wire<Socket>>, Served<S>, Calls>;

/// HTTP/2 over the socket. It lives in a box, since the states of an async function keep a copy of what is moved
/// through them, and there are as many of these as connections.
fn protocol<S, B>(socket: Socket, served: Served<S>, settings: &Settings, facts: Arc<Facts>) -> Pin<Box<Http2<S>>>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let wire = Wire::new(socket, settings.permitted_pings, facts.clone());
    Box::pin(builder(settings, Calls(facts)).serve_connection(TokioIo::new(wire), served))
}

fn builder(settings: &Settings, calls: Calls) -> http2::Builder<Calls> {
    let mut builder = http2::Builder::new(calls);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(settings.max_header_list_size)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .keep_alive_interval(settings.keepalive.map(|keepalive| keepalive.0.min(FOREVER)));
    if let Some((_, timeout)) = settings.keepalive {
        builder.keep_alive_timeout(timeout.min(FOREVER));
    }
    builder
}

fn times(settings: &Settings) -> Times {
    let jitter = |age: Duration| age.mul_f64(rand::random_range(0.9..=1.1));
    Times {
        handshake: settings.handshake_timeout,
        idle: settings.max_connection_idle,
        // Too long an age to be told from none, which a float could not hold either, has no jitter.
        age: settings.max_connection_age.map(|age| if age < FOREVER { jitter(age) } else { age }),
        age_grace: settings.max_connection_age_grace,
    }
}

/// A hundred years. Longer times cannot be added to every clock.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How a connection ended.
enum End {
    Itself(hyper::Result<()>),
    Cut(Reason),
}

/// A connection of hyper's, as far as it is needed here.
trait Protocol: Future<Output = hyper::Result<()>> {
    fn goaway(self: Pin<&mut Self>);
}

impl<S, B> Protocol for Http2<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn goaway(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// What goes on beside the protocol.
struct Conduct {
    id: ConnectionId,
    life: Lifetime,
    facts: Arc<Facts>,
    timer: Option<Pin<Box<Sleep>>>,
}

async fn drive<C: Protocol>(mut connection: Pin<Box<C>>, mut conduct: Conduct, mut down: watch::Receiver<bool>) -> End {
    // An error, that there is no server any more, needs no heed: it has taken its connections along.
    let mut down = pin!(down.wait_for(|down| *down));
    let mut told = false;
    poll_fn(move |cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(End::Itself(ended));
            }
            told = told || down.as_mut().poll(cx).is_ready();
            match conduct.step(told) {
                Step::Goaway(reason) => {
                    metrics::goaway(reason);
                    tracing::debug!(connection = %conduct.id, %reason, "GOAWAY");
                    connection.as_mut().goaway();
                }
                Step::Close(reason) => return Poll::Ready(End::Cut(reason)),
                Step::Wait(at) => ready!(conduct.poll_timer(at, cx)),
            }
        }
    })
    .await
}

impl Conduct {
    fn step(&mut self, shutdown: bool) -> Step {
        let now = Instant::now();
        if shutdown { self.life.shutdown(now, &self.facts) } else { self.life.step(now, &self.facts) }
    }

    /// Ready at that time.
    fn poll_timer(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = at else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}

/// The service as it is on one connection.
struct Served<S> {
    service: S,
    id: ConnectionId,
    peer: Peer,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Served<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
{
    type Response = Response<deadline::WithinBody<B>>;
    type Error = S::Error;
    type Future = Within<Oneshot<S, Request<Body>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        self.peer.insert_into(request.extensions_mut());
        request.extensions_mut().insert(self.id);
        match deadline::timeout(&request) {
            Ok(timeout) => Within::new(self.service.clone().oneshot(request), timeout),
            Err(status) => Within::refused(status),
        }
    }
}
