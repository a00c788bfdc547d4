use std::time::Duration;

use crate::PermittedPings;

/// By what a server's connections go; [`Server`](crate::Server) says what each means.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_connection_idle: Option<Duration>,
    pub(crate) max_connection_age: Option<Duration>,
    pub(crate) max_connection_age_grace: Option<Duration>,
    /// How long after the last byte a PING is sent, and how long its reply may take.
    pub(crate) keepalive: Option<(Duration, Duration)>,
    pub(crate) permitted_pings: PermittedPings,
    pub(crate) max_connections: usize,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_header_list_size: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<std::sync::Arc<rustls::ServerConfig>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_connection_idle: None,
            max_connection_age: None,
            max_connection_age_grace: None,
            keepalive: Some((Duration::from_secs(2 * 60 * 60), Duration::from_secs(20))),
            permitted_pings: PermittedPings::default(),
            max_connections: usize::MAX,
            max_concurrent_streams: 1000,
            max_header_list_size: 16 * 1024,
            stream_window: 1024 * 1024,
            connection_window: 1024 * 1024,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}
