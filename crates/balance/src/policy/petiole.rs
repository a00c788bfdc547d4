use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{
    Context, Event, Policy, Update,
    pick_first::{Gate, Leaf, LeafState},
};
use crate::{
    Address, Connectivity, Endpoint, Entropy, NoChoice, Observer, Picker, Route, Status, SubchannelId, Time,
    time::earliest,
};

/// How a petiole policy chooses among ready endpoints: all that tells one such policy from another.
pub trait Choose: fmt::Debug + Send + 'static {
    /// What the policy learns of an endpoint from how its calls end; `()` where it learns nothing.
    type Memory: Observer + 'static;

    /// A picker over the endpoints that are ready now: at least one, in a stable order.
    fn picker(&mut self, ready: Vec<Candidate<Self::Memory>>, entropy: &mut Entropy) -> Arc<dyn Picker>;

    /// The memory of a new endpoint, kept for as long as the endpoint is listed. Default: none.
    fn remember(&mut self, endpoint: &Endpoint) -> Option<Arc<Self::Memory>> {
        let _ = endpoint;
        None
    }
}

/// An endpoint that is ready.
#[derive(Debug)]
#[non_exhaustive]
pub struct Candidate<M> {
    /// Where its calls go and what it carries.
    pub route: Arc<Route>,
    /// Its weight, from the resolver.
    pub weight: u32,
    /// What [`Choose::remember`] made for it.
    pub memory: Option<Arc<M>>,
}

type LeafId = u32;

/// A policy that chooses among endpoints, each of which is a `pick_first` over its addresses (gRFC A61).
///
/// It keeps every endpoint connected and picks only among those that are READY; with none READY, calls queue while one
/// is CONNECTING and fail when all are out.
#[derive(Debug)]
pub struct Petiole<C: Choose> {
    choose: C,
    leaves: BTreeMap<LeafId, Stem<C::Memory>>,
    by_addresses: BTreeMap<Vec<Address>, LeafId>,
    /// Which leaves hold which subchannel.
    holders: BTreeSet<(SubchannelId, LeafId)>,
    next_id: LeafId,
    resolution: Resolution,
    changed: bool,
}

/// What the resolver has said so far.
#[derive(Debug)]
enum Resolution {
    Pending,
    Failed(Status),
    Done,
}

/// An endpoint and its leaf.
#[derive(Debug)]
struct Stem<M> {
    leaf: Leaf,
    weight: u32,
    memory: Option<Arc<M>>,
}

impl<C: Choose> Petiole<C> {
    /// A policy without endpoints that chooses by `choose`.
    pub fn new(choose: C) -> Self {
        Self {
            choose,
            leaves: BTreeMap::new(),
            by_addresses: BTreeMap::new(),
            holders: BTreeSet::new(),
            next_id: 0,
            resolution: Resolution::Pending,
            changed: true,
        }
    }

    /// Chooses by `choose` from now on, over the same endpoints.
    pub fn reconfigure(&mut self, choose: C) {
        self.choose = choose;
        self.changed = true;
    }

    fn resolve(&mut self, endpoints: &[Endpoint], ctx: &mut Context<'_>) {
        self.resolution = Resolution::Done;
        let mut gone = std::mem::take(&mut self.by_addresses);
        for endpoint in endpoints {
            let key = identity(endpoint);
            if self.by_addresses.contains_key(&key) {
                continue;
            }
            let id = gone.remove(&key).unwrap_or_else(|| self.admit(endpoint));
            self.by_addresses.insert(key, id);
            self.with_leaf(id, ctx, |stem, ctx| {
                stem.weight = endpoint.weight;
                stem.leaf.set_addresses(&endpoint.addresses, ctx);
            });
        }
        for id in gone.into_values() {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.shutdown(ctx));
            self.leaves.remove(&id);
        }
    }

    fn admit(&mut self, endpoint: &Endpoint) -> LeafId {
        let id = self.next_id;
        self.next_id += 1;
        let memory = self.choose.remember(endpoint);
        let observer = memory.clone().map(|memory| memory as Arc<dyn Observer>);
        let leaf = Leaf::new(Gate::Service, observer);
        self.leaves.insert(id, Stem { leaf, weight: endpoint.weight, memory });
        id
    }

    /// Lets a leaf act, keeps it out of IDLE, and notes which subchannels it holds afterwards.
    fn with_leaf(
        &mut self,
        id: LeafId,
        ctx: &mut Context<'_>,
        act: impl FnOnce(&mut Stem<C::Memory>, &mut Context<'_>),
    ) {
        let Some(stem) = self.leaves.get_mut(&id) else { return };
        let before = stem.leaf.held().to_vec();
        act(stem, ctx);
        stem.leaf.exit_idle(ctx);
        if before != stem.leaf.held() {
            for subchannel in before {
                self.holders.remove(&(subchannel, id));
            }
            self.holders.extend(stem.leaf.held().iter().map(|&subchannel| (subchannel, id)));
        }
        self.changed = true;
    }

    fn subchannel_changed(&mut self, subchannel: SubchannelId, ctx: &mut Context<'_>) {
        let holders = self.holders.range((subchannel, LeafId::MIN)..=(subchannel, LeafId::MAX));
        for leaf in holders.map(|&(_, leaf)| leaf).collect::<Vec<_>>() {
            self.with_leaf(leaf, ctx, |stem, ctx| stem.leaf.subchannel_changed(subchannel, ctx));
        }
    }

    fn each_leaf(&mut self, ctx: &mut Context<'_>, act: impl Fn(&mut Leaf, &mut Context<'_>)) {
        for id in self.leaves.keys().copied().collect::<Vec<_>>() {
            self.with_leaf(id, ctx, |stem, ctx| act(&mut stem.leaf, ctx));
        }
    }

    fn update(&mut self, ctx: &mut Context<'_>) -> Update {
        let states: Vec<_> = self.leaves.values().map(|stem| stem.leaf.state(ctx)).collect();
        let connectivity = match Connectivity::aggregate(states.iter().map(LeafState::connectivity)) {
            // Every endpoint is kept connected, so IDLE is only the moment before an attempt.
            Connectivity::Idle => Connectivity::Connecting,
            Connectivity::TransientFailure if matches!(self.resolution, Resolution::Pending) => {
                Connectivity::Connecting
            }
            other => other,
        };
        let picker = match connectivity {
            Connectivity::Ready => self.ready_picker(ctx),
            Connectivity::TransientFailure => Arc::new(NoChoice::Fail(self.all_out(&states))),
            Connectivity::Idle | Connectivity::Connecting => Arc::new(NoChoice::Queue),
        };
        Update { connectivity, picker }
    }

    fn ready_picker(&mut self, ctx: &mut Context<'_>) -> Arc<dyn Picker> {
        let ready = self.leaves.values_mut().filter_map(|stem| {
            matches!(stem.leaf.state(ctx), LeafState::Ready(_))
                .then(|| stem.leaf.route(ctx))
                .flatten()
                .map(|route| Candidate { route, weight: stem.weight, memory: stem.memory.clone() })
        });
        let ready = ready.collect();
        self.choose.picker(ready, ctx.entropy())
    }

    /// What a call is told when no endpoint can take it: how many there are, and what is wrong with the first few.
    fn all_out(&self, leaves: &[LeafState]) -> Status {
        const NAMED: usize = 3;
        if leaves.is_empty() {
            return match &self.resolution {
                Resolution::Failed(error) => error.clone(),
                Resolution::Pending | Resolution::Done => Status::unavailable("the resolver returned no endpoints"),
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

impl<C: Choose> Policy for Petiole<C> {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        match event {
            Event::Resolved(endpoints) => self.resolve(endpoints, ctx),
            Event::ResolutionFailed(status) => self.resolution = Resolution::Failed(status.clone()),
            Event::Subchannel(id) => return self.subchannel_changed(id, ctx),
            Event::Timeout => return self.each_leaf(ctx, Leaf::handle_timeout),
            Event::ExitIdle => return,
        }
        self.changed = true;
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        std::mem::take(&mut self.changed).then(|| self.update(ctx))
    }

    fn next_timeout(&self) -> Option<Time> {
        self.leaves.values().map(|stem| stem.leaf.next_timeout()).fold(None, earliest)
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.each_leaf(ctx, Leaf::shutdown);
        self.leaves.clear();
        self.by_addresses.clear();
    }
}

/// Endpoints are told apart by their set of addresses, whatever its order.
fn identity(endpoint: &Endpoint) -> Vec<Address> {
    let mut addresses = endpoint.addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
