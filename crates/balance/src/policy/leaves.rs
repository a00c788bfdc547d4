use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Context,
    pick_first::{Leaf, LeafState},
};
use crate::{Address, Endpoint, Status, SubchannelId, Time, time::earliest};

/// Names one leaf for as long as its endpoint is listed.
pub(super) type LeafId = u32;

/// The endpoints of a petiole policy, each with its leaf: a `pick_first` over its addresses (gRFC A61).
///
/// An endpoint is known by its set of addresses, so its leaf and what the policy has learned of it outlive new lists,
/// weights and orders.
#[derive(Debug)]
pub(super) struct Leaves<T> {
    stems: BTreeMap<LeafId, Stem<T>>,
    by_addresses: BTreeMap<Vec<Address>, LeafId>,
    /// Which leaves hold which subchannel.
    holders: BTreeSet<(SubchannelId, LeafId)>,
    next_id: LeafId,
}

/// An endpoint, its leaf, and what the policy has of its own there.
#[derive(Debug)]
pub(super) struct Stem<T> {
    pub(super) leaf: Leaf,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) own: T,
}

/// What became of the leaves when a list came.
#[derive(Debug)]
pub(super) struct Listing {
    /// In the order of the list, without duplicates.
    pub(super) listed: Vec<LeafId>,
    /// Not listed any more: to be [removed](Leaves::remove).
    pub(super) gone: Vec<LeafId>,
}

/// What the resolver has said so far.
#[derive(Debug)]
pub(super) enum Resolution {
    Pending,
    Failed(Status),
    Done,
}

impl<T> Default for Leaves<T> {
    fn default() -> Self {
        Self { stems: BTreeMap::new(), by_addresses: BTreeMap::new(), holders: BTreeSet::new(), next_id: 0 }
    }
}

impl<T> Leaves<T> {
    /// Takes in a list. New endpoints get what `grow` makes; no leaf acts yet.
    pub(super) fn list(&mut self, endpoints: &[Endpoint], mut grow: impl FnMut(&Endpoint) -> (Leaf, T)) -> Listing {
        let mut gone = std::mem::take(&mut self.by_addresses);
        let mut listed = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let key = identity(endpoint);
            if self.by_addresses.contains_key(&key) {
                continue;
            }
            let id = gone.remove(&key).unwrap_or_else(|| {
                let (leaf, own) = grow(endpoint);
                self.admit(Stem { leaf, endpoint: Arc::new(endpoint.clone()), own })
            });
            if let Some(stem) = self.stems.get_mut(&id).filter(|stem| *stem.endpoint != *endpoint) {
                stem.endpoint = Arc::new(endpoint.clone());
            }
            self.by_addresses.insert(key, id);
            listed.push(id);
        }
        Listing { listed, gone: gone.into_values().collect() }
    }

    fn admit(&mut self, stem: Stem<T>) -> LeafId {
        let id = self.next_id;
        self.next_id += 1;
        self.stems.insert(id, stem);
        id
    }

    /// Lets a leaf act. True if it holds other subchannels afterwards.
    pub(super) fn with(
        &mut self,
        id: LeafId,
        ctx: &mut Context<'_>,
        act: impl FnOnce(&mut Stem<T>, &mut Context<'_>),
    ) -> bool {
        let Some(stem) = self.stems.get_mut(&id) else { return false };
        let before = stem.leaf.held().to_vec();
        act(stem, ctx);
        if before == stem.leaf.held() {
            return false;
        }
        for subchannel in before {
            self.holders.remove(&(subchannel, id));
        }
        for &subchannel in stem.leaf.held() {
            self.holders.insert((subchannel, id));
        }
        true
    }

    /// Lets a leaf that is not listed any more release what it holds.
    pub(super) fn remove(&mut self, id: LeafId, ctx: &mut Context<'_>) {
        self.with(id, ctx, |stem, ctx| stem.leaf.shutdown(ctx));
        self.stems.remove(&id);
    }

    /// Releases everything and forgets every endpoint.
    pub(super) fn shutdown(&mut self, ctx: &mut Context<'_>) {
        for id in self.ids() {
            self.remove(id, ctx);
        }
        self.by_addresses.clear();
    }

    pub(super) fn ids(&self) -> Vec<LeafId> {
        self.stems.keys().copied().collect()
    }

    pub(super) fn get(&self, id: LeafId) -> Option<&Stem<T>> {
        self.stems.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LeafId) -> Option<&mut Stem<T>> {
        self.stems.get_mut(&id)
    }

    /// The subchannels that a leaf holds.
    pub(super) fn held(&self, id: LeafId) -> &[SubchannelId] {
        self.get(id).map_or(&[], |stem| stem.leaf.held())
    }

    /// Every subchannel that a leaf holds.
    pub(super) fn all_held(&self) -> impl Iterator<Item = SubchannelId> {
        self.holders.iter().map(|&(subchannel, _)| subchannel)
    }

    /// In the order in which the endpoints were first listed.
    pub(super) fn stems(&self) -> impl Iterator<Item = &Stem<T>> {
        self.stems.values()
    }

    /// As [`stems`](Self::stems).
    pub(super) fn stems_mut(&mut self) -> impl Iterator<Item = &mut Stem<T>> {
        self.stems.values_mut()
    }

    /// The leaves that hold `subchannel`.
    pub(super) fn holders(&self, subchannel: SubchannelId) -> Vec<LeafId> {
        self.holders.range((subchannel, LeafId::MIN)..=(subchannel, LeafId::MAX)).map(|&(_, id)| id).collect()
    }

    /// The leaves whose deadline has passed.
    pub(super) fn due(&self, now: Time) -> Vec<LeafId> {
        let due = self.stems.iter().filter(|(_, stem)| stem.leaf.next_timeout().is_some_and(|at| at <= now));
        due.map(|(&id, _)| id).collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.stems().map(|stem| stem.leaf.next_timeout()).fold(None, earliest)
    }
}

impl Resolution {
    /// What a call is told when no endpoint can take it: how many there are, and what is wrong with the first few.
    pub(super) fn all_out(&self, leaves: &[LeafState]) -> Status {
        const NAMED: usize = 3;
        if leaves.is_empty() {
            return match self {
                Self::Failed(error) => error.clone(),
                Self::Pending | Self::Done => Status::unavailable("the resolver returned no endpoints"),
            };
        }
        let reasons = leaves.iter().filter_map(|state| match state {
            LeafState::Failed(error) => Some(error.message.as_str()),
            _ => None,
        });
        let more = leaves.len().saturating_sub(NAMED);
        let named = reasons.take(NAMED).collect::<Vec<_>>().join("; ");
        let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
        Status::unavailable(format!("all {} endpoints are out: {named}{rest}", leaves.len()))
    }
}

/// Endpoints are told apart by their set of addresses, whatever its order.
pub(super) fn identity(endpoint: &Endpoint) -> Vec<Address> {
    let mut addresses = endpoint.addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
