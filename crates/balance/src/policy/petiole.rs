use std::{fmt, sync::Arc, time::Duration};

use super::{
    Context, Event, Explanation, Policy, Update,
    leaves::{Leaves, Resolution, Stem},
    listing::LeafId,
    pick_first::{Gate, Leaf, LeafState},
};
use crate::{
    Connectivity, Endpoint, LoadReport, NoChoice, Observer, Picker, Route, SubchannelId, Time, time::earliest,
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

/// A policy that chooses among endpoints, each of which is a `pick_first` over its addresses (gRFC A61).
///
/// It keeps every endpoint connected and picks only among those that are READY; with none READY, calls queue while one
/// is CONNECTING and fail when all are out.
#[derive(Debug)]
pub struct Petiole<C: Choose> {
    choose: C,
    /// With what it has learned of each.
    leaves: Leaves<Option<Arc<C::Memory>>>,
    resolution: Resolution,
    /// How often connections have been asked to report their load.
    reporting: Option<Duration>,
    /// When the published picker goes stale.
    refresh_at: Option<Time>,
    changed: bool,
}

impl<C: Choose> Petiole<C> {
    /// A policy without endpoints that chooses by `choose`.
    pub fn new(choose: C) -> Self {
        Self {
            choose,
            leaves: Leaves::default(),
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
        let choose = &mut self.choose;
        let listing = self.leaves.list(endpoints, |endpoint| {
            let memory = choose.remember(endpoint);
            let observer = memory.clone().map(|memory| memory as Arc<dyn Observer>);
            (Leaf::new(Gate::Service, observer), memory)
        });
        for id in listing.changed {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.set_addresses(&stem.endpoint.addresses, ctx));
        }
        for id in listing.gone {
            self.leaves.remove(id, ctx);
        }
    }

    /// Lets a leaf act and keeps it out of IDLE.
    fn with_leaf(
        &mut self,
        id: LeafId,
        ctx: &mut Context<'_>,
        act: impl FnOnce(&mut Stem<Option<Arc<C::Memory>>>, &mut Context<'_>),
    ) {
        let moved = self.leaves.with(id, ctx, |stem, ctx| {
            act(stem, ctx);
            stem.leaf.exit_idle(ctx);
        });
        if let Some(interval) = self.choose.report_interval().filter(|_| moved) {
            for &subchannel in self.leaves.held(id) {
                ctx.watch_load(subchannel, interval);
            }
        }
        self.changed = true;
    }

    fn subchannel_changed(&mut self, subchannel: SubchannelId, ctx: &mut Context<'_>) {
        for id in self.leaves.holders(subchannel) {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.subchannel_changed(subchannel, ctx));
        }
    }

    fn reported(&mut self, subchannel: SubchannelId, report: &LoadReport, now: Time) {
        for id in self.leaves.holders(subchannel) {
            if let Some(memory) = self.leaves.get(id).and_then(|stem| stem.own.as_ref()) {
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
        let Some(interval) = wanted else { return };
        for subchannel in self.leaves.all_held() {
            ctx.watch_load(subchannel, interval);
        }
    }

    fn timeout(&mut self, ctx: &mut Context<'_>) {
        if self.refresh_at.is_some_and(|at| at <= ctx.now()) {
            self.changed = true;
        }
        for id in self.leaves.due(ctx.now()) {
            self.with_leaf(id, ctx, |stem, ctx| stem.leaf.handle_timeout(ctx));
        }
    }

    fn update(&mut self, ctx: &mut Context<'_>) -> Update {
        self.watch_loads(ctx);
        let states = self.leaves.stems().map(|stem| stem.leaf.connectivity(ctx));
        let connectivity = match Connectivity::aggregate(states) {
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
            Connectivity::TransientFailure => {
                let states: Vec<_> = self.leaves.stems().map(|stem| stem.leaf.state(ctx)).collect();
                Arc::new(NoChoice::Fail(self.resolution.all_out(&states)))
            }
            Connectivity::Idle | Connectivity::Connecting => Arc::new(NoChoice::Queue),
        };
        Update { connectivity, picker }
    }

    fn ready_picker(&mut self, ctx: &mut Context<'_>) -> Arc<dyn Picker> {
        let ready = self.leaves.stems_mut().filter_map(|stem| {
            let LeafState::Ready(id) = stem.leaf.state(ctx) else { return None };
            Some(Candidate {
                route: stem.leaf.route(ctx)?,
                endpoint: Arc::clone(&stem.endpoint),
                since: ctx.service(id)?.1,
                memory: stem.own.clone(),
            })
        });
        let ready = ready.collect();
        self.refresh_at = self.choose.refresh_after().map(|after| ctx.now() + after);
        self.choose.picker(ready, ctx)
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
            Event::ExitIdle | Event::Switched => return,
        }
        self.changed = true;
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        std::mem::take(&mut self.changed).then(|| self.update(ctx))
    }

    fn next_timeout(&self) -> Option<Time> {
        earliest(self.refresh_at, self.leaves.next_timeout())
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.leaves.shutdown(ctx);
    }

    fn explain(&self) -> Explanation {
        self.choose.explain()
    }
}
