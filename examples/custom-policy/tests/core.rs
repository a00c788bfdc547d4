//! The policies in the real core, without a network or a clock.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use evenkeel::balance::{
    Action, Balancer, Code, ConfigError, ConnectionSettings, Endpoint, Input, LbConfig, Outcome, Pick, PickArgs,
    Picker, ServiceConfig, Time,
};

#[test]
fn the_policy_learns_from_how_calls_end() {
    let channel = Channel::fastest("{}").unwrap();
    // Each endpoint is tried once; then all goes to the fastest, until it is no longer.
    let tried: Vec<_> = [30, 10, 20].map(|latency| channel.call(latency)).into();
    assert_eq!(tried, [0, 1, 2]);
    assert_eq!([channel.call(10), channel.call(40)], [1, 1]);
    assert_eq!(channel.call(20), 2, "1 now averages 25 ms");
}

#[test]
fn what_it_learned_outlives_a_change_of_its_config() {
    let mut channel = Channel::fastest(r#"{"memoryPercent":0}"#).unwrap();
    for latency in [30, 10, 20] {
        channel.call(latency);
    }
    channel.configure(&fastest(r#"{"memoryPercent":10}"#));
    assert_eq!(channel.call(10), 1);
}

#[test]
fn its_config_is_checked_like_any_other() {
    let refused = |json| Channel::fastest(json).map(|_| ()).unwrap_err().to_string();
    let at = "service config: loadBalancingConfig[0].example.fastest.memoryPercent: ";
    assert_eq!(refused(r#"{"memoryPercent":100}"#), format!("{at}must be below 100"));
    assert!(refused(r#"{"memoryPercent":"x"}"#).starts_with(at));
}

#[test]
fn endpoints_of_zones_to_avoid_get_no_calls_unless_there_are_no_others() {
    let avoid = |zones: &str| {
        config(&format!(r#"{{"example.avoid_zones":{{"zones":{zones},"childPolicy":[{{"round_robin":{{}}}}]}}}}"#))
    };
    let mut channel = Channel::new(&avoid(r#"["b"]"#)).unwrap();
    assert_eq!(channel.reached(), ["10.0.0.1:50051"]);
    assert!(channel.balancer.explain().to_string().contains("avoids 2 endpoints"));
    channel.configure(&avoid(r#"["a"]"#));
    assert_eq!(channel.reached(), ["10.0.0.2:50051", "10.0.0.3:50051"]);
    channel.configure(&avoid(r#"["a","b"]"#));
    assert_eq!(channel.reached().len(), 3);
    assert!(channel.notes.iter().any(|note| note.contains("all are used")), "{:?}", channel.notes);
}

#[test]
fn policies_from_outside_nest_with_each_other_and_with_the_built_in_ones() {
    let nested = |percent| {
        let fastest = format!(r#"[{{"example.fastest":{{"memoryPercent":{percent}}}}}]"#);
        config(&format!(r#"{{"priority":{{"childPolicy":[{{"example.avoid_zones":{{"childPolicy":{fastest}}}}}]}}}}"#))
    };
    assert_eq!(Channel::new(&nested(1)).unwrap().call(1), 0);
    let error = Channel::new(&nested(100)).map(|_| ()).unwrap_err();
    let path = "priority.childPolicy[0].example.avoid_zones.childPolicy[0].example.fastest.memoryPercent";
    assert_eq!(error.path(), format!("loadBalancingConfig[0].{path}"));
}

/// Three connected endpoints: the first in zone a, the others in zone b.
struct Channel {
    balancer: Balancer,
    picker: Arc<dyn Picker>,
    notes: Vec<String>,
}

impl Channel {
    fn fastest(json: &str) -> Result<Self, ConfigError> {
        Self::new(&fastest(json))
    }

    fn new(config: &LbConfig) -> Result<Self, ConfigError> {
        let policies = evenkeel_example_policy::policies();
        let balancer = Balancer::new(policies, config, ConnectionSettings::default(), 1)?;
        let mut channel = Self { balancer, picker: Balancer::dormant().picker, notes: Vec::new() };
        let endpoint = |n: u8| Endpoint::new(SocketAddr::from(([10, 0, 0, n], 50_051)));
        let endpoints = (1..=3).map(|n| endpoint(n).in_zone(if n == 1 { "a" } else { "b" })).collect();
        channel.balancer.handle(Time::ZERO, Input::Resolved(endpoints));
        channel.drain();
        Ok(channel)
    }

    fn configure(&mut self, config: &LbConfig) {
        self.balancer.configure(Time::ZERO, config).expect("the config is good");
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.balancer.poll_action(Time::ZERO) {
            match action {
                Action::Connect { connection, .. } => self.balancer.handle(Time::ZERO, Input::Connected(connection)),
                Action::Publish(update) => self.picker = update.picker,
                Action::Note(decision) => self.notes.push(decision.to_string()),
                Action::Close(_) | Action::Measure(_) => {}
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

    /// The addresses that calls reach, in order.
    fn reached(&self) -> Vec<String> {
        for _ in 0..9 {
            self.call(1);
        }
        let reports = self.balancer.subchannels().into_iter();
        reports.filter(|report| report.load.started() > 0).map(|report| report.address.to_string()).collect()
    }
}

fn fastest(json: &str) -> LbConfig {
    config(&format!(r#"{{"example.fastest":{json}}}"#))
}

/// `json` as the only entry of `loadBalancingConfig`.
fn config(json: &str) -> LbConfig {
    let config: ServiceConfig = format!(r#"{{"loadBalancingConfig":[{json}]}}"#).parse().expect("a good config");
    config.load_balancing.expect("it names a policy")
}
