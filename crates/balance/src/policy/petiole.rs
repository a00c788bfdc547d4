use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use super::{
    Context, Event, Explanation, Policy, Update,
    pick_first::{Gate, Leaf, LeafState},
};
use crate::{
    Address, Connectivity, Endpoint, LoadReport, NoChoice, Observer, Picker, Route, Status, SubchannelId, Time,
    time::earliest,
};

/// How a petiole policy chooses among ready endpoints: all that tells one such policy from another.
pub trait Choose: fmt::Debug + Send + 'static {
    /// What the policy learns of an endpoint from how its calls end; `()` where it learns nothing.
    type Memory: Observer + 'static;

    /// A picker over the endpoints that are ready now: at least one, in a stable order.
    fn picker(&mut self, ready: Vec<Candidate<Self::Memory>>, ctx: &mut Context<'_>) -> Arc<dyn Picker>;

    /// How soon a picker goes stale and another is asked for, though no endpoint has changed. Default: never.
    fn refresh_after(&self) -> Option<Duration> {
        None
    }

    /// How often servers are to report their load out of band, to the endpoints' memories. Default: not at all. May
    /// change with the config; connections that report more often than they need to are left to it.
    fn report_interval(&self) -> Option<Duration> {
        None
    }

    /// What the policy would tell an operator. Default: nothing.
    fn explain(&self) -> Explanation {
        Explanation::default()
    }

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
    /// What the resolver says of it: its addresses, weight, zone.
    pub endpoint: Arc<Endpoint>,
    /// Since when it has been ready.
    pub since: Time,
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
    /// How often connections have been asked to report their load.
    reporting: Option<Duration>,
    /// When the published picker goes stale.
    refresh_at: Option<Time>,
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
    endpoint: Arc<Endpoint>,
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
            reporting: None,
            refresh_at: None,
            changed: true,
        }
    }

    /// Chooses by `choose` from now on, over the same endpoints.
    pub fn reconfigure(&mut self, choose: C) {
        self.choose = choose;
        self.changed = true;
    }

    /// How it chooses, so that another config can keep what it has learned.
    pub fn chooser(&mut self) -> &mut C {
        self.changed = true;
        &mut self.choose
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
                if *stem.endpoint != *endpoint {
                    stem.endpoint = Arc::new(endpoint.clone());
                }
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
        self.leaves.insert(id, Stem { leaf, endpoint: Arc::new(endpoint.clone()), memory });
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
            for &subchannel in stem.leaf.held() {
                self.holders.insert((subchannel, id));
                if let Some(interval) = self.choose.report_interval() {
                    ctx.watch_load(subchannel, interval);
                }
            }
        }
        self.changed = true;
    }

    fn subchannel_changed(&mut self, subchannel: SubchannelId, ctx: &mut Context<'_>) {
        let holders = self.holders.range((subchannel, LeafId::MIN)..=(subchannel, LeafId::MAX));
        for leaf in holders.map(|&(_, leaf)| leaf).collect::<Vec<_>>() {
            self.with_leaf(leaf, ctx, |stem, ctx| stem.leaf.subchannel_changed(subchannel, ctx));
        }
    }

    fn reported(&mut self, subchannel: SubchannelId, report: &LoadReport, now: Time) {
        for (_, leaf) in self.holders.range((subchannel, LeafId::MIN)..=(subchannel, LeafId::MAX)) {
            if let Some(memory) = self.leaves.get(leaf).and_then(|stem| stem.memory.as_ref()) {
                memory.reported(now, report);
            }
        }
    }

    /// Has connections that were made under another config report as often as the present one wants.
    fn watch_loads(&mut self, ctx: &mut Context<'_>) {
        let wanted = self.choose.report_interval();
        if std::mem::replace(&mut self.reporting, wanted) == wanted {
            return;
        }
        for &(subchannel, _) in &self.holders {
            if let Some(interval) = wanted {
                ctx.watch_load(subchannel, interval);
            }
        }
    }

    fn timeout(&mut self, ctx: &mut Context<'_>) {
        if self.refresh_at.is_some_and(|at| at <= ctx.now()) {
            self.changed = true;
        }
        self.each_due_leaf(ctx);
    }

    fn each_due_leaf(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now();
        let due = self.leaves.iter().filter(|(_, stem)| stem.leaf.next_timeout().is_some_and(|at| at <= now));
        for id in due.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.handle_timeout(ctx));
        }
    }

    fn each_leaf(&mut self, ctx: &mut Context<'_>, act: impl Fn(&mut Leaf, &mut Context<'_>)) {
        for id in self.leaves.keys().copied().collect::<Vec<_>>() {
            self.with_leaf(id, ctx, |stem, ctx| act(&mut stem.leaf, ctx));
        }
    }

    fn update(&mut self, ctx: &mut Context<'_>) -> Update {
        self.watch_loads(ctx);
        let states: Vec<_> = self.leaves.values().map(|stem| stem.leaf.state(ctx)).collect();
        let connectivity = match Connectivity::aggregate(states.iter().map(LeafState::connectivity)) {
            // Every endpoint is kept connected, so IDLE is only the moment before an attempt.
            Connectivity::Idle => Connectivity::Connecting,
            Connectivity::TransientFailure if matches!(self.resolution, Resolution::Pending) => {
                Connectivity::Connecting
            }
            other => other,
        };
        self.refresh_at = None;
        let picker = match connectivity {
            Connectivity::Ready => self.ready_picker(ctx),
            Connectivity::TransientFailure => Arc::new(NoChoice::Fail(self.all_out(&states))),
            Connectivity::Idle | Connectivity::Connecting => Arc::new(NoChoice::Queue),
        };
        Update { connectivity, picker }
    }

    fn ready_picker(&mut self, ctx: &mut Context<'_>) -> Arc<dyn Picker> {
        let ready = self.leaves.values_mut().filter_map(|stem| {
            let LeafState::Ready(id) = stem.leaf.state(ctx) else { return None };
            Some(Candidate {
                route: stem.leaf.route(ctx)?,
                endpoint: Arc::clone(&stem.endpoint),
                since: ctx.state(id)?.since,
                memory: stem.memory.clone(),
            })
        });
        let ready = ready.collect();
        self.refresh_at = self.choose.refresh_after().map(|after| ctx.now() + after);
        self.choose.picker(ready, ctx)
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
            Event::Load(id, report) => return self.reported(id, report, ctx.now()),
            Event::Timeout => return self.timeout(ctx),
            Event::ExitIdle => return,
        }
        self.changed = true;
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        std::mem::take(&mut self.changed).then(|| self.update(ctx))
    }

    fn next_timeout(&self) -> Option<Time> {
        self.leaves.values().map(|stem| stem.leaf.next_timeout()).fold(self.refresh_at, earliest)
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.each_leaf(ctx, Leaf::shutdown);
        self.leaves.clear();
        self.by_addresses.clear();
    }

    fn explain(&self) -> Explanation {
        self.choose.explain()
    }
}

/// Endpoints are told apart by their set of addresses, whatever its order.
fn identity(endpoint: &Endpoint) -> Vec<Address> {
    let mut addresses = endpoint.addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
