use std::sync::Arc;

use evenkeel_balance::{Balancer, ConnectionId, RetryThrottle, ServiceConfig, SubchannelId, Update};

use crate::transport::Connection;

/// What a call needs to be placed, published whole: a picker and the connections that it may pick travel together.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Grows by one with each snapshot of a channel.
    pub(crate) version: u64,
    pub(crate) update: Update,
    pub(crate) config: Arc<ServiceConfig>,
    pub(crate) throttle: Option<Arc<RetryThrottle>>,
    connections: Connections,
}

impl Snapshot {
    /// The snapshot of a channel that has not been used.
    pub(crate) fn dormant(config: Arc<ServiceConfig>) -> Self {
        Self { version: 0, update: Balancer::dormant(), config, throttle: None, connections: Connections::default() }
    }

    pub(crate) fn new(
        version: u64,
        update: Update,
        config: Arc<ServiceConfig>,
        throttle: Option<Arc<RetryThrottle>>,
        connections: Connections,
    ) -> Self {
        Self { version, update, config, throttle, connections }
    }

    /// The connection of a subchannel, if it still takes calls.
    pub(crate) fn connection(&self, id: SubchannelId) -> Option<Arc<Connection>> {
        self.connections.get(id).filter(|connection| !connection.is_closed()).map(Arc::clone)
    }
}

/// The live connections of a channel, by subchannel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Option<(ConnectionId, Arc<Connection>)>>,
}

impl Connections {
    pub(crate) fn insert(&mut self, id: ConnectionId, connection: Arc<Connection>) {
        let slot = id.subchannel.slot();
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        self.slots[slot] = Some((id, connection));
    }

    /// Takes out this very connection; one that has replaced it stays.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Arc<Connection>> {
        let slot = self.slots.get_mut(id.subchannel.slot())?;
        slot.take_if(|(present, _)| *present == id).map(|(_, connection)| connection)
    }

    pub(crate) fn get(&self, subchannel: SubchannelId) -> Option<&Arc<Connection>> {
        let (id, connection) = self.slots.get(subchannel.slot())?.as_ref()?;
        (id.subchannel == subchannel).then_some(connection)
    }
}
