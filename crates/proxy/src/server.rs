use std::time::Duration;

use evenkeel_channel::Channel;
use tokio::{net::TcpStream, sync::watch, task::JoinSet};

use crate::relay;

/// How long a client may take for the HTTP/2 preface, so that half-open connections do not pile up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How the proxy treats its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How long running calls may take to end after a drain has begun. Default 10 s.
    pub drain_timeout: Duration,
    /// Calls that one connection may have running. More are refused for the client to retry. Default 1000.
    pub max_concurrent_streams: u32,
    /// Bytes that a client may send on one call before the backend has taken them. Default 512 KiB.
    pub stream_window: u32,
    /// Bytes that a client may send on all calls of a connection together. Default 16 MiB.
    pub connection_window: u32,
    /// The largest header list of a call, in bytes as HTTP/2 counts them. Default 64 KiB.
    pub max_header_list: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(10),
            max_concurrent_streams: 1_000,
            stream_window: 512 * 1024,
            connection_window: 16 * 1024 * 1024,
            max_header_list: 64 * 1024,
        }
    }
}

impl Settings {
    /// The same settings with another drain time-out.
    #[must_use]
    pub fn with_drain_timeout(self, drain_timeout: Duration) -> Self {
        Self { drain_timeout, ..self }
    }
}

/// Tells a connection that the proxy is going away.
pub(crate) struct Draining {
    begun: watch::Receiver<bool>,
    told: bool,
}

impl Draining {
    pub(crate) fn new(begun: watch::Receiver<bool>) -> Self {
        Self { begun, told: false }
    }

    /// Done once, when the drain begins.
    async fn begun(&mut self) {
        if self.told || self.begun.wait_for(|begun| *begun).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.told = true;
    }
}

/// Serves one client connection to its end; returns what broke it, if anything did.
pub(crate) async fn serve(
    stream: TcpStream,
    channel: Channel,
    settings: Settings,
    mut draining: Draining,
) -> Option<String> {
    if let Err(error) = stream.set_nodelay(true) {
        return Some(error.to_string());
    }
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(settings.max_concurrent_streams)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(settings.max_header_list);
    let mut connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, builder.handshake(stream)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Some(format!("no HTTP/2: {error}")),
        Err(_) => return Some(format!("no HTTP/2 preface within {HANDSHAKE_TIMEOUT:?}")),
    };
    // Dropped with the connection, so that its calls are cancelled at the backends too.
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    calls.spawn(relay::call(channel.clone(), request, respond));
                }
                Some(Err(error)) => return Some(error.to_string()),
                None => return None,
            },
            () = draining.begun() => connection.graceful_shutdown(),
            Some(_) = calls.join_next() => {}
        }
    }
}
