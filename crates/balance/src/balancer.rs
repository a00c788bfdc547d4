use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Address, CheckNews, CheckSettings, CheckSettingsError, ConfigError, ConnectionId, ConnectionSettings, Connectivity,
    Decision, Endpoint, Entropy, Event, HealthCheck, HealthSignal, History, LbConfig, Load, LoadReport, Loss,
    Measurement, NoChoice, Policies, Status, SubchannelId, SubchannelState, Time, Update,
    decision::What,
    policy::{Child, Context, Explanation, Policy},
    subchannel::{Ending, Errand, Subchannels},
    time::earliest,
};

/// The balancing core of one channel: the policy tree and the subchannels under it, as one state machine.
///
/// A driver owns it and, in this order, over and over:
///
/// 1. passes in what happened ([`handle`](Self::handle), [`handle_timeout`](Self::handle_timeout));
/// 2. does what it wants done ([`poll_action`](Self::poll_action), until `None`);
/// 3. waits for something to happen, or for [`next_timeout`](Self::next_timeout).
///
/// Equal seeds, inputs and times give equal actions.
pub struct Balancer {
    policies: Policies,
    policy: Child,
    subchannels: Subchannels,
    entropy: Entropy,
    /// What `policy` was built from.
    config: LbConfig,
    stage: Stage,
    /// Whether the resolver has succeeded since then; its later failures change nothing.
    is_resolved: bool,
    re_resolve: bool,
    /// The group that an operator sends all calls to. It outlives policies and idleness.
    switched_to: Option<u32>,
    connectivity: Connectivity,
}

/// Whether a channel is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has wanted a connection yet, or since it went idle. The policy is not asked for pickers: its first would
    /// have calls wait, where they are to wake the channel.
    Dormant,
    Awake,
    /// It has gone idle, and calls are still placed by an older picker.
    FallingAsleep,
}

/// What a driver tells the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// The resolver has answered: the endpoints, complete.
    Resolved(Arc<[Endpoint]>),
    /// The resolver has failed. Endpoints of an earlier answer stay in force.
    ResolutionFailed(Status),
    /// An attempt that [`Action::Connect`] asked for has made its connection, and the peer has spoken.
    Connected(ConnectionId),
    /// An attempt has failed, or a connection takes no more calls: it broke, or the peer is leaving (GOAWAY).
    Disconnected(ConnectionId, Status),
    /// An attempt found nobody listening: the connection was refused, or there is no such socket. Nobody is there to be
    /// overloaded, so an endpoint that was lost lately is tried again soon ([`ConnectionSettings::return_interval`]).
    Refused(ConnectionId, Status),
    /// As [`Input::Disconnected`], of a connection of which it is known how it was lost.
    Lost(ConnectionId, Status, Loss),
    /// The health Watch of a connection said something.
    Health(ConnectionId, HealthSignal),
    /// The checks of an address have news: a probe that [`Action::Check`] asked for has ended, say.
    Checked(SubchannelId, CheckNews),
    /// The server of a connection has reported its load out of band.
    Load(ConnectionId, LoadReport),
    /// A connection has calls outstanding and has fallen silent; the text says for how long.
    Stalled(ConnectionId, String),
    /// A silent connection has spoken again.
    Recovered(ConnectionId),
    /// Calls wait for a stream of this subchannel, whose connections are full (gRFC A105).
    Saturated(SubchannelId),
    /// An operator sends all calls to the group of endpoints of this rank ([`Endpoint::priority`]), or with `None` leaves
    /// it to the policies again. Holds until the next one, whatever the resolver and the service config say meanwhile,
    /// for policies that heed it: `failover` does.
    SwitchTo(Option<u32>),
    /// Somebody waits for a connection: leave IDLE.
    ExitIdle,
    /// Nobody has made a call for long: close every connection and forget the endpoints. The next call or
    /// [`ExitIdle`](Self::ExitIdle) begins from the beginning, with a resolver's answer.
    GoIdle,
}

/// What the core wants done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Open a connection; answer with [`Input::Connected`] or [`Input::Disconnected`].
    Connect {
        /// The name of the attempt.
        connection: ConnectionId,
        /// Where to.
        address: Address,
        /// What the endpoint carries; the connection marks it as suspect ([`Load::suspect`]).
        load: Arc<Load>,
    },
    /// Start no more calls on this connection and close it when its running ones have ended; abort an attempt.
    /// Nothing more needs to be said of it.
    Close(ConnectionId),
    /// Watch `service` over this connection, in place of any earlier Watch on it, and answer with [`Input::Health`].
    WatchHealth {
        /// Over which connection.
        connection: ConnectionId,
        /// The service to ask about; `""` is the whole server.
        service: String,
    },
    /// Probe this address and answer with [`Input::Checked`], by `deadline` at the latest. Probes of one subchannel are
    /// never side by side, so a connection may be kept from one to the next.
    Check {
        /// Whose check it is.
        subchannel: SubchannelId,
        /// What to probe.
        address: Address,
        /// When it has failed.
        deadline: Time,
    },
    /// Probe no more for this subchannel, and forget what was kept for it.
    EndChecks(SubchannelId),
    /// Have the server report its load over this connection, about every `interval`, and answer with
    /// [`Input::Load`] (gRFC A51).
    WatchLoad {
        /// Over which connection.
        connection: ConnectionId,
        /// How often.
        interval: Duration,
    },
    /// Resolve the name again, soon.
    Resolve,
    /// Write this into the decision log.
    Note(Decision),
    /// Add this to the metrics.
    Measure(Measurement),
    /// Place calls by this picker from now on.
    Publish(Update),
}

impl From<Errand> for Action {
    fn from(errand: Errand) -> Self {
        match errand {
            Errand::Connect(connection, address, load) => Self::Connect { connection, address, load },
            Errand::Close(connection) => Self::Close(connection),
            Errand::WatchHealth(connection, service) => Self::WatchHealth { connection, service },
            Errand::Check(subchannel, address, deadline) => Self::Check { subchannel, address, deadline },
            Errand::EndChecks(subchannel) => Self::EndChecks(subchannel),
            Errand::WatchLoad(connection, interval) => Self::WatchLoad { connection, interval },
            Errand::Note(decision) => Self::Note(decision),
            Errand::Measure(measurement) => Self::Measure(measurement),
        }
    }
}

/// One address of a channel, as an operator sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubchannelReport {
    /// Its name in this channel.
    pub id: SubchannelId,
    /// Where it leads.
    pub address: Address,
    /// Since when the address is known.
    pub created: Time,
    /// Its state, since when and why.
    pub state: SubchannelState,
    /// What it carries.
    pub load: Arc<Load>,
}

/// Where in a service config the config of the policies stands.
const CONFIG_PATH: &str = "loadBalancingConfig";

impl Balancer {
    /// A core that places calls as `config` says.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where no policy of `config` is known, or the one that is refuses its config.
    pub fn new(
        policies: Policies,
        config: &LbConfig,
        settings: ConnectionSettings,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        let mut entropy = Entropy::new(seed);
        let policy = Child::new(config, &policies).map_err(|error| error.under(CONFIG_PATH))?;
        let subchannels = Subchannels::new(settings, Entropy::new(entropy.next_u64()));
        let connectivity = Connectivity::Idle;
        Ok(Self {
            policies,
            policy,
            subchannels,
            entropy,
            config: config.clone(),
            stage: Stage::Dormant,
            is_resolved: false,
            re_resolve: false,
            switched_to: None,
            connectivity,
        })
    }

    /// Places calls as `config` says from now on; the policy in force serves until a new one is ready.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new); the earlier config then stays in force (gRFC A21).
    pub fn configure(&mut self, now: Time, config: &LbConfig) -> Result<(), ConfigError> {
        let mut ctx =
            Context::new(now, &mut self.entropy, &mut self.subchannels, &mut self.re_resolve, self.switched_to);
        self.policy.configure(config, &self.policies, &mut ctx).map_err(|error| error.under(CONFIG_PATH))?;
        self.config = config.clone();
        self.spread_changes(now);
        Ok(())
    }

    /// Checks the health of connections as `check` says from now on; `None` for not at all.
    pub fn set_health_check(&mut self, now: Time, check: Option<HealthCheck>) {
        self.subchannels.set_health_check(now, check);
        self.spread_changes(now);
    }

    /// Actively checks every endpoint from now on, whether or not it is connected, and beside any
    /// [health check](Self::set_health_check); `None` for not at all. An endpoint gets calls if both are content. How
    /// checks and calls combine: [`Check`](crate::Check).
    ///
    /// # Errors
    ///
    /// [`CheckSettingsError`] where the settings make no sense; what was set before stays in force.
    pub fn set_checks(&mut self, now: Time, checks: Option<CheckSettings>) -> Result<(), CheckSettingsError> {
        self.subchannels.set_checks(now, checks)?;
        self.spread_changes(now);
        Ok(())
    }

    /// The changes of an endpoint's checks, oldest first; `None` where it is not checked.
    pub fn check_history(&self, address: &Address) -> Option<&History> {
        self.subchannels.check_history(address)
    }

    /// How many connections an address may have from now on, where a server allows too few streams on one (gRFC A105).
    /// In place of [`ConnectionSettings::max_connections`]; 0 is taken as 1.
    pub fn set_max_connections(&mut self, most: usize) {
        self.subchannels.set_max_connections(most);
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        if matches!(input, Input::Resolved(_) | Input::ResolutionFailed(_) | Input::ExitIdle) {
            self.stage = Stage::Awake;
        }
        match input {
            Input::Resolved(endpoints) => {
                self.is_resolved = true;
                self.tell(now, Event::Resolved(&endpoints));
            }
            Input::ResolutionFailed(_) if self.is_resolved => {}
            Input::ResolutionFailed(status) => {
                self.tell(now, Event::ResolutionFailed(&status.from_control_plane()));
            }
            Input::Connected(connection) => self.subchannels.connected(now, connection),
            Input::Disconnected(connection, why) => self.subchannels.disconnected(now, connection, &why, Ending::Other),
            Input::Refused(connection, why) => self.subchannels.disconnected(now, connection, &why, Ending::Refused),
            Input::Lost(connection, why, loss) => {
                self.subchannels.disconnected(now, connection, &why, Ending::Lost(loss));
            }
            Input::Health(connection, signal) => self.subchannels.health(now, connection, signal),
            Input::Checked(id, news) => self.subchannels.checked(now, id, news),
            Input::Load(connection, report) => {
                if self.subchannels.is_current(connection) {
                    self.tell(now, Event::Load(connection.subchannel, &report));
                }
            }
            Input::Stalled(connection, why) => self.subchannels.stalled(now, connection, Some(why)),
            Input::Recovered(connection) => self.subchannels.stalled(now, connection, None),
            Input::Saturated(id) => self.subchannels.saturated(now, id),
            Input::SwitchTo(group) => {
                self.switched_to = group;
                self.tell(now, Event::Switched);
            }
            Input::ExitIdle => self.tell(now, Event::ExitIdle),
            Input::GoIdle => self.go_idle(now),
        }
        self.spread_changes(now);
    }

    /// Lets every deadline that has passed take effect. Harmless when none has.
    pub fn handle_timeout(&mut self, now: Time) {
        self.subchannels.handle_timeout(now);
        self.spread_changes(now);
        if self.policy.next_timeout().is_some_and(|at| at <= now) {
            self.tell(now, Event::Timeout);
            self.spread_changes(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    pub fn next_timeout(&self) -> Option<Time> {
        earliest(self.subchannels.next_timeout(), self.policy.next_timeout())
    }

    /// The next thing to do; `None` when all is done. Pickers come last, so that one covers many inputs.
    pub fn poll_action(&mut self, now: Time) -> Option<Action> {
        loop {
            if let Some(errand) = self.subchannels.next_errand() {
                return Some(errand.into());
            }
            if std::mem::take(&mut self.re_resolve) {
                return Some(Action::Resolve);
            }
            let update = self.poll_update(now);
            // A policy with children may have started one, which has begun to connect.
            let spread = self.spread_changes(now);
            // Only now is it certain that nobody takes over what others have let go.
            self.subchannels.sweep();
            if let Some(update) = update {
                self.become_(now, update.connectivity);
                return Some(Action::Publish(update));
            }
            // What the policies have heard just now, they may have an answer to.
            if !spread {
                return self.subchannels.next_errand().map(Action::from);
            }
        }
    }

    /// The channel's state as last published.
    pub fn connectivity(&self) -> Connectivity {
        self.connectivity
    }

    /// The name of the policy in force, or of the one that is about to be.
    pub fn policy(&self) -> &'static str {
        self.policy.name()
    }

    /// Where an operator sends all calls, whether or not that group is known now.
    pub fn switched_to(&self) -> Option<u32> {
        self.switched_to
    }

    /// Why calls go where they go: the tree of policies, and what each of them is up to.
    pub fn explain(&self) -> Explanation {
        self.policy.explain()
    }

    /// The counters of a subchannel; `None` once nobody holds it.
    pub fn load(&self, id: SubchannelId) -> Option<Arc<Load>> {
        self.subchannels.load(id)
    }

    /// Every subchannel, by address: which is out, why, and since when.
    pub fn subchannels(&self) -> Vec<SubchannelReport> {
        self.subchannels.reports().collect()
    }

    /// The update of a channel that has not been used: calls queue, and the first one wakes it.
    pub fn dormant() -> Update {
        Update { connectivity: Connectivity::Idle, picker: Arc::new(NoChoice::Idle) }
    }

    /// Closes everything.
    pub fn shutdown(&mut self, now: Time) {
        let mut ctx =
            Context::new(now, &mut self.entropy, &mut self.subchannels, &mut self.re_resolve, self.switched_to);
        self.policy.shutdown(&mut ctx);
    }

    /// The policy is shut down as a whole and another stands ready: none need know how to begin anew.
    fn go_idle(&mut self, now: Time) {
        // What was built once can be built again; if a policy of somebody's own cannot, it stays.
        let Ok(fresh) = Child::new(&self.config, &self.policies) else { return };
        let mut ctx =
            Context::new(now, &mut self.entropy, &mut self.subchannels, &mut self.re_resolve, self.switched_to);
        self.policy.shutdown(&mut ctx);
        self.policy = fresh;
        if self.stage == Stage::Awake {
            self.stage = Stage::FallingAsleep;
        }
        (self.is_resolved, self.re_resolve) = (false, false);
    }

    fn poll_update(&mut self, now: Time) -> Option<Update> {
        match self.stage {
            Stage::Dormant => None,
            Stage::Awake => {
                let mut ctx =
                    Context::new(now, &mut self.entropy, &mut self.subchannels, &mut self.re_resolve, self.switched_to);
                self.policy.poll_update(&mut ctx)
            }
            Stage::FallingAsleep => {
                self.stage = Stage::Dormant;
                Some(Self::dormant())
            }
        }
    }

    fn become_(&mut self, now: Time, to: Connectivity) {
        let from = std::mem::replace(&mut self.connectivity, to);
        if from != to {
            self.subchannels.note(now, What::Channel { from, to });
        }
    }

    fn tell(&mut self, now: Time, event: Event<'_>) {
        let mut ctx =
            Context::new(now, &mut self.entropy, &mut self.subchannels, &mut self.re_resolve, self.switched_to);
        self.policy.handle(event, &mut ctx);
    }

    /// Tells the policies of every subchannel whose state has changed, those included that their reactions change, and
    /// says whether there were any.
    fn spread_changes(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(id) = self.subchannels.next_change(now) {
            self.tell(now, Event::Subchannel(id));
            any = true;
        }
        any
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("policy", &self.policy())
            .field("connectivity", &self.connectivity)
            .field("subchannels", &self.subchannels())
            .finish_non_exhaustive()
    }
}
