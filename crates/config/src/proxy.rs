use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::duration;

/// A proxy (`[proxy.NAME]`): one of `service` and `target` says where its calls go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    /// How calls are placed, in place of what the service config says. Default `least_request`.
    pub policy: Option<String>,
    /// Whether endpoints are called only while they say SERVING. Default `true`.
    #[serde(default = "yes")]
    pub health_check: bool,
    /// The service whose health counts. Default: the whole server's, wherever a backend implements it.
    pub health_service: Option<String>,
    /// A gRPC service config: a JSON file. Relative to where the command runs.
    pub service_config: Option<PathBuf>,
    /// How long running calls may take to end once the proxy is to stop. Default 10 s.
    #[serde(default = "ten_seconds", deserialize_with = "duration::read")]
    pub drain_timeout: Duration,
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

fn yes() -> bool {
    true
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}
