//! Clients, a relay and backends on links in memory, in virtual time. The relay's calls are placed by the balancing core.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use evenkeel_balance::{
    Action as Errand, Address, Balancer, Code, ConnectionId, ConnectionSettings, Endpoint, Entropy, HedgingPolicy,
    Input, KeepaliveSettings, LbConfig, Load, LoadReport, MethodConfig, Pick, PickArgs, Policies, ProgressSettings,
    RetryThrottle, ServiceConfig, Status, Time, Update,
};
use evenkeel_relay::{
    connection::{self, Connection, Event, Role, StreamKey},
    engine::{Action, Closed, ConnKey, Engine},
    fields::{Field, Fields},
    frame::ErrorCode,
    relay::{AttemptCost, Placement, Relay, Repeats, Settings},
};

/// Everything that there is.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) relay: Relay<Placing>,
    pub(crate) balance: Rc<RefCell<Balance>>,
    /// The far ends of the relay's connections.
    pub(crate) peers: BTreeMap<u32, Peer>,
    /// Backends that take no connections.
    pub(crate) down: BTreeSet<Address>,
    /// Bytes a delivery, at most.
    pub(crate) chunk: usize,
    /// What backends allow that come from now on.
    pub(crate) backend_settings: connection::Settings,
    /// Backends that come from now on say nothing.
    pub(crate) mute: bool,
}

/// The far end of a connection of the relay's.
pub(crate) struct Peer {
    pub(crate) key: ConnKey,
    /// Where it listens, if it is a backend.
    pub(crate) address: Option<Address>,
    pub(crate) connection: Connection,
    pub(crate) heard: VecDeque<Heard>,
    /// It neither reads nor writes.
    pub(crate) hangs: bool,
    /// What it reads, it gives the window back for.
    pub(crate) releases: bool,
}

/// What a peer has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Head(StreamKey, Vec<(String, String)>, bool),
    Data(StreamKey, Vec<u8>, bool),
    Trailers(StreamKey, Vec<(String, String)>),
    Reset(StreamKey, ErrorCode),
    Leaving(ErrorCode),
    Broken(ErrorCode),
}

/// What the balancer has decided, and what has become of calls.
pub(crate) struct Balance {
    balancer: Balancer,
    now: Time,
    update: Update,
    version: u64,
    connections: BTreeMap<ConnectionId, (Address, Arc<Load>)>,
    config: Arc<ServiceConfig>,
    entropy: Entropy,
    /// Addresses that the balancer's own connections do not reach.
    pub(crate) down: BTreeSet<Address>,
    pub(crate) told: Vec<Input>,
    pub(crate) attempts: Vec<Code>,
    /// Bytes of messages that attempts sent and received.
    pub(crate) sizes: Vec<(u64, u64)>,
    pub(crate) ended: Vec<(Code, Repeats)>,
    pub(crate) running: i64,
}

#[derive(Clone)]
pub(crate) struct Placing(Rc<RefCell<Balance>>, Option<Arc<RetryThrottle>>);

impl World {
    /// A relay before so many backends.
    pub(crate) fn new(backends: u16, config: &str) -> Self {
        Self::with(backends, config, Settings::default())
    }

    pub(crate) fn with(backends: u16, config: &str, settings: Settings) -> Self {
        let config: ServiceConfig = config.parse().expect("the service config is good");
        let throttle = config.retry_throttling.map(|throttling| Arc::new(RetryThrottle::new(throttling)));
        let policy = LbConfig::of("round_robin");
        let balancer = Balancer::new(Policies::standard(), &policy, ConnectionSettings::default(), 1)
            .expect("the policy is known");
        let balance = Rc::new(RefCell::new(Balance {
            balancer,
            now: Time::ZERO,
            update: Balancer::dormant(),
            version: 0,
            connections: BTreeMap::new(),
            config: Arc::new(config),
            entropy: Entropy::new(7),
            down: BTreeSet::new(),
            told: Vec::new(),
            attempts: Vec::new(),
            sizes: Vec::new(),
            ended: Vec::new(),
            running: 0,
        }));
        let relay = Relay::new(settings, Placing(Rc::clone(&balance), throttle));
        let now = Time::from_nanos(1_000_000_000);
        let (peers, down) = (BTreeMap::new(), BTreeSet::new());
        let backend_settings = connection::Settings::default();
        let mut world = Self { now, relay, balance, peers, down, chunk: usize::MAX, backend_settings, mute: false };
        world.resolve((0..backends).map(backend));
        world.run();
        world
    }

    pub(crate) fn resolve(&mut self, addresses: impl Iterator<Item = Address>) {
        let endpoints: Arc<[Endpoint]> = addresses.map(Endpoint::new).collect();
        self.input(Input::Resolved(endpoints));
        self.input(Input::ExitIdle);
    }

    pub(crate) fn input(&mut self, input: Input) {
        let now = self.now;
        let mut balance = self.balance.borrow_mut();
        balance.now = now;
        balance.balancer.handle(now, input);
    }

    /// A client connects.
    pub(crate) fn client(&mut self) -> u32 {
        self.client_with(&connection::Settings::default())
    }

    pub(crate) fn client_with(&mut self, settings: &connection::Settings) -> u32 {
        let key = self.relay.accept(self.now);
        self.add(key, None, Role::Client, settings)
    }

    fn add(&mut self, key: ConnKey, address: Option<Address>, role: Role, settings: &connection::Settings) -> u32 {
        let connection = Connection::new(role, &Rc::new(settings.clone()), self.now);
        let peer = Peer { key, address, connection, heard: VecDeque::new(), hangs: false, releases: true };
        self.peers.insert(key.slot(), peer);
        key.slot()
    }

    /// The backends that stand at this address.
    pub(crate) fn backends(&self, at: u16) -> Vec<u32> {
        let is_there = |peer: &&Peer| peer.address == Some(backend(at));
        self.peers.values().filter(is_there).map(|peer| peer.key.slot()).collect()
    }

    /// Delivers and does until nothing is left to deliver or to do.
    pub(crate) fn run(&mut self) {
        while self.step() {}
    }

    /// Delivers and does a bit. Whether there was anything.
    pub(crate) fn step(&mut self) -> bool {
        self.balance_once() | self.act_once() | self.deliver_once()
    }

    /// Time passes, step by step.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.run();
            let own = self.balance.borrow().balancer.next_timeout();
            let next = own.into_iter().chain(self.relay.next_timeout()).min().filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            self.relay.handle_timeout(self.now);
            let mut balance = self.balance.borrow_mut();
            balance.now = self.now;
            balance.balancer.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn balance_once(&mut self) -> bool {
        let mut did = false;
        let mut balance = self.balance.borrow_mut();
        balance.now = self.now;
        while let Some(errand) = balance.balancer.poll_action(self.now) {
            did = true;
            balance.act(self.now, errand);
        }
        drop(balance);
        if did {
            self.relay.refresh(self.now);
        }
        did
    }

    fn act_once(&mut self) -> bool {
        let Some(action) = self.relay.poll_action() else { return false };
        match action {
            Action::Write(key) => self.deliver(key),
            Action::Close(key) => {
                self.deliver(key);
                self.relay.closed(self.now, key, Closed::Done);
                self.peers.get_mut(&key.slot()).into_iter().for_each(|peer| peer.hangs = true);
            }
            Action::Dial { dial, address, .. } if self.down.contains(&address) => {
                assert!(self.relay.dialled(self.now, dial, Err("connection refused".to_owned())).is_none());
            }
            Action::Dial { dial, address, .. } => {
                if let Some(key) = self.relay.dialled(self.now, dial, Ok(())) {
                    let settings = self.backend_settings.clone();
                    let peer = self.add(key, Some(address), Role::Server, &settings);
                    self.peer(peer).hangs = self.mute;
                }
            }
        }
        true
    }

    /// A peer that hung goes on.
    pub(crate) fn wake(&mut self, peer: u32) {
        self.peer(peer).hangs = false;
        let key = self.peer(peer).key;
        self.deliver(key);
    }

    /// From the relay to the peer.
    fn deliver(&mut self, key: ConnKey) {
        loop {
            let Some(peer) = self.peers.get_mut(&key.slot()).filter(|peer| peer.key == key && !peer.hangs) else {
                return;
            };
            let output = self.relay.output(key);
            let output = output[..output.len().min(self.chunk)].to_vec();
            if output.is_empty() {
                return;
            }
            peer.hear(self.now, &output);
            self.relay.wrote(self.now, key, output.len());
        }
    }

    /// From peers to the relay.
    fn deliver_once(&mut self) -> bool {
        let mut did = false;
        for peer in self.peers.values_mut().filter(|peer| !peer.hangs) {
            let output = peer.connection.output();
            let output = output[..output.len().min(self.chunk)].to_vec();
            if !output.is_empty() {
                did = true;
                peer.connection.consume(self.now, output.len());
                self.relay.receive(self.now, peer.key, &output);
            }
        }
        did
    }

    pub(crate) fn peer(&mut self, peer: u32) -> &mut Peer {
        self.peers.get_mut(&peer).expect("the peer is there")
    }

    /// A peer reads what the relay has written.
    pub(crate) fn hear(&mut self, peer: u32, input: &[u8]) {
        let now = self.now;
        self.peer(peer).hear(now, input);
    }

    /// The connection of a peer breaks, as when its process is killed.
    pub(crate) fn kill(&mut self, peer: u32) {
        let peer = self.peers.remove(&peer).expect("the peer is there");
        self.relay.closed(self.now, peer.key, Closed::Reset);
    }

    /// A client begins a call.
    pub(crate) fn call(&mut self, client: u32, ends: bool) -> StreamKey {
        self.call_with(client, &[], ends)
    }

    pub(crate) fn call_with(&mut self, client: u32, more: &[(&str, &str)], ends: bool) -> StreamKey {
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/shop.Cart/Get"),
            (":authority", "cart.internal"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ];
        let head = head.iter().filter(|(name, _)| !more.iter().any(|(other, _)| other == name)).chain(more);
        let (mut pseudo, rest): (Vec<_>, Vec<_>) = head.partition(|(name, _)| name.starts_with(':'));
        pseudo.extend(rest);
        let fields: Vec<_> = pseudo.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes())).collect();
        self.peer(client).connection.open(0, fields.iter().copied(), ends).expect("the relay allows another stream")
    }

    /// The next thing that a peer has heard.
    pub(crate) fn heard(&mut self, peer: u32) -> Option<Heard> {
        self.run();
        self.peer(peer).heard.pop_front()
    }

    /// How many endpoints pickers take for suspect.
    pub(crate) fn suspects(&self) -> usize {
        self.balance.borrow().connections.values().filter(|(_, load)| load.is_suspect()).count()
    }

    /// Whether nothing is left over of any call.
    pub(crate) fn assert_clean(&mut self) {
        self.run();
        let balance = self.balance.borrow();
        let in_flight: u32 = balance.connections.values().map(|(_, load)| load.in_flight()).sum();
        assert_eq!((self.relay.running(), self.relay.held(), in_flight, balance.running), (0, 0, 0, 0));
        for peer in self.peers.values().filter(|peer| !peer.hangs) {
            assert_eq!(peer.connection.open_streams(), 0, "{:?}", peer.address);
        }
    }
}

impl Peer {
    pub(crate) fn hear(&mut self, now: Time, mut input: &[u8]) {
        let mut fields = Fields::new();
        while let Some(event) = self.connection.receive(now, &mut input, &mut fields) {
            let heard = match event {
                Event::Head { stream, ends, .. } => Heard::Head(stream, listed(&fields), ends),
                Event::Trailers { stream, .. } => Heard::Trailers(stream, listed(&fields)),
                Event::Data { stream, data, ends } => {
                    if self.releases {
                        self.connection.release(stream, data.len());
                    }
                    Heard::Data(stream, data.to_vec(), ends)
                }
                Event::Reset { stream, code, .. } => Heard::Reset(stream, code),
                Event::Leaving { code, .. } => Heard::Leaving(code),
                Event::Broken { code, .. } => Heard::Broken(code),
                Event::Settled | Event::Pong(_) => continue,
            };
            self.heard.push_back(heard);
        }
    }

    /// Answers a call as gRPC servers do.
    pub(crate) fn respond(&mut self, stream: StreamKey, message: &[u8], status: &str) {
        self.respond_head(stream);
        assert_eq!(self.connection.send_data(stream, message, false), message.len());
        self.connection.send_trailers(stream, [Field::new(b"grpc-status", status.as_bytes())].into_iter());
    }

    pub(crate) fn respond_head(&mut self, stream: StreamKey) {
        let head = [Field::new(b":status", b"200"), Field::new(b"content-type", b"application/grpc")];
        self.connection.send_head(stream, head.into_iter(), false);
    }

    /// Answers a call with a status alone.
    pub(crate) fn refuse(&mut self, stream: StreamKey, status: &str) {
        let head = [
            Field::new(b":status", b"200"),
            Field::new(b"content-type", b"application/grpc"),
            Field::new(b"grpc-status", status.as_bytes()),
        ];
        self.connection.send_head(stream, head.into_iter(), true);
    }
}

fn listed(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|field| (text(field.name), text(field.value))).collect()
}

/// Where backends are.
pub(crate) fn backend(n: u16) -> Address {
    Address::from(SocketAddr::from(([10, 0, 0, 1], 50_000 + n)))
}

impl Balance {
    fn act(&mut self, now: Time, errand: Errand) {
        match errand {
            Errand::Connect { connection, address, load } => {
                let input = if self.down.contains(&address) {
                    Input::Refused(connection, Status::unavailable("connection refused"))
                } else {
                    self.connections.insert(connection, (address, load));
                    Input::Connected(connection)
                };
                self.balancer.handle(now, input);
            }
            Errand::Close(connection) => {
                self.connections.remove(&connection);
                self.version += 1;
            }
            Errand::Publish(update) => {
                self.update = update;
                self.version += 1;
            }
            _ => {}
        }
    }
}

impl Placement for Placing {
    type Method = Arc<MethodConfig>;

    fn version(&self) -> u64 {
        self.0.borrow().version
    }

    fn connections(&self, each: &mut dyn FnMut(ConnectionId, &Address, &Arc<Load>)) {
        for (id, (address, load)) in &self.0.borrow().connections {
            each(*id, address, load);
        }
    }

    fn pick(&mut self, now: Time, path: &str, _: &Fields) -> Pick {
        let mut balance = self.0.borrow_mut();
        let args = PickArgs::new(now, balance.entropy.next_u64(), path);
        balance.update.picker.pick(&args)
    }

    fn begin(&mut self, _: Time, path: &str) -> Self::Method {
        let mut balance = self.0.borrow_mut();
        balance.running += 1;
        Arc::new(balance.config.method(path).clone())
    }

    fn config<'m>(&self, method: &'m Self::Method) -> &'m MethodConfig {
        method
    }

    fn throttle(&self) -> Option<&Arc<RetryThrottle>> {
        self.1.as_ref()
    }

    fn entropy(&mut self) -> u64 {
        self.0.borrow_mut().entropy.next_u64()
    }

    fn hedging_delay(&mut self, _: &Self::Method, policy: &HedgingPolicy) -> Duration {
        policy.delay
    }

    fn spend_hedge(&mut self, _: &Self::Method, _: &HedgingPolicy) -> bool {
        true
    }

    fn note_latency(&mut self, _: &Self::Method, _: Duration) {}

    fn attempt_started(&mut self, _: &Self::Method) {}

    fn attempt_ended(&mut self, _: &Self::Method, code: Code, cost: &AttemptCost) {
        let mut balance = self.0.borrow_mut();
        balance.attempts.push(code);
        balance.sizes.push((cost.sent, cost.received));
    }

    fn ended(&mut self, _: Self::Method, code: Code, _: Duration, repeats: &Repeats) {
        let mut balance = self.0.borrow_mut();
        balance.running -= 1;
        balance.ended.push((code, *repeats));
    }

    fn load_report(&self, _: &Fields) -> Option<Arc<LoadReport>> {
        None
    }

    fn tell(&mut self, input: Input) {
        let mut balance = self.0.borrow_mut();
        balance.told.push(input.clone());
        if let Input::Disconnected(id, _) | Input::Lost(id, ..) = &input {
            balance.connections.remove(id);
        }
        let now = balance.now;
        balance.balancer.handle(now, input);
    }

    fn line(&self) -> (ProgressSettings, KeepaliveSettings) {
        (ProgressSettings::default(), KeepaliveSettings::default())
    }
}
