use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use evenkeel_balance::{
    Backoff, Balancer, CheckSettings, CheckSettingsError, ConfigError, ConnectionSettings, HealthCheck,
    KeepaliveSettings, LbConfig, Policies, ProgressSettings, ServiceConfig, Time, policy::FailoverConfig,
};
use evenkeel_checker::{Probe, ProbeError};
use evenkeel_naming::{Resolver, Target, TargetError};
use http::uri;
use tokio::sync::{mpsc, watch};

use evenkeel_transport::{ConnectProxy, ConnectProxyError, Dialer, LineSettings, Windows};

use crate::{
    dialling::Dialling,
    driver::{Driver, Settings, State},
    endpoint_source::{EndpointSource, ranked},
    idle::IdleWatch,
    metrics,
    report::Report,
    request::ReplayLimits,
    shared::{Core, Shared},
    snapshot::Snapshot,
};

/// As in gRPC's other clients.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Describes a [`Channel`](crate::Channel) before it is built.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    target: String,
    standby: Vec<String>,
    by_rank: bool,
    failover: Option<FailoverConfig>,
    config: ServiceConfig,
    default_policy: Option<LbConfig>,
    policies: Policies,
    resolver: Option<Box<dyn Resolver>>,
    naming: evenkeel_naming::Options,
    authority: Option<String>,
    health_check: Option<HealthCheck>,
    checks: Option<(Probe, CheckSettings)>,
    connections: ConnectionSettings,
    line: LineSettings,
    idle_timeout: Option<Duration>,
    replays: ReplayLimits,
    connect_proxy: ConnectProxy,
    #[cfg(feature = "tls")]
    tls: Option<evenkeel_transport::Tls>,
    seed: Option<u64>,
}

impl Builder {
    pub(crate) fn new(target: String) -> Self {
        Self {
            target,
            standby: Vec::new(),
            by_rank: false,
            failover: None,
            config: ServiceConfig::default(),
            default_policy: None,
            policies: Policies::standard(),
            resolver: None,
            naming: evenkeel_naming::Options::default(),
            authority: None,
            health_check: None,
            checks: None,
            connections: ConnectionSettings::default(),
            line: LineSettings::default(),
            idle_timeout: Some(IDLE_TIMEOUT),
            replays: ReplayLimits::default(),
            connect_proxy: ConnectProxy::default(),
            #[cfg(feature = "tls")]
            tls: None,
            seed: None,
        }
    }

    /// Adds a target whose endpoints are used while those of the targets before it cannot take all calls: the first one
    /// that is added is group 1, the next group 2, and so on; the channel's own target is group 0. Each is resolved by
    /// itself, and a failure of one leaves the endpoints of the others in use.
    ///
    /// Calls are placed by `failover`: a policy that is given for the channel, here or by a service config, works within
    /// each group, unless it is `failover` or `priority` itself. Service configs come from the first target alone. All
    /// calls carry the [`authority`](Self::authority) of the first target, by which TLS checks every endpoint's
    /// certificate too.
    ///
    /// ```no_run
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = evenkeel_channel::Channel::builder("dns:///echo.here.internal:50051")
    ///     .standby("dns:///echo.there.internal:50051")
    ///     .build()?;
    /// channel.switch_to(Some(1)); // by hand: all calls go there
    /// channel.switch_to(None); // and back, by what is well
    /// # Ok(()) }
    /// ```
    pub fn standby(mut self, target: impl Into<String>) -> Self {
        self.standby.push(target.into());
        self
    }

    /// Takes the ranks of the endpoints for groups that stand by for each other, as with a [`standby`](Self::standby):
    /// for endpoints that get their [`priority`](evenkeel_balance::Endpoint::priority) from a resolver.
    pub fn by_rank(self) -> Self {
        Self { by_rank: true, ..self }
    }

    /// As [`by_rank`](Self::by_rank), by `failover` with these settings. Its `child_policy` counts where no other policy
    /// is given for the channel. Default: `failover`'s own.
    ///
    /// The channel is not built ([`BuildError::Failover`]) where its policy is `failover` or `priority` already, since the
    /// settings would then have no effect. A service config of the resolver that names one of them is used as it is.
    pub fn failover(self, settings: FailoverConfig) -> Self {
        Self { failover: Some(settings), ..self }
    }

    /// The service config to use while the resolver has none, as JSON. Default: `{}`, which means `pick_first`, no
    /// retries and no health checks.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the path in the JSON, where the config is invalid. A policy's own config is checked by
    /// [`build`](Self::build).
    pub fn service_config(mut self, json: &str) -> Result<Self, ConfigError> {
        self.config = json.parse()?;
        Ok(self)
    }

    /// Places calls by this policy, with its default config, in place of what the service config says so far.
    pub fn policy(mut self, name: &str) -> Self {
        self.config = self.config.with_load_balancing(LbConfig::of(name));
        self
    }

    /// Places calls by this policy, with its default config, where no service config says otherwise. Default:
    /// `pick_first`, as gRPC has it; with a [`standby`](Self::standby), `failover` over `least_request`.
    pub fn default_policy(mut self, name: &str) -> Self {
        self.default_policy = Some(LbConfig::of(name));
        self
    }

    /// The policies that service configs may name. Default: [`Policies::standard`].
    pub fn policies(self, policies: Policies) -> Self {
        Self { policies, ..self }
    }

    /// Finds endpoints by a resolver of the caller's own; the target is then only a name, and serves as the authority.
    pub fn resolver(self, resolver: Box<dyn Resolver>) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    /// How names are looked up.
    pub fn naming(self, naming: evenkeel_naming::Options) -> Self {
        Self { naming, ..self }
    }

    /// The `:authority` of calls that do not set their own. Default: the target's host and port.
    pub fn authority(self, authority: impl Into<String>) -> Self {
        Self { authority: Some(authority.into()), ..self }
    }

    /// Checks the health of every connection so, whatever the service config says. Default: as it says.
    pub fn health_check(self, check: HealthCheck) -> Self {
        Self { health_check: Some(check), ..self }
    }

    /// Checks every endpoint actively, over connections of the checks' own, whether or not the channel is connected to
    /// it, and beside any [`health_check`](Self::health_check). An endpoint gets calls if both are content. Default:
    /// none, since calls and connections tell of most faults sooner and for nothing; a check finds what hangs while
    /// nobody calls it, what can only be asked by HTTP, or on a port of its own.
    ///
    /// Calls that succeed overrule probes that fail: [`balance::Check`](evenkeel_balance::Check) has the rule.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use evenkeel_channel::{Channel, balance::CheckSettings, checker::Probe};
    ///
    /// let ready = Probe::http("/readyz").port(8081);
    /// let channel = Channel::builder("dns:///echo.internal:50051").check(ready, CheckSettings::default()).build()?;
    /// # Ok(()) }
    /// ```
    pub fn check(self, probe: Probe, settings: CheckSettings) -> Self {
        Self { checks: Some((probe, settings)), ..self }
    }

    /// Between failed attempts to connect. Default: gRPC's, 1 s × 1.6 up to 120 s, ± 20 %.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.connections.backoff = backoff;
        self
    }

    /// How soon an endpoint that was lost, and where nobody listens now, is tried again: every `interval` (± 20 %) until
    /// `window` has passed since the loss, then by the backoff. Default 200 ms for 60 s; a `window` of zero leaves it to
    /// the backoff alone.
    pub fn quick_return(mut self, interval: Duration, window: Duration) -> Self {
        self.connections.return_interval = interval;
        self.connections.return_window = window;
        self
    }

    /// When a silent connection is suspected and given up.
    pub fn progress(mut self, progress: ProgressSettings) -> Self {
        self.line.progress = progress;
        self
    }

    /// Sends PINGs on connections on which nothing else comes, and closes those that do not answer (gRFC A8). Default:
    /// none. A [`time`](KeepaliveSettings::time) below 10 s is taken as 10 s, with a warning in the log. Where it is on,
    /// Linux also gives up connections whose data stays unacknowledged for its
    /// [`timeout`](KeepaliveSettings::timeout) (`TCP_USER_TIMEOUT`, gRFC A18). A server that leaves because of too many
    /// PINGs doubles the time of the channel's later connections, which is logged.
    pub fn keepalive(mut self, keepalive: KeepaliveSettings) -> Self {
        self.line.keepalive = keepalive.permitted();
        if self.line.keepalive != keepalive {
            tracing::warn!(target: "evenkeel::channel", target = self.target, asked = ?keepalive.time, used = ?KeepaliveSettings::MIN_TIME, "keepalive time is below the least that gRPC permits");
        }
        self
    }

    /// After so long without a call, the channel closes its connections, stops resolving and is IDLE until the next call
    /// or [`Channel::connect`](crate::Channel::connect), which begins as the first one did. Default 30 minutes, as in
    /// gRPC's other clients; `None` for never.
    ///
    /// The channel looks once a period, so it goes idle between one period and two after its last call has ended. A
    /// resolver of the caller's own ([`resolver`](Self::resolver)) runs on, and what it said last is taken up again.
    pub fn idle_timeout(self, idle_timeout: Option<Duration>) -> Self {
        Self { idle_timeout, ..self }
    }

    /// How much a server may send ahead on one stream, in bytes. Default 512 KiB; what HTTP/2 does not allow is taken as
    /// the nearest that it does, 65,535 to 2^31 − 1.
    ///
    /// It bounds what a slow reader costs in memory, and the rate of one stream: a window each round trip, which at the
    /// default is 84 Mbit/s over 50 ms and more than 10 Gbit/s within a data centre (0.4 ms). A client that streams large
    /// responses from far away sets a larger one, or has it [found](Self::adaptive_window).
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.line.windows.stream = Windows::possible(bytes);
        self
    }

    /// Has the window of streams grow to what the path needs, up to `most` bytes: long responses are accompanied by PINGs,
    /// and what comes in while one is on its way shows the product of bandwidth and delay. Default: off, since a slow
    /// reader then costs up to `most` in memory.
    pub fn adaptive_window(mut self, most: u32) -> Self {
        self.line.windows.most = Windows::possible(most);
        self
    }

    /// How much a server may send ahead on all streams of a connection, in bytes. Default 2^31 − 1, the most there is:
    /// each stream's window bounds it already, and a few slow readers do not hold up the other calls. Bounds as for
    /// [`stream_window`](Self::stream_window).
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.line.windows.connection = Windows::possible(bytes);
        self
    }

    /// The largest header list that a server may send, in bytes, as HTTP/2 counts them (32 more a header). Default
    /// 64 KiB. A response with a larger one fails.
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.line.windows.header_list = bytes;
        self
    }

    /// How much of requests is kept for retries and hedges.
    pub fn replay_limits(self, replays: ReplayLimits) -> Self {
        Self { replays, ..self }
    }

    /// Reaches endpoints through an HTTP proxy. Default: [`ConnectProxy::from_env`].
    pub fn connect_proxy(self, connect_proxy: ConnectProxy) -> Self {
        Self { connect_proxy, ..self }
    }

    /// Speaks TLS with every endpoint. Default: plain text. Health checks and load reports go the same way.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: evenkeel_transport::Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The seed of every random choice that the channel makes. Default: another one for each channel.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Starts the channel's driver.
    pub(crate) fn start(mut self) -> Result<Core, BuildError> {
        let (source, authority) = self.endpoint_source()?;
        let authority: uri::Authority = authority.parse().map_err(|_| BuildError::Authority(authority))?;
        let (dialer, scheme) = self.dialer(&authority)?;
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let is_ranked = self.by_rank || !self.standby.is_empty();
        let policy = self.config.load_balancing.clone().or(self.default_policy);
        if self.failover.is_some() && policy.as_ref().is_some_and(LbConfig::goes_by_rank) {
            return Err(BuildError::Failover);
        }
        let by_rank = self.failover.or_else(|| is_ranked.then(FailoverConfig::default));
        let policy = match &by_rank {
            Some(failover) => policy.unwrap_or_else(|| failover.child_policy.clone()).by_rank(failover),
            None => policy.unwrap_or_default(),
        };
        let dialling = Dialling { dialer: Arc::clone(&dialer), timeout: self.connections.connect_timeout };
        let mut balancer = Balancer::new(self.policies, &policy, self.connections, seed)?;
        let (probe, checks) = self.checks.unzip();
        if let Some(probe) = &probe {
            // What it could never ask, it says now.
            probe.at(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))?;
        }
        balancer.set_checks(Time::ZERO, checks)?;
        let config = Arc::new(self.config.with_load_balancing(policy));

        let first = Snapshot::dormant(Arc::clone(&config), self.line);
        let shared = Arc::new(Shared::new(self.target, scheme, authority, seed, self.replays, dialling, first));
        let (sender, messages) = mpsc::unbounded_channel();
        let report = Arc::new(first_report(&shared, &balancer));
        let (reports, receiver) = watch::channel(report);
        let driver = Driver {
            shared: Arc::clone(&shared),
            balancer,
            messages,
            sender: sender.downgrade(),
            reports,
            source,
            idle: IdleWatch::new(self.idle_timeout),
            state: State::new(Arc::clone(&config)),
            settings: Settings {
                default_config: config,
                by_rank,
                health_check: self.health_check,
                probe,
                line: self.line,
                dialer,
            },
        };
        metrics::describe();
        tokio::spawn(driver.run());
        Ok(Core { shared, driver: sender, reports: receiver })
    }

    /// How peers are dialled, and the scheme of calls on such connections.
    fn dialer(&mut self, authority: &uri::Authority) -> Result<(Arc<Dialer>, uri::Scheme), BuildError> {
        let KeepaliveSettings { time, timeout, .. } = self.line.keepalive;
        let user_timeout = time.map(|_| timeout);
        let tunnel = std::mem::take(&mut self.connect_proxy).tunnel(authority.host())?;
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.take() {
            let secure = evenkeel_transport::Secure::new(tls, authority.host())?;
            let dialer = Dialer { tunnel, user_timeout, tls: Some(Arc::new(secure)) };
            return Ok((Arc::new(dialer), uri::Scheme::HTTPS));
        }
        let plain = Dialer {
            tunnel,
            user_timeout,
            #[cfg(feature = "tls")]
            tls: None,
        };
        Ok((Arc::new(plain), uri::Scheme::HTTP))
    }

    fn endpoint_source(&mut self) -> Result<(EndpointSource, String), BuildError> {
        let standby = self.standby.iter().map(|target| target.parse()).collect::<Result<Vec<Target>, _>>()?;
        if let Some(mut resolver) = self.resolver.take() {
            if !standby.is_empty() {
                resolver = ranked(resolver, &standby, &self.naming);
            }
            let authority = self.authority.take().unwrap_or_else(|| self.target.clone());
            return Ok((EndpointSource::Own(Some(resolver)), authority));
        }
        let target: Target = self.target.parse()?;
        let authority = self.authority.take().unwrap_or_else(|| target.authority());
        let targets = std::iter::once(target).chain(standby).collect();
        Ok((EndpointSource::Targets(targets, Box::new(self.naming.clone())), authority))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Why a channel could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The target names nothing that can be resolved.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The policy's config is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There are settings for `failover`, and a policy that goes by ranks itself.
    #[error(
        "failover: the policy goes by the endpoints' ranks itself, and its own config has its settings; \
         give another policy, which then works within each group, or no settings"
    )]
    Failover,
    /// The authority is no `host` or `host:port`.
    #[error("authority {0:?} is not a host or host:port; set one with Builder::authority")]
    Authority(String),
    /// The settings of the active checks make no sense.
    #[error(transparent)]
    Checks(#[from] CheckSettingsError),
    /// What the active checks are to ask cannot be asked.
    #[error("check: {0}")]
    Probe(#[from] ProbeError),
    /// There is no using the HTTP proxy as described.
    #[error("HTTP proxy: {0}")]
    ConnectProxy(#[from] ConnectProxyError),
    /// The channel cannot speak TLS as described.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(#[from] evenkeel_transport::TlsError),
}

fn first_report(shared: &Shared, balancer: &Balancer) -> Report {
    Report {
        target: shared.target.clone(),
        connectivity: balancer.connectivity(),
        policy: balancer.policy().to_owned(),
        endpoints: Vec::new(),
        resolver_error: None,
        config_error: None,
        at: shared.clock.now(),
    }
}

/// The standard library seeds its hashers from the operating system.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
