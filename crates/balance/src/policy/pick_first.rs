use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{Context, Event, Policies, Policy, PolicyFactory, Update};
use crate::{
    Address, ConfigError, Connectivity, Endpoint, Measurement, NoChoice, Observer, Pick, PickArgs, Picker, Route,
    Status, SubchannelId, Time, Value,
};

/// How long an attempt has the field to itself before the next address is tried too (gRFC A61, after RFC 8305).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// `pick_first` (gRFC A62): all calls go to the first address that connects.
#[derive(Clone, Copy, Debug)]
pub struct PickFirst;

/// The config of `pick_first`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PickFirstConfig {
    /// Tries the endpoints in random order, a new one for each list. Default false.
    #[serde(default)]
    pub shuffle_address_list: bool,
}

impl PolicyFactory for PickFirst {
    const NAME: &'static str = "pick_first";
    type Config = PickFirstConfig;
    type Policy = PickFirstPolicy;

    fn build(&self, config: PickFirstConfig, _: &Policies) -> Result<PickFirstPolicy, ConfigError> {
        Ok(PickFirstPolicy { config, leaf: Leaf::new(Gate::Connection, None), published: None })
    }

    fn reconfigure(
        &self,
        policy: &mut PickFirstPolicy,
        config: PickFirstConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        policy.config = config;
        Ok(())
    }
}

/// `pick_first` as the policy of a whole channel: one [`Leaf`] over the addresses of all endpoints.
#[derive(Debug)]
pub struct PickFirstPolicy {
    config: PickFirstConfig,
    leaf: Leaf,
    published: Option<LeafState>,
}

impl PickFirstPolicy {
    fn resolved(&mut self, endpoints: &[Endpoint], ctx: &mut Context<'_>) {
        let mut ordered = endpoints.to_vec();
        if self.config.shuffle_address_list {
            ctx.entropy().shuffle(&mut ordered);
        }
        let addresses: Vec<_> = ordered.iter().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect();
        self.leaf.set_addresses(&addresses, ctx);
    }
}

impl Policy for PickFirstPolicy {
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>) {
        match event {
            Event::Resolved(endpoints) => self.resolved(endpoints, ctx),
            Event::ResolutionFailed(status) => self.leaf.fail(status),
            Event::Subchannel(id) => self.leaf.subchannel_changed(id, ctx),
            Event::ExitIdle => self.leaf.exit_idle(ctx),
            Event::Timeout => self.leaf.handle_timeout(ctx),
            Event::Load(..) | Event::Switched => {}
        }
    }

    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update> {
        let state = self.leaf.state(ctx);
        if self.published.as_ref() == Some(&state) {
            return None;
        }
        self.published = Some(state.clone());
        Some(match state {
            LeafState::Ready(_) => {
                Update { connectivity: Connectivity::Ready, picker: Arc::new(Single(self.leaf.route(ctx)?)) }
            }
            LeafState::Idle => Update { connectivity: Connectivity::Idle, picker: Arc::new(NoChoice::Idle) },
            LeafState::Connecting => {
                Update { connectivity: Connectivity::Connecting, picker: Arc::new(NoChoice::Queue) }
            }
            LeafState::Failed(status) => {
                Update { connectivity: Connectivity::TransientFailure, picker: Arc::new(NoChoice::Fail(status)) }
            }
        })
    }

    fn next_timeout(&self) -> Option<Time> {
        self.leaf.next_timeout()
    }

    fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.leaf.shutdown(ctx);
    }
}

/// Places every call on one endpoint.
#[derive(Debug)]
struct Single(Arc<Route>);

impl Picker for Single {
    fn pick(&self, _: &PickArgs<'_>) -> Pick {
        Pick::Call(self.0.call())
    }
}

/// What makes a connected subchannel READY in the eyes of its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// The connection alone: a `pick_first` that is a channel's own policy ignores health (gRFC A17).
    Connection,
    /// Health and progress too: a leaf under a petiole policy.
    Service,
}

/// A leaf's state as its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LeafState {
    Idle,
    Connecting,
    Ready(SubchannelId),
    Failed(Status),
}

/// Connects to the first of a few addresses that answers (gRFC A61 and A62): the leaf of every policy tree.
///
/// ```text
///            exit_idle              one connects
///   IDLE ──────────────► CONNECTING ────────────► CONNECTED
///     ▲                      │ all have failed        │ connection lost
///     │                      ▼                        │
///     │                   FAILED ── one connects ──►  │
///     └───────────────────────────────────────────────┘
/// ```
///
/// FAILED is sticky: while it retries it stays FAILED, so that calls fail fast rather than hang, until a connection
/// is there.
#[derive(Debug)]
pub(super) struct Leaf {
    gate: Gate,
    observer: Option<Arc<dyn Observer>>,
    addresses: Vec<Address>,
    /// One a address while connecting; only the connected one after.
    held: Vec<SubchannelId>,
    phase: Phase,
    route: Option<(SubchannelId, Arc<Route>)>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Connecting {
        /// How many of `held` have been tried in this pass.
        tried: usize,
        /// Which of those have failed.
        failed: BTreeSet<SubchannelId>,
        /// When the next one is tried, whether or not the last one has answered.
        next_at: Option<Time>,
    },
    Connected(SubchannelId),
    Failed(Status),
}

impl Leaf {
    pub(super) fn new(gate: Gate, observer: Option<Arc<dyn Observer>>) -> Self {
        Self { gate, observer, addresses: Vec::new(), held: Vec::new(), phase: Phase::Idle, route: None }
    }

    pub(super) fn held(&self) -> &[SubchannelId] {
        &self.held
    }

    /// Replaces the addresses. A connection to one that remains is kept; the same set in another order opens and
    /// closes nothing, and counts from the next pass on.
    pub(super) fn set_addresses(&mut self, addresses: &[Address], ctx: &mut Context<'_>) {
        let addresses = interleave_families(addresses);
        if addresses.is_empty() {
            self.shutdown(ctx);
            self.phase = Phase::Failed(Status::unavailable("the resolver returned no addresses"));
            return;
        }
        if same_set(&self.addresses, &addresses) {
            return self.reorder(addresses, ctx);
        }
        let had_none = self.addresses.is_empty();
        self.addresses = addresses;
        self.hold_all(ctx);
        match self.phase {
            Phase::Connected(id) if self.held.contains(&id) => self.release_but(Some(id), ctx),
            Phase::Failed(_) if !had_none => self.retry_all(ctx),
            // A name is resolved because somebody wants to call it, so the first list is connected at once.
            Phase::Idle if !had_none => {}
            _ => self.begin_pass(ctx),
        }
    }

    fn reorder(&mut self, addresses: Vec<Address>, ctx: &mut Context<'_>) {
        match self.phase {
            // A pass goes on as it began: lists that change all the time must not keep it from its end.
            Phase::Connecting { .. } => {}
            Phase::Connected(_) => self.addresses = addresses,
            Phase::Idle | Phase::Failed(_) => {
                self.addresses = addresses;
                self.hold_all(ctx);
            }
        }
    }

    /// Takes hold of every address, before it lets go of those it held, so that no connection is lost in between.
    fn hold_all(&mut self, ctx: &mut Context<'_>) {
        let fresh = self.addresses.iter().map(|address| ctx.acquire(address)).collect();
        self.release_but(None, ctx);
        self.held = fresh;
    }

    /// Fails all calls with `status`, unless there are addresses that may do better.
    pub(super) fn fail(&mut self, status: &Status) {
        if self.addresses.is_empty() {
            self.phase = Phase::Failed(status.clone());
        }
    }

    /// Starts connecting if the leaf is IDLE.
    pub(super) fn exit_idle(&mut self, ctx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Idle) && !self.addresses.is_empty() {
            if self.held.len() != self.addresses.len() {
                self.hold_all(ctx);
            }
            self.begin_pass(ctx);
        }
    }

    /// Tries the addresses in turn, unless another holder has already connected one of them.
    fn begin_pass(&mut self, ctx: &mut Context<'_>) {
        let is_connected = |id| ctx.state(id).is_some_and(|state| state.connection == Connectivity::Ready);
        if let Some(id) = self.held.iter().copied().find(|&id| is_connected(id)) {
            return self.connected(id, ctx);
        }
        self.phase = Phase::Connecting { tried: 0, failed: BTreeSet::new(), next_at: None };
        self.try_next(ctx);
    }

    /// Tries the next address of the pass, skipping those that are known to be failing.
    fn try_next(&mut self, ctx: &mut Context<'_>) {
        loop {
            let Phase::Connecting { tried, failed, next_at } = &mut self.phase else { return };
            let Some(&id) = self.held.get(*tried) else {
                *next_at = None;
                if failed.len() == self.held.len() {
                    self.give_up(ctx);
                }
                return;
            };
            *tried += 1;
            match ctx.state(id).map(|state| state.connection) {
                Some(Connectivity::Ready) => return self.connected(id, ctx),
                Some(Connectivity::TransientFailure) | None => {
                    failed.insert(id);
                }
                Some(Connectivity::Idle | Connectivity::Connecting) => {
                    *next_at = (*tried < self.held.len()).then(|| ctx.now() + ATTEMPT_DELAY);
                    ctx.connect(id);
                    return;
                }
            }
        }
    }

    /// Every address has failed once: from now on calls fail, and each address is retried by its own backoff.
    fn give_up(&mut self, ctx: &mut Context<'_>) {
        self.phase = Phase::Failed(self.last_error(ctx));
        ctx.re_resolve();
        // Whose backoff has ended during the pass would otherwise wait for an event that never comes.
        self.retry_all(ctx);
    }

    /// FAILED and with other addresses: whichever of them connects first ends it.
    fn retry_all(&mut self, ctx: &mut Context<'_>) {
        for id in self.held.clone() {
            match ctx.state(id).map(|state| state.connection) {
                Some(Connectivity::Ready) => return self.connected(id, ctx),
                _ => ctx.connect(id),
            }
        }
    }

    fn last_error(&self, ctx: &Context<'_>) -> Status {
        let errors = self.held.iter().zip(&self.addresses).filter_map(|(&id, address)| {
            let state = ctx.state(id)?;
            Some(format!("{address}: {}", state.reason))
        });
        Status::unavailable(errors.collect::<Vec<_>>().join("; "))
    }

    pub(super) fn subchannel_changed(&mut self, id: SubchannelId, ctx: &mut Context<'_>) {
        if !self.held.contains(&id) {
            return;
        }
        let Some(state) = ctx.state(id) else { return };
        match (&mut self.phase, state.connection) {
            (Phase::Connected(_), Connectivity::Ready) => {}
            (Phase::Connected(_), _) => {
                ctx.measure(count("grpc.lb.pick_first.disconnections"));
                self.lost(ctx);
            }
            (_, Connectivity::Ready) => {
                ctx.measure(count("grpc.lb.pick_first.connection_attempts_succeeded"));
                self.connected(id, ctx);
            }
            (Phase::Connecting { failed, .. }, Connectivity::TransientFailure) => {
                ctx.measure(count("grpc.lb.pick_first.connection_attempts_failed"));
                failed.insert(id);
                self.try_next(ctx);
            }
            (Phase::Failed(_), Connectivity::TransientFailure) => {
                ctx.measure(count("grpc.lb.pick_first.connection_attempts_failed"));
                self.give_up(ctx);
            }
            (Phase::Failed(_), Connectivity::Idle) => ctx.connect(id),
            _ => {}
        }
    }

    fn connected(&mut self, id: SubchannelId, ctx: &mut Context<'_>) {
        self.phase = Phase::Connected(id);
        self.release_but(Some(id), ctx);
    }

    fn lost(&mut self, ctx: &mut Context<'_>) {
        self.phase = Phase::Idle;
        ctx.re_resolve();
    }

    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        if self.next_timeout().is_some_and(|at| at <= ctx.now()) {
            self.try_next(ctx);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Connecting { next_at, .. } => next_at,
            _ => None,
        }
    }

    pub(super) fn state(&self, ctx: &Context<'_>) -> LeafState {
        match &self.phase {
            Phase::Idle => LeafState::Idle,
            Phase::Connecting { .. } => LeafState::Connecting,
            Phase::Failed(status) => LeafState::Failed(status.clone()),
            Phase::Connected(id) => self.gated(*id, ctx),
        }
    }

    /// As [`state`](Self::state), without the reasons.
    pub(super) fn connectivity(&self, ctx: &Context<'_>) -> Connectivity {
        match &self.phase {
            Phase::Idle => Connectivity::Idle,
            Phase::Connecting { .. } => Connectivity::Connecting,
            Phase::Failed(_) => Connectivity::TransientFailure,
            Phase::Connected(id) => self.through_gate(*id, ctx),
        }
    }

    fn through_gate(&self, id: SubchannelId, ctx: &Context<'_>) -> Connectivity {
        match (self.gate, ctx.service(id)) {
            (Gate::Connection, Some(_)) => Connectivity::Ready,
            (Gate::Service, Some((state @ (Connectivity::Ready | Connectivity::TransientFailure), _))) => state,
            _ => Connectivity::Connecting,
        }
    }

    fn gated(&self, id: SubchannelId, ctx: &Context<'_>) -> LeafState {
        match self.through_gate(id, ctx) {
            Connectivity::Ready => LeafState::Ready(id),
            Connectivity::TransientFailure => {
                let reason = ctx.state(id).map(|state| state.reason);
                LeafState::Failed(Status::unavailable(reason.unwrap_or_default()))
            }
            Connectivity::Idle | Connectivity::Connecting => LeafState::Connecting,
        }
    }

    /// The way to the connected subchannel, the same one for as long as it stays connected.
    pub(super) fn route(&mut self, ctx: &Context<'_>) -> Option<Arc<Route>> {
        let Phase::Connected(id) = self.phase else { return None };
        if self.route.as_ref().is_none_or(|(known, _)| *known != id) {
            self.route = Some((id, Arc::new(Route::new(id, ctx.load(id), self.observer.clone()))));
        }
        self.route.as_ref().map(|(_, route)| Arc::clone(route))
    }

    /// Releases every hold but one on `kept`.
    fn release_but(&mut self, kept: Option<SubchannelId>, ctx: &mut Context<'_>) {
        let mut keeps = kept;
        self.held.retain(|&id| {
            if keeps == Some(id) {
                keeps = None;
                return true;
            }
            ctx.release(id);
            false
        });
    }

    pub(super) fn shutdown(&mut self, ctx: &mut Context<'_>) {
        self.release_but(None, ctx);
        self.addresses.clear();
        self.phase = Phase::Idle;
        self.route = None;
    }
}

/// One more of `metric`: what gRFC A78 counts of subchannels that a leaf has chosen, before A94 counts it of all.
fn count(metric: &'static str) -> Measurement {
    Measurement::new(metric, Value::Count(1))
}

/// Without duplicates, and with IPv6 and IPv4 taking turns from whichever comes first (gRFC A61, after RFC 8305).
fn interleave_families(addresses: &[Address]) -> Vec<Address> {
    let mut seen = BTreeSet::new();
    let unique = addresses.iter().filter(|address| seen.insert(*address));
    let (mut one, mut other): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    let first_is_v6 = addresses.first().is_some_and(is_v6);
    for address in unique {
        if is_v6(address) == first_is_v6 { one.push(address.clone()) } else { other.push(address.clone()) }
    }
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut result = Vec::with_capacity(addresses.len());
    loop {
        let pair = (one.next(), other.next());
        if let (None, None) = pair {
            return result;
        }
        result.extend(pair.0.into_iter().chain(pair.1));
    }
}

fn is_v6(address: &Address) -> bool {
    matches!(address, Address::Tcp(SocketAddr::V6(_)))
}

fn same_set(a: &[Address], b: &[Address]) -> bool {
    a.len() == b.len() && a.iter().collect::<BTreeSet<_>>() == b.iter().collect()
}
