use std::sync::Arc;

use evenkeel_balance::{
    Address, Balancer, ConnectionId, Connectivity, Load, Pick, RetryThrottle, Route, ServiceConfig, Status,
    SubchannelId, Update,
};

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

    /// Places a call on the endpoint at `address`, whatever the policy says. It takes time in proportion to the number
    /// of endpoints.
    pub(crate) fn pinned(&self, address: &Address) -> Pick {
        let found = self.connections.iter().find(|live| live.connection.peer() == address);
        match found.filter(|live| !live.connection.is_closed()) {
            Some(live) => Pick::Call(Arc::new(Route::new(live.id.subchannel, Arc::clone(&live.load), None)).call()),
            None if self.update.connectivity == Connectivity::Idle => Pick::Idle,
            None if self.update.connectivity == Connectivity::Connecting => Pick::Queue,
            None => {
                Pick::Fail(Status::unavailable(format!("{address}: the call is pinned to it, and it is not connected")))
            }
        }
    }

    /// The connection of a subchannel, if it still takes calls.
    pub(crate) fn connection(&self, id: SubchannelId) -> Option<Arc<Connection>> {
        self.connections.get(id).filter(|connection| !connection.is_closed()).map(Arc::clone)
    }
}

/// The live connections of a channel, by subchannel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Option<Live>>,
}

/// A live connection.
#[derive(Clone, Debug)]
struct Live {
    id: ConnectionId,
    connection: Arc<Connection>,
    /// What its subchannel carries.
    load: Arc<Load>,
}

impl Connections {
    pub(crate) fn insert(&mut self, id: ConnectionId, connection: Arc<Connection>, load: Arc<Load>) {
        let slot = id.subchannel.slot();
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        self.slots[slot] = Some(Live { id, connection, load });
    }

    /// Takes out this very connection; one that has replaced it stays.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Arc<Connection>> {
        let slot = self.slots.get_mut(id.subchannel.slot())?;
        slot.take_if(|live| live.id == id).map(|live| live.connection)
    }

    pub(crate) fn get(&self, subchannel: SubchannelId) -> Option<&Arc<Connection>> {
        let live = self.slots.get(subchannel.slot())?.as_ref()?;
        (live.id.subchannel == subchannel).then_some(&live.connection)
    }

    fn iter(&self) -> impl Iterator<Item = &Live> {
        self.slots.iter().flatten()
    }
}
