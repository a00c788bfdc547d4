//! The endpoints that the newest picker knows, and the connections to each.

use std::{collections::VecDeque, sync::Arc};

use evenkeel_balance::{Address, ConnectionId, Load, SubchannelId, Time};
use smallvec::SmallVec;

use crate::{
    engine::DialId,
    relay::{call::CallKey, conns::ConnIx},
};

/// An endpoint, for as long as the balancer's connection to it is the same one.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) connection: ConnectionId,
    pub(crate) address: Address,
    pub(crate) load: Arc<Load>,
    /// The oldest first.
    pub(crate) conns: SmallVec<[ConnIx; 1]>,
    /// The attempts to make another.
    pub(crate) dialling: SmallVec<[(DialId, Time); 1]>,
    /// Calls that wait for a stream.
    pub(crate) line: VecDeque<CallKey>,
    /// Seen in the newest version.
    is_current: bool,
}

/// By the slot of the subchannel.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    slots: Vec<Option<Endpoint>>,
    dials: u64,
}

impl Endpoints {
    pub(crate) fn get(&self, id: SubchannelId) -> Option<&Endpoint> {
        let endpoint = self.slots.get(id.slot())?.as_ref()?;
        (endpoint.connection.subchannel == id).then_some(endpoint)
    }

    pub(crate) fn get_mut(&mut self, id: SubchannelId) -> Option<&mut Endpoint> {
        let endpoint = self.slots.get_mut(id.slot())?.as_mut()?;
        (endpoint.connection.subchannel == id).then_some(endpoint)
    }

    /// The endpoint, if the balancer's connection is this one.
    pub(crate) fn of(&mut self, connection: ConnectionId) -> Option<&mut Endpoint> {
        self.get_mut(connection.subchannel).filter(|endpoint| endpoint.connection == connection)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.slots.iter().flatten()
    }

    /// A name for an attempt to connect.
    pub(crate) fn next_dial(&mut self) -> DialId {
        self.dials += 1;
        DialId(self.dials)
    }

    /// Forgets which endpoints the newest version has; [`Self::see`] names them, [`Self::take_gone`] takes out the others.
    pub(crate) fn begin_version(&mut self) {
        self.slots.iter_mut().flatten().for_each(|endpoint| endpoint.is_current = false);
    }

    /// The newest version has this endpoint. Returns the one before, if the balancer's connection was another; whether it
    /// is new.
    pub(crate) fn see(&mut self, id: ConnectionId, address: &Address, load: &Arc<Load>) -> (Option<Endpoint>, bool) {
        let slot = id.subchannel.slot();
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(known) = self.slots[slot].as_mut().filter(|known| known.connection == id) {
            known.is_current = true;
            return (None, false);
        }
        let fresh = Endpoint {
            connection: id,
            address: address.clone(),
            load: Arc::clone(load),
            conns: SmallVec::new(),
            dialling: SmallVec::new(),
            line: VecDeque::new(),
            is_current: true,
        };
        (self.slots[slot].replace(fresh), true)
    }

    /// The endpoints that the newest version does not have.
    pub(crate) fn take_gone(&mut self) -> Vec<Endpoint> {
        let is_gone = |slot: &Option<Endpoint>| slot.as_ref().is_some_and(|endpoint| !endpoint.is_current);
        self.slots.iter_mut().filter(|slot| is_gone(slot)).filter_map(Option::take).collect()
    }
}
