use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ConfigError, LbConfig,
    service_config::{json_duration, to_json_duration},
};

/// The config of `failover`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct FailoverConfig {
    /// The policy within each group. It should be one that connects to every endpoint, which `pick_first` and
    /// `ring_hash` do not: a group is judged by how many are ready. Default `least_request`.
    pub child_policy: LbConfig,
    /// How much more than its share an endpoint can bear, in percent: at 140, nothing spills over to the next group
    /// until 29 % of a group's endpoints are out. At least 100; default 140, as Envoy has it.
    pub overprovisioning_factor: u32,
    /// How long an endpoint may be connecting, for the first time or after it was lost, before it counts as out. Above
    /// 0; default 500 ms. Shorter ones fail over while a slow network is still connecting. Failed attempts and silence
    /// count at once.
    #[serde(deserialize_with = "json_duration", serialize_with = "to_json_duration")]
    pub failover_timeout: Duration,
    /// How long a group that was wholly out must have been well before calls return to it from the groups behind it.
    /// Default 10 s; 0 for at once.
    #[serde(deserialize_with = "json_duration", serialize_with = "to_json_duration")]
    pub failback_delay: Duration,
    /// How long its share then grows, from a twentieth of what it can take to all of it. Default 30 s; 0 for all at
    /// once.
    #[serde(deserialize_with = "json_duration", serialize_with = "to_json_duration")]
    pub failback_ramp: Duration,
    /// With fewer than this percentage of all endpoints well, and not enough for all calls, calls go to all endpoints
    /// that are connected, whatever is held against them. Default 50, at most 100; 0 turns it off.
    pub panic_threshold: u32,
    /// What becomes of calls while every endpoint of every group is out. Default [`WhenAllOut::Panic`].
    pub when_all_out: WhenAllOut,
    /// Whether groups that get no calls are connected. Default [`Standby::Hot`].
    pub standby: Standby,
}

/// What becomes of calls while every endpoint is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum WhenAllOut {
    /// They go to all endpoints that are connected, whatever is held against them. Where none is, they fare as gRPC has
    /// it: they wait while the first attempts to reconnect are on their way, then fail unless they wait for ready.
    Panic,
    /// They fail at once with `UNAVAILABLE` and the reasons, even while endpoints reconnect. Calls that wait for ready
    /// wait: their callers have said so.
    FailFast,
    /// They wait until an endpoint is well, or their deadline has passed.
    Wait,
}

/// Whether groups that get no calls are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Standby {
    /// Always: calls move to them at once, and what is wrong with them is known before they are needed. Costs a
    /// connection, and a health Watch if there is one, from each client to each of their endpoints.
    Hot,
    /// From when they are needed until they have not been for 15 minutes. Costs the time to connect at each failover,
    /// and they are taken to be well until they have been tried.
    Cold,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            child_policy: LbConfig::of("least_request"),
            overprovisioning_factor: 140,
            failover_timeout: Duration::from_millis(500),
            failback_delay: Duration::from_secs(10),
            failback_ramp: Duration::from_secs(30),
            panic_threshold: 50,
            when_all_out: WhenAllOut::Panic,
            standby: Standby::Hot,
        }
    }
}

impl FailoverConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.overprovisioning_factor < 100 {
            let problem = format!("is {}, must be at least 100", self.overprovisioning_factor);
            return Err(ConfigError::new("overprovisioningFactor", problem));
        }
        if self.failover_timeout.is_zero() {
            return Err(ConfigError::new("failoverTimeout", "must be above 0s"));
        }
        if self.panic_threshold > 100 {
            let problem = format!("is {}, must be at most 100", self.panic_threshold);
            return Err(ConfigError::new("panicThreshold", problem));
        }
        Ok(())
    }
}
