use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a proxy is doing: which of its endpoints are out, why, since when, and where its calls go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: String,
    /// What it stands before: a service's name or a target.
    pub upstream: String,
    /// The state of its channel, such as `READY`.
    pub state: String,
    /// The policy that places its calls.
    pub policy: String,
    /// The group that an operator sends all calls to; none while calls go by what is well.
    pub switched_to: Option<u32>,
    /// What is in force beside the groups' shares, a sentence each: what a switch by hand means, a panic, a resolver's last error.
    pub remarks: Vec<String>,
    /// The groups that stand by for each other, in their order; none where there is no such thing.
    pub groups: Vec<GroupStatus>,
    /// What it does for its clients.
    pub traffic: TrafficStatus,
    /// How many connections it has ended because of a flood, by its kind, such as `rapid_resets`.
    pub floods: BTreeMap<String, u64>,
    /// Each of its endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// The last decisions, oldest first.
    pub decisions: Vec<DecisionStatus>,
}

/// What a proxy does for its clients, and what it did not do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Client connections.
    pub clients: u64,
    /// Calls that run.
    pub running: u64,
    /// Bytes of payload that are kept for sides that are slow to take them, and for further attempts.
    pub held_bytes: u64,
    /// Calls that have begun so far.
    pub calls: u64,
    /// Client connections that were closed at once, since there were too many.
    pub refused_connections: u64,
    /// Streams beyond what a client may have at once.
    pub refused_streams: u64,
    /// Requests that were no gRPC calls.
    pub refused_requests: u64,
    /// Calls that ended because a message was longer than is let through.
    pub too_long: u64,
    /// Calls that ended because too much payload was kept already.
    pub held_too_much: u64,
}

/// What a group of endpoints is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Such as `group 0`.
    pub name: String,
    /// Its condition, its share of the calls, and what happens next.
    pub what: Vec<String>,
}

/// What an endpoint is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its address.
    pub address: String,
    /// Its state for the policies, such as `READY`.
    pub state: String,
    /// Whether it gets no calls because something is wrong with it.
    pub is_out: bool,
    /// How long it has been so, in milliseconds.
    pub for_ms: u64,
    /// Why.
    pub why: String,
    /// How many calls run.
    pub in_flight: u64,
    /// How many have succeeded.
    pub succeeded: u64,
    /// How many have failed.
    pub failed: u64,
}

/// A decision of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionStatus {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// What was decided, and why.
    pub what: String,
}
