use std::time::Duration;

use evenkeel_balance::{ConnectionSettings, HealthCheck, LbConfig, Policies, ProgressSettings};

use crate::Server;

/// Everything that determines a simulation: equal scenarios give equal traces.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scenario {
    /// The kinds of policies that `config` may name. Default: the standard ones.
    pub policies: Policies,
    /// How calls are placed.
    pub config: LbConfig,
    /// The servers, in the order in which the resolver lists them.
    pub servers: Vec<Server>,
    /// How connections are made. Default: gRPC's.
    pub connections: ConnectionSettings,
    /// When a silent connection is suspected. Default: the core's.
    pub progress: ProgressSettings,
    /// Which health is watched. Default: none.
    pub health_check: Option<HealthCheck>,
    /// From the client to any server, and back again. Default 500 µs.
    pub network_delay: Duration,
    /// Calls a second, on average: they arrive independently of each other and of how calls fare (an open loop with
    /// exponential gaps). Must be above 0. Default 100.
    pub rate: f64,
    /// How long calls arrive; those that have arrived are then waited for. Default 60 s.
    pub duration: Duration,
    /// A call that has not ended this long after its arrival fails with `DEADLINE_EXCEEDED`. Default 5 s.
    pub deadline: Duration,
    /// What all randomness is drawn from. Default 1.
    pub seed: u64,
}

impl Scenario {
    /// Calls placed by `config` on `servers`, all else at its default.
    pub fn new(config: LbConfig, servers: Vec<Server>) -> Self {
        Self {
            policies: Policies::standard(),
            config,
            servers,
            connections: ConnectionSettings::default(),
            progress: ProgressSettings::default(),
            health_check: None,
            network_delay: Duration::from_micros(500),
            rate: 100.0,
            duration: Duration::from_secs(60),
            deadline: Duration::from_secs(5),
            seed: 1,
        }
    }
}
