//! Places calls that somebody else carries: a proxy's threads, over connections of their own.
//!
//! The channel keeps a connection of its own to each endpoint, for health, load reports and connectivity, and its
//! driver stays the only one who decides. A [`Placer`] places calls by what is published, counts them as the channel's own
//! are counted, and tells the driver what becomes of the other connections.

use std::{
    fmt,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_balance::{
    Address, Code, ConnectionId, HedgingPolicy, Input, KeepaliveSettings, Load, Metadata, MethodConfig, Pick, PickArgs,
    Picker, ProgressSettings, RetryThrottle, ServiceConfig, Time,
};
use tokio::sync::watch;

use evenkeel_transport::Clock;

use crate::{
    Channel,
    dialling::{DataDialError, Dialled},
    message::Message,
    method::{AttemptCost, Method, Repeats},
    shared::Core,
    snapshot::Snapshot,
};

/// How many methods a placer remembers, so that a call finds its own without looking further. Of others, more than a
/// service has, each call looks.
const MAX_KNOWN: usize = 256;

/// Places calls for one thread that carries them itself.
///
/// Made on that thread by [`Channel::placer`], it has the thread's own lane of the channel's random numbers and counters,
/// and keeps the newest picker, so that a pick costs a comparison of versions beyond the picker's own work. It keeps the
/// channel alive.
pub struct Placer {
    core: Arc<Core>,
    lane: usize,
    newest: Newest,
    methods: KnownMethods,
}

/// What was newest at the last look. The snapshot itself is not kept: it would keep connections from closing.
struct Newest {
    version: u64,
    picker: Arc<dyn Picker>,
    config: Arc<ServiceConfig>,
    throttle: Option<Arc<RetryThrottle>>,
}

impl Newest {
    fn of(snapshot: &Snapshot) -> Self {
        let (picker, config) = (Arc::clone(&snapshot.update.picker), Arc::clone(&snapshot.config));
        Self { version: snapshot.version, picker, config, throttle: snapshot.throttle.clone() }
    }
}

impl Channel {
    /// A handle that places calls for the calling thread.
    pub fn placer(&self) -> Placer {
        let core = Arc::clone(self.core());
        let (lane, newest) = (core.lanes.mine(), Newest::of(&core.snapshot()));
        Placer { core, lane, newest, methods: KnownMethods::default() }
    }

    /// Tells, to a task, when there is something new for [placers](Self::placer). It does not keep the channel alive.
    pub fn versions(&self) -> Versions {
        Versions(self.core().versions())
    }

    /// A connection to `address`, by the same way as the channel's own: TCP or a Unix socket, through the HTTP proxy if
    /// there is one. TLS, where the channel has it, is left to the caller.
    ///
    /// # Errors
    ///
    /// [`DataDialError`] where there is no connection within the time that the channel's own attempts have, 20 s.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn dial(&self, address: &Address) -> Result<Dialled, DataDialError> {
        self.core().dialling.dial(address).await
    }
}

impl Placer {
    /// Changes with every new picker, every connection that is made or lost, and every new service config.
    pub fn version(&self) -> u64 {
        self.core.newest_version()
    }

    /// Shows every endpoint that has a connection, whether or not calls go there now: the channel's own connection to it
    /// (the first, where there are several), where that leads, and what the endpoint carries.
    ///
    /// The connection's name is what [`tell`](Self::tell) takes. An endpoint that shows up under another name than before
    /// has been connected anew, and the connections that were made beside its last one are as old as that.
    pub fn connections(&self, each: &mut dyn FnMut(ConnectionId, &Address, &Arc<Load>)) {
        self.core.snapshot().first_connections(each);
    }

    /// Places a call of the method at `path` (`/package.Service/Method`), by the newest picker. The policy hears of it if
    /// it has to ([`Pick::exits_idle`]).
    ///
    /// To be asked again when the [version](Self::version) is another, where the pick says to wait.
    pub fn pick(&mut self, now: Time, path: &str, metadata: &dyn Metadata) -> Pick {
        self.look();
        let args = PickArgs::new(now, self.entropy(), path).on_lane(self.lane).with_metadata(metadata);
        let pick = self.newest.picker.pick(&args);
        if pick.exits_idle() {
            self.core.exit_idle();
        }
        pick
    }

    /// A call of the method at `path` has begun: it is counted with the channel's own.
    pub fn begin(&mut self, now: Time, path: &str) -> PlacedCall {
        self.look();
        let (core, config) = (&self.core, &self.newest.config);
        let method = self.methods.get(path, || Known {
            path: path.into(),
            figures: core.methods.get(path),
            config: config.configured(path).map(Arc::clone),
        });
        method.figures.call_started(self.lane, now);
        PlacedCall { method, lane: self.lane, clock: self.core.clock, started: now, has_ended: false }
    }

    /// What bounds the retries of the calls that were placed last; `None` where nothing does (gRFC A6). Whoever retries
    /// tells it of successes and failures.
    pub fn throttle(&self) -> Option<&Arc<RetryThrottle>> {
        self.newest.throttle.as_ref()
    }

    /// 64 random bits, the next of this thread's.
    pub fn entropy(&self) -> u64 {
        self.core.lanes.random(self.lane)
    }

    /// Tells the channel of a connection that the caller has made beside one of the [`connections`](Self::connections),
    /// as if it had happened to that one: [`Input::Stalled`], [`Input::Recovered`], [`Input::Disconnected`] or
    /// [`Input::Lost`]. What is lost takes the channel's own connection with it, and the endpoint is connected anew. News of
    /// a connection that has been replaced since is ignored.
    pub fn tell(&self, input: Input) {
        // Fails only where the runtime is shutting down, which ends the caller too.
        let _ = self.core.driver.send(Message::Input(input));
    }

    /// A server has left because of too many PINGs on a connection beside this one, which went by these settings: later
    /// ones ask half as often (gRFC A8).
    pub fn too_many_pings(&self, connection: ConnectionId, used: KeepaliveSettings) {
        // As above.
        let _ = self.core.driver.send(Message::TooManyPings(connection, used));
    }

    /// When a silent peer is suspected and given up, and when it is asked for a sign of life: what new connections go by.
    pub fn line(&self) -> (ProgressSettings, KeepaliveSettings) {
        let line = self.core.snapshot().line;
        (line.progress, line.keepalive)
    }

    /// The target, as the channel was given it: for messages.
    pub fn target(&self) -> &str {
        &self.core.target
    }

    /// The `:authority` of calls that bring none.
    pub fn authority(&self) -> &str {
        self.core.authority.as_str()
    }

    /// The `:scheme` of calls on connections to endpoints: `https` where the channel speaks TLS, or `http`.
    pub fn scheme(&self) -> &str {
        self.core.scheme.as_str()
    }

    /// The present moment on the channel's clock.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }

    /// [`Time::ZERO`] on that clock, for a loop that reads its own.
    pub fn epoch(&self) -> Instant {
        self.core.clock.epoch()
    }

    /// Takes up what has been published since the last look.
    fn look(&mut self) {
        if self.newest.version == self.core.newest_version() {
            return;
        }
        let newest = Newest::of(&self.core.snapshot());
        if !Arc::ptr_eq(&newest.config, &self.newest.config) {
            self.methods = KnownMethods::default();
        }
        self.newest = newest;
    }
}

impl fmt::Debug for Placer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placer").field("target", &self.target()).field("lane", &self.lane).finish_non_exhaustive()
    }
}

/// A call that is under way on somebody else's connections. Dropped before it has [ended](Self::ended), it was cancelled.
#[derive(Debug)]
#[must_use = "a dropped call counts as cancelled"]
pub struct PlacedCall {
    method: Rc<Known>,
    lane: usize,
    clock: Clock,
    started: Time,
    has_ended: bool,
}

impl PlacedCall {
    /// The method's part of the service config that was in force when the call began.
    pub fn config(&self) -> &MethodConfig {
        self.method.config.as_deref().unwrap_or(&MethodConfig::NOTHING)
    }

    /// When it began.
    pub fn started(&self) -> Time {
        self.started
    }

    /// One of its attempts has begun.
    pub fn attempt_started(&self) {
        self.method.figures.attempt_started();
    }

    /// One of its attempts has ended.
    pub fn attempt_ended(&self, code: Code, cost: &AttemptCost) {
        self.method.figures.attempt_ended(code, cost);
    }

    /// How long a hedge waits for the attempt before it; [`Duration::MAX`] where there is to be none. To be asked once a
    /// call: with an adaptive policy, each call adds to what may be spent on hedges.
    pub fn hedging_delay(&self, policy: &HedgingPolicy) -> Duration {
        self.method.figures.hedging_delay(policy)
    }

    /// Whether there may be one more hedge, which is then spent.
    pub fn spend_hedge(&self, policy: &HedgingPolicy) -> bool {
        self.method.figures.spend_hedge(policy)
    }

    /// An attempt of a call that may be hedged has answered after so long: what adaptive hedging learns from.
    pub fn note_latency(&self, latency: Duration) {
        self.method.figures.latency.record(latency);
    }

    /// The call has ended, as its caller sees it.
    pub fn ended(mut self, code: Code, duration: Duration, repeats: &Repeats) {
        self.end(code, duration, repeats);
    }

    fn end(&mut self, code: Code, duration: Duration, repeats: &Repeats) {
        self.has_ended = true;
        self.method.figures.call_ended(self.lane, code, duration, repeats);
    }
}

impl Drop for PlacedCall {
    fn drop(&mut self) {
        if !self.has_ended {
            let duration = self.clock.now().since(self.started);
            self.end(Code::Cancelled, duration, &Repeats::default());
        }
    }
}

/// Tells when a channel has something new for its [placers](Channel::placer).
#[derive(Debug)]
pub struct Versions(watch::Receiver<u64>);

impl Versions {
    /// Waits for a version that this has not told yet, and returns the newest; `None` once the channel is gone.
    pub async fn changed(&mut self) -> Option<u64> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

/// A method as this thread knows it: its figures, and its part of the service config in force.
#[derive(Debug)]
struct Known {
    path: Box<str>,
    figures: Arc<Method>,
    config: Option<Arc<MethodConfig>>,
}

/// What calls have found, for those that come after them.
#[derive(Debug, Default)]
struct KnownMethods {
    by_path: Vec<Rc<Known>>,
    /// Where the last call was found: the next one is often of the same method.
    last: usize,
}

impl KnownMethods {
    fn get(&mut self, path: &str, find: impl FnOnce() -> Known) -> Rc<Known> {
        if let Some(last) = self.by_path.get(self.last).filter(|last| *last.path == *path) {
            return Rc::clone(last);
        }
        match self.by_path.binary_search_by(|known| (*known.path).cmp(path)) {
            Ok(place) => {
                self.last = place;
                Rc::clone(&self.by_path[place])
            }
            Err(place) => {
                let fresh = Rc::new(find());
                if self.by_path.len() < MAX_KNOWN {
                    self.by_path.insert(place, Rc::clone(&fresh));
                }
                fresh
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Methods;

    #[test]
    fn a_method_is_found_once_and_made_up_ones_are_not_remembered_without_end() {
        let (mut known, methods) = (KnownMethods::default(), Methods::new("dns:///echo"));
        let mut get = |path: &str| {
            let mut is_new = false;
            let found = known.get(path, || {
                is_new = true;
                Known { path: path.into(), figures: methods.get(path), config: None }
            });
            assert_eq!(*found.path, *path);
            is_new
        };
        for (path, is_new) in [("/b", true), ("/b", false), ("/a", true), ("/b", false), ("/a", false), ("/a", false)] {
            assert_eq!(get(path), is_new, "{path}");
        }
        for n in 2..MAX_KNOWN {
            assert!(get(&format!("/made.Up/{n}")));
        }
        assert!(get("/more") && get("/more"));
        assert!(!get("/a") && !get("/b"));
    }
}
