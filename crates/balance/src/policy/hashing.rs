//! What `ring_hash` and `maglev` share: a table of places, each owned by an endpoint; calls that go to the place of
//! their key, or walk on from there.

mod bound;
mod census;
mod key;
mod walk;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Context, Event, Explanation, Policy, Update,
    leaves::{Leaves, Resolution, Stem},
    listing::LeafId,
    pick_first::{Gate, Leaf, LeafState},
};
use crate::{Address, Connectivity, Endpoint, NoChoice, Picker, SubchannelId, Time};

pub(super) use bound::Bound;
use census::Census;
pub(super) use key::RequestKey;
use walk::{Spot, Walk};

/// Which endpoint owns which place: what tells one hashing policy from another.
pub trait Layout: fmt::Debug + PartialEq + Send + 'static {
    /// What it lays out.
    type Table: Table;

    /// Whether an endpoint is connected only once a call needs it (gRFC A42), rather than always (A61).
    const LAZY: bool;

    /// The table of `members`: at least one, in the order of their keys. Each of them owns a place.
    fn lay_out(&self, members: &[Member]) -> Self::Table;
}

/// Places in the order in which calls walk them, from the last one on to the first.
pub trait Table: fmt::Debug + Send + Sync + 'static {
    /// The place of a call.
    fn place(&self, hash: u64) -> usize;

    /// For each place, which member owns it.
    fn owners(&self) -> &[u32];

    /// Which share of all hashes falls to each of so many members; the sum is 1.
    fn shares(&self, members: usize) -> Vec<f64>;
}

/// An endpoint as it is placed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// What places it: its hash key, or its first address.
    pub key: String,
    /// Its share relative to the others; never 0.
    pub weight: u32,
}

impl Member {
    fn of(endpoint: &Endpoint) -> Self {
        let own_key = endpoint.hash_key.as_ref().filter(|key| !key.is_empty());
        let first_address = || endpoint.addresses.first().map(Address::to_string).unwrap_or_default();
        Self { key: own_key.map_or_else(first_address, |key| key.as_ref().to_owned()), weight: endpoint.weight }
    }
}

/// What a hashing policy goes by.
#[derive(Debug, PartialEq)]
pub(super) struct Settings<L> {
    pub(super) layout: L,
    pub(super) key: RequestKey,
    pub(super) bound: Option<Bound>,
}

/// A policy that sends calls of one key to one endpoint, and moves few of them when endpoints come and go.
#[derive(Debug)]
pub struct Hashing<L: Layout> {
    settings: Settings<L>,
    leaves: Leaves<Own>,
    census: Census,
    /// The table's members and their leaves, in the same order.
    members: Vec<Member>,
    order: Vec<LeafId>,
    /// `None` where there is no member.
    table: Option<Arc<L::Table>>,
    /// Whether a picker has set any [`Own::wanted`].
    asked: Arc<AtomicBool>,
    resolution: Resolution,
    changed: bool,
}

/// What the policy keeps with each leaf.
#[derive(Debug)]
struct Own {
    state: LeafState,
    /// Its connection has fallen silent: calls walk past, as if it had failed.
    stalled: bool,
    /// A picker wants it connected.
    wanted: Arc<AtomicBool>,
}

impl<L: Layout> Hashing<L> {
    pub(super) fn new(settings: Settings<L>) -> Self {
        Self {
            settings,
            leaves: Leaves::default(),
            census: Census::default(),
            members: Vec::new(),
            order: Vec::new(),
            table: None,
            asked: Arc::default(),
            resolution: Resolution::Pending,
            changed: true,
        }
    }

    pub(super) fn reconfigure(&mut self, settings: Settings<L>) {
        let before = std::mem::replace(&mut self.settings, settings);
        if before.layout != self.settings.layout {
            self.lay_out();
        }
        self.changed |= before != self.settings;
    }

    fn resolve(&mut self, endpoints: &[Endpoint], ctx: &mut Context<'_>) {
        self.resolution = Resolution::Done;
        let census = &mut self.census;
        let listing = self.leaves.list(&merged(endpoints), |_| {
            census.count(&LeafState::Idle, true);
            let own = Own { state: LeafState::Idle, stalled: false, wanted: Arc::default() };
            (Leaf::new(Gate::Service, None), own)
        });
        for &id in &listing.listed {
            self.listed(id, ctx);
        }
        for id in listing.gone {
            if let Some(stem) = self.leaves.get(id) {
                self.census.count(&stem.own.state, false);
            }
            self.leaves.remove(id, ctx);
        }
        self.seat(listing.listed);
    }

    /// A leaf has been listed, perhaps anew.
    fn listed(&mut self, id: LeafId, ctx: &mut Context<'_>) {
        let Some(stem) = self.leaves.get(id) else { return };
        let is_connected = |address| {
            let state = ctx.find(address).and_then(|id| ctx.state(id));
            state.is_some_and(|state| state.connection == Connectivity::Ready)
        };
        if !stem.leaf.held().is_empty() {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.set_addresses(&stem.endpoint.addresses, ctx));
        } else if !L::LAZY || stem.endpoint.addresses.iter().any(is_connected) {
            // What the policy before this one has connected is kept, so that a switch reconnects nothing.
            self.wake(id, ctx);
        }
    }

    /// Gives the listed endpoints their places.
    fn seat(&mut self, listed: Vec<LeafId>) {
        let seats = listed.into_iter().filter_map(|id| Some((Member::of(&self.leaves.get(id)?.endpoint), id)));
        let mut seats: Vec<_> = seats.collect();
        seats.sort_unstable();
        let (members, order) = seats.into_iter().unzip();
        self.order = order;
        if self.members != members {
            self.members = members;
            self.lay_out();
        }
    }

    fn lay_out(&mut self) {
        let placed = !self.members.is_empty();
        self.table = placed.then(|| Arc::new(self.settings.layout.lay_out(&self.members)));
    }

    /// Has an endpoint connected, if it is not already being connected.
    fn wake(&mut self, id: LeafId, ctx: &mut Context<'_>) {
        self.with_leaf(id, ctx, |stem, ctx| {
            stem.own.wanted.store(false, Ordering::Relaxed);
            if stem.own.state == LeafState::Idle {
                stem.leaf.set_addresses(&stem.endpoint.addresses, ctx);
                stem.leaf.exit_idle(ctx);
            }
        });
    }

    /// Lets a leaf act and takes its state down.
    fn with_leaf(&mut self, id: LeafId, ctx: &mut Context<'_>, act: impl FnOnce(&mut Stem<Own>, &mut Context<'_>)) {
        let census = &mut self.census;
        self.leaves.with(id, ctx, |stem, ctx| {
            act(stem, ctx);
            if !L::LAZY {
                stem.leaf.exit_idle(ctx);
            }
            let state = stem.leaf.state(ctx);
            census.count(&stem.own.state, false);
            census.count(&state, true);
            stem.own.state = state;
            stem.own.stalled = stem.leaf.held().iter().filter_map(|&id| ctx.state(id)).any(|state| state.stalled);
        });
        self.changed = true;
    }

    fn subchannel_changed(&mut self, subchannel: SubchannelId, ctx: &mut Context<'_>) {
        for id in self.leaves.holders(subchannel) {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.subchannel_changed(subchannel, ctx));
        }
    }

    fn timeout(&mut self, ctx: &mut Context<'_>) {
        for id in self.leaves.due(ctx.now()) {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.handle_timeout(ctx));
        }
    }

    /// Connects what pickers have asked for. Where a call waits for a connection of which no picker knows, any will do.
    fn exit_idle(&mut self, ctx: &mut Context<'_>) {
        if self.asked.swap(false, Ordering::Acquire) {
            let wanted =
                |id: &LeafId| self.leaves.get(*id).is_some_and(|stem| stem.own.wanted.swap(false, Ordering::Relaxed));
            for id in self.order.iter().copied().filter(wanted).collect::<Vec<_>>() {
                self.wake(id, ctx);
            }
        } else if self.connectivity() == Connectivity::Idle {
            self.wake_any(ctx);
        }
    }

    /// While calls are not placed, and so may not even come, someone has to try (gRFC A61): as attempts fail, one
    /// endpoint after another is connected.
    fn keep_trying(&mut self, ctx: &mut Context<'_>) {
        let is_out = |state| matches!(state, Connectivity::Connecting | Connectivity::TransientFailure);
        while is_out(self.connectivity()) && self.census.connecting == 0 && self.census.idle > 0 {
            self.wake_any(ctx);
        }
    }

    /// Connects an idle endpoint if there is one; which, is random, lest all clients try the same one.
    fn wake_any(&mut self, ctx: &mut Context<'_>) {
        let (before, from) = self.order.split_at(ctx.entropy().below(self.order.len()));
        let is_idle = |id: &&LeafId| self.leaves.get(**id).is_some_and(|stem| stem.own.state == LeafState::Idle);
        if let Some(&id) = from.iter().chain(before).find(is_idle) {
            self.wake(id, ctx);
        }
    }

    fn connectivity(&self) -> Connectivity {
        let census = &self.census;
        match &self.resolution {
            Resolution::Pending => Connectivity::Connecting,
            _ if L::LAZY => census.lazily(),
            _ => census.eagerly(),
        }
    }

    fn update(&mut self, ctx: &mut Context<'_>) -> Update {
        let picker: Arc<dyn Picker> = match &self.table {
            Some(table) if self.census.ready + self.census.idle > 0 => {
                let table = Arc::clone(table);
                Arc::new(self.walk(table, ctx))
            }
            _ if self.census.connecting > 0 || matches!(self.resolution, Resolution::Pending) => {
                Arc::new(NoChoice::Queue)
            }
            _ => {
                let states: Vec<_> = self.leaves.stems().map(|stem| stem.own.state.clone()).collect();
                Arc::new(NoChoice::Fail(self.resolution.all_out(&states)))
            }
        };
        Update { connectivity: self.connectivity(), picker }
    }

    fn walk(&mut self, table: Arc<L::Table>, ctx: &Context<'_>) -> Walk<L::Table> {
        let mut spots = Vec::with_capacity(self.order.len());
        for (&id, member) in self.order.iter().zip(&self.members) {
            let Some(stem) = self.leaves.get_mut(id) else { continue };
            let route = match stem.own.state {
                LeafState::Ready(_) => stem.leaf.route(ctx),
                _ => None,
            };
            spots.push(match (&stem.own.state, route) {
                (LeafState::Ready(_), Some(route)) => Spot::Ready { route, weight: member.weight },
                (LeafState::Idle, _) => Spot::Idle { wanted: Arc::clone(&stem.own.wanted), weight: member.weight },
                (LeafState::Connecting, _) if !stem.own.stalled => Spot::Connecting { weight: member.weight },
                _ => Spot::Out,
            });
        }
        let is_connecting = self.census.connecting > 0;
        let walk = Walk::new(table, spots, self.settings.key.clone(), Arc::clone(&self.asked), is_connecting);
        let walk = if L::LAZY { walk.patient() } else { walk };
        match self.settings.bound {
            Some(bound) => walk.bounded(bound),
            None => walk,
        }
    }
}

impl<L: Layout> Policy for Hashing<L> {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        match event {
            Event::Resolved(endpoints) => self.resolve(endpoints, ctx),
            Event::ResolutionFailed(status) => self.resolution = Resolution::Failed(status.clone()),
            Event::Subchannel(id) => self.subchannel_changed(id, ctx),
            Event::Timeout => self.timeout(ctx),
            Event::ExitIdle => self.exit_idle(ctx),
            Event::Load(..) | Event::Switched => return,
        }
        self.changed |= matches!(event, Event::Resolved(_) | Event::ResolutionFailed(_));
        self.keep_trying(ctx);
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        std::mem::take(&mut self.changed).then(|| self.update(ctx))
    }

    fn next_timeout(&self) -> Option<Time> {
        self.leaves.next_timeout()
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.leaves.shutdown(ctx);
        self.census = Census::default();
        self.order.clear();
        self.members.clear();
        self.table = None;
    }

    fn explain(&self) -> Explanation {
        let Census { idle, connecting, ready, failed } = self.census;
        let states = format!("{ready} endpoints are ready, {connecting} connecting, {idle} idle, {failed} out");
        let bound = self.settings.bound.map(|bound| bound.to_string());
        let notes = [states, self.settings.key.to_string()].into_iter().chain(bound).chain(self.explain_shares());
        notes.fold(Explanation::default(), Explanation::note)
    }
}

impl<L: Layout> Hashing<L> {
    /// How evenly the table shares out the hashes, by weight.
    fn explain_shares(&self) -> Option<String> {
        let table = self.table.as_ref()?;
        let total: f64 = self.members.iter().map(|member| f64::from(member.weight)).sum();
        let relative = table.shares(self.members.len()).into_iter().zip(&self.members);
        let relative = relative.map(|(share, member)| share * total / f64::from(member.weight));
        let (least, most) =
            relative.fold((f64::INFINITY, 0.0), |(least, most), share| (f64::min(least, share), f64::max(most, share)));
        let places = table.owners().len();
        Some(format!("{places} places; endpoints own {least:.2} to {most:.2} times their fair share of keys"))
    }
}

/// Endpoints without duplicates: one that is listed twice has the weight of both (gRFC A42).
fn merged(endpoints: &[Endpoint]) -> Vec<Endpoint> {
    let mut places: BTreeMap<Vec<Address>, usize> = BTreeMap::new();
    let mut merged: Vec<Endpoint> = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let place = *places.entry(super::leaves::identity(endpoint)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => first.weight = first.weight.saturating_add(endpoint.weight),
            None => merged.push(endpoint.clone()),
        }
    }
    merged
}
