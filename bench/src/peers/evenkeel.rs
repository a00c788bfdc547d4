use evenkeel_channel::Channel;
use evenkeel_proto::demo::echo_client::EchoClient;

use super::{Peer, request};

/// Turns, and health checks of every connection.
pub(super) const CHECKED: &str =
    r#"{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}"#;

/// The same, with retries and with endpoints watched for failing more often than others.
pub(super) const WATCHED: &str = r#"{
    "loadBalancingConfig": [{"outlier_detection": {
        "successRateEjection": {}, "failurePercentageEjection": {}, "childPolicy": [{"round_robin": {}}]
    }}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [{"name": [{}], "retryPolicy": {
        "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
    }}]
}"#;

#[derive(Clone)]
pub(super) struct Evenkeel(EchoClient<Channel>);

pub(super) fn peer(backends: &[String], service_config: &str) -> anyhow::Result<Evenkeel> {
    let target = format!("ipv4:{}", backends.join(","));
    let channel = Channel::builder(target).service_config(service_config)?.build()?;
    Ok(Evenkeel(EchoClient::new(channel)))
}

impl Peer for Evenkeel {
    async fn call(&self) -> anyhow::Result<()> {
        self.0.clone().unary(request()).await?;
        Ok(())
    }
}
