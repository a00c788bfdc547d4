use std::error::Error;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;
use tower::Service;

use crate::accept::Acceptor;
use crate::listener::{Listener, Socket};
use crate::settings::Settings;
use crate::{PermittedPings, connection, metrics};

/// A server of one tower service, such as tonic's `Routes`.
///
/// What is off by default is off in gRPC's own servers, too.
#[derive(Debug)]
pub struct Server<S> {
    service: S,
    listeners: Vec<Listener>,
    settings: Settings,
}

impl<S> Server<S> {
    /// Serves `service` to what comes in at `listener`.
    pub fn new(listener: impl Into<Listener>, service: S) -> Self {
        Self { service, listeners: vec![listener.into()], settings: Settings::default() }
    }

    /// Serves it to what comes in at a further listener as well.
    #[must_use]
    pub fn also_on(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// How long a client may take until it speaks HTTP/2. Default 10 s.
    ///
    /// Shorter, and clients on bad paths are turned away; longer, and a client that sends nothing holds a connection longer.
    #[must_use]
    pub fn handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.handshake_timeout = timeout)
    }

    /// A connection without a call for this long is told to go (GOAWAY). Default: never (gRFC A9).
    #[must_use]
    pub fn max_connection_idle(self, idle: Duration) -> Self {
        self.with(|settings| settings.max_connection_idle = Some(idle))
    }

    /// A connection of this age, ± 10 % by chance, is told to go (GOAWAY); its calls finish. Default: never (gRFC A9).
    ///
    /// Clients then connect anew, and so find servers that have come since. Minutes or hours are usual: each
    /// reconnect costs a handshake, and a stream that outlives it holds a second connection open.
    #[must_use]
    pub fn max_connection_age(self, age: Duration) -> Self {
        self.with(|settings| settings.max_connection_age = Some(age))
    }

    /// How long calls may run after the GOAWAY of [`max_connection_age`](Self::max_connection_age); then they are cut off.
    /// Default: without end (gRFC A9).
    #[must_use]
    pub fn max_connection_age_grace(self, grace: Duration) -> Self {
        self.with(|settings| settings.max_connection_age_grace = Some(grace))
    }

    /// A client from which nothing has come for `time` is sent a PING, and closed if nothing has come `timeout` later.
    /// Default 2 h and 20 s (gRFC A8); `None` sends none.
    ///
    /// So connections end whose client has vanished without a word. Through a NAT or a firewall that forgets
    /// connections, `time` has to be shorter than it remembers them, often a few minutes.
    #[must_use]
    pub fn keepalive(self, keepalive: Option<(Duration, Duration)>) -> Self {
        self.with(|settings| settings.keepalive = keepalive)
    }

    /// Which PINGs clients may send; one that sends more is told `too_many_pings` (GOAWAY `ENHANCE_YOUR_CALM`), by which
    /// gRPC clients PING half as often, and its connection is closed (gRFC A8).
    #[must_use]
    pub fn permitted_pings(self, permitted: PermittedPings) -> Self {
        self.with(|settings| settings.permitted_pings = permitted)
    }

    /// How many connections may be open; more are closed as soon as they are accepted, so that their clients can go
    /// elsewhere at once. Default: no limit but the system's, on open files.
    #[must_use]
    pub fn max_connections(self, max: usize) -> Self {
        self.with(|settings| settings.max_connections = max)
    }

    /// How many calls may run on a connection; clients keep further ones waiting. Default 1000.
    ///
    /// A proxy in front may carry all its callers' calls on one connection: keep this above their number.
    #[must_use]
    pub fn max_concurrent_streams(self, max: u32) -> Self {
        self.with(|settings| settings.max_concurrent_streams = max)
    }

    /// How many bytes the names and values of a request's headers may have, each with 32 more as HTTP/2 counts.
    /// Default 16 KiB.
    #[must_use]
    pub fn max_header_list_size(self, max: u32) -> Self {
        self.with(|settings| settings.max_header_list_size = max)
    }

    /// How many bytes a client may send ahead of what handlers have read: of each call, and of all on a connection. Default
    /// 1 MiB and 1 MiB; at most 2 GiB less one byte.
    ///
    /// The second bounds what a connection can make the server hold. Too small for the path, and uploads are slow:
    /// a window that is sent once a round trip.
    #[must_use]
    pub fn windows(self, stream: u32, connection: u32) -> Self {
        self.with(|settings| (settings.stream_window, settings.connection_window) = (stream, connection))
    }

    /// Speaks TLS on TCP connections; Unix sockets stay without. Where `config` offers no protocol by ALPN, `h2` is offered.
    ///
    /// Certificates that are renewed while the server runs are for the config's resolver to hand out.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, config: Arc<rustls::ServerConfig>) -> Self {
        self.with(|settings| settings.tls = Some(crate::tls::offering_http2(config)))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }
}

impl<S, B> Server<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Serves until a listener breaks. When it is dropped, every connection is closed.
    ///
    /// # Errors
    /// When a listener cannot be used. That files or memory have run out is no error: it waits for them.
    pub async fn serve(self) -> io::Result<()> {
        self.serve_with_shutdown(pending()).await
    }

    /// Serves until `signal` resolves: then it takes no connection, sends GOAWAY on those that are open, lets their calls
    /// finish, and ends. When it is dropped, every connection is closed.
    ///
    /// A client that neither has calls nor closes its connection is waited for for 5 s. There is no other end to the wait:
    /// run it under a drain of `evenkeel::health`, which has a deadline.
    ///
    /// # Errors
    /// When a listener cannot be used. That files or memory have run out is no error: it waits for them.
    pub async fn serve_with_shutdown(self, signal: impl Future<Output = ()>) -> io::Result<()> {
        metrics::describe();
        let Self { service, listeners, settings } = self;
        let settings = Arc::new(settings);
        let (down, shutdown) = watch::channel(false);
        let mut connections = JoinSet::new();
        let take = |connections: &mut JoinSet<()>, socket: Socket| {
            if connections.len() >= settings.max_connections {
                metrics::refused();
                return;
            }
            connections.spawn(connection::serve(socket, service.clone(), settings.clone(), shutdown.clone()));
        };
        accept_until(signal, Acceptor::new(listeners), &mut connections, take).await?;
        tracing::debug!(connections = connections.len(), "no connection is taken any more");
        down.send_replace(true);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

/// Hands every connection to `take`. Ends, and closes the listeners, when `signal` resolves.
async fn accept_until(
    signal: impl Future<Output = ()>,
    mut acceptor: Acceptor,
    connections: &mut JoinSet<()>,
    take: impl Fn(&mut JoinSet<()>, Socket),
) -> io::Result<()> {
    let mut signal = pin!(signal);
    loop {
        tokio::select! {
            // Connections that have ended first, so that they do not count against one that comes.
            biased;
            () = &mut signal => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = poll_fn(|cx| acceptor.poll_accept(cx)) => take(connections, accepted?),
        }
    }
}
