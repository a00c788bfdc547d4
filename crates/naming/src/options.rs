use std::{net::SocketAddr, time::Duration};

/// How the built-in resolvers behave. Names and files are affected: lists of addresses and Unix sockets resolve once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The DNS servers to ask. Default: none, which means those of the system (`/etc/resolv.conf` on Unix, read again
    /// at every look-up). A server named in the target (`dns://server/host`) comes before both.
    pub servers: Vec<SocketAddr>,
    /// The domains in which to look for names that do not end in a dot. Default: `None`, which means the system's list
    /// (`search` in `/etc/resolv.conf`), whichever servers are asked, as grpc-go has it. Empty: every name is absolute.
    pub search: Option<Vec<String>>,
    /// From how many dots on a name is tried as it is before the search list. Default: `None`, which means the system's
    /// number (`options ndots:n`, 1 unless set).
    pub ndots: Option<usize>,
    /// Whether a target that is one name also has its service config looked up, in the TXT record of
    /// `_grpc_config.<name>` (gRFC A2). Default `true`, as in grpc-go.
    ///
    /// A look-up of it that fails delays the endpoints by a quarter of `lookup_timeout` at most, is tried again with
    /// backoff, and leaves the config before in force. Never looked up: for `localhost` and addresses (A10), for names
    /// of the hosts file, which need no server, and for lists, which have no one owner.
    pub service_config: bool,
    /// The shortest time between two look-ups of a name. Default 1 s.
    ///
    /// Shorter TTLs, 0 included, are raised to it, and requests to resolve again wait for it. Far below the default, a
    /// channel whose endpoints all fail floods its DNS server.
    pub min_interval: Duration,
    /// The longest time between two look-ups of a name: longer TTLs are lowered to it. Default 1 h.
    ///
    /// It also is how long entries of the hosts file are kept. It bounds the damage of a TTL that was set too high.
    pub max_interval: Duration,
    /// How long one look-up may take, over all servers, search domains and retries. Default 5 s.
    pub lookup_timeout: Duration,
    /// The delay after the first failed look-up, before jitter. Default 1 s; each further failure multiplies it by 1.6,
    /// every delay varies by ± 20 %, and a success resets it (gRPC's connection backoff).
    pub backoff_initial: Duration,
    /// The longest delay between failed look-ups, before jitter. Default 120 s.
    pub backoff_max: Duration,
    /// How often the file of a `file:` target is looked at: a change is seen after that time at most. Default 500 ms; at least
    /// 1 ms.
    pub file_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: None,
            ndots: None,
            service_config: true,
            min_interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(60 * 60),
            lookup_timeout: Duration::from_secs(5),
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(120),
            file_interval: Duration::from_millis(500),
        }
    }
}
