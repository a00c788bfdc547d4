//! How long the core takes with very many endpoints: `cargo run --release -p evenkeel-balance --example scale`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures real time, and prints it")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use evenkeel_balance::{
    Action, Balancer, ConnectionId, ConnectionSettings, Endpoint, Input, Policies, ServiceConfig, Status, Time,
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
        let config: ServiceConfig =
            format!(r#"{{"loadBalancingConfig":[{{{policy}}}]}}"#).parse().expect("a good service config");
        let config = config.load_balancing.expect("it names a policy");
        let balancer = Balancer::new(Policies::standard(), &config, ConnectionSettings::default(), 1);
        let balancer = balancer.expect("the config is good");
        Self { balancer, now: Time::ZERO, dialled: Vec::new(), published: 0 }
    }

    /// A core with `n` connected endpoints, and how long connecting them took.
    fn connected(policy: &str, n: u32, batch: usize) -> (Self, Duration) {
        let mut scale = Self::new(policy);
        scale.resolve(0..n);
        let elapsed = scale.connect(batch);
        (scale, elapsed)
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
    Endpoint::new(SocketAddr::from(([10, a, b, c], 50_051))).in_zone(if n.is_multiple_of(3) { "a" } else { "b" })
}

fn main() {
    println!("policy: connecting 2,500 one by one, 10,000 in hundreds; then the same list; 1 % other; one lost");
    for policy in [
        r#""round_robin":{}"#,
        r#""least_request":{}"#,
        r#""pick_first":{}"#,
        r#""priority":{"childPolicy":[{"round_robin":{}}]}"#,
        r#""zone_aware":{"zone":"a","childPolicy":[{"round_robin":{}}]}"#,
        r#""random_subsetting":{"subsetSize":20,"childPolicy":[{"round_robin":{}}]}"#,
    ] {
        let one_by_one = Scale::connected(policy, 2_500, 1);
        let in_hundreds = Scale::connected(policy, 10_000, 100);
        let mut scale = in_hundreds.0;
        // The least of a few is the one that the rest of the machine disturbed least.
        let same = (0..5).map(|_| scale.resolve(0..10_000)).min();
        let mut blink = None;
        let churn = (1..6).map(|round| {
            let elapsed = scale.resolve(round * 100..10_000 + round * 100);
            let sample = scale.dialled.first().copied();
            scale.connect(100);
            blink = sample.map(|connection| scale.blink(connection)).into_iter().chain(blink).min();
            elapsed
        });
        let churn = churn.min();
        println!("{policy}: {:?}, {:?}; {same:?}; {churn:?}; {blink:?}", one_by_one.1, in_hundreds.1);
    }
}
