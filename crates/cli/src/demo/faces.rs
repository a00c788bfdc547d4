use std::{error::Error, net::SocketAddr, sync::Arc};

use evenkeel_balance::{HealthCheck, UnknownService};
use evenkeel_channel::{Channel, Report};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use evenkeel_proxy::{Proxy, Settings};
use serde_json::json;
use thiserror::Error;
use tokio::sync::watch;
use tonic::{Status, transport};

use super::record::{Face, Plan};

/// The two faces over the same backends: a channel of the demo's own, and a proxy with one client connection to it.
///
/// Each has a channel, equal but for the seed, and neither shares anything with the other.
pub(super) struct Faces {
    pub(super) channel: EchoClient<Channel>,
    /// A plain client, which knows nothing of backends.
    pub(super) proxied: EchoClient<transport::Channel>,
    reports: [watch::Receiver<Arc<Report>>; 2],
}

impl Faces {
    /// Binds the proxy, which still is to be served, beside the channel.
    pub(super) fn open(plan: &Plan, backends: &[SocketAddr]) -> Result<(Self, Proxy), FaceError> {
        let behind = channel(plan, backends, plan.seed.wrapping_add(1))?;
        let beside = channel(plan, backends, plan.seed)?;
        let reports = [behind.reports(), beside.reports()];
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxy = Proxy::bind(address, behind, Settings::default()).map_err(|error| FaceError::of("proxy", error))?;
        let endpoint = transport::Endpoint::from_shared(format!("http://{}", proxy.local_addr()));
        let client = endpoint.map_err(|error| FaceError::of("client of the proxy", error))?.connect_lazy();
        Ok((Self { channel: EchoClient::new(beside), proxied: EchoClient::new(client), reports }, proxy))
    }

    /// One call through each, so that the run starts with connections made.
    pub(super) async fn warm_up(&mut self) -> Result<(), FaceError> {
        let failed = |status: Status| FaceError::of("first call", status);
        self.proxied.unary(EchoRequest::default()).await.map_err(failed)?;
        self.channel.unary(EchoRequest::default()).await.map_err(failed)?;
        Ok(())
    }

    /// What the channel of a face reports; the proxy's is the one inside the proxy.
    pub(super) fn reports(&self, face: Face) -> watch::Receiver<Arc<Report>> {
        self.reports[face as usize].clone()
    }
}

/// Why a face could not be opened.
#[derive(Debug, Error)]
#[error("cannot open the {what}")]
pub(super) struct FaceError {
    what: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl FaceError {
    fn of(what: &'static str, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what, source: error.into() }
    }
}

fn channel(plan: &Plan, backends: &[SocketAddr], seed: u64) -> Result<Channel, FaceError> {
    let target = backends.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let health = HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy };
    let config = Channel::builder(&target).service_config(&service_config(&plan.policy));
    let builder = config.map_err(|error| FaceError::of("channel", error))?;
    builder.health_check(health).seed(seed).build().map_err(|error| FaceError::of("channel", error))
}

/// Calls are echoes, and so may be made twice: one that dies with its backend is retried on another.
fn service_config(policy: &str) -> String {
    json!({
        "loadBalancingConfig": [{ policy: {} }],
        "methodConfig": [{
            "name": [{ "service": "evenkeel.demo.v1.Echo" }],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"]
            }
        }]
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use evenkeel_balance::{Policies, ServiceConfig};

    use super::service_config;

    #[test]
    fn the_service_config_is_valid_for_every_policy() {
        for policy in Policies::standard().names() {
            let config = service_config(policy).parse::<ServiceConfig>();
            assert!(config.is_ok(), "{policy}: {config:?}");
        }
    }
}
