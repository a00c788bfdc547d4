//! Drives a balancer by hand: the test says what the network does, and sees what the core asks for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_balance::{
    Action, Address, Balancer, Call, CheckNews, CheckOutcome, CheckSettings, Code, ConfigError, ConnectionId,
    ConnectionSettings, Connectivity, Decision, Endpoint, Entropy, HealthCheck, HealthSignal, Input, LbConfig, Load,
    Measurement, Outcome, Pick, PickArgs, Picker, Policies, ServiceConfig, Status, SubchannelId, SubchannelState, Time,
    UnknownService, What,
};

pub(crate) struct Driver {
    pub(crate) balancer: Balancer,
    pub(crate) now: Time,
    /// Attempts that have had no answer, and connections that stand.
    pub(crate) dialling: BTreeMap<Address, ConnectionId>,
    pub(crate) open: BTreeMap<Address, ConnectionId>,
    /// Attempts beside a connection that has fallen silent: nobody answers them.
    pub(crate) beside: Vec<ConnectionId>,
    /// What the core has asked for so far, in order.
    pub(crate) dialled: Vec<Address>,
    pub(crate) closed: Vec<Address>,
    pub(crate) watched: Vec<(Address, String)>,
    pub(crate) load_watched: Vec<(Address, Duration)>,
    /// Probes under way, and until when.
    pub(crate) probes: BTreeMap<Address, (SubchannelId, Time)>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) resolutions: usize,
    pub(crate) published: Vec<Connectivity>,
    picker: Arc<dyn Picker>,
    entropy: Entropy,
    addresses: BTreeMap<ConnectionId, Address>,
}

/// Where a call went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    On(Address),
    Queued,
    Idle,
    Failed(Status),
}

impl Driver {
    pub(crate) fn new(policy: &str) -> Self {
        Self::seeded(&LbConfig::of(policy), 1)
    }

    pub(crate) fn seeded(config: &LbConfig, seed: u64) -> Self {
        let settings = ConnectionSettings::default();
        let balancer = Balancer::new(Policies::standard(), config, settings, seed).expect("the config is good");
        let mut driver = Self {
            balancer,
            now: Time::ZERO,
            dialling: BTreeMap::new(),
            open: BTreeMap::new(),
            beside: Vec::new(),
            dialled: Vec::new(),
            closed: Vec::new(),
            watched: Vec::new(),
            load_watched: Vec::new(),
            probes: BTreeMap::new(),
            decisions: Vec::new(),
            measurements: Vec::new(),
            resolutions: 0,
            published: Vec::new(),
            picker: Balancer::dormant().picker,
            entropy: Entropy::new(seed),
            addresses: BTreeMap::new(),
        };
        driver.drain();
        driver
    }

    /// The resolver lists one endpoint for each address.
    pub(crate) fn resolve(&mut self, addresses: impl IntoIterator<Item = Address>) {
        self.list(addresses.into_iter().map(endpoint));
    }

    /// The resolver lists these endpoints.
    pub(crate) fn list(&mut self, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.input(Input::Resolved(endpoints.into_iter().collect()));
    }

    /// What policies have said to the operator since the last call.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        let decisions = std::mem::take(&mut self.decisions);
        let notes = decisions.into_iter().filter_map(|decision| match decision.what {
            What::Policy(note) => Some(note),
            _ => None,
        });
        notes.collect()
    }

    /// The resolver lists endpoints by the numbers of their addresses, with their weights.
    pub(crate) fn resolve_weighted(&mut self, endpoints: &[(u8, u32)]) {
        let endpoints = endpoints.iter().map(|&(n, weight)| endpoint(v4(n)).weighted(weight));
        self.input(Input::Resolved(endpoints.collect()));
    }

    /// As [`resolve`](Self::resolve), and somebody waits for a connection.
    pub(crate) fn resolve_and_connect(&mut self, addresses: impl IntoIterator<Item = Address>) {
        self.resolve(addresses);
        self.input(Input::ExitIdle);
        while let Some(address) = self.dialling.keys().next().cloned() {
            self.accept(&address);
        }
    }

    pub(crate) fn accept(&mut self, address: &Address) {
        let id = *self.dialling.get(address).unwrap_or_else(|| panic!("nobody dials {address}"));
        self.connected(id);
    }

    pub(crate) fn refuse(&mut self, address: &Address) {
        let id = *self.dialling.get(address).unwrap_or_else(|| panic!("nobody dials {address}"));
        self.disconnected(id, "connection refused");
    }

    /// An attempt on `address` finds that there is no server.
    pub(crate) fn find_nobody(&mut self, address: &Address) {
        let id = *self.dialling.get(address).unwrap_or_else(|| panic!("nobody dials {address}"));
        self.forget(id);
        self.input(Input::Refused(id, Status::unavailable("connection refused")));
    }

    pub(crate) fn lose(&mut self, address: &Address) {
        let id = *self.open.get(address).unwrap_or_else(|| panic!("{address} is not connected"));
        self.disconnected(id, "connection reset");
    }

    /// News of a connection, which may be long gone.
    pub(crate) fn connected(&mut self, id: ConnectionId) {
        let address = self.addresses[&id].clone();
        if self.beside.contains(&id) {
            // It takes the place of the silent one, which is closed.
            self.beside.retain(|beside| *beside != id);
            self.input(Input::Connected(id));
            assert_eq!(self.open.insert(address, id), None);
            return;
        }
        if self.dialling.get(&address) == Some(&id) {
            self.dialling.remove(&address);
            self.open.insert(address, id);
        }
        self.input(Input::Connected(id));
    }

    /// As [`connected`](Self::connected).
    pub(crate) fn disconnected(&mut self, id: ConnectionId, why: &str) {
        self.forget(id);
        self.input(Input::Disconnected(id, Status::unavailable(why)));
    }

    /// Every connection that there ever was.
    pub(crate) fn history(&self) -> Vec<ConnectionId> {
        self.addresses.keys().copied().collect()
    }

    pub(crate) fn health(&mut self, address: &Address, signal: HealthSignal) {
        self.input(Input::Health(self.open[address], signal));
    }

    pub(crate) fn check_health(&mut self, service: &str) {
        let check = HealthCheck { service: service.to_owned(), unknown: UnknownService::IsUnhealthy };
        self.balancer.set_health_check(self.now, Some(check));
        self.drain();
    }

    pub(crate) fn check_actively(&mut self, settings: CheckSettings) {
        self.balancer.set_checks(self.now, Some(settings)).expect("the settings make sense");
        self.drain();
    }

    /// The probe of `address` that is under way ends so.
    pub(crate) fn answer(&mut self, address: &Address, outcome: CheckOutcome) {
        let (id, deadline) = self.probes.remove(address).unwrap_or_else(|| panic!("nobody probes {address}"));
        assert!(self.now <= deadline, "the probe of {address} is overdue");
        self.input(Input::Checked(id, CheckNews::Ended(outcome)));
    }

    pub(crate) fn configure(&mut self, config: &LbConfig) -> Result<(), ConfigError> {
        let result = self.balancer.configure(self.now, config);
        self.drain();
        result
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.balancer.handle(self.now, input);
        self.drain();
    }

    /// Lets time pass, stopping at each of the core's deadlines.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.balancer.next_timeout().filter(|&at| at <= end) {
            assert!(at >= self.now, "a deadline has passed and was not dealt with");
            self.now = at;
            self.balancer.handle_timeout(at);
            self.drain();
            assert!(self.balancer.next_timeout() > Some(at) || self.balancer.next_timeout().is_none(), "spins at {at}");
        }
        self.now = end;
    }

    /// Lets time pass while the driver sleeps: deadlines are dealt with once, and late.
    pub(crate) fn oversleep(&mut self, duration: Duration) {
        self.now += duration;
        self.balancer.handle_timeout(self.now);
        self.drain();
    }

    /// Accepts every attempt and wakes every policy, for long enough that any backoff ends.
    pub(crate) fn let_all_connect(&mut self) {
        for _ in 0..40 {
            self.input(Input::ExitIdle);
            while let Some(&id) = self.dialling.values().next() {
                self.connected(id);
            }
            self.wait(secs(5));
        }
    }

    /// Makes a call that ends well at once.
    pub(crate) fn pick(&mut self) -> Placed {
        let pick = self.pick_raw();
        self.placed(pick)
    }

    /// As [`pick`](Self::pick), for a call whose caller gives it `key`.
    pub(crate) fn pick_by(&self, key: &str) -> Placed {
        // The entropy is that of no other pick, and has no say where there is a key.
        let args = PickArgs::new(self.now, 0, "/test.Test/Call").with_hash_key(key.as_bytes());
        self.placed(self.pick_args(&args))
    }

    pub(crate) fn pick_args(&self, args: &PickArgs<'_>) -> Pick {
        self.picker.pick(args)
    }

    fn placed(&self, pick: Pick) -> Placed {
        match pick {
            Pick::Call(call) => {
                let address = self.address_of(&call);
                call.finish(&Outcome::new(Code::Ok));
                Placed::On(address)
            }
            Pick::Queue => Placed::Queued,
            Pick::Idle => Placed::Idle,
            Pick::Fail(status) => Placed::Failed(status),
        }
    }

    pub(crate) fn pick_raw(&mut self) -> Pick {
        let entropy = self.entropy.next_u64();
        self.pick_with(entropy)
    }

    pub(crate) fn pick_with(&self, entropy: u64) -> Pick {
        self.picker.pick(&PickArgs::new(self.now, entropy, "/test.Test/Call"))
    }

    /// Makes `n` calls that end well at once, each of which must be placed, and counts them by address.
    pub(crate) fn picks(&mut self, n: usize) -> BTreeMap<Address, usize> {
        let reports = self.balancer.subchannels();
        let addresses: BTreeMap<_, _> = reports.into_iter().map(|report| (report.id, report.address)).collect();
        let mut counts = BTreeMap::new();
        for _ in 0..n {
            match self.pick_raw() {
                Pick::Call(call) => {
                    *counts.entry(addresses[&call.subchannel()].clone()).or_default() += 1;
                    call.finish(&Outcome::new(Code::Ok));
                }
                other => panic!("not placed: {other:?}"),
            }
        }
        counts
    }

    pub(crate) fn address_of(&self, call: &Call) -> Address {
        let reports = self.balancer.subchannels();
        let report = reports.iter().find(|report| report.id == call.subchannel());
        report.expect("a call goes to a subchannel that exists").address.clone()
    }

    pub(crate) fn state(&self, address: &Address) -> Option<SubchannelState> {
        self.balancer.subchannels().into_iter().find(|report| report.address == *address).map(|report| report.state)
    }

    pub(crate) fn load(&self, address: &Address) -> Arc<Load> {
        let reports = self.balancer.subchannels();
        Arc::clone(&reports.iter().find(|report| report.address == *address).expect("a known address").load)
    }

    /// The dials since the last call.
    pub(crate) fn take_dialled(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.dialled)
    }

    fn drain(&mut self) {
        while let Some(action) = self.balancer.poll_action(self.now) {
            match action {
                Action::Connect { connection, address, .. } => self.dial(connection, address),
                Action::Close(connection) => self.close(connection),
                Action::WatchHealth { connection, service } => {
                    self.watched.push((self.addresses[&connection].clone(), service));
                }
                Action::WatchLoad { connection, interval } => {
                    self.load_watched.push((self.addresses[&connection].clone(), interval));
                }
                Action::Check { subchannel, address, deadline } => {
                    let before = self.probes.insert(address, (subchannel, deadline));
                    assert_eq!(before, None, "one probe at a time");
                }
                Action::EndChecks(ended) => self.probes.retain(|_, (id, _)| *id != ended),
                Action::Note(decision) => self.decisions.push(decision),
                Action::Measure(measurement) => self.measurements.push(measurement),
                Action::Resolve => self.resolutions += 1,
                Action::Publish(update) => {
                    self.published.push(update.connectivity);
                    self.picker = update.picker;
                }
            }
        }
    }

    fn dial(&mut self, id: ConnectionId, address: Address) {
        assert!(!self.dialling.contains_key(&address), "{address} is being dialled already");
        self.addresses.insert(id, address.clone());
        if self.open.contains_key(&address) {
            assert!(self.is_silent(&address), "{address} is connected already");
            self.beside.push(id);
            return;
        }
        self.dialled.push(address.clone());
        self.dialling.insert(address, id);
    }

    fn is_silent(&self, address: &Address) -> bool {
        self.state(address).is_some_and(|state| state.stalled)
    }

    fn close(&mut self, id: ConnectionId) {
        let was_beside = self.beside.contains(&id);
        assert!(self.forget(id), "{id} is closed, and is no more");
        if was_beside {
            return;
        }
        self.closed.push(self.addresses[&id].clone());
    }

    /// Whether the connection was known until now.
    fn forget(&mut self, id: ConnectionId) -> bool {
        let count = |driver: &Self| driver.dialling.len() + driver.open.len() + driver.beside.len();
        let known = count(self);
        self.dialling.retain(|_, dialled| *dialled != id);
        self.open.retain(|_, open| *open != id);
        self.beside.retain(|beside| *beside != id);
        count(self) < known
    }
}

/// The IPv4 address of this number.
pub(crate) fn v4(n: u8) -> Address {
    std::net::SocketAddr::from(([10, 0, 0, n], 50_051)).into()
}

/// The IPv6 address of this number.
pub(crate) fn v6(n: u8) -> Address {
    std::net::SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)], 50_051)).into()
}

pub(crate) fn endpoint(address: Address) -> Endpoint {
    Endpoint::with_addresses([address]).expect("one address is enough")
}

/// `json` as the value of `loadBalancingConfig`.
pub(crate) fn policies(json: &str) -> LbConfig {
    let config: ServiceConfig = format!(r#"{{"loadBalancingConfig":{json}}}"#).parse().expect("a good service config");
    config.load_balancing.expect("it has a load-balancing config")
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
