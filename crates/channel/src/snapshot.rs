use std::sync::Arc;

use evenkeel_balance::{
    Address, Balancer, ConnectionId, Connectivity, Load, Pick, RetryThrottle, Route, ServiceConfig, Status,
    SubchannelId, Update,
};

use evenkeel_transport::{Connection, LineSettings, SocketReport};

/// What a call needs to be placed, published whole: a picker and the connections that it may pick travel together.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Grows by one with each snapshot of a channel.
    pub(crate) version: u64,
    pub(crate) update: Update,
    pub(crate) config: Arc<ServiceConfig>,
    pub(crate) throttle: Option<Arc<RetryThrottle>>,
    /// How new connections are watched.
    pub(crate) line: LineSettings,
    pub(crate) connections: Connections,
}

impl Snapshot {
    /// The snapshot of a channel that has not been used.
    pub(crate) fn dormant(config: Arc<ServiceConfig>, line: LineSettings) -> Self {
        let connections = Connections::default();
        Self { version: 0, update: Balancer::dormant(), config, throttle: None, line, connections }
    }

    /// Places a call on the endpoint at `address`, whatever the policy says. It takes time in proportion to the number
    /// of endpoints.
    pub(crate) fn pinned(&self, address: &Address) -> Pick {
        let found = self.connections.iter().find(|live| live.first.connection.peer() == address);
        match found.filter(|live| live.usable().is_some()) {
            Some(live) => {
                Pick::Call(Arc::new(Route::new(live.first.id.subchannel, Arc::clone(&live.load), None)).call())
            }
            None if self.update.connectivity == Connectivity::Idle => Pick::Idle,
            None if self.update.connectivity == Connectivity::Connecting => Pick::Queue,
            None => {
                Pick::Fail(Status::unavailable(format!("{address}: the call is pinned to it, and it is not connected")))
            }
        }
    }

    /// The connections that still take calls.
    pub(crate) fn sockets(&self) -> Vec<SocketReport> {
        let open = self.connections.iter().flat_map(Live::all).filter(|open| !open.connection.is_closed());
        open.map(|open| open.connection.report(open.id)).collect()
    }

    /// Shows the first connection of each subchannel, its address, and what the subchannel carries.
    pub(crate) fn first_connections(&self, each: &mut dyn FnMut(ConnectionId, &Address, &Arc<Load>)) {
        for live in self.connections.iter() {
            each(live.first.id, live.first.connection.peer(), &live.load);
        }
    }

    /// The connection of a subchannel on which the next call goes, if one still takes calls: the oldest with room.
    pub(crate) fn connection(&self, id: SubchannelId) -> Option<Arc<Connection>> {
        self.connections.get(id)?.usable().map(Arc::clone)
    }
}

/// The live connections of a channel, by subchannel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Option<Live>>,
}

/// The live connections of one subchannel.
#[derive(Clone, Debug)]
struct Live {
    first: Open,
    /// Those that were made because the ones before them were full (gRFC A105), the oldest first.
    further: Vec<Open>,
    /// What the subchannel carries.
    load: Arc<Load>,
}

#[derive(Clone, Debug)]
struct Open {
    id: ConnectionId,
    connection: Arc<Connection>,
}

impl Live {
    fn all(&self) -> impl Iterator<Item = &Open> {
        std::iter::once(&self.first).chain(&self.further)
    }

    fn usable(&self) -> Option<&Arc<Connection>> {
        let first = &self.first.connection;
        if self.further.is_empty() {
            return Some(first).filter(|first| !first.is_closed());
        }
        let mut open = self.all().map(|open| &open.connection).filter(|connection| !connection.is_closed());
        let oldest = open.next()?;
        if oldest.has_room() { Some(oldest) } else { open.find(|connection| connection.has_room()).or(Some(oldest)) }
    }
}

impl Connections {
    pub(crate) fn insert(&mut self, id: ConnectionId, connection: Arc<Connection>, load: Arc<Load>) {
        let slot = id.subchannel.slot();
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        let open = Open { id, connection };
        match &mut self.slots[slot] {
            Some(live) if live.first.id.subchannel == id.subchannel => live.further.push(open),
            vacant => *vacant = Some(Live { first: open, further: Vec::new(), load }),
        }
    }

    /// Takes out this very connection; others stay.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Arc<Connection>> {
        let slot = self.slots.get_mut(id.subchannel.slot())?;
        let live = slot.as_mut()?;
        if let Some(place) = live.further.iter().position(|open| open.id == id) {
            return Some(live.further.remove(place).connection);
        }
        if live.first.id != id {
            return None;
        }
        if live.further.is_empty() {
            return slot.take().map(|live| live.first.connection);
        }
        let next = live.further.remove(0);
        Some(std::mem::replace(&mut live.first, next).connection)
    }

    /// This very connection.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<&Arc<Connection>> {
        let live = self.get(id.subchannel)?;
        live.all().find(|open| open.id == id).map(|open| &open.connection)
    }

    fn get(&self, subchannel: SubchannelId) -> Option<&Live> {
        let live = self.slots.get(subchannel.slot())?.as_ref()?;
        (live.first.id.subchannel == subchannel).then_some(live)
    }

    fn iter(&self) -> impl Iterator<Item = &Live> {
        self.slots.iter().flatten()
    }
}
