//! How long the core takes with very many endpoints: `cargo run --release -p evenkeel-balance --example scale`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures real time, and prints it")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use evenkeel_balance::{
    Action, Balancer, ConnectionId, ConnectionSettings, Endpoint, Input, LbConfig, Policies, Status, Time,
};

/// A core whose connections are all made at once.
struct Scale {
    balancer: Balancer,
    now: Time,
    dialled: Vec<ConnectionId>,
    published: usize,
}

impl Scale {
    fn new(policy: &str) -> Self {
        let config = LbConfig::of(policy);
        let balancer = Balancer::new(Policies::standard(), &config, ConnectionSettings::default(), 1);
        let balancer = balancer.expect("the config is good");
        Self { balancer, now: Time::ZERO, dialled: Vec::new(), published: 0 }
    }

    fn input(&mut self, input: Input) {
        self.now += Duration::from_micros(1);
        self.balancer.handle(self.now, input);
    }

    /// Does all that the core asks for, and asks for the next deadline as a driver does.
    fn drain(&mut self) {
        while let Some(action) = self.balancer.poll_action(self.now) {
            match action {
                Action::Connect { connection, .. } => self.dialled.push(connection),
                Action::Publish(_) => self.published += 1,
                _ => {}
            }
        }
        if self.balancer.next_timeout().is_some_and(|at| at <= self.now) {
            self.balancer.handle_timeout(self.now);
        }
    }

    fn resolve(&mut self, endpoints: impl Iterator<Item = u32>) -> Duration {
        let list = endpoints.map(endpoint).collect();
        let start = Instant::now();
        self.input(Input::Resolved(list));
        self.drain();
        start.elapsed()
    }

    /// Connects all that is dialled, `batch` at a time.
    fn connect(&mut self, batch: usize) -> Duration {
        let dialled = std::mem::take(&mut self.dialled);
        let start = Instant::now();
        for batch in dialled.chunks(batch) {
            for &connection in batch {
                self.input(Input::Connected(connection));
            }
            self.drain();
        }
        start.elapsed()
    }

    /// One connection ends, and is made anew.
    fn blink(&mut self, connection: ConnectionId) -> Duration {
        let start = Instant::now();
        self.now += Duration::from_secs(2);
        self.input(Input::Disconnected(connection, Status::unavailable("reset")));
        self.drain();
        let elapsed = start.elapsed();
        self.connect(1);
        elapsed
    }
}

fn endpoint(n: u32) -> Endpoint {
    let [_, a, b, c] = n.to_be_bytes();
    Endpoint::new(SocketAddr::from(([10, a, b, c], 50_051)))
}

fn main() {
    println!("policy, endpoints: first list; connecting one by one, in hundreds; the same list; 1 % other; one blinks");
    for policy in ["round_robin", "least_request", "pick_first"] {
        for n in [1_000, 2_500, 10_000] {
            let mut scale = Scale::new(policy);
            let first = scale.resolve(0..n);
            let sample = scale.dialled.first().copied();
            let one_by_one = scale.connect(1);
            let mut other = Scale::new(policy);
            other.resolve(0..n);
            let in_hundreds = other.connect(100);
            let same = scale.resolve(0..n);
            let churn = scale.resolve(n / 100..n + n / 100);
            scale.connect(100);
            let sample = sample.and(scale.dialled.last().copied()).or(sample);
            let blink = sample.map(|connection| scale.blink(connection));
            println!("{policy}, {n}: {first:?}; {one_by_one:?}, {in_hundreds:?}; {same:?}; {churn:?}; {blink:?}");
        }
    }
}
