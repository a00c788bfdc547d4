//! The control plane of a channel: one task that owns its [`Balancer`], with no locks.
//!
//! News comes in as [`Message`]s and resolutions, the balancer decides, and [`Driver::act`] does what it wants done.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_balance::{
    Action, Address, Balancer, ConnectionId, Decision, Endpoint, Entropy, HealthCheck, Input, KeepaliveSettings,
    LbConfig, Load, RetryThrottle, ServiceConfig, Status, SubchannelId, Time, UnknownService, Update, What,
    policy::FailoverConfig,
};
use evenkeel_checker::Probe;
use evenkeel_naming::{Outcome, Resolving};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, WeakUnboundedSender},
        oneshot, watch,
    },
    task::AbortHandle,
};

use evenkeel_transport::{Connection, Dialer, LineSettings, StreamQueue};

use crate::{
    checks::Checks,
    connection,
    endpoint_source::EndpointSource,
    explain::{DecisionLog, Explanation},
    health_watch,
    idle::{IdleWatch, Usage},
    load_watch::LoadWatch,
    message::Message,
    metrics,
    report::Report,
    shared::Shared,
    snapshot::{Connections, Snapshot},
};

/// How many messages are taken in before the balancer's answer to them is acted on, however many there are.
const MESSAGES_A_TURN: usize = 1_000;

/// What a channel's owner has settled before it starts.
pub(crate) struct Settings {
    pub(crate) default_config: Arc<ServiceConfig>,
    /// Whether there are standby targets, so that every policy has to go by ranks.
    /// Over policies that know no ranks, where the endpoints' ranks are to count.
    pub(crate) by_rank: Option<FailoverConfig>,
    /// In place of what the service config says about health.
    pub(crate) health_check: Option<HealthCheck>,
    /// What active checks ask, where there are any.
    pub(crate) probe: Option<Probe>,
    pub(crate) line: LineSettings,
    pub(crate) dialer: Arc<Dialer>,
}

pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    pub(crate) balancer: Balancer,
    pub(crate) messages: UnboundedReceiver<Message>,
    pub(crate) sender: WeakUnboundedSender<Message>,
    pub(crate) reports: watch::Sender<Arc<Report>>,
    /// Resolved while calls are made.
    pub(crate) source: EndpointSource,
    pub(crate) idle: IdleWatch,
    pub(crate) state: State,
}

/// What the driver keeps between two turns.
pub(crate) struct State {
    /// Whether anybody has used the channel, since it last went idle.
    is_awake: bool,
    resolving: Option<Resolving>,
    /// What the resolver said last.
    endpoints: Option<Arc<[Endpoint]>>,
    resolver_error: Option<String>,
    config_error: Option<String>,
    config: Arc<ServiceConfig>,
    throttle: Option<Arc<RetryThrottle>>,
    update: Update,
    version: u64,
    connections: Connections,
    /// Whether the newest snapshot is out of date.
    stale: bool,
    /// Whether the newest report may be. One takes time in proportion to the number of endpoints.
    unreported: bool,
    /// Connections that the newest snapshot does not have yet.
    opened: Vec<Arc<Connection>>,
    /// Where calls wait for streams, by subchannel.
    queues: BTreeMap<usize, (SubchannelId, Arc<StreamQueue>)>,
    decisions: DecisionLog,
    /// Who waits for an explanation. It tells what has become of everything that was sent before it was asked for.
    askers: Vec<oneshot::Sender<Explanation>>,
    attempts: BTreeMap<ConnectionId, AbortHandle>,
    watches: BTreeMap<ConnectionId, AbortHandle>,
    load_watches: BTreeMap<ConnectionId, AbortHandle>,
    checks: Checks,
}

impl State {
    pub(crate) fn new(config: Arc<ServiceConfig>) -> Self {
        Self {
            is_awake: false,
            resolving: None,
            endpoints: None,
            resolver_error: None,
            config_error: None,
            throttle: config.retry_throttling.map(|throttling| Arc::new(RetryThrottle::new(throttling))),
            config,
            update: Balancer::dormant(),
            version: 0,
            connections: Connections::default(),
            stale: false,
            unreported: false,
            opened: Vec::new(),
            queues: BTreeMap::new(),
            decisions: DecisionLog::default(),
            askers: Vec::new(),
            attempts: BTreeMap::new(),
            watches: BTreeMap::new(),
            load_watches: BTreeMap::new(),
            checks: Checks::default(),
        }
    }
}

impl Driver {
    /// Runs until nobody holds the channel.
    pub(crate) async fn run(mut self) {
        self.configure_connections();
        loop {
            let deadline = self.balancer.next_timeout().into_iter().chain(self.idle.next_timeout()).min();
            let deadline = deadline.map(|at| self.shared.clock.instant(at));
            // Asleep, what the resolver says is left for later.
            let is_awake = self.state.is_awake;
            tokio::select! {
                message = self.messages.recv() => match message {
                    None => break,
                    Some(message) => self.handle_messages(message),
                },
                outcome = next_resolution(&mut self.state.resolving), if is_awake => self.handle_resolution(outcome),
                () = sleep_until(deadline) => self.handle_timeout(),
            }
            self.act();
            self.explain();
        }
        self.shut_down();
    }

    /// Takes in a message and those that have queued behind it, so that one picker answers them all.
    fn handle_messages(&mut self, first: Message) {
        self.handle(first);
        for _ in 1..MESSAGES_A_TURN {
            let Ok(message) = self.messages.try_recv() else { return };
            self.handle(message);
        }
    }

    fn handle(&mut self, message: Message) {
        let input = match message {
            Message::Opened(id, connection) => {
                // An attempt that was closed meanwhile has no handle any more, and its connection no use.
                if self.state.attempts.remove(&id).is_none() {
                    return connection.close();
                }
                let load = self.balancer.load(id.subchannel).unwrap_or_default();
                self.state.connections.insert(id, Arc::clone(&connection), load);
                self.state.opened.push(connection);
                self.state.stale = true;
                Input::Connected(id)
            }
            Message::Input(input) => input,
            Message::TooManyPings(id, used) => return self.calm(id, used),
            Message::Explain(answer) => {
                self.state.askers.push(answer);
                return;
            }
        };
        match &input {
            Input::ExitIdle => self.wake(),
            Input::Disconnected(id, _) | Input::Refused(id, _) | Input::Lost(id, ..) => self.forget(*id),
            _ => {}
        }
        // These come often, and change no endpoint's state but by an action.
        self.state.unreported |= !matches!(input, Input::ExitIdle | Input::Saturated(_) | Input::Load(..));
        self.balancer.handle(self.shared.clock.now(), input);
    }

    /// Later connections send fewer PINGs (gRFC A8).
    fn calm(&mut self, id: ConnectionId, used: KeepaliveSettings) {
        let keepalive = &mut self.settings.line.keepalive;
        let calmed = keepalive.calmed(&used);
        if std::mem::replace(keepalive, calmed) == calmed {
            return;
        }
        // Whoever has connections beside the channel's own goes by what is published.
        self.state.stale = true;
        let time = calmed.time;
        tracing::warn!(target: "evenkeel::channel", target = %self.shared.target, connection = %id, ?time, "a server finds keepalive PINGs too many; new connections send them half as often");
    }

    /// Begins to resolve, unless it does already.
    fn wake(&mut self) {
        if std::mem::replace(&mut self.state.is_awake, true) {
            return;
        }
        let now = self.shared.clock.now();
        self.idle.start(now, self.usage());
        if let Some(resolving) = self.source.start() {
            self.state.resolving = Some(resolving);
        } else if let Some(endpoints) = self.state.endpoints.clone() {
            self.balancer.handle(now, Input::Resolved(endpoints));
        }
    }

    fn handle_timeout(&mut self) {
        self.state.unreported = true;
        let now = self.shared.clock.now();
        if self.idle.next_timeout().is_some_and(|at| at <= now) {
            let usage = self.usage();
            if self.idle.is_idle(now, usage) {
                self.sleep();
            }
        }
        self.balancer.handle_timeout(now);
    }

    /// Closes every connection and stops resolving until the next call.
    fn sleep(&mut self) {
        self.state.is_awake = false;
        self.state.resolver_error = None;
        if self.source.can_restart() {
            self.state.resolving = None;
        }
        self.balancer.handle(self.shared.clock.now(), Input::GoIdle);
    }

    fn usage(&self) -> Usage {
        let loads = self.balancer.subchannels().into_iter().map(|endpoint| endpoint.load);
        let none = Usage { running: 0, begun: self.shared.lanes.drawn() };
        loads.fold(none, |sum, load| Usage {
            running: sum.running + u64::from(load.in_flight()),
            begun: sum.begun.wrapping_add(load.started()),
        })
    }

    fn handle_resolution(&mut self, outcome: Option<Outcome>) {
        self.state.unreported = true;
        let now = self.shared.clock.now();
        match outcome {
            Some(Ok(resolution)) => {
                self.state.resolver_error = None;
                match resolution.service_config {
                    Some(Ok(json)) => self.apply_config(&json),
                    Some(Err(error)) => self.refuse_config(&error),
                    None => {}
                }
                let endpoints: Arc<[Endpoint]> = resolution.endpoints.into();
                self.state.endpoints = Some(Arc::clone(&endpoints));
                self.balancer.handle(now, Input::Resolved(endpoints));
            }
            Some(Err(error)) => {
                self.state.resolver_error = Some(error.to_string());
                self.balancer.handle(now, Input::ResolutionFailed(Status::from(error)));
            }
            // A list that cannot change; its endpoints stay in force.
            None => self.state.resolving = None,
        }
    }

    /// Puts a service config from the resolver in force, or keeps the one before and says why (gRFC A21).
    fn apply_config(&mut self, json: &str) {
        let now = self.shared.clock.now();
        let applied = json.parse::<ServiceConfig>().and_then(|config| {
            let own = config.load_balancing.clone();
            let own = match &self.settings.by_rank {
                Some(failover) => own.map(|own| own.by_rank(failover)),
                None => own,
            };
            let policy = own.or_else(|| self.settings.default_config.load_balancing.clone());
            self.balancer.configure(now, &policy.unwrap_or_else(LbConfig::default))?;
            Ok(config)
        });
        match applied {
            Ok(config) => {
                if config.retry_throttling != self.state.config.retry_throttling {
                    let throttle = config.retry_throttling.map(RetryThrottle::new);
                    self.state.throttle = throttle.map(Arc::new);
                }
                self.state.config = Arc::new(config);
                self.state.config_error = None;
                // Its methods may be others though endpoints and policy are the same.
                self.state.stale = true;
                self.configure_connections();
            }
            Err(error) => self.refuse_config(&error),
        }
    }

    fn refuse_config(&mut self, error: &dyn std::error::Error) {
        tracing::warn!(target: "evenkeel::channel", target = %self.shared.target, %error, "service config refused; the one before stays in force");
        self.state.config_error = Some(error.to_string());
    }

    /// Has the core keep to what the service config in force says of connections.
    fn configure_connections(&mut self) {
        self.balancer.set_max_connections(self.state.config.max_connections.unwrap_or(1));
        let configured = self.state.config.health_check.clone();
        let strict = |service| HealthCheck { service, unknown: UnknownService::IsUnhealthy };
        let check = self.settings.health_check.clone().or_else(|| configured.map(strict));
        self.balancer.set_health_check(self.shared.clock.now(), check);
    }

    fn explain(&mut self) {
        for asker in std::mem::take(&mut self.state.askers) {
            let explanation = self.state.decisions.explain(self.latest(), &self.balancer);
            // Who asked may have stopped waiting.
            let _ = asker.send(explanation);
        }
    }

    /// Does what the balancer wants done, then tells the world.
    fn act(&mut self) {
        while let Some(action) = self.balancer.poll_action(self.shared.clock.now()) {
            self.state.unreported = true;
            match action {
                Action::Connect { connection, address, load } => self.connect(connection, address, load),
                Action::Close(connection) => self.close(connection),
                Action::WatchHealth { connection, service } => self.watch_health(connection, service),
                Action::WatchLoad { connection, interval } => self.watch_load(connection, interval),
                Action::Check { subchannel, address, deadline } => self.check(subchannel, address, deadline),
                Action::EndChecks(subchannel) => self.state.checks.end(subchannel),
                Action::Measure(measurement) => metrics::record(&self.shared.target, &measurement),
                Action::Note(decision) => {
                    log(&self.shared.target, &decision);
                    self.state.decisions.push(decision);
                }
                Action::Resolve => {
                    if let Some(resolving) = &self.state.resolving {
                        resolving.resolve_now();
                    }
                }
                Action::Publish(update) => {
                    self.state.update = update;
                    self.state.stale = true;
                }
            }
        }
        if std::mem::take(&mut self.state.unreported) {
            self.reports.send_replace(self.latest());
        }
        if std::mem::take(&mut self.state.stale) {
            self.publish();
        }
    }

    fn connect(&mut self, id: ConnectionId, address: Address, load: Arc<Load>) {
        let queue = self.queue(id.subchannel);
        let task = connection::Task {
            id,
            address,
            clock: self.shared.clock,
            line: self.settings.line,
            dialer: Arc::clone(&self.settings.dialer),
            load,
            driver: self.sender.clone(),
            queue,
        };
        self.state.attempts.insert(id, tokio::spawn(task.run()).abort_handle());
    }

    /// The line of a subchannel, which all of its connections share.
    fn queue(&mut self, id: SubchannelId) -> Arc<StreamQueue> {
        let entry = self.state.queues.entry(id.slot()).or_insert_with(|| (id, Arc::default()));
        if entry.0 != id {
            *entry = (id, Arc::default());
        }
        Arc::clone(&entry.1)
    }

    fn close(&mut self, id: ConnectionId) {
        match self.state.attempts.remove(&id) {
            Some(attempt) => attempt.abort(),
            None => self.forget(id),
        }
    }

    /// No more calls on a connection; its running ones go on.
    fn forget(&mut self, id: ConnectionId) {
        self.state.attempts.remove(&id);
        for watches in [&mut self.state.watches, &mut self.state.load_watches] {
            if let Some(watch) = watches.remove(&id) {
                watch.abort();
            }
        }
        if let Some(connection) = self.state.connections.remove(id) {
            self.state.stale = true;
            connection.close();
        }
    }

    fn watch_health(&mut self, id: ConnectionId, service: String) {
        let Some(connection) = self.state.connections.find(id) else { return };
        let origin = self.shared.origin();
        let watch = health_watch::run(id, Arc::clone(connection), origin, service, self.sender.clone());
        let replaced = self.state.watches.insert(id, tokio::spawn(watch).abort_handle());
        if let Some(replaced) = replaced {
            replaced.abort();
        }
    }

    fn check(&mut self, id: SubchannelId, address: Address, deadline: Time) {
        // Without a probe the balancer has no checks.
        if let Some(probe) = &self.settings.probe {
            let deadline = self.shared.clock.instant(deadline);
            self.state.checks.probe(probe, id, address, deadline, &self.sender);
        }
    }

    fn watch_load(&mut self, id: ConnectionId, interval: Duration) {
        let Some(connection) = self.state.connections.find(id) else { return };
        let watch = LoadWatch {
            id,
            connection: Arc::clone(connection),
            origin: self.shared.origin(),
            interval,
            driver: self.sender.clone(),
        };
        let entropy = Entropy::new(self.shared.random());
        let replaced = self.state.load_watches.insert(id, tokio::spawn(watch.run(entropy)).abort_handle());
        if let Some(replaced) = replaced {
            replaced.abort();
        }
    }

    fn publish(&mut self) {
        self.state.version += 1;
        let state = &self.state;
        self.shared.publish(Snapshot {
            version: state.version,
            update: state.update.clone(),
            config: Arc::clone(&state.config),
            throttle: state.throttle.clone(),
            line: self.settings.line,
            connections: state.connections.clone(),
        });
        // Calls that wait for streams look again now that there are more.
        for connection in std::mem::take(&mut self.state.opened) {
            connection.queue().call_all();
        }
    }

    /// What there is to report now.
    fn latest(&self) -> Arc<Report> {
        Arc::new(Report {
            target: self.shared.target.clone(),
            connectivity: self.balancer.connectivity(),
            policy: self.balancer.policy().to_owned(),
            endpoints: self.balancer.subchannels(),
            resolver_error: self.state.resolver_error.clone(),
            config_error: self.state.config_error.clone(),
            at: self.shared.clock.now(),
        })
    }

    fn shut_down(mut self) {
        self.balancer.shutdown(self.shared.clock.now());
        while let Some(action) = self.balancer.poll_action(self.shared.clock.now()) {
            match action {
                Action::Close(connection) => self.close(connection),
                Action::Measure(measurement) => metrics::record(&self.shared.target, &measurement),
                _ => {}
            }
        }
    }
}

/// The next outcome of a resolver that runs.
async fn next_resolution(resolving: &mut Option<Resolving>) -> Option<Outcome> {
    match resolving {
        Some(resolving) => resolving.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn log(target: &str, decision: &Decision) {
    match &decision.what {
        What::Endpoint { address, from, to, reason } => {
            tracing::info!(target: "evenkeel::channel", target, endpoint = %address, %from, %to, reason, "endpoint");
        }
        What::Channel { from, to } => tracing::info!(target: "evenkeel::channel", target, %from, %to, "channel"),
        other => tracing::info!(target: "evenkeel::channel", target, ?other, "decision"),
    }
}
