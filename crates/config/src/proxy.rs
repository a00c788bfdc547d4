use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::{BackendTls, ClientTls, ProxyLimits, duration};

/// A proxy (`[proxy.NAME]`): one of `service` and `target` says where its calls go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Proxy {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The service of this file that it stands before.
    pub service: Option<String>,
    /// The endpoints it stands before, such as `dns:///name:port`.
    pub target: Option<String>,
    /// Of a `target`: targets that stand by for when those before them cannot take all calls, in this order. Replicas of a
    /// service stand by as the service says. Default none.
    #[serde(default)]
    pub standby: Vec<String>,
    /// How calls move between its endpoints and those that stand by for them. Default: as `failover` has it, where there
    /// are any that stand by.
    pub failover: Option<Failover>,
    /// How calls are placed, in place of what the service config says. Default `least_request`.
    pub policy: Option<String>,
    /// Whether endpoints are called only while they say SERVING. Default `true`.
    #[serde(default = "yes")]
    pub health_check: bool,
    /// The service whose health counts. Default: the whole server's, wherever a backend implements it.
    pub health_service: Option<String>,
    /// How its endpoints are checked beside that, over connections of the checks' own. Default: not at all.
    pub check: Option<EndpointCheck>,
    /// TLS towards its clients. Default: plain text.
    pub tls: Option<ClientTls>,
    /// Threads that carry calls. Default: one for each processor that the process may use. 1 to 1024.
    pub workers: Option<u32>,
    /// What it takes at most.
    #[serde(default)]
    pub limits: ProxyLimits,
    /// TLS towards its backends. Default: plain text.
    pub backend_tls: Option<BackendTls>,
    /// A gRPC service config: a JSON file. Relative to where the command runs.
    pub service_config: Option<PathBuf>,
    /// How long running calls may take to end once the proxy is to stop. Default 10 s.
    #[serde(default = "ten_seconds", deserialize_with = "duration::read")]
    pub drain_timeout: Duration,
}

/// How calls move between groups of endpoints (`failover`): a target or the primary replicas, and what stands by for them.
/// What is absent is as the policy `failover` has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// How much more than its share an endpoint can bear, in percent: at 140, a standby takes nothing until 29 % of a
    /// group are out. At least 100.
    pub overprovisioning_factor: Option<u32>,
    /// How long an endpoint may be connecting before it counts as out. Above 0.
    #[serde(deserialize_with = "duration::read")]
    pub failover_timeout: Option<Duration>,
    /// How long a group that was wholly out must have been well before calls return to it.
    #[serde(deserialize_with = "duration::read")]
    pub failback_delay: Option<Duration>,
    /// How long its share then grows.
    #[serde(deserialize_with = "duration::read")]
    pub failback_ramp: Option<Duration>,
    /// With fewer than this percentage of all endpoints well, and not enough for all calls, they go to all that are
    /// connected. At most 100; 0 turns it off.
    pub panic_threshold: Option<u32>,
    /// What becomes of calls while every endpoint is out.
    pub when_all_out: Option<WhenAllOut>,
    /// Whether what stands by is connected while it gets no calls.
    pub standby: Option<Standby>,
}

/// What becomes of calls while every endpoint is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenAllOut {
    /// They go to all that are connected, whatever is held against those.
    Panic,
    /// They fail at once.
    FailFast,
    /// They wait.
    Wait,
}

/// Whether what stands by is connected while it gets no calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standby {
    /// Always.
    Hot,
    /// Once it is needed.
    Cold,
}

/// How the endpoints of a proxy are checked (`check`). An endpoint gets calls while its checks pass, or while its calls
/// succeed though they fail; a clear "not serving" is always obeyed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct EndpointCheck {
    /// By what. Default `grpc`.
    #[serde(default)]
    pub kind: EndpointCheckKind,
    /// Of `grpc` and `grpc-watch`: the service asked about. Default the whole server.
    #[serde(default)]
    pub service: String,
    /// Of `http` and `http2`: the path that must answer with a status from 200 to 399. Default `/`.
    #[serde(default = "root")]
    pub path: String,
    /// The port asked, in place of that which takes the calls. Default the same.
    pub port: Option<u16>,
    /// From one check to the next, while all is well. Default 1 s.
    #[serde(default = "second", deserialize_with = "duration::read")]
    pub interval: Duration,
    /// How long an answer may take, connecting included. Default 500 ms.
    #[serde(default = "half_second", deserialize_with = "duration::read")]
    pub timeout: Duration,
    /// Answers in a row that bring back what had failed. Default 2.
    #[serde(default = "two")]
    pub rise: u32,
    /// Failures in a row that take an endpoint out. Default 2.
    #[serde(default = "two")]
    pub fall: u32,
}

/// By what a proxy's endpoint is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointCheckKind {
    /// `grpc.health.v1.Health/Check`.
    #[default]
    Grpc,
    /// `grpc.health.v1.Health/Watch`, with Check beside it, and alone where there is no Watch.
    GrpcWatch,
    /// An HTTP/1.1 GET.
    Http,
    /// An HTTP/2 GET.
    Http2,
    /// A TCP connection.
    Tcp,
}

/// Where a proxy's calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream<'a> {
    /// To the replicas of a service of the same file.
    Service(&'a str),
    /// To the endpoints of a target.
    Target(&'a str),
}

impl Proxy {
    /// Where its calls go; none where the file says neither, or both.
    pub fn upstream(&self) -> Option<Upstream<'_>> {
        match (&self.service, &self.target) {
            (Some(service), None) => Some(Upstream::Service(service)),
            (None, Some(target)) => Some(Upstream::Target(target)),
            _ => None,
        }
    }
}

impl Default for EndpointCheck {
    fn default() -> Self {
        Self {
            kind: EndpointCheckKind::default(),
            service: String::new(),
            path: root(),
            port: None,
            interval: second(),
            timeout: half_second(),
            rise: two(),
            fall: two(),
        }
    }
}

fn yes() -> bool {
    true
}

fn root() -> String {
    "/".to_owned()
}

fn second() -> Duration {
    Duration::from_secs(1)
}

fn half_second() -> Duration {
    Duration::from_millis(500)
}

fn two() -> u32 {
    2
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}
