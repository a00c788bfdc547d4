use std::sync::Arc;

use evenkeel_balance::{ConnectionId, Input, KeepaliveSettings};
use tokio::sync::oneshot;

use evenkeel_transport::Connection;

use crate::explain::Explanation;

/// What the driver hears.
pub(crate) enum Message {
    /// Something for the balancer.
    Input(Input),
    /// An attempt has made its connection.
    Opened(ConnectionId, Arc<Connection>),
    /// A server leaves because of too many PINGs; its connection went by these settings.
    TooManyPings(ConnectionId, KeepaliveSettings),
    /// Somebody asks why calls go where they go.
    Explain(oneshot::Sender<Explanation>),
}
