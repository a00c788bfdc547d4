use evenkeel_channel::Channel;
use evenkeel_proto::demo::echo_client::EchoClient;

use super::{Peer, request};

/// Everything that a service would turn on.
const SERVICE_CONFIG: &str =
    r#"{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}"#;

#[derive(Clone)]
pub(super) struct Evenkeel(EchoClient<Channel>);

pub(super) fn peer(backends: &[String]) -> anyhow::Result<Evenkeel> {
    let target = format!("ipv4:{}", backends.join(","));
    let channel = Channel::builder(target).service_config(SERVICE_CONFIG)?.build()?;
    Ok(Evenkeel(EchoClient::new(channel)))
}

impl Peer for Evenkeel {
    async fn call(&self) -> anyhow::Result<()> {
        self.0.clone().unary(request()).await?;
        Ok(())
    }
}
