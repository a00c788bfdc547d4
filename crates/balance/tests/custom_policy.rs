//! A policy from outside the crate: typed config, its own way to choose, and learning from how calls end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use evenkeel_balance::{
    Action, Balancer, Code, ConfigError, ConnectionSettings, Context, Endpoint, Input, LbConfig, Observer, Outcome,
    Pick, PickArgs, Picker, Policies, PolicyFactory, Route, ServiceConfig, Time,
    policy::{Candidate, Choose, Petiole},
};
use serde::Deserialize;

/// Prefers the endpoint whose calls were the fastest of late; those without a measurement come first.
struct Fastest;

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FastestConfig {
    /// How much of the old average remains at each measurement, in percent: below 100. Default 50.
    #[serde(default = "half")]
    memory_percent: u64,
}

fn half() -> u64 {
    50
}

impl FastestConfig {
    fn chooser(self) -> Result<ByLatency, ConfigError> {
        if self.memory_percent >= 100 {
            return Err(ConfigError::new("memoryPercent", "must be below 100"));
        }
        Ok(ByLatency { memory_percent: self.memory_percent })
    }
}

impl PolicyFactory for Fastest {
    const NAME: &'static str = "example.fastest";
    type Config = FastestConfig;
    type Policy = Petiole<ByLatency>;

    fn build(&self, config: FastestConfig, _: &Policies) -> Result<Self::Policy, ConfigError> {
        Ok(Petiole::new(config.chooser()?))
    }

    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: FastestConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        policy.reconfigure(config.chooser()?);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct ByLatency {
    memory_percent: u64,
}

impl Choose for ByLatency {
    type Memory = Average;

    fn picker(&mut self, ready: Vec<Candidate<Average>>, _: &mut Context<'_>) -> Arc<dyn Picker> {
        let ranked = ready.into_iter().filter_map(|candidate| Some((candidate.route, candidate.memory?)));
        Arc::new(Ranked(ranked.collect()))
    }

    fn remember(&mut self, _: &Endpoint) -> Option<Arc<Average>> {
        Some(Arc::new(Average { memory_percent: self.memory_percent, micros: AtomicU64::new(0) }))
    }
}

/// The latency of an endpoint's calls, as an exponentially weighted average.
#[derive(Debug)]
struct Average {
    memory_percent: u64,
    /// 0 until the first measurement.
    micros: AtomicU64,
}

impl Observer for Average {
    fn finished(&self, outcome: &Outcome) {
        let Some(latency) = outcome.latency else { return };
        let fresh = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let updated = self.micros.fetch_update(Relaxed, Relaxed, |old| {
            let kept = if old == 0 { 0 } else { self.memory_percent };
            Some((old * kept + fresh * (100 - kept)) / 100)
        });
        updated.expect("every value is replaced");
    }
}

#[derive(Debug)]
struct Ranked(Vec<(Arc<Route>, Arc<Average>)>);

impl Picker for Ranked {
    fn pick(&self, _: &PickArgs<'_>) -> Pick {
        let fastest = self.0.iter().min_by_key(|(_, average)| average.micros.load(Relaxed));
        fastest.map_or(Pick::Queue, |(route, _)| Pick::Call(route.call()))
    }
}

#[test]
fn the_policy_learns_from_how_calls_end() {
    let channel = Channel::new("{}").unwrap();
    // Each endpoint is tried once; then all goes to the fastest, until it is no longer.
    let tried: Vec<_> = [30, 10, 20].map(|latency| channel.call(latency)).into();
    assert_eq!(tried, [0, 1, 2]);
    assert_eq!([channel.call(10), channel.call(40)], [1, 1]);
    assert_eq!(channel.call(20), 2, "1 now averages 25 ms");
}

#[test]
fn what_it_learned_outlives_a_change_of_its_config() {
    let mut channel = Channel::new(r#"{"memoryPercent":0}"#).unwrap();
    for latency in [30, 10, 20] {
        channel.call(latency);
    }
    channel.balancer.configure(Time::ZERO, &config(r#"{"memoryPercent":10}"#)).unwrap();
    channel.drain();
    assert_eq!(channel.call(10), 1);
}

#[test]
fn its_config_is_checked_like_any_other() {
    let refused = |json| Channel::new(json).map(|_| ()).unwrap_err().to_string();
    let at = "service config: loadBalancingConfig[0].example.fastest.memoryPercent: ";
    assert_eq!(refused(r#"{"memoryPercent":100}"#), format!("{at}must be below 100"));
    assert!(refused(r#"{"memoryPercent":"x"}"#).starts_with(at));
}

/// Three connected endpoints under the policy.
struct Channel {
    balancer: Balancer,
    picker: Arc<dyn Picker>,
}

impl Channel {
    fn new(json: &str) -> Result<Self, ConfigError> {
        let policies = Policies::standard().with(Fastest);
        let balancer = Balancer::new(policies, &config(json), ConnectionSettings::default(), 1)?;
        let mut channel = Self { balancer, picker: Balancer::dormant().picker };
        let endpoints = (1..=3).map(|n| Endpoint::new(SocketAddr::from(([10, 0, 0, n], 50_051)))).collect();
        channel.balancer.handle(Time::ZERO, Input::Resolved(endpoints));
        channel.drain();
        Ok(channel)
    }

    fn drain(&mut self) {
        while let Some(action) = self.balancer.poll_action(Time::ZERO) {
            match action {
                Action::Connect { connection, .. } => self.balancer.handle(Time::ZERO, Input::Connected(connection)),
                Action::Publish(update) => self.picker = update.picker,
                Action::Note(_) => {}
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    /// Makes a call that takes so many milliseconds, and says which endpoint took it.
    fn call(&self, millis: u64) -> usize {
        let Pick::Call(call) = self.picker.pick(&PickArgs::new(Time::ZERO, 0, "/test.Test/Call")) else {
            panic!("all endpoints are connected")
        };
        let slot = call.subchannel().slot();
        call.finish(&Outcome::new(Code::Ok).after(Duration::from_millis(millis)));
        slot
    }
}

fn config(json: &str) -> LbConfig {
    let json = format!(r#"{{"loadBalancingConfig":[{{"example.fastest":{json}}}]}}"#);
    let config: ServiceConfig = json.parse().expect("a good service config");
    config.load_balancing.expect("it names a policy")
}
