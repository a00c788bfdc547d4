use crate::connection;

/// What a relay has seen, since it was made. Plain numbers: one thread counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Client connections.
    pub clients_accepted: u64,
    /// Calls that have begun.
    pub calls: u64,
    /// Requests that were no gRPC calls, and were answered with an HTTP status.
    pub refused: u64,
    /// Messages beyond the limit.
    pub too_long: u64,
    /// Calls that ended because the relay kept too much already.
    pub held_too_much: u64,
    /// Calls whose client reset them.
    pub cancelled: u64,
    /// Calls whose deadline passed here.
    pub timed_out: u64,
    /// Connections to endpoints that were made.
    pub connected: u64,
    /// Of all connections together, those that are gone included.
    pub connections: connection::Counters,
}

impl Counters {
    pub(crate) fn add(&mut self, connection: &connection::Counters) {
        self.connections += *connection;
    }

    /// Adds those of another relay.
    pub fn join(&mut self, other: &Self) {
        self.clients_accepted += other.clients_accepted;
        self.calls += other.calls;
        self.refused += other.refused;
        self.too_long += other.too_long;
        self.held_too_much += other.held_too_much;
        self.cancelled += other.cancelled;
        self.timed_out += other.timed_out;
        self.connected += other.connected;
        self.connections += other.connections;
    }
}
