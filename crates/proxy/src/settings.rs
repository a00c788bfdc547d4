use std::{num::NonZero, sync::Arc, thread, time::Duration};

use evenkeel_relay::{driver, relay};
use rustls::ServerConfig;

/// How the proxy treats its clients.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How long running calls may take to end after a drain has begun. Default 10 s.
    pub drain_timeout: Duration,
    /// Threads that carry calls. Default: one for each processor that the process may use.
    pub workers: usize,
    /// TLS towards clients: what they are shown, and what they have to show. It has to offer `h2` by ALPN. Default: none is
    /// spoken.
    pub tls: Option<Arc<ServerConfig>>,
    /// What a worker's engine keeps to: limits of HTTP/2 and of gRPC, floods, memory. `is_secure` is set by the channel.
    pub relay: relay::Settings,
    /// What a worker's event loop keeps to: connections, handshakes. `epoch` is set by the channel.
    pub driver: driver::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(10),
            workers: thread::available_parallelism().map_or(1, NonZero::get),
            tls: None,
            relay: relay::Settings::default(),
            driver: driver::Settings::default(),
        }
    }
}

impl Settings {
    /// The same settings with another drain time-out.
    #[must_use]
    pub fn with_drain_timeout(self, drain_timeout: Duration) -> Self {
        Self { drain_timeout, ..self }
    }

    /// The same settings with another number of workers, at least one.
    #[must_use]
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    /// The same settings with TLS towards clients.
    #[must_use]
    pub fn with_tls(self, tls: Arc<ServerConfig>) -> Self {
        Self { tls: Some(tls), ..self }
    }
}
