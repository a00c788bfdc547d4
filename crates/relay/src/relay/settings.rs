use crate::connection;

/// How a relay treats its clients and its endpoints.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Towards clients.
    pub clients: connection::Settings,
    /// Towards endpoints.
    pub endpoints: connection::Settings,
    /// Whether endpoints are spoken to by TLS: the `:scheme` that they see. Default no.
    pub is_secure: bool,
    /// The largest message that is let through, in bytes, either way. A message is known by its prefix, before anything of
    /// it is kept; beyond the limit the call ends with `RESOURCE_EXHAUSTED`. Default 2 GiB - 1, the most that gRPC's
    /// libraries can take; a service config can say less.
    pub max_message: u32,
    /// How much of a request is kept for another attempt, in bytes; a longer one is sent once. Default 64 KiB.
    pub max_replay: usize,
    /// How much payload a relay keeps for sides that are slow to take it and for further attempts, in bytes, all calls
    /// together. Beyond that the call that keeps most ends, with `RESOURCE_EXHAUSTED`. Default 64 MiB.
    pub max_held: usize,
    /// Connections to one endpoint, at most. There is a further one only where the streams that the server allows are all
    /// in use. Default 16.
    pub max_connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clients: connection::Settings::default(),
            endpoints: connection::Settings::default(),
            is_secure: false,
            max_message: i32::MAX as u32,
            max_replay: 64 * 1024,
            max_held: 64 * 1024 * 1024,
            max_connections: 16,
        }
    }
}
