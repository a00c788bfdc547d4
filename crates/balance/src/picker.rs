use std::{fmt, sync::Arc, time::Duration};

use crate::{Code, Load, LoadReport, Status, SubchannelId, Time};

/// Chooses an endpoint for a call. Immutable: every change of state or configuration publishes a new one.
///
/// Called from any thread, once per attempt, so it takes no lock and allocates nothing on its way to a choice.
pub trait Picker: fmt::Debug + Send + Sync {
    /// Where the call described by `args` goes.
    fn pick(&self, args: &PickArgs<'_>) -> Pick;
}

/// What a picker may know of the call it places.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PickArgs<'a> {
    /// The moment of the pick.
    pub now: Time,
    /// 64 random bits of this pick's own.
    pub entropy: u64,
    /// Which of the driver's threads picks, below [`PickArgs::LANES`], so that a picker can keep a place for each and
    /// none waits for another's. 0 where there is one thread.
    pub lane: usize,
    /// The call's path: `/package.Service/Method`.
    pub method: &'a str,
    /// The call's metadata, for policies that place calls by it.
    pub metadata: Option<&'a dyn Metadata>,
    /// What the caller has said to hash the call by, in place of what the policy would.
    pub hash_key: Option<&'a [u8]>,
}

/// A call's metadata as a picker reads it.
pub trait Metadata: fmt::Debug + Sync {
    /// Shows each value of the lower-case `name`, in order.
    fn values(&self, name: &str, visit: &mut dyn FnMut(&[u8]));
}

impl<'a> PickArgs<'a> {
    /// How many threads a picker tells apart; what more there are share.
    pub const LANES: usize = 16;

    /// The arguments of one pick.
    pub fn new(now: Time, entropy: u64, method: &'a str) -> Self {
        Self { now, entropy, lane: 0, method, metadata: None, hash_key: None }
    }

    /// The same on another lane.
    #[must_use]
    pub fn on_lane(self, lane: usize) -> Self {
        Self { lane, ..self }
    }

    /// The same with the call's metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: &'a dyn Metadata) -> Self {
        Self { metadata: Some(metadata), ..self }
    }

    /// The same for a call that is to be hashed by `key`.
    #[must_use]
    pub fn with_hash_key(self, key: &'a [u8]) -> Self {
        Self { hash_key: Some(key), ..self }
    }
}

/// A picker's answer.
#[derive(Debug)]
pub enum Pick {
    /// The call goes to this endpoint.
    Call(Call),
    /// No endpoint is ready yet: wait for the next picker, then ask that one.
    Queue,
    /// As [`Pick::Queue`], and the policy has to hear of it, or nothing may ever be connected: tell it to leave IDLE.
    Idle,
    /// No endpoint can be reached. The call fails with this status, unless it waits for ready.
    Fail(Status),
}

impl Pick {
    /// Whether the policy has to hear of the pick: then tell it to leave IDLE.
    pub fn exits_idle(&self) -> bool {
        match self {
            Self::Call(call) => call.exits_idle,
            Self::Idle => true,
            Self::Queue | Self::Fail(_) => false,
        }
    }
}

/// A ready endpoint as a picker holds it: where its calls go, what it carries, and who hears how they end.
#[derive(Debug)]
pub struct Route {
    subchannel: SubchannelId,
    load: Arc<Load>,
    observer: Option<Arc<dyn Observer>>,
}

/// Hears how each call of one endpoint ended: how a policy learns from outcomes.
///
/// Called on the thread on which the call ended, so it must not block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A call has ended.
    fn finished(&self, outcome: &Outcome);

    /// The endpoint's server has reported its load out of band. Default: nothing happens.
    fn reported(&self, now: Time, report: &LoadReport) {
        let _ = (now, report);
    }

    /// Whether the server's load reports are of any use here, so that they are worth reading. Default: no.
    fn wants_reports(&self) -> bool {
        false
    }
}

/// Learns nothing.
impl Observer for () {
    fn finished(&self, _: &Outcome) {}
}

impl Route {
    /// A route over `subchannel`, whose calls are counted in `load` and whose outcomes go to `observer`.
    pub fn new(subchannel: SubchannelId, load: Arc<Load>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self { subchannel, load, observer }
    }

    /// What the endpoint carries.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Begins a call here: it is in flight from now until the returned [`Call`] is finished or dropped.
    pub fn call(self: &Arc<Self>) -> Call {
        self.load.begin();
        Call { route: Some(Arc::clone(self)), exits_idle: false }
    }

    fn finish(&self, outcome: &Outcome) {
        self.load.end(outcome.code == Code::Ok);
        if let Some(observer) = &self.observer {
            observer.finished(outcome);
        }
    }
}

/// A call in flight on an endpoint.
///
/// It ends exactly once: by [`Call::finish`] with what happened, by [`Call::withdraw`] if nothing did, or by being
/// dropped, which counts as CANCELLED.
#[derive(Debug)]
#[must_use = "a dropped call counts as cancelled"]
pub struct Call {
    /// Present until the call ends.
    route: Option<Arc<Route>>,
    /// See [`Pick::exits_idle`].
    exits_idle: bool,
}

impl Call {
    /// The subchannel that carries the call.
    ///
    /// # Panics
    ///
    /// Never: the route is taken only by the methods that consume the call.
    pub fn subchannel(&self) -> SubchannelId {
        self.route.as_ref().expect("a call keeps its route until it ends").subchannel
    }

    /// Whether somebody wants the server's load report with the [`Outcome`].
    pub fn wants_report(&self) -> bool {
        let observer = self.route.as_ref().and_then(|route| route.observer.as_ref());
        observer.is_some_and(|observer| observer.wants_reports())
    }

    /// The same call, of which the policy has to hear ([`Pick::exits_idle`]): it has a place, but would have had a better
    /// one if that were connected.
    pub fn and_exit_idle(mut self) -> Self {
        self.exits_idle = true;
        self
    }

    /// Takes the call back: it was never sent, so it counts as neither begun nor failed, and nobody hears of it.
    pub fn withdraw(mut self) {
        if let Some(route) = self.route.take() {
            route.load.withdraw();
        }
    }

    /// Ends the call and says how.
    pub fn finish(mut self, outcome: &Outcome) {
        if let Some(route) = self.route.take() {
            route.finish(outcome);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(route) = self.route.take() {
            route.finish(&Outcome::new(Code::Cancelled));
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// The status that the caller saw.
    pub code: Code,
    /// From the pick to the last byte, where the driver measured it.
    pub latency: Option<Duration>,
    /// When, where the driver says: a call that was merely dropped has no time.
    pub at: Option<Time>,
    /// What the server said of its load with the response.
    pub report: Option<Arc<LoadReport>>,
}

impl Outcome {
    /// An outcome of which nobody measured anything.
    pub fn new(code: Code) -> Self {
        Self { code, latency: None, at: None, report: None }
    }

    /// The same outcome with its latency.
    #[must_use]
    pub fn after(self, latency: Duration) -> Self {
        Self { latency: Some(latency), ..self }
    }

    /// The same outcome with its time.
    #[must_use]
    pub fn at(self, now: Time) -> Self {
        Self { at: Some(now), ..self }
    }

    /// The same outcome with the server's load report.
    #[must_use]
    pub fn reporting(self, report: Arc<LoadReport>) -> Self {
        Self { report: Some(report), ..self }
    }
}

/// The picker of a policy that has nothing to choose from: the same answer for every call.
#[derive(Clone, Debug)]
pub enum NoChoice {
    /// Endpoints are being connected.
    Queue,
    /// Nothing is connected, and nothing is being connected.
    Idle,
    /// Every endpoint is out.
    Fail(Status),
}

impl Picker for NoChoice {
    fn pick(&self, _: &PickArgs<'_>) -> Pick {
        match self {
            Self::Queue => Pick::Queue,
            Self::Idle => Pick::Idle,
            Self::Fail(status) => Pick::Fail(status.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_flight_returns_to_zero_on_every_path() {
        let load = Arc::new(Load::default());
        let route = Arc::new(Route::new(SubchannelId::default(), Arc::clone(&load), None));
        let (finished, failed, dropped) = (route.call(), route.call(), route.call());
        assert_eq!((load.in_flight(), load.started()), (3, 3));
        finished.finish(&Outcome::new(Code::Ok).after(Duration::from_millis(1)));
        failed.finish(&Outcome::new(Code::Unavailable));
        drop(dropped);
        assert_eq!((load.in_flight(), load.succeeded(), load.failed()), (0, 1, 2));
        route.call().withdraw();
        assert_eq!((load.in_flight(), load.started(), load.failed()), (0, 3, 2));
    }
}
