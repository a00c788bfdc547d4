use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_process::Process;
use evenkeel_relay::{connection, driver, relay};
use evenkeel_transport::ServerTls;

/// How the proxy treats its clients and its backends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How long running calls may take to end after a drain has begun. Default 10 s.
    pub drain_timeout: Duration,
    /// TLS towards clients. Default: plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// Threads that carry calls. Default: one for each processor that this process may use, a quota's fraction rounded up.
    pub workers: usize,
    /// Clients that may be connected, all workers together; further ones are closed at once. Default 10 000 a worker.
    pub connections: Option<usize>,
    /// Calls that one connection may have running. More are refused for the client to retry. Default 1000.
    pub max_concurrent_streams: u32,
    /// Bytes that either side may send on a new call before the other has taken them. Default 65 535, the least there is.
    pub stream_window: u32,
    /// What that grows to, by doubling, for calls whose payload the other side takes as it comes. Default 1 MiB.
    pub most_stream_window: u32,
    /// Bytes that either side may send on all calls of a connection together. Default 16 MiB.
    pub connection_window: u32,
    /// The largest header list of a call, in bytes as HTTP/2 counts them. Default 64 KiB.
    pub max_header_list: u32,
    /// Fields of a header list, at most. Default 256.
    pub max_header_count: u32,
    /// The largest message, in bytes, either way. Default 2 GiB − 1.
    pub max_message: u32,
    /// Bytes of a request that are kept for another attempt. Default 64 KiB.
    pub max_replay: usize,
    /// Bytes of payload that a worker keeps for sides that are slow to take it and for further attempts, all calls
    /// together. Default 64 MiB.
    pub max_held: usize,
    /// Connections of a worker to one backend, at most; there is more than one only where the streams that the backend
    /// allows are all in use. Default 16.
    pub endpoint_connections: usize,
    /// How long a client may take for TLS, and for HTTP/2's preface. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long an unfinished header block may take. Default 10 s.
    pub header_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(10),
            tls: None,
            workers: processors(),
            connections: None,
            max_concurrent_streams: 1_000,
            stream_window: 65_535,
            most_stream_window: 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            max_header_list: 64 * 1024,
            max_header_count: 256,
            max_message: i32::MAX as u32,
            max_replay: 64 * 1024,
            max_held: 64 * 1024 * 1024,
            endpoint_connections: 16,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// The same settings with another drain time-out.
    #[must_use]
    pub fn with_drain_timeout(self, drain_timeout: Duration) -> Self {
        Self { drain_timeout, ..self }
    }

    /// The same settings with TLS towards clients.
    #[must_use]
    pub fn with_tls(self, tls: ServerTls) -> Self {
        Self { tls: Some(Arc::new(tls)), ..self }
    }

    /// The same settings with so many threads; 0 is taken as 1.
    #[must_use]
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }
}

impl Settings {
    /// What a worker's engine keeps to.
    pub(crate) fn relay(&self, is_secure: bool) -> relay::Settings {
        let mut both = connection::Settings::default();
        both.stream_window = self.stream_window;
        both.most_stream_window = self.most_stream_window;
        both.connection_window = self.connection_window;
        both.max_header_list = self.max_header_list;
        both.max_header_count = self.max_header_count;
        both.handshake_timeout = self.handshake_timeout;
        both.header_timeout = self.header_timeout;
        let mut settings = relay::Settings::default();
        settings.endpoints = both.clone();
        settings.clients = both;
        settings.clients.max_concurrent_streams = self.max_concurrent_streams;
        settings.is_secure = is_secure;
        settings.max_message = self.max_message;
        settings.max_replay = self.max_replay;
        settings.max_held = self.max_held;
        settings.max_connections = self.endpoint_connections;
        settings
    }

    /// What a worker's event loop keeps to.
    pub(crate) fn driver(&self, epoch: Instant) -> driver::Settings {
        let mut settings = driver::Settings::default();
        settings.epoch = epoch;
        if let Some(connections) = self.connections {
            settings.max_connections = connections.div_ceil(self.workers);
        }
        settings.handshake_timeout = self.handshake_timeout;
        settings
    }
}

/// One worker more than whole processors makes use of a quota's fraction.
fn processors() -> usize {
    let processors = Process::this().processors().unwrap_or(1.0).ceil();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 1 to a few thousand")]
    let processors = processors.clamp(1.0, 1_024.0) as usize;
    processors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_worker_at_least() {
        assert!(Settings::default().workers >= 1);
        assert_eq!(Settings::default().with_workers(0).workers, 1);
    }
}
