use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use evenkeel_balance::{
    Action, Address, Balancer, Call, Code, ConfigError, ConnectionId, Endpoint, Entropy, HealthSignal, Input, Outcome,
    Pick, PickArgs, Picker, Status, SubchannelId, Time, Verdict,
};

use crate::{
    CallRecord, ConnectionEvent, ConnectionRecord, Scenario, Server, Trace,
    agenda::Agenda,
    connection::{Connection, State},
};

/// How long the resolver takes to answer.
const RESOLUTION_TIME: Duration = Duration::from_millis(10);

/// Plays `scenario` through, to the end of its last call.
///
/// # Errors
///
/// [`ConfigError`] where the scenario's policies refuse its config.
///
/// # Panics
///
/// Where the rate is not above 0; and where the core breaks a promise, as by placing a call where no connection is.
pub fn run(scenario: &Scenario) -> Result<Trace, ConfigError> {
    assert!(scenario.rate > 0.0, "a scenario's rate must be above 0, is {}", scenario.rate);
    let mut simulation = Simulation::new(scenario)?;
    simulation.begin();
    while let Some((now, event)) = simulation.agenda.next() {
        simulation.now = now;
        simulation.handle(event);
        simulation.settle();
        if simulation.is_over() {
            break;
        }
    }
    Ok(simulation.into_trace())
}

/// What can happen.
#[derive(Clone, Debug)]
enum Event {
    /// The resolver answers.
    Resolved,
    /// A call is made.
    Arrival,
    /// A call has lasted too long.
    Deadline(usize),
    /// The reply of a call reaches the client, if the connection that carries it still stands.
    Reply { call: usize, connection: ConnectionId },
    /// An attempt to connect comes to its end.
    Dialled(ConnectionId),
    /// A server's process is gone, and the client's kernel knows.
    Died(usize),
    /// A server's health has changed.
    HealthChanged(usize),
    /// A health report reaches the client.
    Report { connection: ConnectionId, signal: HealthSignal },
    /// The answer to a PING reaches the client.
    Pong(ConnectionId),
    /// It is time to judge a connection.
    Judge(ConnectionId),
    /// One of the core's deadlines.
    Timeout,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    now: Time,
    agenda: Agenda<Event>,
    balancer: Balancer,
    /// The core's deadline that is on the agenda.
    timeout: Option<Time>,
    resolving: bool,
    picker: Arc<dyn Picker>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The open connection of each subchannel.
    open: BTreeMap<SubchannelId, ConnectionId>,
    arriving: bool,
    /// Calls that no picker has placed yet.
    waiting: VecDeque<usize>,
    /// Calls that are placed and have not ended.
    running: BTreeMap<usize, (Call, ConnectionId)>,
    entropy: Streams,
    trace: Trace,
}

/// Randomness, a stream for each use, so that a change of one leaves the others as they were.
struct Streams {
    arrivals: Entropy,
    work: Entropy,
    picks: Entropy,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario) -> Result<Self, ConfigError> {
        let mut root = Entropy::new(scenario.seed);
        let mut stream = || Entropy::new(root.next_u64());
        let entropy = Streams { arrivals: stream(), work: stream(), picks: stream() };
        let policies = scenario.policies.clone();
        let balancer = Balancer::new(policies, &scenario.config, scenario.connections.clone(), root.next_u64())?;
        Ok(Self {
            scenario,
            now: Time::ZERO,
            agenda: Agenda::new(),
            balancer,
            timeout: None,
            resolving: false,
            picker: Balancer::dormant().picker,
            connections: BTreeMap::new(),
            open: BTreeMap::new(),
            arriving: true,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            entropy,
            trace: Trace::default(),
        })
    }

    /// Plans what is known beforehand.
    fn begin(&mut self) {
        self.balancer.set_health_check(self.now, self.scenario.health_check.clone());
        self.resolve();
        self.plan_arrival();
        for (index, server) in self.scenario.servers.iter().enumerate() {
            for at in server.deaths() {
                self.agenda.plan(at + self.scenario.network_delay, Event::Died(index));
            }
            for at in server.health_changes() {
                self.agenda.plan(at, Event::HealthChanged(index));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Resolved => self.resolved(),
            Event::Arrival => self.arrive(),
            Event::Deadline(call) => self.end(call, Code::DeadlineExceeded),
            Event::Reply { call, connection } => self.reply(call, connection),
            Event::Dialled(connection) => self.dialled(connection),
            Event::Died(server) => self.died(server),
            Event::HealthChanged(server) => self.health_changed(server),
            Event::Report { connection, signal } => self.report(connection, signal),
            Event::Pong(connection) => self.heard(connection),
            Event::Judge(connection) => self.judge(connection),
            Event::Timeout => {
                self.timeout = None;
                self.balancer.handle_timeout(self.now);
            }
        }
    }

    /// Does what the core wants done, and minds its deadline.
    fn settle(&mut self) {
        while let Some(action) = self.balancer.poll_action(self.now) {
            match action {
                Action::Connect { connection, address, .. } => self.dial(connection, &address),
                Action::Close(connection) => self.close(connection),
                Action::WatchHealth { connection, .. } => self.watch(connection),
                Action::Resolve => self.resolve(),
                // Servers here report no load, and the trace says what the log and the metrics would.
                // A scenario has no active checks.
                Action::Check { .. } | Action::EndChecks(_) => unreachable!("no checks were set"),
                Action::WatchLoad { .. } | Action::Note(_) | Action::Measure(_) => {}
                Action::Publish(update) => {
                    self.picker = update.picker;
                    self.place_waiting();
                }
            }
        }
        let deadline = self.balancer.next_timeout();
        if let Some(at) = deadline.filter(|_| deadline != self.timeout) {
            self.agenda.plan(at.max(self.now), Event::Timeout);
        }
        self.timeout = deadline;
    }

    fn is_over(&self) -> bool {
        !self.arriving && self.waiting.is_empty() && self.running.is_empty()
    }

    fn into_trace(mut self) -> Trace {
        let servers = self.scenario.servers.len();
        self.trace.in_flight = vec![0; servers];
        for report in self.balancer.subchannels() {
            self.trace.in_flight[index_of(&report.address)] = report.load.in_flight();
        }
        self.trace
    }
}

/// Names.
impl Simulation<'_> {
    fn resolve(&mut self) {
        if !std::mem::replace(&mut self.resolving, true) {
            self.agenda.plan(self.now + RESOLUTION_TIME, Event::Resolved);
        }
    }

    fn resolved(&mut self) {
        self.resolving = false;
        let servers = self.scenario.servers.iter().enumerate();
        let endpoints =
            servers.map(|(index, server)| Endpoint::new(address_of(index)).with_priority(server.priority()));
        self.balancer.handle(self.now, Input::Resolved(endpoints.collect()));
    }
}

/// Calls.
impl Simulation<'_> {
    fn plan_arrival(&mut self) {
        let gap = -(1.0 - self.entropy.arrivals.unit()).ln() / self.scenario.rate;
        let at = self.now + Duration::from_secs_f64(gap);
        self.arriving = at < Time::ZERO + self.scenario.duration;
        if self.arriving {
            self.agenda.plan(at, Event::Arrival);
        }
    }

    fn arrive(&mut self) {
        let call = self.trace.calls.len();
        let record = CallRecord { arrived: self.now, picked: None, ended: self.now, code: Code::Unknown };
        self.trace.calls.push(record);
        self.agenda.plan(self.now + self.scenario.deadline, Event::Deadline(call));
        self.place(call);
        self.plan_arrival();
    }

    fn place_waiting(&mut self) {
        for call in std::mem::take(&mut self.waiting) {
            self.place(call);
        }
    }

    fn place(&mut self, call: usize) {
        let args = PickArgs::new(self.now, self.entropy.picks.next_u64(), "/sim.Simulated/Call");
        let pick = self.picker.pick(&args);
        if pick.exits_idle() {
            self.balancer.handle(self.now, Input::ExitIdle);
        }
        match pick {
            Pick::Call(picked) => self.send(call, picked),
            Pick::Queue | Pick::Idle => self.waiting.push_back(call),
            Pick::Fail(status) => self.record_end(call, status.code),
        }
    }

    fn send(&mut self, call: usize, picked: Call) {
        let id = *self.open.get(&picked.subchannel()).expect("a picker names only subchannels that are connected");
        let connection = self.connections.get_mut(&id).expect("an open connection exists");
        connection.sent(self.now, call);
        let server = connection.server;
        self.trace.calls[call].picked = Some((self.now, server));
        self.running.insert(call, (picked, id));
        let delay = self.scenario.network_delay;
        let work = self.scenario.servers[server].work(&mut self.entropy.work);
        let done = self.server(server).done_at(self.now + delay, work);
        self.agenda.plan(done + delay, Event::Reply { call, connection: id });
        self.plan_judgement(id);
    }

    fn reply(&mut self, call: usize, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.replied(self.now, call);
            self.end(call, Code::Ok);
            self.judge(id);
        }
    }

    /// Ends a call, unless it has ended before.
    fn end(&mut self, call: usize, code: Code) {
        if let Some((placed, id)) = self.running.remove(&call) {
            placed.finish(&Outcome::new(code).after(self.now.since(self.trace.calls[call].arrived)));
            self.record_end(call, code);
            self.leave(call, id);
        } else if let Some(at) = self.waiting.iter().position(|&waiting| waiting == call) {
            self.waiting.remove(at);
            self.record_end(call, code);
        }
    }

    fn leave(&mut self, call: usize, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.calls.remove(&call);
        if connection.state == State::Draining && connection.calls.is_empty() {
            self.connections.remove(&id);
        }
    }

    fn record_end(&mut self, call: usize, code: Code) {
        let record = &mut self.trace.calls[call];
        record.ended = self.now;
        record.code = code;
    }
}

/// Connections.
impl Simulation<'_> {
    fn dial(&mut self, id: ConnectionId, address: &Address) {
        let server = index_of(address);
        self.connections.insert(id, Connection::new(server, self.scenario.progress));
        self.record(server, ConnectionEvent::Dialled);
        let delay = self.scenario.network_delay;
        // A stopped process has its sockets connected by the kernel, but says nothing over them.
        let spoken = self.server(server).done_at(self.now + delay, Duration::ZERO);
        self.agenda.plan(spoken + delay, Event::Dialled(id));
    }

    fn dialled(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let server = connection.server;
        if self.scenario.servers[server].is_dead(self.now) {
            return self.lose(id, "connection refused");
        }
        connection.state = State::Open;
        connection.heard(self.now);
        self.open.insert(id.subchannel, id);
        self.record(server, ConnectionEvent::Connected);
        self.balancer.handle(self.now, Input::Connected(id));
    }

    fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.state = State::Draining;
        let (server, ended) = (connection.server, connection.calls.is_empty());
        if ended {
            self.connections.remove(&id);
        }
        self.forget_open(id);
        self.record(server, ConnectionEvent::Closed);
    }

    fn died(&mut self, server: usize) {
        let of_server = self.connections.iter().filter(|(_, connection)| connection.server == server);
        for id in of_server.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.lose(id, "connection reset");
        }
    }

    /// A connection or an attempt is gone, and every call on it.
    fn lose(&mut self, id: ConnectionId, why: &str) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.forget_open(id);
        self.record(connection.server, ConnectionEvent::Lost);
        for call in connection.calls {
            self.end(call, Code::Unavailable);
        }
        self.balancer.handle(self.now, Input::Disconnected(id, Status::unavailable(why)));
    }

    fn forget_open(&mut self, id: ConnectionId) {
        if self.open.get(&id.subchannel) == Some(&id) {
            self.open.remove(&id.subchannel);
        }
    }

    fn record(&mut self, server: usize, event: ConnectionEvent) {
        self.trace.connections.push(ConnectionRecord { at: self.now, server, event });
    }

    fn server(&self, index: usize) -> &Server {
        &self.scenario.servers[index]
    }
}

/// Health and progress.
impl Simulation<'_> {
    fn watch(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.watches = true;
            self.plan_report(id, self.scenario.network_delay);
        }
    }

    fn health_changed(&mut self, server: usize) {
        let watching = self.connections.iter().filter(|(_, it)| it.server == server && it.watches);
        for id in watching.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.plan_report(id, Duration::ZERO);
        }
    }

    /// The server of a connection reports its health as soon as it can, `after` from now.
    fn plan_report(&mut self, id: ConnectionId, after: Duration) {
        let server = self.server(self.connections[&id].server);
        let sent = server.done_at(self.now + after, Duration::ZERO);
        let signal = if server.is_serving(sent) { HealthSignal::Serving } else { HealthSignal::NotServing };
        self.agenda.plan(sent + self.scenario.network_delay, Event::Report { connection: id, signal });
    }

    fn report(&mut self, id: ConnectionId, signal: HealthSignal) {
        if !self.connections.contains_key(&id) {
            return;
        }
        self.balancer.handle(self.now, Input::Health(id, signal));
        self.heard(id);
    }

    fn heard(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.heard(self.now);
            self.judge(id);
        }
    }

    fn judge(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let server = connection.server;
        match connection.judge(self.now) {
            Verdict::Well => {}
            Verdict::Probe => self.ping(id, server),
            Verdict::Stalled => {
                self.record(server, ConnectionEvent::Stalled);
                self.balancer.handle(self.now, Input::Stalled(id, "silent with calls outstanding".to_owned()));
            }
            Verdict::Recovered => {
                self.record(server, ConnectionEvent::Recovered);
                self.balancer.handle(self.now, Input::Recovered(id));
            }
            Verdict::Dead => return self.lose(id, "silent for too long"),
        }
        self.plan_judgement(id);
    }

    fn ping(&mut self, id: ConnectionId, server: usize) {
        let delay = self.scenario.network_delay;
        let answered = self.server(server).done_at(self.now + delay, Duration::ZERO);
        self.agenda.plan(answered + delay, Event::Pong(id));
    }

    fn plan_judgement(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        if let Some(at) = connection.judge_at() {
            self.agenda.plan(at.max(self.now), Event::Judge(id));
        }
    }
}

/// The address of a server, by its place in the scenario.
fn address_of(index: usize) -> SocketAddr {
    let index = u32::try_from(index).expect("a scenario has fewer than 2^24 servers");
    (Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + index), 50_051).into()
}

/// The place in the scenario of the server at `address`.
fn index_of(address: &Address) -> usize {
    match address {
        Address::Tcp(SocketAddr::V4(address)) => {
            (u32::from(*address.ip()) - u32::from(Ipv4Addr::new(10, 0, 0, 0))) as usize
        }
        other => unreachable!("the resolver lists no {other}"),
    }
}
