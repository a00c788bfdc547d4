use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Context,
    listing::{LeafId, Listing, Previous},
    pick_first::{Leaf, LeafState},
};
use crate::{Address, Endpoint, Status, SubchannelId, Time, deadlines::Deadlines};

/// The endpoints of a petiole policy, each with its leaf: a `pick_first` over its addresses (gRFC A61).
///
/// An endpoint is known by its set of addresses, so its leaf and what the policy has learned of it outlive new lists,
/// weights and orders.
#[derive(Debug)]
pub(super) struct Leaves<T> {
    stems: BTreeMap<LeafId, Stem<T>>,
    /// The list as it came last, without duplicates.
    list: Vec<(LeafId, Arc<Endpoint>)>,
    by_addresses: BTreeMap<Vec<Address>, LeafId>,
    /// Which leaves hold which subchannel.
    holders: BTreeSet<(SubchannelId, LeafId)>,
    deadlines: Deadlines<LeafId>,
    next_id: LeafId,
}

/// An endpoint, its leaf, and what the policy has of its own there.
#[derive(Debug)]
pub(super) struct Stem<T> {
    pub(super) leaf: Leaf,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) own: T,
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
        Self {
            stems: BTreeMap::new(),
            list: Vec::new(),
            by_addresses: BTreeMap::new(),
            holders: BTreeSet::new(),
            deadlines: Deadlines::default(),
            next_id: 0,
        }
    }
}

impl<T> Leaves<T> {
    /// Takes in a list. New endpoints get what `grow` makes; no leaf acts yet.
    pub(super) fn list(&mut self, endpoints: &[Endpoint], mut grow: impl FnMut(&Endpoint) -> (Leaf, T)) -> Listing {
        let mut previous = Previous::new(std::mem::take(&mut self.list));
        let mut listing = Listing::default();
        for endpoint in endpoints {
            let entry = previous.next_if(endpoint).or_else(|| {
                let (entry, changed) = self.look_up(endpoint, &mut previous, &mut grow)?;
                listing.changed.extend(changed.then_some(entry.0));
                Some(entry)
            });
            let Some(entry) = entry else { continue };
            listing.listed.push(entry.0);
            self.list.push(entry);
        }
        for (id, endpoint) in previous.gone() {
            self.by_addresses.remove(&identity(&endpoint));
            listing.gone.push(id);
        }
        listing
    }

    /// The entry of an endpoint that is not where it was, or not as it was, and whether its leaf has to hear of it;
    /// `None` for one that has been listed already.
    fn look_up(
        &mut self,
        endpoint: &Endpoint,
        previous: &mut Previous,
        grow: impl FnOnce(&Endpoint) -> (Leaf, T),
    ) -> Option<((LeafId, Arc<Endpoint>), bool)> {
        let key = identity(endpoint);
        let Some(&id) = self.by_addresses.get(&key) else {
            let (leaf, own) = grow(endpoint);
            let endpoint = Arc::new(endpoint.clone());
            let id = self.admit(Stem { leaf, endpoint: Arc::clone(&endpoint), own });
            self.by_addresses.insert(key, id);
            return Some(((id, endpoint), true));
        };
        let known = previous.meet(id)?;
        if *known == *endpoint {
            return Some(((id, known), false));
        }
        let endpoint = Arc::new(endpoint.clone());
        let changed = known.addresses != endpoint.addresses;
        if let Some(stem) = self.stems.get_mut(&id) {
            stem.endpoint = Arc::clone(&endpoint);
        }
        Some(((id, endpoint), changed))
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
        self.deadlines.set(id, stem.leaf.next_timeout());
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
        self.list.clear();
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
        self.deadlines.due(now)
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::policy::pick_first::Gate;

    /// Lists of endpoints, each of a few ports and a weight.
    fn lists() -> impl Strategy<Value = Vec<Vec<(Vec<u16>, u32)>>> {
        vec(vec((vec(1..9_u16, 1..3), 1..3_u32), 0..12), 1..8)
    }

    fn endpoint((ports, weight): &(Vec<u16>, u32)) -> Endpoint {
        let addresses = ports.iter().map(|&port| std::net::SocketAddr::from(([127, 0, 0, 1], port)).into());
        Endpoint::with_addresses(addresses).expect("it has an address").weighted(*weight)
    }

    proptest! {
        #[test]
        fn a_list_is_taken_in_as_if_every_endpoint_were_looked_up(lists in lists()) {
            let mut leaves = Leaves::<()>::default();
            let mut naive = BTreeMap::<Vec<Address>, (LeafId, Endpoint)>::new();
            let mut next_id = 0;
            for list in lists {
                let list: Vec<_> = list.iter().map(endpoint).collect();
                let mut before = std::mem::take(&mut naive);
                let mut expected = Listing::default();
                for endpoint in &list {
                    let key = identity(endpoint);
                    if naive.contains_key(&key) {
                        continue;
                    }
                    let known = before.remove(&key);
                    let id = known.as_ref().map_or(next_id, |(id, _)| *id);
                    next_id = next_id.max(id + 1);
                    let same = known.is_some_and(|(_, known)| known.addresses == endpoint.addresses);
                    expected.changed.extend((!same).then_some(id));
                    expected.listed.push(id);
                    naive.insert(key, (id, endpoint.clone()));
                }
                expected.gone = before.into_values().map(|(id, _)| id).collect();
                let mut listing = leaves.list(&list, |_| (Leaf::new(Gate::Service, None), ()));
                listing.gone.sort_unstable();
                expected.gone.sort_unstable();
                prop_assert_eq!(&listing, &expected);
                for id in listing.gone {
                    leaves.stems.remove(&id);
                }
                prop_assert_eq!(leaves.stems.len(), naive.len());
                prop_assert!(naive.values().all(|(id, endpoint)| *leaves.stems[id].endpoint == *endpoint));
            }
        }
    }
}
