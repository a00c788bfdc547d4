use evenkeel_balance::{Address, ConnectionId};

/// A live connection of a channel, as an operator sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketReport {
    /// Its name in this channel, and that of its subchannel.
    pub id: ConnectionId,
    /// Where it leads.
    pub remote: Address,
    /// Its address on this side; `None` for Unix sockets, which have none.
    pub local: Option<Address>,
    /// Whether it speaks TLS.
    pub is_secure: bool,
    /// What it carries.
    pub streams: StreamCounts,
}

/// The streams of a connection: attempts of calls, health Watches and load reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCounts {
    /// Streams begun.
    pub started: u64,
    /// Streams that the server ended in good order, whatever the status.
    pub succeeded: u64,
    /// Streams that were reset, given up, or lost with the connection.
    pub failed: u64,
}
