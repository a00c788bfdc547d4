//! Channels that nobody uses, over real sockets: what they close, and how they come back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peer;
mod servers;

use std::{pin::Pin, time::Duration};

use evenkeel_channel::{
    Channel,
    balance::{Connectivity, Endpoint},
    naming::{Resolution, Resolver, Updates},
};
use evenkeel_proto::demo::echo_client::EchoClient;
use peer::{Frame, Raw};
use servers::{Server, request};

/// Short, so that a test need not wait long.
const PERIOD: Option<Duration> = Some(Duration::from_millis(50));

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

async fn until(channel: &Channel, state: Connectivity) {
    let mut present = channel.connectivity();
    while present != state {
        present = within(channel.connectivity_other_than(present)).await;
    }
}

#[tokio::test]
async fn an_unused_channel_closes_its_connections_and_the_next_call_brings_it_back() {
    let server = Server::start().await;
    for policy in ["pick_first", "round_robin"] {
        let builder = Channel::builder(server.address.to_string()).policy(policy);
        let channel = builder.idle_timeout(PERIOD).build().unwrap();
        let mut client = EchoClient::new(channel.clone());
        for _ in 0..3 {
            within(client.unary(request("x"))).await.unwrap();
            until(&channel, Connectivity::Idle).await;
            let mut reports = channel.reports();
            within(reports.wait_for(|report| report.endpoints.is_empty())).await.unwrap();
        }
        channel.connect();
        until(&channel, Connectivity::Ready).await;
    }
}

#[tokio::test]
async fn the_peer_sees_the_connection_close() {
    let (address, mut peers) = Raw::listen().await;
    let channel = Channel::builder(address.to_string()).idle_timeout(PERIOD).build().unwrap();
    channel.connect();
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[]).await;
    within(peer.frames(|_: &Frame| false)).await;
    until(&channel, Connectivity::Idle).await;
}

/// Says once where the server is.
struct Once(Endpoint);

impl Resolver for Once {
    fn run(self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { updates.send(Ok(Resolution::new(vec![self.0]))) })
    }
}

#[tokio::test]
async fn what_a_resolver_of_ones_own_said_last_is_taken_up_again() {
    let server = Server::start().await;
    let once = Box::new(Once(Endpoint::new(server.address)));
    let channel = Channel::builder("the-server").resolver(once).idle_timeout(PERIOD).build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    for _ in 0..2 {
        within(client.unary(request("x"))).await.unwrap();
        until(&channel, Connectivity::Idle).await;
    }
}

#[tokio::test]
async fn to_ask_an_unused_channel_why_does_not_keep_its_first_call_waiting() {
    let server = Server::start().await;
    let channel = Channel::builder(server.address.to_string()).policy("round_robin").build().unwrap();
    assert_eq!(channel.explain().await.unwrap().report.connectivity, Connectivity::Idle);
    within(EchoClient::new(channel).unary(request("x"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_cross_with_the_end_of_the_period_do_not_fail() {
    let server = Server::start().await;
    let period = Some(Duration::from_millis(1));
    let channel = Channel::builder(server.address.to_string()).idle_timeout(period).build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    for pause in (0..6).cycle().take(200) {
        within(client.unary(request("x"))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
