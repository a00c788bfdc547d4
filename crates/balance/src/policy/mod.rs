//! Policies: what decides which endpoints are connected and which of them gets a call.
//!
//! A policy is added in one file of this folder plus one line in [`Policies::standard`]; from outside, with
//! [`Policies::with`].

mod child;
mod explanation;
mod failover;
mod hashing;
mod hierarchy;
mod least_request;
mod leaves;
mod listing;
mod maglev;
mod outlier_detection;
mod panic_threshold;
mod peak_ewma;
mod petiole;
mod pick_first;
mod priority;
mod random;
mod random_subsetting;
mod registry;
mod ring_hash;
mod round_robin;
mod slow_start;
mod standard;
mod turns;
mod weighted_round_robin;
mod weighted_target;
mod zone_aware;

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Address, Connectivity, Endpoint, Entropy, Load, LoadReport, Measurement, Picker, Status, SubchannelId,
    SubchannelState, Time, decision::What, subchannel::Subchannels,
};

pub use child::Child;
pub use explanation::Explanation;
pub use failover::{Failover, FailoverConfig, FailoverPolicy, Standby, WhenAllOut};
pub use least_request::{LeastRequest, LeastRequestConfig};
pub use maglev::{Maglev, MaglevConfig};
pub use outlier_detection::{
    Detector, FailurePercentageEjection, OutlierDetection, OutlierDetectionConfig, SmallFleetEjection,
    SuccessRateEjection,
};
pub use panic_threshold::{Overruler, PanicThreshold, PanicThresholdConfig};
pub use peak_ewma::{ByLatency, PeakEwma, PeakEwmaConfig, PeakLatency};
pub use petiole::{Candidate, Choose, Petiole};
pub use pick_first::{PickFirst, PickFirstConfig};
pub use priority::{Priority, PriorityChild, PriorityConfig, PriorityPolicy};
pub use random::Random;
pub use random_subsetting::{RandomSubsetting, RandomSubsettingConfig, RandomSubsettingPolicy};
pub use registry::{ConfiguredPolicy, NoConfig, Policies, PolicyFactory};
pub use ring_hash::{RingHash, RingHashConfig};
pub use round_robin::RoundRobin;
pub use slow_start::SlowStart;
pub use weighted_round_robin::{ByReport, ReportedWeight, WeightedRoundRobin, WeightedRoundRobinConfig};
pub use weighted_target::{Target, WeightedTarget, WeightedTargetConfig, WeightedTargetPolicy};
pub use zone_aware::{ZoneAware, ZoneAwareConfig, ZoneAwarePolicy};

/// A live load-balancing policy: events in, pickers out.
///
/// Its owner calls [`handle`](Policy::handle) for each event, then [`poll_update`](Policy::poll_update) once for all
/// of them. What the policy wants done it asks of the [`Context`]; nothing calls back into it.
pub trait Policy: Send {
    /// Takes in one event.
    fn handle(&mut self, event: Event<'_>, ctx: &mut Context<'_>);

    /// The policy's state and picker, if they have changed since the last call.
    fn poll_update(&mut self, ctx: &mut Context<'_>) -> Option<Update>;

    /// When to call [`handle`](Policy::handle) with [`Event::Timeout`], at the latest.
    fn next_timeout(&self) -> Option<Time> {
        None
    }

    /// Releases every subchannel: the policy's last call.
    fn shutdown(&mut self, ctx: &mut Context<'_>);

    /// What the policy would tell an operator who asks why calls go where they go. Default: nothing.
    fn explain(&self) -> Explanation {
        Explanation::default()
    }
}

/// What a policy hears.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The service's endpoints, complete, replacing the earlier list.
    Resolved(&'a Arc<[Endpoint]>),
    /// The resolver failed before it ever succeeded. (Later failures leave the good list in force, unheard.)
    ResolutionFailed(&'a Status),
    /// A subchannel's state has changed; [`Context::state`] has it. Ids that the policy does not hold are not its
    /// business.
    Subchannel(SubchannelId),
    /// A subchannel's server has reported its load, out of band: see [`Context::watch_load`].
    Load(SubchannelId, &'a LoadReport),
    /// An operator has switched to another group of endpoints by hand; [`Context::switched_to`] has it.
    Switched,
    /// Somebody wants to make a call: leave IDLE, or connect what the policy's own picker has asked for.
    ExitIdle,
    /// The moment of [`Policy::next_timeout`] has come.
    Timeout,
}

/// A policy's state, and the picker for calls while it lasts.
#[derive(Clone, Debug)]
pub struct Update {
    /// What the policy as a whole is.
    pub connectivity: Connectivity,
    /// Places calls until the next update.
    pub picker: Arc<dyn Picker>,
}

/// What a policy may ask for while it handles an event.
pub struct Context<'a> {
    now: Time,
    entropy: &'a mut Entropy,
    subchannels: &'a mut Subchannels,
    re_resolve: &'a mut bool,
    switched_to: Option<u32>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        now: Time,
        entropy: &'a mut Entropy,
        subchannels: &'a mut Subchannels,
        re_resolve: &'a mut bool,
        switched_to: Option<u32>,
    ) -> Self {
        Self { now, entropy, subchannels, re_resolve, switched_to }
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Random numbers of this channel's seed.
    pub fn entropy(&mut self) -> &mut Entropy {
        self.entropy
    }

    /// Takes hold of the subchannel of `address`, which may already be connected. Each hold ends with
    /// [`release`](Self::release).
    pub fn acquire(&mut self, address: &Address) -> SubchannelId {
        self.subchannels.acquire(self.now, address)
    }

    /// Gives up one hold; a subchannel that nobody takes hold of before the next update is closed, once its running
    /// calls have ended.
    pub fn release(&mut self, id: SubchannelId) {
        self.subchannels.release(id);
    }

    /// Starts connecting `id` if it is IDLE; in any other state this does nothing.
    pub fn connect(&mut self, id: SubchannelId) {
        self.subchannels.connect(self.now, id);
    }

    /// The state of a subchannel that the policy holds; `None` for one that nobody holds.
    pub fn state(&self, id: SubchannelId) -> Option<SubchannelState> {
        self.subchannels.state(id)
    }

    /// Whether a subchannel that somebody holds takes calls: [`SubchannelState::service`] without the rest, which costs
    /// less to ask for.
    pub fn is_ready(&self, id: SubchannelId) -> bool {
        self.service(id).is_some_and(|(state, _)| state == Connectivity::Ready)
    }

    /// [`SubchannelState::service`] and [`SubchannelState::since`], without the rest.
    fn service(&self, id: SubchannelId) -> Option<(Connectivity, Time)> {
        self.subchannels.service(id)
    }

    /// What a subchannel's state would be if no policy trusted its address, and whether it is up and has fallen silent:
    /// [`SubchannelState`] without the rest, which costs less to ask for.
    fn untrusted(&self, id: SubchannelId) -> Option<(Connectivity, bool)> {
        self.subchannels.untrusted(id)
    }

    /// The counters of a subchannel that the policy holds; fresh ones for one that nobody holds.
    pub fn load(&self, id: SubchannelId) -> Arc<Load> {
        self.subchannels.load(id).unwrap_or_default()
    }

    /// Where a subchannel leads; `None` for one that nobody holds.
    pub fn address(&self, id: SubchannelId) -> Option<&Address> {
        self.subchannels.address(id)
    }

    /// The subchannel of `address` if some policy holds it, without taking hold of it.
    pub fn find(&self, address: &Address) -> Option<SubchannelId> {
        self.subchannels.find(address)
    }

    /// Takes `address` out, whatever its connection and its health say: petiole policies see `TRANSIENT_FAILURE`. Each
    /// ejection ends with [`restore`](Self::restore); those of several policies add up. It outlives reconnects.
    pub fn eject(&mut self, address: &Address, why: impl Into<String>) {
        self.subchannels.eject(self.now, address, why.into());
    }

    /// Ends one ejection of `address`.
    pub fn restore(&mut self, address: &Address) {
        self.subchannels.restore(self.now, address);
    }

    /// Takes a connection to `address` as READY, whatever its health, its progress and its ejections say: better a
    /// doubtful endpoint than too few. Each ends with [`distrust`](Self::distrust).
    pub fn trust(&mut self, address: &Address) {
        self.subchannels.trust(self.now, address);
    }

    /// Ends one [`trust`](Self::trust) of `address`.
    pub fn distrust(&mut self, address: &Address) {
        self.subchannels.distrust(self.now, address);
    }

    /// Has the server of a subchannel report its load out of band, about every `interval` (gRFC A51): each report is
    /// an [`Event::Load`]. Holds for later connections too; the shortest interval that was asked for counts.
    pub fn watch_load(&mut self, id: SubchannelId, interval: Duration) {
        self.subchannels.watch_load(id, interval);
    }

    /// Tells the operator something: it goes into the channel's decision log.
    pub fn note(&mut self, what: impl Into<String>) {
        self.subchannels.note(self.now, What::Policy(what.into()));
    }

    /// Adds to the channel's metrics.
    pub fn measure(&mut self, measurement: Measurement) {
        self.subchannels.measure(measurement);
    }

    /// The group of endpoints, by its rank ([`Endpoint::priority`]), that an operator has sent all calls to; `None`
    /// where that is left to the policies.
    pub fn switched_to(&self) -> Option<u32> {
        self.switched_to
    }

    /// Asks for the name to be resolved again: the endpoints look stale.
    pub fn re_resolve(&mut self) {
        *self.re_resolve = true;
    }

    /// Lets a child act whose wishes to have the name resolved again are not to be heard (gRFC A37).
    pub fn without_re_resolution<T>(&mut self, act: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let asked = *self.re_resolve;
        let result = act(self);
        *self.re_resolve = asked;
        result
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}
