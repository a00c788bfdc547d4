use std::time::{Duration, Instant};

/// How a worker treats its sockets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What [`Time`](evenkeel_balance::Time)s count from. Default: when these settings were made. Whoever exchanges times
    /// with the engine has to count from the same moment.
    pub epoch: Instant,
    /// Clients that may be connected to one worker. Further ones are closed at once. Default 10 000. Above what file
    /// descriptors the process may have, clients wait in the listener's queue instead.
    pub max_connections: usize,
    /// How long a TLS handshake may take, on either side. Default 10 s.
    pub handshake_timeout: Duration,
    /// Bytes that one socket is read in one turn while others wait. Default 256 KiB. Less is fairer, more is cheaper.
    pub read_cap: usize,
    /// Bytes that one system call reads at most; a worker has one buffer of this size. Default 64 KiB.
    pub read_buffer: usize,
    /// How long a peer may take to read what is left when its connection is closed. Default 10 s.
    pub flush_timeout: Duration,
    /// How long a closed connection waits for the peer to close it too, so that the last that was sent is read. Default 1 s.
    pub linger: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            max_connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            read_cap: 256 * 1024,
            read_buffer: 64 * 1024,
            flush_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}
