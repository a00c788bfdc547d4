use std::sync::Arc;

use evenkeel_balance::{ConnectionId, Input};

use crate::transport::Connection;

/// What the driver hears.
pub(crate) enum Message {
    /// Something for the balancer.
    Input(Input),
    /// An attempt has made its connection.
    Opened(ConnectionId, Arc<Connection>),
}
