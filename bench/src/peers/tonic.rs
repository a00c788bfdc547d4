use anyhow::Context;
use evenkeel_proto::demo::echo_client::EchoClient;
use tonic::transport::{Channel, Endpoint};

use super::{Peer, request};

#[derive(Clone)]
pub(super) struct Tonic(EchoClient<Channel>);

pub(super) async fn one(backends: &[String]) -> anyhow::Result<Tonic> {
    let first = backends.first().context("no backend")?;
    Ok(Tonic(EchoClient::new(endpoint(first)?.connect().await?)))
}

pub(super) fn balanced(backends: &[String]) -> anyhow::Result<Tonic> {
    let endpoints = backends.iter().map(|backend| endpoint(backend)).collect::<Result<Vec<_>, _>>()?;
    Ok(Tonic(EchoClient::new(Channel::balance_list(endpoints.into_iter()))))
}

fn endpoint(backend: &str) -> anyhow::Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{backend}"))?)
}

impl Peer for Tonic {
    async fn call(&self) -> anyhow::Result<()> {
        self.0.clone().unary(request()).await?;
        Ok(())
    }
}
