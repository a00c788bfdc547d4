use std::net::SocketAddr;

use evenkeel_server::ConnectionId;
use tonic::Request;

/// Whose a `Watch` is, for limits: one connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// As our own server tells it.
    Connection(ConnectionId),
    /// As tonic's server tells it: an address and a port are one connection's while that is open.
    Address(SocketAddr),
}

impl Caller {
    /// `None` where the server tells neither, as tonic's does of Unix sockets.
    pub(crate) fn of<T>(request: &Request<T>) -> Option<Self> {
        let connection = request.extensions().get().copied().map(Self::Connection);
        connection.or_else(|| request.remote_addr().map(Self::Address))
    }
}
